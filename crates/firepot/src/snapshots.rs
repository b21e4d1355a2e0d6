//! How much disk KV caches of conversations may take, and do.

use std::path::Path;

use firepot_server::SnapshotSettings;
use firepot_store::Home;

use crate::table;

/// Most bytes of them unless more is asked for: dozens of conversations of a 7B model with some thousand tokens.
const BYTES_MAX: u64 = 4 << 30;

/// Share of the free disk that they take at most unless more is asked for: models and downloads come first.
const SHARE: u64 = 10;

/// Where and how much is kept: as was asked for, where 0 means nothing, else by what is free.
pub fn settings(home: &Home, asked: Option<u64>) -> Option<SnapshotSettings> {
    let dir = home.snapshots_dir();
    let bytes_max = asked.unwrap_or_else(|| {
        let taken = firepot_snapshots::usage(&dir).map_or(0, |usage| usage.bytes);
        (free_bytes(home.path()).saturating_add(taken) / SHARE).min(BYTES_MAX)
    });
    (bytes_max > 0).then_some(SnapshotSettings { dir, bytes_max })
}

/// What a user may write there; 0 when it cannot be told.
fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// A part of a sentence about what they take.
pub fn told(home: &Path) -> String {
    match firepot_snapshots::usage(&home.join("snapshots")) {
        Ok(usage) => format!("{} snapshots take {}", usage.files, table::bytes(usage.bytes)),
        Err(error) => format!("its snapshots cannot be listed: {error}"),
    }
}

/// Removes all of them, or only counts; the bytes.
pub fn remove(home: &Home, dry_run: bool) -> anyhow::Result<u64> {
    let dir = home.snapshots_dir();
    let usage = if dry_run { firepot_snapshots::usage(&dir)? } else { firepot_snapshots::clear(&dir)? };
    Ok(usage.bytes)
}
