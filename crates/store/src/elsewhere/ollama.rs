//! An Ollama store: manifests and blobs in the layout that ours has too.

use std::path::{Path, PathBuf};

use crate::{
    Digest, Home, ImportError, Model, ModelName, Models, Origin, Placement, StoreError,
    layers::write_blob,
    load::{Place, load},
    manifest::{Manifest, ManifestFile, bad, manifest_files, read_bounded},
    placing::{Placed, Source},
};

fn place<'a>(home: &'a Home, root: &Path) -> Place<'a> {
    Place { home, origin: Origin::Ollama, blobs: root.join("blobs") }
}

/// Every model that can be used.
pub fn all(home: &Home, root: &Path) -> Vec<Model> {
    let place = place(home, root);
    let files = manifest_files(&root.join("manifests")).unwrap_or_default();
    let load = |file: &ManifestFile| load(&place, file.name.as_ref()?, &file.path).ok();
    files.iter().filter_map(load).collect()
}

/// The model of this name, if it can be used.
pub fn find(home: &Home, root: &Path, name: &ModelName) -> Option<Model> {
    let manifests = root.join("manifests");
    let exact = manifests.join(name.manifest_path());
    if exact.is_file() {
        return load(&place(home, root), name, &exact).ok();
    }
    let files = manifest_files(&manifests).unwrap_or_default();
    let mut named = files.into_iter().filter_map(|file| Some((file.name?, file.path)));
    let (name, path) = named.find(|(stored, _)| stored.matches(name))?;
    load(&place(home, root), &name, &path).ok()
}

/// Takes a model into our store with its manifest as it is.
pub fn adopt(models: Models<'_>, model: &Model) -> Result<(), ImportError> {
    let home = models.home();
    let (blobs, path) = manifest_of(home, model)?;
    let bytes = read_bounded(&path)?;
    let (manifest, _) = Manifest::parse(&path, &bytes)?;
    let mut digests: Vec<_> = manifest.digests().collect();
    let pull = home.begin_pull(&model.name, &digests)?;
    // A text may be empty, and an empty file is no import.
    let empty = Digest::of(b"");
    if digests.contains(&empty) {
        write_blob(&home.blobs_dir(), b"")?;
        digests.retain(|digest| *digest != empty);
    }
    for digest in digests {
        let file = blobs.join(digest.file_name());
        let placed = Placed::obtain(home, &mut Source::open(&file)?, Placement::LinkOrCopy, &mut |_| {})?;
        if placed.blob.digest != digest {
            return Err(StoreError::DigestMismatch { expected: digest, actual: placed.blob.digest }.into());
        }
    }
    models.install(&model.name, &bytes)?;
    Ok(pull.done()?)
}

/// The directory of a model's blobs, and its manifest.
fn manifest_of(home: &Home, model: &Model) -> Result<(PathBuf, PathBuf), StoreError> {
    let roots = home.sources().ollama.iter();
    let places =
        roots.map(|root| (root.join("blobs"), root.join("manifests").join(model.name.manifest_path())));
    let mut places = places.filter(|(blobs, path)| model.blob_path.starts_with(blobs) && path.is_file());
    places.next().ok_or_else(|| bad(&model.blob_path, "its manifest is gone"))
}
