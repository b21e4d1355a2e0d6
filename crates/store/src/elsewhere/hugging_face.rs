//! A Hugging Face hub cache: `models--USER--REPO/snapshots/REVISION/FILE.gguf`, where a file is a link to
//! `blobs/SHA256`. What `refs/main` names is the revision that counts, else the youngest.
//!
//! Each quantization of a repository is a model, `hf.co/USER/REPO:QUANT`; the files of a split one are taken together.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    Defaults, Digest, Home, ImportError, Model, ModelName, ModelSummary, Models, Origin, Placement,
    StoreError,
    file_name::{quantization_of, split_of, strip_gguf},
    limits::{HUB_DEPTH_MAX, HUB_FILES_MAX},
    load::modified_at,
    name::HUGGING_FACE,
    placing::{Placed, Source},
};

/// The quantization that a name without one means, where the repository has it; as the hub itself chooses.
const PREFERRED: &str = "Q4_K_M";

/// A repository in the cache.
struct Repository {
    user: String,
    name: String,
    path: PathBuf,
}

/// Files of one model, in their order.
type Files = Vec<PathBuf>;

/// Every model that can be used.
pub fn all(home: &Home, root: &Path) -> Vec<Model> {
    repositories(root).iter().flat_map(|repository| repository.models(home)).collect()
}

/// The model of this name, if it can be used. Without a tag it is the preferred quantization, or the only one.
pub fn find(home: &Home, root: &Path, name: &ModelName) -> Option<Model> {
    let is_hub = name.host().eq_ignore_ascii_case(HUGGING_FACE);
    let meant = |repository: &Repository| {
        repository.user.eq_ignore_ascii_case(name.namespace())
            && repository.name.eq_ignore_ascii_case(name.model())
    };
    let repository = repositories(root).into_iter().find(|repository| is_hub && meant(repository))?;
    let mut models = repository.models(home);
    let tagged = |tag: &str| models.iter().position(|model| model.name.tag().eq_ignore_ascii_case(tag));
    let found = tagged(name.tag()).or_else(|| {
        let any = name.tag() == "latest";
        any.then(|| tagged(PREFERRED).or_else(|| (models.len() == 1).then_some(0))).flatten()
    })?;
    Some(models.swap_remove(found))
}

/// Takes a model into our store.
pub fn adopt(models: Models<'_>, model: &Model) -> Result<(), ImportError> {
    let home = models.home();
    let mut blobs = Vec::new();
    let files = std::iter::once(&model.blob_path).chain(&model.shards).chain(&model.projector);
    for path in files {
        // A blob that nobody names yet is spared for an hour, and the next ones may take their time to be hashed.
        blobs.push(Placed::obtain(home, &mut Source::open(path)?, Placement::LinkOrCopy, &mut |_| {})?.blob);
        for blob in &blobs {
            let _ = home.has_blob(&blob.digest);
        }
    }
    models.install_files(&model.name, &blobs, &model.defaults).map(drop)
}

fn repositories(root: &Path) -> Vec<Repository> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let parse = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let (user, name) = name.strip_prefix("models--")?.split_once("--")?;
        Some(Repository { user: user.to_owned(), name: name.to_owned(), path: entry.path() })
    };
    let mut found: Vec<_> = entries.filter_map(parse).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Repository {
    fn models(&self, home: &Home) -> Vec<Model> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let mut files = Vec::new();
        gather(&snapshot, 0, &mut files);
        files.sort();
        let (projectors, weights): (Vec<_>, Vec<_>) = files.into_iter().partition(|path| is_projector(path));
        let projector = projectors.first();
        let groups = group(weights).into_iter();
        groups.filter_map(|(tag, files)| self.model(home, &tag, &files, projector).ok()?).collect()
    }

    /// The revision that counts.
    fn snapshot(&self) -> Option<PathBuf> {
        let snapshots = self.path.join("snapshots");
        let main = fs::read_to_string(self.path.join("refs/main")).unwrap_or_default();
        let revision = main.trim();
        let named = snapshots.join(revision);
        let plain = !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if plain && named.is_dir() {
            return Some(named);
        }
        let dirs =
            fs::read_dir(snapshots).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        dirs.max_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
    }

    fn model(
        &self,
        home: &Home,
        tag: &str,
        files: &Files,
        projector: Option<&PathBuf>,
    ) -> Result<Option<Model>, StoreError> {
        let Ok(name) = ModelName::from_parts(HUGGING_FACE, &self.user, &self.name, tag) else {
            return Ok(None);
        };
        let Some(first) = files.first() else { return Ok(None) };
        let digests = files.iter().map(|path| digest_of(path)).collect::<Result<Vec<_>, _>>()?;
        let Ok(summary) = ModelSummary::stored(home, Path::new(""), &digests[0], files) else {
            return Ok(None);
        };
        let mut size_bytes = 0;
        for path in files.iter().chain(projector) {
            size_bytes += fs::metadata(path).map_err(|error| StoreError::io("read", path, error))?.len();
        }
        let together: Vec<String> = digests.iter().map(ToString::to_string).collect();
        Ok(Some(Model {
            name,
            digest: digests[0],
            manifest_digest: Digest::of(together.join("\n").as_bytes()),
            size_bytes,
            modified_at: modified_at(first)?,
            blob_path: first.clone(),
            shards: files[1..].to_vec(),
            projector: projector.cloned(),
            summary,
            defaults: Defaults::default(),
            origin: Origin::HuggingFaceCache,
        }))
    }
}

fn gather(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if files.len() >= HUB_FILES_MAX {
            return;
        }
        if path.is_dir() && depth < HUB_DEPTH_MAX {
            gather(&path, depth + 1, files);
        } else if is_gguf(&path) && path.is_file() {
            files.push(path);
        }
    }
}

/// Files by the tag of their model; split models that lack one are left out. `files` are in order.
fn group(files: Vec<PathBuf>) -> BTreeMap<String, Files> {
    let mut whole: BTreeMap<PathBuf, (u32, Files)> = BTreeMap::new();
    for path in files {
        let stem = stem(&path).to_owned();
        let (name, count) = split_of(&stem).map_or((&*stem, 1), |(name, _, count)| (name, count));
        whole.entry(path.with_file_name(name)).or_insert_with(|| (count, Vec::new())).1.push(path);
    }
    let mut groups = BTreeMap::new();
    for (name, (count, files)) in whole {
        let stem = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if files.len() != count as usize {
            continue;
        }
        let short = quantization_of(&stem).unwrap_or(&stem).to_owned();
        let tag = if groups.contains_key(&short) { stem } else { short };
        groups.entry(tag).or_insert(files);
    }
    groups
}

/// A file of the hub's large storage is a link to a file that is named by its digest. Of others the place, size and
/// time stand for the content.
fn digest_of(path: &Path) -> Result<Digest, StoreError> {
    let failed = |error| StoreError::io("read", path, error);
    let target = fs::canonicalize(path).map_err(failed)?;
    let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(digest) = Digest::from_file_name(&format!("sha256-{name}")) {
        return Ok(digest);
    }
    let metadata = fs::metadata(&target).map_err(failed)?;
    let place =
        format!("{}\n{}\n{}.{}", target.display(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    Ok(Digest::of(place.as_bytes()))
}

fn stem(path: &Path) -> &str {
    strip_gguf(path.file_name().and_then(|name| name.to_str()).unwrap_or_default())
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

fn is_projector(path: &Path) -> bool {
    stem(path).to_ascii_lowercase().contains("mmproj")
}
