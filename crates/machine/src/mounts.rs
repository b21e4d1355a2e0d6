//! Which file system a path is on, from the text of `/proc/self/mountinfo` (its fields are described in the kernel's
//! `Documentation/filesystems/proc.rst`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a file system keeps its bytes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskKind {
    /// A disk of this machine, as far as it shows.
    Local,
    /// Main memory: what lies there takes memory from a model.
    Memory,
    /// Layers of a container, on some other file system.
    Overlay,
    /// Another machine.
    Network,
    /// A program (FUSE), which may itself reach over the network.
    Program,
}

impl DiskKind {
    /// By the kernel's name of the file system. Colab mounts Google Drive as `fuse.drive`, Kaggle its data sets
    /// through FUSE or NFS; WSL2 reaches Windows' disks by `9p`.
    #[must_use]
    pub fn of(file_system: &str) -> Self {
        match file_system {
            "tmpfs" | "ramfs" | "devtmpfs" | "hugetlbfs" => Self::Memory,
            "overlay" | "aufs" => Self::Overlay,
            "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "lustre" | "glusterfs" | "gpfs" | "beegfs" | "9p"
            | "afs" | "virtiofs" | "fuse.sshfs" | "fuse.gcsfuse" | "fuse.drive" => Self::Network,
            "fuseblk" => Self::Local,
            name if name == "fuse" || name.starts_with("fuse.") => Self::Program,
            _ => Self::Local,
        }
    }
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of its device; the major number of what is no block device is 0.
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The kernel's name of its kind: `ext4`.
    pub file_system: String,
}

impl Mount {
    /// The mount that `path`, which is absolute and without links, is on: the longest that holds it, and of those at
    /// the same place the last, which hides the others.
    pub fn of(mountinfo: &str, path: &Path) -> Option<Self> {
        let holding =
            mountinfo.lines().filter_map(Self::parse).filter(|mount| path.starts_with(&mount.point));
        holding.max_by_key(|mount| mount.point.components().count())
    }

    fn parse(line: &str) -> Option<Self> {
        let (about, system) = line.split_once(" - ")?;
        let mut fields = about.split(' ').skip(2);
        let (device, _root, point) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            device: device.to_owned(),
            point: PathBuf::from(unescape(point)),
            file_system: system.split(' ').next().filter(|name| !name.is_empty())?.to_owned(),
        })
    }
}

/// The kernel writes space, tab, line feed and backslash as an octal number.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, letter)| text.replace(escape, letter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a container on a notebook service shows it.
    const NOTEBOOK: &str = "\
1086 963 0:131 / / rw,relatime master:418 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
1087 1086 0:134 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1088 1086 0:135 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
1089 1086 8:1 /var/lib/working /kaggle/working rw,relatime - ext4 /dev/sda1 rw,commit=30
1090 1086 0:52 / /kaggle/input ro,nosuid,nodev,relatime - fuse.gcsfuse bucket ro,user_id=0
1091 1086 0:60 / /content/drive rw,nosuid,nodev,relatime - fuse.drive drive rw,user_id=0
1092 1086 8:2 / /mnt/my\\040disk rw,relatime shared:1 master:2 - xfs /dev/sda2 rw
1093 1089 0:70 / /kaggle/working rw,relatime - tmpfs none rw
";

    fn check(path: &str, expected: (&str, DiskKind, &str)) {
        let mount = Mount::of(NOTEBOOK, Path::new(path)).unwrap();
        let found = (mount.file_system.as_str(), DiskKind::of(&mount.file_system), mount.device.as_str());
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn the_mount_that_holds_a_path_is_found() {
        check("/root/.firepot", ("overlay", DiskKind::Overlay, "0:131"));
        check("/kaggle/input/model", ("fuse.gcsfuse", DiskKind::Network, "0:52"));
        check("/kaggle/inputs", ("overlay", DiskKind::Overlay, "0:131"));
        check("/content/drive", ("fuse.drive", DiskKind::Network, "0:60"));
        check("/dev/shm", ("tmpfs", DiskKind::Memory, "0:135"));
        check("/mnt/my disk/models", ("xfs", DiskKind::Local, "8:2"));
    }

    #[test]
    fn a_later_mount_hides_an_earlier_one_at_the_same_place() {
        check("/kaggle/working/models", ("tmpfs", DiskKind::Memory, "0:70"));
    }

    #[test]
    fn what_a_program_serves_is_told_from_a_disk() {
        assert_eq!(DiskKind::of("fuse.rclone"), DiskKind::Program);
        assert_eq!(DiskKind::of("fuseblk"), DiskKind::Local);
        assert_eq!(DiskKind::of("btrfs"), DiskKind::Local);
        assert_eq!(DiskKind::of("9p"), DiskKind::Network);
    }

    #[test]
    fn what_is_no_list_of_mounts_has_none() {
        for text in ["", "1 2 3\n", "1 2 0:1 / /\n", "1 2 0:1 / / rw - \n"] {
            assert_eq!(Mount::of(text, Path::new("/")), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([0-9 :/a-z\\\\-]{0,60}\n){0,4}") {
            let _ = Mount::of(&text, Path::new("/a/b"));
        }
    }
}
