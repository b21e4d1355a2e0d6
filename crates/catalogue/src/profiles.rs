//! Machines that are described and not here.

use std::sync::LazyLock;

use firepot_machine::{Cpu, Gpu, Gpus, Machine, Memory, Platform, PlatformKind};
use serde::Deserialize;

/// A machine that people borrow or have.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub title: String,
    platform: Kind,
    cores: u32,
    features: Vec<String>,
    memory_mib: u64,
    available_mib: u64,
    /// Of main memory, by datasheet, in GB/s; absent where a GPU matters more.
    pub bandwidth: Option<u32>,
    /// Where the figures come from.
    pub source: String,
    #[serde(default)]
    gpus: Vec<Card>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Kaggle,
    Colab,
    Bare,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    name: String,
    capability: (u32, u32),
    total_mib: u64,
    free_mib: u64,
    bandwidth: u32,
}

impl Profile {
    /// The machine, with nothing loaded.
    #[must_use]
    pub fn machine(&self) -> Machine {
        let mib = |mib: u64| mib << 20;
        let features: Vec<&str> = self.features.iter().map(String::as_str).collect();
        let gpu = |card: &Card| Gpu::of(&card.name, card.capability, mib(card.total_mib), mib(card.free_mib));
        let kind = match self.platform {
            Kind::Kaggle => PlatformKind::Kaggle,
            Kind::Colab => PlatformKind::Colab,
            Kind::Bare => PlatformKind::Bare,
        };
        let unread = Machine::unread("the machine is described and not here");
        let gpus = if self.gpus.is_empty() { Vec::new() } else { self.gpus.iter().map(gpu).collect() };
        Machine {
            cpu: Cpu::of(self.cores, &features),
            memory: Memory::of(mib(self.memory_mib), mib(self.available_mib)),
            gpus: if gpus.is_empty() { Gpus::none("it has none") } else { Gpus::of(gpus) },
            platform: Platform::of(kind, "a profile"),
            ..unread
        }
    }

    /// Bandwidth of a GPU's memory by datasheet, in GB/s.
    #[must_use]
    pub fn gpu_bandwidth(&self, gpu: usize) -> Option<u32> {
        self.gpus.get(gpu).map(|card| card.bandwidth)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: Vec<Profile>,
}

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let file: Result<File, _> = toml::from_str(include_str!("../data/profiles.toml"));
    file.map(|file| file.profile).unwrap_or_default()
});

/// All profiles.
#[must_use]
pub fn profiles() -> &'static [Profile] {
    &PROFILES
}

/// There is no such profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no profile {name:?}")]
pub struct UnknownProfile {
    name: String,
}

impl UnknownProfile {
    /// The one that may have been meant, and all that there are.
    #[must_use]
    pub fn hint(&self) -> String {
        let likeness = |profile: &&Profile| {
            (strsim::jaro_winkler(&self.name.to_lowercase(), &profile.name) * 1000.0) as u32
        };
        let names: Vec<&str> = profiles().iter().map(|profile| profile.name.as_str()).collect();
        let nearest = profiles().iter().max_by_key(likeness).filter(|profile| likeness(profile) >= 800);
        let meant = nearest.map_or_else(String::new, |profile| format!("did you mean {}? ", profile.name));
        format!("{meant}there are {}", names.join(", "))
    }
}

/// The profile of this name.
///
/// # Errors
/// When there is none.
pub fn profile(name: &str) -> Result<&'static Profile, UnknownProfile> {
    let found = profiles().iter().find(|profile| profile.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| UnknownProfile { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_and_every_figure_has_a_source() {
        let file: File = toml::from_str(include_str!("../data/profiles.toml")).unwrap();
        assert_eq!(file.profile, profiles());
        for profile in profiles() {
            assert!(!profile.source.is_empty());
            assert!(profile.available_mib < profile.memory_mib, "{}", profile.name);
            assert!(profile.bandwidth.is_some() == profile.gpus.is_empty(), "{}", profile.name);
        }
    }

    #[test]
    fn a_profile_becomes_a_machine() {
        let machine = profile("Kaggle-T4x2").unwrap().machine();
        assert_eq!(machine.gpus.devices.len(), 2);
        assert_eq!(machine.gpus.devices[1].free_bytes.known(), Some(&(14_912 << 20)));
        assert_eq!(machine.platform.kind, PlatformKind::Kaggle);
        let without = profile("cpu-8gb").unwrap().machine();
        assert_eq!(without.gpus.absent.as_deref(), Some("it has none"));
        assert!(without.gpus.unusable().is_empty());
    }

    #[test]
    fn a_typo_is_answered_with_what_was_meant() {
        let hint = profile("kagle-t4x2").unwrap_err().hint();
        assert!(hint.starts_with("did you mean kaggle-t4x2? there are kaggle-t4x2, colab-t4, "), "{hint}");
        assert!(profile("mainframe").unwrap_err().hint().starts_with("there are "));
    }
}
