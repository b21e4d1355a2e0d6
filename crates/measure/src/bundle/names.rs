//! The files of a bundle.

use serde::Serialize;

use super::{Event, Probe, QualityLine, Request, Restart, Telemetry};

/// A file of a bundle, but the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the file of its name")]
pub enum File {
    Trial,
    Machine,
    Calibration,
    Model,
    Plan,
    Workload,
    Requests,
    Restarts,
    Probes,
    Telemetry,
    Events,
    Quality,
    Session,
    Absent,
    Summary,
    ProofDriver,
    ProofLoaded,
    ProofVersions,
    ProofPage,
    ProofAnswer,
}

impl File {
    /// What shows the moment rather than measures it, as screenshots do: text of the driver's own tool, the server's list of loaded models,
    /// versions, the page and an answer in it. A bundle has those that could be had.
    pub const PROOF: [Self; 5] =
        [Self::ProofDriver, Self::ProofLoaded, Self::ProofVersions, Self::ProofPage, Self::ProofAnswer];

    /// All that every bundle has, in the order in which they are written.
    pub const ALL: [Self; 15] = [
        Self::Trial,
        Self::Machine,
        Self::Calibration,
        Self::Model,
        Self::Plan,
        Self::Workload,
        Self::Requests,
        Self::Restarts,
        Self::Probes,
        Self::Telemetry,
        Self::Events,
        Self::Quality,
        Self::Session,
        Self::Absent,
        Self::Summary,
    ];

    /// Its name in the directory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trial => "trial.json",
            Self::Machine => "machine.json",
            Self::Calibration => "calibration.json",
            Self::Model => "model.json",
            Self::Plan => "plan.json",
            Self::Workload => "workload.json",
            Self::Requests => "requests.jsonl",
            Self::Restarts => "restarts.jsonl",
            Self::Probes => "probes.jsonl",
            Self::Telemetry => "telemetry.jsonl",
            Self::Events => "events.jsonl",
            Self::Quality => "quality.jsonl",
            Self::Session => "session.json",
            Self::Absent => "absent.json",
            Self::Summary => "summary.json",
            Self::ProofDriver => "proof/nvidia-smi.txt",
            Self::ProofLoaded => "proof/ps.json",
            Self::ProofVersions => "proof/versions.json",
            Self::ProofPage => "proof/page.png",
            Self::ProofAnswer => "proof/answer.png",
        }
    }

    /// Whether it grows line by line.
    #[must_use]
    pub const fn is_lines(self) -> bool {
        matches!(
            self,
            Self::Requests | Self::Restarts | Self::Probes | Self::Telemetry | Self::Events | Self::Quality
        )
    }

    /// Whether it is a picture, out of which nothing can be taken.
    pub(crate) const fn is_picture(self) -> bool {
        matches!(self, Self::ProofPage | Self::ProofAnswer)
    }

    /// All that a bundle may have.
    pub(crate) fn known() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(Self::PROOF)
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::known().find(|file| file.name() == name)
    }
}

/// A type whose values are the lines of a file.
pub trait Line: Serialize + serde::de::DeserializeOwned {
    /// The file.
    const FILE: File;
    /// Whether each line waits for the disk, so that it outlives a power cut and not only its process.
    const SYNCED: bool = true;
}

impl Line for Request {
    const FILE: File = File::Requests;
}

impl Line for Restart {
    const FILE: File = File::Restarts;
}

impl Line for Probe {
    const FILE: File = File::Probes;
}

impl Line for Telemetry {
    const FILE: File = File::Telemetry;
    /// Ten waits in a second would be part of what is measured.
    const SYNCED: bool = false;
}

impl Line for Event {
    const FILE: File = File::Events;
}

impl Line for QualityLine {
    const FILE: File = File::Quality;
}
