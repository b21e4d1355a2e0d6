//! Limits of the control groups that this process is in, both versions, at their usual mount points.
//!
//! A limit of any ancestor binds, so every directory from the process's own group up to the root is looked at. In a
//! container of version 1 the path in `/proc/self/cgroup` is the host's and is not below the mount point; the root
//! of the mount is then the container's own group, and is looked at as well.

use crate::{Reading, limits::CGROUP_DEPTH_MAX, tree::Tree};

/// At or above this, version 1 means "no limit" (`PAGE_COUNTER_MAX` rounded down to a page).
const UNLIMITED_BYTES: u64 = 1 << 62;

/// The directories to look in, innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    unified: Vec<String>,
    memory: Vec<String>,
    cpu: Vec<String>,
}

/// What a group allows and what it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Most memory that the group may use.
    pub limit_bytes: u64,
    /// What is left of it; page cache counts as free, because it is given back under pressure.
    pub available_bytes: u64,
}

impl Cgroup {
    /// From the text of `/proc/self/cgroup`; no groups when there is none.
    pub fn parse(text: &str) -> Self {
        let path_of = |wanted: &str| {
            text.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers.split(',').any(|controller| controller == wanted).then_some(path)
            })
        };
        let below = |mount: &str, wanted: &str| ancestors(mount, path_of(wanted).unwrap_or("/"));
        let mut unified = below("/sys/fs/cgroup", "");
        unified.extend(below("/sys/fs/cgroup/unified", ""));
        let mut cpu = below("/sys/fs/cgroup/cpu", "cpu");
        cpu.extend(below("/sys/fs/cgroup/cpu,cpuacct", "cpu"));
        Self { unified, memory: below("/sys/fs/cgroup/memory", "memory"), cpu }
    }

    /// The tightest memory limit.
    pub fn memory_limit(&self, tree: &Tree) -> Reading<MemoryLimit> {
        let unified = self.unified.iter().filter_map(|dir| memory_v2(tree, dir));
        let all = unified.chain(self.memory.iter().filter_map(|dir| memory_v1(tree, dir)));
        let tightest = all.reduce(|a, b| MemoryLimit {
            limit_bytes: a.limit_bytes.min(b.limit_bytes),
            available_bytes: a.available_bytes.min(b.available_bytes),
        });
        tightest.ok_or_else(|| "no control group limits the memory".to_owned()).into()
    }

    /// The tightest CPU quota, in thousandths of a core.
    pub fn quota_millicores(&self, tree: &Tree) -> Reading<u64> {
        let unified =
            self.unified.iter().filter_map(|dir| quota_v2(&tree.optional(&format!("{dir}/cpu.max"))?));
        let old = self.cpu.iter().filter_map(|dir| {
            let read = |name: &str| tree.optional(&format!("{dir}/cpu.{name}"));
            quota(&read("cfs_quota_us")?, &read("cfs_period_us")?)
        });
        unified.chain(old).min().ok_or_else(|| "no control group limits the CPU time".to_owned()).into()
    }
}

/// `mount/a/b`, `mount/a`, `mount` for the path `/a/b`.
fn ancestors(mount: &str, path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != "..").collect();
    let depth = parts.len().min(CGROUP_DEPTH_MAX);
    let below = (1..=depth).rev().map(|length| format!("{mount}/{}", parts[..length].join("/")));
    below.chain([mount.to_owned()]).collect()
}

fn memory_v2(tree: &Tree, dir: &str) -> Option<MemoryLimit> {
    let read = |name: &str| tree.optional(&format!("{dir}/memory.{name}"));
    let limit_bytes = bytes(&read("max")?)?;
    let cache_bytes = read("stat").map_or(0, |stat| file_cache_bytes(&stat, ""));
    Some(left(limit_bytes, read("current").and_then(|text| bytes(&text)), cache_bytes))
}

fn memory_v1(tree: &Tree, dir: &str) -> Option<MemoryLimit> {
    let read = |name: &str| tree.optional(&format!("{dir}/memory.{name}"));
    let limit_bytes = bytes(&read("limit_in_bytes")?)?;
    let cache_bytes = read("stat").map_or(0, |stat| file_cache_bytes(&stat, "total_"));
    Some(left(limit_bytes, read("usage_in_bytes").and_then(|text| bytes(&text)), cache_bytes))
}

fn left(limit_bytes: u64, used_bytes: Option<u64>, cache_bytes: u64) -> MemoryLimit {
    let held_bytes = used_bytes.unwrap_or(0).saturating_sub(cache_bytes);
    MemoryLimit { limit_bytes, available_bytes: limit_bytes.saturating_sub(held_bytes) }
}

/// A number of bytes; `max` and version 1's largest number are no limit.
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < UNLIMITED_BYTES)
}

