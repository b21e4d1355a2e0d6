//! A bundle in one file, without names, paths and addresses of whoever measured.
//!
//! A packed bundle has a manifest of its own, whose `shared_of` names the manifest that it was made from, so `check` works on it as on a
//! directory. It is a `.tar.gz`: everybody can open that.

use std::{
    fs::File as DiskFile,
    io::{self, Read as _},
    path::Path,
};

use firepot_store::{Digest, write_atomic};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::Value;

use crate::{
    bundle::{Bundle, BundleError, File, Files, MANIFEST, to_json},
    limits,
    scrub::{Identity, Scrubber, without_traces},
    summary::summarize,
};

/// Folder within the archive.
const FOLDER: &str = "bundle";
/// Entries of an archive that are looked at.
const ENTRIES: usize = 64;

/// Packs a finished bundle into one file.
///
/// # Errors
/// When it cannot be read, is not what its manifest says, or the file cannot be written.
pub fn share(bundle: &Path, out: &Path, identity: &Identity) -> Result<(), BundleError> {
    let files = Files::read(bundle)?;
    let shared = files_without_traces(&files, bundle, identity)?;
    Ok(write_atomic(out, &pack_files(&shared, out)?)?)
}

/// The same bundle without traces, with a manifest of its own.
fn files_without_traces(files: &Files, path: &Path, identity: &Identity) -> Result<Files, BundleError> {
    let bundle = Bundle::of_files(files, path)?;
    let mut manifest = bundle.manifest.ok_or(BundleError::Unfinished { path: path.to_owned() })?;
    let session = bundle.session.as_ref();
    let expected = session.into_iter().flat_map(|session| &session.hosts_expected);
    let contacted = session.and_then(|session| session.hosts_contacted.known()).into_iter().flatten();
    let hosts: Vec<&str> = expected.chain(contacted).map(String::as_str).collect();
    let mut shared = scrub_all(Scrubber::new(identity, &hosts), files)?;
    let summary = summarize(&Bundle::parse(&shared, true)?);
    shared.contents.insert(File::Summary, to_json(File::Summary.name(), &summary)?);
    manifest.shared_of = Some(Digest::of(files.manifest.as_deref().unwrap_or_default()).hex());
    for flag in &mut manifest.tool.build_flags {
        *flag = without_traces(flag, identity);
    }
    manifest.files = shared.entries()?;
    shared.manifest = Some(to_json(MANIFEST, &manifest)?);
    Ok(shared)
}

fn scrub_all(mut scrubber: Scrubber<'_>, files: &Files) -> Result<Files, BundleError> {
    let mut shared = Files::default();
    // Pictures show what nobody can take out of them.
    for (&file, bytes) in files.contents.iter().filter(|(file, _)| !file.is_picture()) {
        let mut clean = |bytes: &[u8]| -> Result<Value, BundleError> {
            let mut value = parse(file, bytes)?;
            scrubber.value(file, &mut value);
            Ok(value)
        };
        let bytes = if file == File::ProofDriver {
            scrubber.text(&String::from_utf8_lossy(bytes)).into_bytes()
        } else if file.is_lines() {
            let lines = bytes.split_inclusive(|&byte| byte == b'\n');
            let lines = lines.map(|line| Ok(format!("{}\n", clean(line)?).into_bytes()));
            lines.collect::<Result<Vec<_>, BundleError>>()?.concat()
        } else {
            to_json(file.name(), &clean(bytes)?)?
        };
        shared.contents.insert(file, bytes);
    }
    Ok(shared)
}

fn parse(file: File, bytes: &[u8]) -> Result<Value, BundleError> {
    serde_json::from_slice(bytes).map_err(|error| BundleError::Malformed {
        file: file.name(),
        line: None,
        reason: error.to_string(),
    })
}

fn pack_files(files: &Files, out: &Path) -> Result<Vec<u8>, BundleError> {
    let named = files.contents.iter().map(|(file, bytes)| (file.name(), bytes));
    let all = named.chain(files.manifest.iter().map(|bytes| (MANIFEST, bytes)));
    pack(FOLDER, all.map(|(name, bytes)| (name, bytes.as_slice())))
        .map_err(|error| BundleError::io("pack", out, error))
}

/// Files in a folder, as `.tar.gz`. No owner and no time: the same files pack to the same bytes.
///
/// # Errors
/// When a name is too long for an archive.
pub fn pack<'a>(folder: &str, files: impl Iterator<Item = (&'a str, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, format!("{folder}/{name}"), bytes)?;
    }
    archive.into_inner()?.finish()
}

/// Reads a packed bundle. Nothing is written to disk; names that no bundle has are passed over.
pub(crate) fn unpack(path: &Path) -> Result<Files, BundleError> {
    let failed = |error: io::Error| BundleError::Archive { path: path.to_owned(), reason: error.to_string() };
    let packed = DiskFile::open(path).map_err(|error| BundleError::io("open", path, error))?;
    let mut archive = tar::Archive::new(GzDecoder::new(packed).take(limits::BUNDLE_BYTES));
    let mut files = Files::default();
    for entry in archive.entries().map_err(failed)?.take(ENTRIES) {
        let entry = entry.map_err(failed)?;
        let name =
            entry.path().ok().and_then(|path| Some(path.strip_prefix(FOLDER).ok()?.to_str()?.to_owned()));
        let Some(name) = name else { continue };
        let file = File::of_name(&name);
        if file.is_none() && name != MANIFEST {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(limits::FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        match file {
            Some(file) => drop(files.contents.insert(file, bytes)),
            None => files.manifest = Some(bytes),
        }
    }
    if files.contents.contains_key(&File::Trial) {
        Ok(files)
    } else {
        Err(BundleError::NoBundle { path: path.to_owned() })
    }
}
