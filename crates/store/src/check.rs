//! Reading every blob again, to see whether it still is what it was. What is damaged is located by the checksums of its
//! blocks, so that a pull fetches those blocks only. In place of other programs nothing is checked.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    ops::Range,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::{
    Digest, ModelName, Models, StoreError, Sums, SumsHasher,
    limits::COPY_CHUNK_BYTES,
    manifest::{Manifest, manifest_files},
};

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckProgress {
    /// What is being read.
    pub digest: Digest,
    /// Bytes read of all blobs.
    pub done_bytes: u64,
    /// Bytes of all blobs.
    pub total_bytes: u64,
}

/// A blob that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBlob {
    /// What its content should be.
    pub digest: Digest,
    /// How long it should be, in bytes.
    pub size_bytes: u64,
    /// How it is.
    pub state: BlobState,
    /// The models that need it.
    pub models: Vec<ModelName>,
    /// The URL that it came from, where that was kept.
    pub source: Option<String>,
}

/// How a blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// It has its digest.
    Good,
    /// It has another. Where it is not known what is damaged, everything is.
    Damaged {
        /// Ranges of bytes, in order.
        bad: Vec<Range<u64>>,
    },
    /// A manifest names it and it is not there.
    Missing,
}

/// What is known of a blob before it is read.
#[derive(Default)]
struct Wanted {
    /// What manifests say, else what the file has.
    size_bytes: u64,
    models: Vec<ModelName>,
}

impl Models<'_> {
    /// Reads all blobs and says how each is, in the order of their digests. A good one without checksums gets them, if
    /// the home may be written.
    ///
    /// # Errors
    /// When a directory or a blob cannot be read.
    pub fn check(self, progress: &mut dyn FnMut(CheckProgress)) -> Result<Vec<CheckedBlob>, StoreError> {
        let wanted = self.wanted()?;
        let total_bytes = wanted.values().map(|blob| blob.size_bytes).sum();
        let mut before_bytes = 0;
        let mut checked = Vec::new();
        for (digest, Wanted { size_bytes, models }) in wanted {
            let sums = self.home().sums(&digest);
            let mut report = |read_bytes: u64| {
                let done_bytes = before_bytes + read_bytes.min(size_bytes);
                progress(CheckProgress { digest, done_bytes, total_bytes });
            };
            let state = self.state_of(&digest, size_bytes, sums.as_ref(), &mut report)?;
            before_bytes += size_bytes;
            let source = sums.map(|sums| sums.source).filter(|source| !source.is_empty());
            checked.push(CheckedBlob { digest, size_bytes, state, models, source });
        }
        if checked.iter().any(|blob| blob.state == BlobState::Missing) {
            // A model may have been removed meanwhile.
            let still = self.wanted()?;
            checked.retain(|blob| blob.state != BlobState::Missing || still.contains_key(&blob.digest));
        }
        Ok(checked)
    }

    /// Takes a damaged blob out of the store and keeps its good parts as a partial download, so that a pull of a model
    /// that needs it fetches the rest. False when there is nothing to do: it is good or missing, or being fetched.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(self, blob: &CheckedBlob) -> Result<bool, StoreError> {
        let BlobState::Damaged { bad } = &blob.state else { return Ok(false) };
        let _lock = self.home().lock_models()?;
        self.home().reopen_as_partial(&blob.digest, blob.size_bytes, &complement(bad, blob.size_bytes))
    }

    /// All blobs that are there or should be.
    fn wanted(self) -> Result<BTreeMap<Digest, Wanted>, StoreError> {
        let mut wanted: BTreeMap<Digest, Wanted> = BTreeMap::new();
        let dir = self.home().blobs_dir();
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => {
                entries.and_then(Iterator::collect).map_err(|error| StoreError::io("list", &dir, error))?
            }
        };
        for entry in entries {
            let digest = entry.file_name().to_str().and_then(Digest::from_file_name);
            if let (Some(digest), Ok(metadata)) = (digest, entry.metadata()) {
                wanted.entry(digest).or_default().size_bytes = metadata.len();
            }
        }
        for file in manifest_files(&self.home().manifests_dir())? {
            let (Some(name), Ok((manifest, _))) = (file.name, Manifest::read(&file.path)) else { continue };
            for layer in std::iter::once(&manifest.config).chain(&manifest.layers) {
                let blob = wanted.entry(layer.digest).or_default();
                blob.size_bytes = layer.size;
                if !blob.models.contains(&name) {
                    blob.models.push(name.clone());
                }
            }
        }
        Ok(wanted)
    }

    fn state_of(
        self,
        digest: &Digest,
        size_bytes: u64,
        sums: Option<&Sums>,
        report: &mut dyn FnMut(u64),
    ) -> Result<BlobState, StoreError> {
        let path = self.home().blobs_dir().join(digest.file_name());
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BlobState::Missing),
            file => file.map_err(|error| StoreError::io("open", &path, error))?,
        };
        let (actual, actual_sums) = read(&file, &path, report)?;
        if actual == *digest {
            if sums.is_none() && self.home().require_write().is_ok() && size_bytes >= crate::BLOCK_BYTES {
                self.home().write_sums(digest, &actual_sums)?;
            }
            return Ok(BlobState::Good);
        }
        let located =
            sums.filter(|sums| sums.size_bytes == size_bytes).map(|sums| sums.differing(&actual_sums));
        let bad = match located {
            Some(bad) if !bad.is_empty() => bad,
            // The beginning may be good; its digest tells once the rest is there.
            None if actual_sums.size_bytes < size_bytes => {
                std::iter::once(actual_sums.size_bytes..size_bytes).collect()
            }
            _ => std::iter::once(0..size_bytes).collect(),
        };
        Ok(BlobState::Damaged { bad })
    }
}