fn file_cache_bytes(stat: &str, prefix: &str) -> u64 {
    let counted = [format!("{prefix}active_file"), format!("{prefix}inactive_file")];
    let rows = stat.lines().filter_map(|line| line.split_once(' '));
    let matching = rows.filter(|(key, _)| counted.iter().any(|name| name == key));
    matching.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).fold(0, u64::saturating_add)
}

/// `"<quota> <period>"` in microseconds, or `"max <period>"`.
fn quota_v2(text: &str) -> Option<u64> {
    let (quota_us, period_us) = text.trim().split_once(' ')?;
    quota(quota_us, period_us)
}

/// `None` for `max`, for -1 and for what is not a number.
fn quota(quota_us: &str, period_us: &str) -> Option<u64> {
    let quota_us: u64 = quota_us.trim().parse().ok()?;
    quota_us.checked_mul(1000)?.checked_div(period_us.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::fake::FakeTree;

    const GIB: u64 = 1 << 30;

    #[test]
    fn every_ancestor_is_looked_at() {
        let cgroup = Cgroup::parse("0::/user.slice/app\n");
        assert_eq!(
            cgroup.unified[..3],
            ["/sys/fs/cgroup/user.slice/app", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"]
        );
        assert_eq!(cgroup.memory, ["/sys/fs/cgroup/memory"]);
    }

    #[test]
    fn version_1_finds_its_controller_among_others() {
        let cgroup = Cgroup::parse("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n");
        assert_eq!(cgroup.memory[0], "/sys/fs/cgroup/memory/docker/abc");
        assert_eq!(cgroup.cpu[0], "/sys/fs/cgroup/cpu/docker/abc");
        assert!(cgroup.cpu.contains(&"/sys/fs/cgroup/cpu,cpuacct".to_owned()));
    }

    #[test]
    fn a_container_of_version_2_is_limited_and_its_page_cache_is_free() {
        let fake = FakeTree::new(&[
            ("sys/fs/cgroup/memory.max", "8589934592\n"),
            ("sys/fs/cgroup/memory.current", "6442450944\n"),
            (
                "sys/fs/cgroup/memory.stat",
                "anon 1073741824\nactive_file 1073741824\ninactive_file 4294967296\n",
            ),
            ("sys/fs/cgroup/cpu.max", "350000 100000\n"),
        ]);
        let cgroup = Cgroup::parse("0::/\n");
        let expected = MemoryLimit { limit_bytes: 8 * GIB, available_bytes: 7 * GIB };
        assert_eq!(cgroup.memory_limit(&fake.tree()), Reading::Known(expected));
        assert_eq!(cgroup.quota_millicores(&fake.tree()), Reading::Known(3500));
    }

    #[test]
    fn a_container_of_version_1_is_found_at_the_root_of_its_mount() {
        let fake = FakeTree::new(&[
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4294967296\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 536870912\ninactive_file 7\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        let cgroup = Cgroup::parse("5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n");
        let expected = MemoryLimit { limit_bytes: 4 * GIB, available_bytes: 4 * GIB - GIB / 2 };
        assert_eq!(cgroup.memory_limit(&fake.tree()), Reading::Known(expected));
        assert_eq!(cgroup.quota_millicores(&fake.tree()), Reading::Known(2000));
    }

    #[test]
    fn the_tightest_ancestor_binds() {
        let fake = FakeTree::new(&[
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/memory.max", "2147483648\n"),
        ]);
        let limit = Cgroup::parse("0::/a/b\n").memory_limit(&fake.tree());
        assert_eq!(limit.known().map(|limit| limit.limit_bytes), Some(GIB));
    }

    #[test]
    fn no_limit_is_absent_with_a_reason() {
        let fake = FakeTree::new(&[
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        let cgroup = Cgroup::parse("4:memory:/\n0::/\n");
        assert_eq!(cgroup.memory_limit(&fake.tree()).reason(), Some("no control group limits the memory"));
        assert_eq!(
            cgroup.quota_millicores(&fake.tree()).reason(),
            Some("no control group limits the CPU time")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_within_bounds(text in "[0-9:/a-z,.\n]{0,200}") {
            let cgroup = Cgroup::parse(&text);
            for dirs in [&cgroup.memory, &cgroup.unified, &cgroup.cpu] {
                prop_assert!(dirs.len() <= 2 * (CGROUP_DEPTH_MAX + 1));
                prop_assert!(dirs.iter().all(|dir| dir.starts_with("/sys/fs/cgroup") && !dir.contains("/../")));
            }
        }

        #[test]
        fn any_numbers_give_a_quota_or_none(text in "[0-9max -]{0,40}") {
            let _ = quota_v2(&text);
        }

        #[test]
        fn no_more_is_available_than_the_limit(limit: u64, used: Option<u64>, cache: u64) {
            prop_assert!(left(limit, used, cache).available_bytes <= limit);
        }
    }
}
