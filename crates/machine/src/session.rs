//! When the ground is taken away: the limit of a notebook's session, counted from the container's first process.

use std::time::SystemTime;

use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};

use crate::{PlatformKind, Reading, pci::has_tpu, tree::Tree};

/// Kaggle's limit of a session on a CPU or GPU, interactive or not: 12 hours, as its users quote Kaggle's
/// documentation. Nothing in the machine says it.
pub const KAGGLE_SESSION_S: u64 = 12 * 3600;
/// Kaggle's limit of a session on a TPU: 9 hours, from the same place.
pub const KAGGLE_TPU_SESSION_S: u64 = 9 * 3600;
/// Colab's longest session without payment: "notebooks can run for at most 12 hours" (Colab's FAQ). Many end sooner;
/// with payment one may last 24 hours.
pub const COLAB_SESSION_S: u64 = 12 * 3600;

/// How long a session lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimit {
    /// From beginning to end, in seconds.
    pub total_s: u64,
    /// When the container's first process began, in seconds since 1970. A container that stood ready before it was
    /// given out began earlier than the session, so that the session may last longer than is said here.
    pub since_unix_s: u64,
    /// What is left of it, in seconds; at least 1.
    pub left_s: u64,
    /// Whose limit it is, and how firm.
    pub source: String,
}

/// What the kernel says of the age of the first process.
struct Clock<'a> {
    /// `/proc/1/stat`.
    first_process: &'a str,
    /// `/proc/uptime`.
    uptime: &'a str,
    /// Ticks in a second of the times in `/proc/1/stat`.
    ticks_per_s: u64,
    /// Seconds since 1970.
    now_unix_s: u64,
}

impl SessionLimit {
    pub(crate) fn probe(tree: &Tree, kind: PlatformKind) -> Reading<Self> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self::read(tree, kind, since_1970.map_or(0, |duration| duration.as_secs())).into()
    }

    fn read(tree: &Tree, kind: PlatformKind, now_unix_s: u64) -> Result<Self, String> {
        let (total_s, source) = terms(kind, has_tpu(tree))?;
        let (first_process, uptime) = (tree.text("/proc/1/stat")?, tree.text("/proc/uptime")?);
        let ticks_per_s = clock_ticks_per_second();
        let clock = Clock { first_process: &first_process, uptime: &uptime, ticks_per_s, now_unix_s };
        let age_s = clock.age_s()?;
        if age_s >= total_s {
            let hours = age_s / 3600;
            return Err(format!("the container runs for {hours} hours, longer than known of: {source}"));
        }
        let since_unix_s = now_unix_s.saturating_sub(age_s);
        Ok(Self { total_s, since_unix_s, left_s: total_s - age_s, source: source.to_owned() })
    }
}

/// How long a session lasts in seconds, and whose limit that is.
fn terms(kind: PlatformKind, tpu: bool) -> Result<(u64, &'static str), String> {
    match kind {
        PlatformKind::Kaggle if tpu => Ok((KAGGLE_TPU_SESSION_S, "Kaggle's limit on a TPU, 9 hours")),
        PlatformKind::Kaggle => Ok((KAGGLE_SESSION_S, "Kaggle's limit on a CPU or GPU, 12 hours")),
        PlatformKind::Colab => {
            Ok((COLAB_SESSION_S, "Colab's longest session without payment, 12 hours; it may end sooner"))
        }
        PlatformKind::Container | PlatformKind::Wsl2 | PlatformKind::Bare => {
            Err("no limit of sessions is known of this platform".to_owned())
        }
    }
}

impl Clock<'_> {
    /// How long the first process has run, in seconds. Both of its times are counted from the same start.
    fn age_s(&self) -> Result<u64, String> {
        let started_ticks = start_ticks(self.first_process).ok_or("/proc/1/stat gives no start time")?;
        let uptime_s = whole_seconds(self.uptime).ok_or("/proc/uptime gives no time")?;
        let started_s =
            started_ticks.checked_div(self.ticks_per_s).ok_or("the kernel's ticks are not known")?;
        let age_s = uptime_s.checked_sub(started_s).filter(|&age_s| age_s <= self.now_unix_s);
        age_s.ok_or_else(|| "the clocks of /proc/1/stat and /proc/uptime do not agree".to_owned())
    }
}

/// The 22nd field of `/proc/PID/stat` (`starttime`, proc(5)); the 2nd is a name that may hold anything.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

