//! The end of a trial: what was taken from the ground, why something is absent, what follows, and the manifest.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use firepot_machine::Reading;
use firepot_measure::bundle::{Absent, Cost, File, Manifest, QualityLine, Quota, Session, Tool};

use super::{Trial, TrialError, lock};

/// What only the binary knows of the ground that a trial stood on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What is left of the session, in seconds.
    pub left_s: Reading<u64>,
    /// What the account may use.
    pub quota: Reading<Quota>,
    /// What the trial cost.
    pub cost: Reading<Cost>,
    /// Hosts outside this machine that were contacted.
    pub hosts_contacted: Reading<Vec<String>>,
    /// Hosts that were expected.
    pub hosts_expected: Vec<String>,
    /// Settings, without anything that names the user.
    pub settings: BTreeMap<String, String>,
}

impl Trial {
    /// Adds a line about quality that was not had by asking.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn quality(&self, line: &QualityLine) -> Result<(), TrialError> {
        Ok(self.writer.append(line)?)
    }

    /// Adds one of [`File::PROOF`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prove(&self, file: File, bytes: &[u8]) -> Result<(), TrialError> {
        Ok(self.writer.prove(file, bytes)?)
    }

    /// Notes why something is absent.
    pub fn absent(&self, field: &str, reason: &str) {
        self.why(field, reason);
    }

    /// What is left of the trial's time.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.limit.saturating_sub(self.measured_before + self.clock.measured() + super::RESERVE)
    }

    /// Writes the rest, the manifest last.
    ///
    /// # Errors
    /// When the bundle cannot be written; it can then be taken up again.
    pub fn finish(mut self, tool: &Tool, ground: Ground) -> Result<Manifest, TrialError> {
        // Its thread holds the writer.
        drop(self.sampler.take());
        let measured = self.measured_before + self.clock.measured();
        self.writer.put(&Session {
            measured_s: (measured.as_secs_f64() * 1000.0).round() / 1000.0,
            left_s: ground.left_s,
            quota: ground.quota,
            cost: ground.cost,
            hosts_contacted: ground.hosts_contacted,
            hosts_expected: ground.hosts_expected,
            settings: ground.settings,
        })?;
        self.writer.put(&Absent(std::mem::take(&mut lock(&self.absent))))?;
        let finished = self.clock.wall_unix_s() + self.clock.measured().as_secs();
        let writer = Arc::try_unwrap(self.writer)
            .map_err(|writer| firepot_measure::bundle::BundleError::Busy { path: writer.dir().to_owned() })?;
        Ok(writer.finish(tool, finished)?)
    }
}
