//! What is known on disk of that which goes on after a restart: `run/loaded.json` of the home.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use firepot_store::{Home, ModelName, StoreError, write_atomic};
use serde::{Deserialize, Serialize};

use crate::{limits, pool::Wishes, settings::KeepAlive};

/// The models that are loaded, the one in use first, and the pulls and the trial that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Loaded models.
    pub models: Vec<LoadedModel>,
    /// Pulls of the server's.
    pub pulls: Vec<PullUnderWay>,
    /// The trial that a page began.
    pub trial: Option<TrialUnderWay>,
}

/// A model that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Which.
    pub name: ModelName,
    /// How it was wished.
    #[serde(default)]
    pub wishes: Wishes,
    /// How long it stays loaded after its last answer, in seconds; absent for ever.
    pub keep_alive_s: Option<u64>,
    /// How often in a row a server ended while it loaded the model again.
    #[serde(default)]
    pub attempts: u32,
}

/// A pull that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullUnderWay {
    /// The model as it was asked for.
    pub model: String,
    /// A registry without encryption was allowed.
    #[serde(default)]
    pub insecure: bool,
}

/// A trial that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialUnderWay {
    /// Which.
    pub id: String,
    /// How often in a row a server ended while it went on.
    #[serde(default)]
    pub attempts: u32,
}

impl Record {
    /// Where a home keeps it.
    #[must_use]
    pub fn path(home: &Home) -> PathBuf {
        home.path().join("run").join("loaded.json")
    }

    /// What a home says; nothing where the file is absent or damaged, which costs a load.
    #[must_use]
    pub fn read(home: &Home) -> Self {
        Self::read_file(&Self::path(home)).unwrap_or_default()
    }

    fn read_file(path: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(limits::MAX_RELOAD_RECORD_BYTES).read_to_end(&mut bytes).ok()?;
        let mut record: Self = serde_json::from_slice(&bytes)
            .inspect_err(
                |error| tracing::warn!(%error, path = %path.display(), "what was loaded is not known"),
            )
            .ok()?;
        record.models.truncate(limits::MAX_RELOADED);
        record.pulls.truncate(limits::MAX_PULLS);
        Some(record)
    }

    /// Puts it into a home.
    ///
    /// # Errors
    /// When the home cannot be written.
    pub fn write(&self, home: &Home) -> Result<(), StoreError> {
        write_atomic(&Self::path(home), &serde_json::to_vec_pretty(self).unwrap_or_default())
    }
}

impl LoadedModel {
    /// How long it stays loaded.
    #[must_use]
    pub fn keep_alive(&self) -> KeepAlive {
        self.keep_alive_s.map_or(KeepAlive::Forever, |seconds| KeepAlive::For(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHome;

    fn record() -> Record {
        let model = LoadedModel {
            name: "tiny".parse().unwrap(),
            wishes: Wishes { ctx: Some(2048), ..Wishes::default() },
            keep_alive_s: Some(300),
            attempts: 1,
        };
        let pulls = vec![PullUnderWay { model: "qwen3:8b".into(), insecure: true }];
        let trial = Some(TrialUnderWay { id: "20261128T100000Z-tiny".into(), attempts: 2 });
        Record { models: vec![model], pulls, trial }
    }

    #[test]
    fn what_was_loaded_is_read_back() {
        let test = TestHome::new();
        assert_eq!(Record::read(&test.home), Record::default());
        record().write(&test.home).unwrap();
        assert_eq!(Record::read(&test.home), record());
        assert_eq!(record().models[0].keep_alive(), KeepAlive::For(Duration::from_mins(5)));
    }

    #[test]
    fn a_damaged_record_is_none() {
        let test = TestHome::new();
        write_atomic(&Record::path(&test.home), b"{\"models\": [{}]}").unwrap();
        assert_eq!(Record::read(&test.home), Record::default());
    }

    #[test]
    fn no_more_is_read_than_is_loaded_again() {
        let test = TestHome::new();
        let mut long = record();
        long.models = vec![long.models[0].clone(); limits::MAX_RELOADED + 3];
        long.write(&test.home).unwrap();
        assert_eq!(Record::read(&test.home).models.len(), limits::MAX_RELOADED);
    }
}