fn read(mut file: &File, path: &Path, report: &mut dyn FnMut(u64)) -> Result<(Digest, Sums), StoreError> {
    let (mut hasher, mut sums, mut done_bytes) = (Sha256::new(), SumsHasher::default(), 0);
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    loop {
        let length = match file.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| StoreError::io("read", path, error))?,
        };
        if length == 0 {
            return Ok((Digest::finish(hasher), sums.finish("")));
        }
        hasher.update(&chunk[..length]);
        sums.update(&chunk[..length]);
        done_bytes += length as u64;
        report(done_bytes);
    }
}

/// What of a blob is not in these ranges, which are in order.
fn complement(bad: &[Range<u64>], size_bytes: u64) -> Vec<Range<u64>> {
    let ends = std::iter::once(0).chain(bad.iter().map(|range| range.end));
    let starts = bad.iter().map(|range| range.start).chain([size_bytes]);
    ends.zip(starts).map(|(end, start)| end..start).filter(|range| !range.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::{
        BLOCK_BYTES, Opened,
        testing::{TestHome, gguf},
    };

    const BLOCKS: u64 = 5;

    /// A model of five blocks whose checksums are kept, and its blob.
    fn model() -> (TestHome, CheckedBlob) {
        let test = TestHome::new();
        let mut content = gguf(1);
        content.resize((BLOCKS * BLOCK_BYTES) as usize, 7);
        test.import_copy(&test.file("model.gguf", &content), "m").unwrap();
        let blob = weights(&test);
        assert_eq!(blob.state, BlobState::Good);
        (test, blob)
    }

    fn weights(test: &TestHome) -> CheckedBlob {
        let checked = test.home.models().check(&mut |_| {}).unwrap();
        assert_eq!(checked.len(), 2);
        checked.into_iter().find(|blob| blob.size_bytes > BLOCK_BYTES).unwrap()
    }

    fn open(test: &TestHome, blob: &CheckedBlob) -> File {
        File::options().write(true).open(test.home.blob(&blob.digest).unwrap().path).unwrap()
    }

    fn damaged(bad: Range<u64>) -> BlobState {
        BlobState::Damaged { bad: std::iter::once(bad).collect() }
    }

    #[test]
    fn a_store_that_is_whole_is_good_and_progress_ends_at_its_size() {
        let (test, blob) = model();
        assert_eq!(blob.models, ["m".parse().unwrap()]);
        let mut last = None;
        test.home.models().check(&mut |progress| last = Some(progress)).unwrap();
        let last = last.unwrap();
        assert_eq!(last.done_bytes, last.total_bytes);
    }

    #[test]
    fn damage_is_located_to_its_block_and_all_else_is_kept_for_the_next_pull() {
        let (test, blob) = model();
        open(&test, &blob).write_all_at(b"!", 2 * BLOCK_BYTES + 3).unwrap();
        let found = weights(&test);
        let bad = 2 * BLOCK_BYTES..3 * BLOCK_BYTES;
        assert_eq!(found.state, damaged(bad.clone()));

        assert!(test.home.models().set_aside(&found).unwrap());
        assert!(!test.home.has_blob(&blob.digest));
        let Opened::Ready(partial) = test.home.partial(&blob.digest, blob.size_bytes).unwrap() else {
            panic!("the blob cannot be repaired");
        };
        assert_eq!(partial.missing(), std::slice::from_ref(&bad));
        partial.write_at(bad.start, &[vec![7; BLOCK_BYTES as usize]]).unwrap();
        partial.finish(Some(&blob.digest), "").unwrap();
        assert_eq!(weights(&test).state, BlobState::Good);
    }

    #[test]
    fn without_checksums_only_a_missing_end_is_located() {
        let (test, blob) = model();
        fs::remove_dir_all(test.home.sums_dir()).unwrap();
        open(&test, &blob).set_len(100).unwrap();
        assert_eq!(weights(&test).state, damaged(100..blob.size_bytes));
        let file = open(&test, &blob);
        file.set_len(blob.size_bytes).unwrap();
        assert_eq!(weights(&test).state, damaged(0..blob.size_bytes));
    }

    #[test]
    fn a_blob_that_is_gone_is_missing_with_the_models_that_need_it() {
        let (test, blob) = model();
        fs::remove_file(test.home.blob(&blob.digest).unwrap().path).unwrap();
        let missing = weights(&test);
        assert_eq!(missing, CheckedBlob { state: BlobState::Missing, ..blob });
        assert!(!test.home.models().set_aside(&missing).unwrap());
    }

    #[test]
    fn what_is_not_bad_is_good() {
        let check = |bad: &[(u64, u64)], good: &[(u64, u64)]| {
            let bad: Vec<_> = bad.iter().map(|&(start, end)| start..end).collect();
            let found: Vec<_> = complement(&bad, 10).iter().map(|range| (range.start, range.end)).collect();
            assert_eq!(found, good);
        };
        check(&[], &[(0, 10)]);
        check(&[(0, 10)], &[]);
        check(&[(0, 2), (5, 6)], &[(2, 5), (6, 10)]);
        check(&[(3, 10)], &[(0, 3)]);
    }
}