fn whole_seconds(uptime: &str) -> Option<u64> {
    uptime.split_whitespace().next()?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::fake::FakeTree;

    /// The first process of the machine that this was written on.
    const FIRST: &str = "1 (process_api) S 0 0 0 0 -1 4194560 176348 446130901 0 65064 2970 9676 4137463 288770 20 0 \
        15 0 21 50991104 3798 18446744073709551615 1 1 0 0 0 0 0 4096 1256 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    const NOW_UNIX_S: u64 = 1_795_504_500;

    /// A host that has been up for a day, whose container began `age_s` ago.
    fn notebook(age_s: u64) -> FakeTree {
        let ticks = (86_400 - age_s) * clock_ticks_per_second();
        let stat = format!(
            "1 (docker (init) 1) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {ticks} 50991104 3798"
        );
        FakeTree::new(&[("proc/1/stat", &stat), ("proc/uptime", "86400.51 42566.75\n")])
    }

    fn read(fake: &FakeTree, kind: PlatformKind) -> Result<SessionLimit, String> {
        SessionLimit::read(&fake.tree(), kind, NOW_UNIX_S)
    }

    #[test]
    fn a_session_ends_so_long_after_the_first_process_began() {
        let limit = read(&notebook(3600), PlatformKind::Kaggle).unwrap();
        assert_eq!((limit.total_s, limit.left_s), (12 * 3600, 11 * 3600));
        assert_eq!(limit.since_unix_s, NOW_UNIX_S - 3600);
        assert_eq!(limit.source, "Kaggle's limit on a CPU or GPU, 12 hours");
        let limit = read(&notebook(3600), PlatformKind::Colab).unwrap();
        assert!(limit.source.ends_with("it may end sooner"));
    }

    #[test]
    fn a_tpu_has_shorter_sessions_on_kaggle() {
        let fake = notebook(3600);
        fake.file("sys/bus/pci/devices/0000:00:05.0/vendor", "0x1ae0\n");
        fake.file("sys/bus/pci/devices/0000:00:05.0/device", "0x0063\n");
        assert_eq!(read(&fake, PlatformKind::Kaggle).unwrap().left_s, 8 * 3600);
    }

    #[test]
    fn other_ground_has_no_limit_that_is_known() {
        for kind in [PlatformKind::Container, PlatformKind::Wsl2, PlatformKind::Bare] {
            let reason = read(&notebook(3600), kind).unwrap_err();
            assert_eq!(reason, "no limit of sessions is known of this platform");
        }
    }

    #[test]
    fn a_session_that_outlived_its_limit_has_another_one() {
        let reason = read(&notebook(13 * 3600), PlatformKind::Kaggle).unwrap_err();
        let expected =
            "the container runs for 13 hours, longer than known of: Kaggle's limit on a CPU or GPU, 12 hours";
        assert_eq!(reason, expected);
        assert_eq!(read(&notebook(12 * 3600 - 1), PlatformKind::Kaggle).unwrap().left_s, 1);
        assert!(read(&notebook(12 * 3600), PlatformKind::Kaggle).is_err());
    }

    #[test]
    fn clocks_that_do_not_agree_give_a_reason() {
        let check = |stat: &str, uptime: &str, expected: &str| {
            let fake = FakeTree::new(&[("proc/1/stat", stat), ("proc/uptime", uptime)]);
            let reason = read(&fake, PlatformKind::Kaggle).unwrap_err();
            assert!(reason.starts_with(expected), "{reason}");
        };
        check("1 (x) S 0", "5.0 1.0\n", "/proc/1/stat gives no start time");
        check(FIRST, "\n", "/proc/uptime gives no time");
        check(&FIRST.replace(" 21 50991104", " 900000 5"), "5.0 1.0\n", "the clocks of /proc/1/stat");
        let reason = read(&FakeTree::new(&[]), PlatformKind::Colab).unwrap_err();
        assert!(reason.starts_with("/proc/1/stat: No such file"), "{reason}");
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        assert_eq!(start_ticks(FIRST), Some(21));
        assert_eq!(start_ticks(&FIRST.replace("process_api", "a) S 1 2 (b")), Some(21));
    }

    proptest! {
        #[test]
        fn any_texts_give_an_age_or_a_reason(stat in "1 \\(x\\)( [0-9]{0,25}){0,25}", uptime in "[0-9.]{0,25}", now: u64) {
            let clock = Clock { first_process: &stat, uptime: &uptime, ticks_per_s: 100, now_unix_s: now };
            prop_assert!(clock.age_s().map_or(true, |age_s| age_s <= now));
        }
    }
}
