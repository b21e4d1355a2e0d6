//! A bundle in one file, without names, paths and addresses of whoever measured.
//!
//! A packed bundle has a manifest of its own, whose `shared_of` names the manifest that it was made from, so `check` works on it as on a
//! directory. It is a `.tar.gz`: everybody can open that.

use std::{
    collections::BTreeMap,
    fs::File as DiskFile,
    io::{self, Read as _},
    net::IpAddr,
    path::Path,
};

use firepot_store::{Digest, write_atomic};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::Value;

use crate::{
    bundle::{Bundle, BundleError, File, Files, MANIFEST, to_json},
    limits,
    summary::summarize,
};

/// Folder within the archive.
const FOLDER: &str = "bundle";
/// Entries of an archive that are looked at.
const ENTRIES: usize = 64;

/// Whose traces are taken out, besides paths and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Names of the user and of the machine.
    pub names: Vec<String>,
}

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
    let scrubber = Scrubber { identity, addresses: BTreeMap::new() };
    let mut shared = scrubber.scrub_all(files)?;
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

/// A text without names, paths and addresses.
#[must_use]
pub fn without_traces(text: &str, identity: &Identity) -> String {
    Scrubber { identity, addresses: BTreeMap::new() }.text(text)
}

struct Scrubber<'a> {
    identity: &'a Identity,
    /// Addresses so far, with the words that stand for them.
    addresses: BTreeMap<IpAddr, String>,
}

impl Scrubber<'_> {
    fn scrub_all(mut self, files: &Files) -> Result<Files, BundleError> {
        let mut shared = Files::default();
        // Pictures show what nobody can take out of them.
        for (&file, bytes) in files.contents.iter().filter(|(file, _)| !file.is_picture()) {
            let scrubbed = if file == File::ProofDriver {
                self.text(&String::from_utf8_lossy(bytes)).into_bytes()
            } else if file.is_lines() {
                let lines = bytes.split_inclusive(|&byte| byte == b'\n');
                lines.map(|line| self.line(file, line)).collect::<Result<Vec<_>, _>>()?.concat()
            } else {
                let mut value = parse(file, bytes)?;
                self.value(&mut value);
                to_json(file.name(), &value)?
            };
            shared.contents.insert(file, scrubbed);
        }
        Ok(shared)
    }

    fn line(&mut self, file: File, line: &[u8]) -> Result<Vec<u8>, BundleError> {
        let mut value = parse(file, line)?;
        self.value(&mut value);
        Ok(format!("{value}\n").into_bytes())
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Words of a text, each looked at by itself: white space and quotes part them.
    fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(is_between).unwrap_or(rest.len());
            out.push_str(&self.word(&rest[..word]));
            let between = rest[word..].find(|c| !is_between(c)).unwrap_or(rest.len() - word);
            out.push_str(&rest[word..word + between]);
            rest = &rest[word + between..];
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        if is_path(word) {
            let name = word.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default();
            return format!("(path)/{}", self.named(name));
        }
        if word.contains('@') && word.contains('.') {
            return "(e-mail)".to_owned();
        }
        if let Some(told) = self.address(word) {
            return told;
        }
        self.named(word)
    }

    /// An address, with or without scheme and port; loopback is nobody's.
    fn address(&mut self, word: &str) -> Option<String> {
        let (scheme, rest) = word.split_once("://").unwrap_or(("", word));
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.split(']').next()).unwrap_or(host);
        let ip: IpAddr = host.parse().ok().or_else(|| host.rsplit_once(':')?.0.parse().ok())?;
        // Four numbers with dots may be a version as well; a bare one that is no address of a network stays.
        if ip.is_loopback() || ip.is_unspecified() {
            return None;
        }
        let count = self.addresses.len() + 1;
        let told = self.addresses.entry(ip).or_insert_with(|| format!("(address {count})")).clone();
        Some(if scheme.is_empty() { told } else { format!("{scheme}://{told}") })
    }

    fn named(&self, word: &str) -> String {
        /// Shorter names are parts of too many words.
        const SHORTEST: usize = 3;
        let long = self.identity.names.iter().filter(|name| name.len() >= SHORTEST);
        long.fold(word.to_owned(), |word, name| word.replace(name.as_str(), "(name)"))
    }
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')' | '<' | '>' | '=')
}

/// A path with at least two parts, absolute or from a home or a drive.
fn is_path(word: &str) -> bool {
    let bytes = word.as_bytes();
    let drive = bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && bytes[2] == b'\\';
    let absolute = word.starts_with('/') && !word.starts_with("//") && word[1..].contains('/');
    drive || absolute || word.starts_with("~/") || word.starts_with("file://") || word.starts_with("\\\\")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(text: &str) -> String {
        let identity = Identity { names: vec!["shivansh".to_owned(), "lenovo-7".to_owned()] };
        without_traces(text, &identity)
    }

    #[test]
    fn names_paths_and_addresses_go_and_the_rest_stays() {
        assert_eq!(scrub("could not open /home/shivansh/models/a.gguf"), "could not open (path)/a.gguf");
        assert_eq!(scrub("C:\\Users\\x\\b.gguf on lenovo-7"), "(path)/b.gguf on (name)");
        assert_eq!(scrub("http://192.168.0.7:11434/api, 192.168.0.7"), "http://(address 1), (address 1)");
        assert_eq!(scrub("http://[fe80::1]:80 10.0.0.1:22"), "http://(address 1) (address 2)");
        assert_eq!(scrub("ask a.b@example.org"), "ask (e-mail)");
        for kept in [
            "http://127.0.0.1:11434",
            "Intel(R) Xeon(R) CPU @ 2.00GHz",
            "tokens/s and 4/5",
            "application/json",
            "hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M",
            "580.105.08",
            "a  b\n",
        ] {
            assert_eq!(scrub(kept), kept);
        }
    }
}
