//! The disk that holds Firepot's home.

use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};

use crate::{DiskKind, Reading, mounts::Mount, tree::Tree};

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The directory that was asked about: the home, or its nearest ancestor that exists.
    pub path: PathBuf,
    /// Its size.
    pub total_bytes: u64,
    /// What an unprivileged process may still write.
    pub free_bytes: u64,
    /// The kernel's name of its kind: `ext4`, `overlay`, `tmpfs`.
    pub file_system: Reading<String>,
    /// What it keeps its bytes in.
    pub kind: Reading<DiskKind>,
    /// Whether its disk says that it turns. A virtual disk often says so whatever lies below it.
    pub rotational: Reading<bool>,
}

impl Disk {
    pub(crate) fn probe(tree: &Tree, home: &Path) -> Reading<Self> {
        let home = std::path::absolute(home).unwrap_or_else(|_| home.to_owned());
        let Some(path) = home.ancestors().find(|path| path.exists()) else {
            return Reading::absent(format!("nothing above {} exists", home.display()));
        };
        let mount = mount(tree, path);
        match statvfs(path) {
            Ok(stat) => Reading::Known(Self {
                path: path.to_owned(),
                total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                file_system: mount.clone().map(|mount| mount.file_system),
                kind: mount.clone().map(|mount| DiskKind::of(&mount.file_system)),
                rotational: mount.and_then(|mount| rotational(tree, &mount)),
            }),
            Err(error) => Reading::absent(format!("{}: {error}", path.display())),
        }
    }
}

fn mount(tree: &Tree, path: &Path) -> Reading<Mount> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let found = |text: String| {
        Mount::of(&text, &real)
            .ok_or_else(|| format!("/proc/self/mountinfo has no mount of {}", real.display()))
    };
    tree.text("/proc/self/mountinfo").and_then(found).into()
}

/// A partition's queue is that of its disk, one directory above.
fn rotational(tree: &Tree, mount: &Mount) -> Result<bool, String> {
    if mount.device.starts_with("0:") {
        return Err(format!("{} lies on no block device that it names", mount.file_system));
    }
    let block = format!("/sys/dev/block/{}", mount.device);
    let own = tree.text(&format!("{block}/queue/rotational"));
    let text = own.or_else(|_| tree.text(&format!("{block}/../queue/rotational")))?;
    match text.trim() {
        "1" => Ok(true),
        "0" => Ok(false),
        other => Err(format!("{block}/queue/rotational holds {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fake::FakeTree;

    fn disk_of(fake: &FakeTree, home: &Path) -> Disk {
        Disk::probe(&fake.tree(), home).known().unwrap().clone()
    }

    #[test]
    fn a_home_that_does_not_exist_yet_is_on_its_ancestor_s_disk() {
        let dir = tempfile::tempdir().unwrap();
        let reading = Disk::probe(&Tree::system(), &dir.path().join("a/b/c"));
        let disk = reading.known().unwrap();
        assert_eq!(disk.path, dir.path());
        assert!(disk.total_bytes > 0 && disk.free_bytes <= disk.total_bytes);
        assert!(disk.file_system.known().is_some_and(|name| !name.is_empty()));
    }

    #[test]
    fn a_relative_home_is_found() {
        let reading = Disk::probe(&Tree::system(), Path::new("some/home"));
        assert!(reading.known().unwrap().path.is_absolute());
    }

    #[test]
    fn a_partition_turns_as_its_disk_does() {
        let fake = FakeTree::new(&[
            ("proc/self/mountinfo", "27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"),
            ("sys/devices/sda/queue/rotational", "1\n"),
            ("sys/devices/sda/sda1/partition", "1\n"),
            ("sys/dev/block/x", ""),
        ]);
        fake.link("sys/dev/block/8:1", "../../devices/sda/sda1");
        let disk = disk_of(&fake, Path::new("/"));
        assert_eq!((disk.rotational, disk.kind), (Reading::Known(true), Reading::Known(DiskKind::Local)));
    }

    #[test]
    fn layers_of_a_container_name_no_disk() {
        let fake = FakeTree::new(&[("proc/self/mountinfo", "27 1 0:31 / / rw - overlay overlay rw\n")]);
        let disk = disk_of(&fake, Path::new("/"));
        assert_eq!(disk.file_system, Reading::Known("overlay".to_owned()));
        assert_eq!(disk.rotational.reason(), Some("overlay lies on no block device that it names"));
    }

    #[test]
    fn without_a_list_of_mounts_only_the_space_is_known() {
        let disk = disk_of(&FakeTree::new(&[]), Path::new("/"));
        assert!(disk.total_bytes > 0);
        assert!(disk.kind.reason().unwrap().starts_with("/proc/self/mountinfo: No such file"));
    }
}
