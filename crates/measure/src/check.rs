//! Whether a bundle is what it says: every file hashed again, every aggregate computed again from the raw samples.

use std::path::Path;

use firepot_store::Digest;
use serde_json::Value;

use crate::{
    bundle::{Bundle, BundleError, File, Files, Manifest},
    summary::{Summary, summarize},
};

/// Relative difference that computing elsewhere may make: the last bits of logarithms differ between libraries.
const ROUNDING: f64 = 1e-9;
/// Differences that are named; more are only counted.
const NAMED: usize = 100;

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Name of the trial.
    pub trial: String,
    /// SHA-256 of the manifest: names the whole bundle.
    pub manifest_sha256: String,
    /// Files that were hashed.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Figures that were computed again.
    pub figures: usize,
    /// What differs, one sentence each; empty when the bundle is what it says.
    pub differences: Vec<String>,
}

/// Checks a bundle, a directory or a packed file.
///
/// # Errors
/// When it is none, is unfinished or newer, or its manifest cannot be read. What differs is no error but in [`Checked::differences`].
pub fn check(path: &Path) -> Result<Checked, BundleError> {
    let files = Files::read(path)?;
    let Some(manifest) = files.parse_manifest()? else {
        return Err(BundleError::Unfinished { path: path.to_owned() });
    };
    let wrong = files.verify(&manifest).err().unwrap_or_default();
    let mut differences: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    let figures = match compute_again(&files) {
        Ok((figures, found)) => {
            differences.extend(found);
            figures
        }
        // It may be all that it says, which only a newer Firepot can tell.
        Err(error @ BundleError::NewerSchema { .. }) => return Err(error),
        Err(error) => {
            let told = error.to_string();
            if !differences.contains(&told) {
                differences.push(told);
            }
            0
        }
    };
    Ok(checked(&files, &manifest, figures, differences))
}

fn checked(files: &Files, manifest: &Manifest, figures: usize, mut differences: Vec<String>) -> Checked {
    if differences.len() > NAMED {
        let more = differences.len() - NAMED;
        differences.truncate(NAMED);
        differences.push(format!("{more} more"));
    }
    Checked {
        trial: manifest.trial.clone(),
        manifest_sha256: Digest::of(files.manifest.as_deref().unwrap_or_default()).hex(),
        files: files.contents.len(),
        bytes: files.contents.values().map(|bytes| bytes.len() as u64).sum(),
        figures,
        differences,
    }
}

fn compute_again(files: &Files) -> Result<(usize, Vec<String>), BundleError> {
    let bundle = Bundle::parse(files, true)?;
    let malformed = |error: serde_json::Error| BundleError::Malformed {
        file: File::Summary.name(),
        line: None,
        reason: error.to_string(),
    };
    let summary = summarize(&bundle);
    let written: Summary = serde_json::from_slice(files.get(File::Summary)?).map_err(malformed)?;
    let (computed, told) = (
        serde_json::to_value(&summary).map_err(malformed)?,
        serde_json::to_value(&written).map_err(malformed)?,
    );
    let mut found = Vec::new();
    compare("", &told, &computed, &mut found);
    Ok((summary.figures.len(), found))
}

/// Names where two values differ.
fn compare(at: &str, told: &Value, computed: &Value, found: &mut Vec<String>) {
    match (told, computed) {
        (Value::Object(told), Value::Object(computed)) => {
            for (name, value) in told {
                compare(&format!("{at}/{name}"), value, computed.get(name).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(told), Value::Array(computed)) if told.len() == computed.len() => {
            for (index, (told, computed)) in told.iter().zip(computed).enumerate() {
                compare(&format!("{at}/{}", place(told, index)), told, computed, found);
            }
        }
        (told, computed) if is_same(told, computed) => {}
        (Value::Array(told), Value::Array(computed)) => {
            let (told, computed) = (told.len(), computed.len());
            found.push(format!(
                "summary.json{at}: {told} entries are written, {computed} follow from the samples"
            ));
        }
        (told, computed) => {
            found.push(format!("summary.json{at}: {told} is written, {computed} follows from the samples"));
        }
    }
}

/// A figure is found by its name rather than by its number.
fn place(told: &Value, index: usize) -> String {
    let names: Vec<&str> =
        ["target", "case", "metric"].iter().filter_map(|name| told[*name].as_str()).collect();
    if names.is_empty() { index.to_string() } else { names.join(":") }
}

fn is_same(told: &Value, computed: &Value) -> bool {
    match (told.as_f64(), computed.as_f64()) {
        (Some(told), Some(computed)) => (told - computed).abs() <= ROUNDING * told.abs().max(computed.abs()),
        _ => told == computed,
    }
}
