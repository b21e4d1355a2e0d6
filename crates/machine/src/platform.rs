//! Whose ground this is: a notebook service, a container, WSL2, or a machine of one's own.

use serde::{Deserialize, Serialize};

use crate::{Environment, Reading, SessionLimit, limits::PYTHONS_MAX, reading::NOT_LOOKED_AT, tree::Tree};

/// Kinds of ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformKind {
    /// A Kaggle notebook.
    Kaggle,
    /// A Google Colab runtime.
    Colab,
    /// A container of another kind.
    Container,
    /// Linux on Windows.
    Wsl2,
    /// None of these.
    Bare,
}

/// The ground and how it was recognized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// What it is.
    pub kind: PlatformKind,
    /// What showed it.
    pub evidence: String,
    /// How long a session lasts here.
    pub session: Reading<SessionLimit>,
}

/// Words in `/proc/self/cgroup` that only container runtimes put there.
const CONTAINER_GROUPS: [&str; 5] = ["/docker", "kubepods", "containerd", "/lxc/", "libpod"];

impl Platform {
    pub(crate) fn probe(tree: &Tree, environment: &Environment) -> Self {
        let found = Self::recognize(tree, environment);
        Self { session: SessionLimit::probe(tree, found.kind), ..found }
    }

    /// Ground of a kind, and why it is thought so; its sessions are not looked at.
    #[must_use]
    pub fn of(kind: PlatformKind, evidence: &str) -> Self {
        Self { kind, evidence: evidence.to_owned(), session: Reading::absent(NOT_LOOKED_AT) }
    }

    fn recognize(tree: &Tree, environment: &Environment) -> Self {
        let clues: [(PlatformKind, Option<String>); 4] = [
            (PlatformKind::Kaggle, kaggle(tree, environment)),
            (PlatformKind::Colab, colab(tree, environment)),
            (PlatformKind::Container, container(tree)),
            (PlatformKind::Wsl2, wsl2(tree)),
        ];
        let found = clues.into_iter().find_map(|(kind, clue)| Some(Self::of(kind, &clue?)));
        found.unwrap_or_else(|| Self::of(PlatformKind::Bare, "no sign of a notebook, a container or WSL2"))
    }
}

fn kaggle(tree: &Tree, environment: &Environment) -> Option<String> {
    let by_variable = environment.kaggle_kernel_run_type.as_ref();
    let variable = by_variable.map(|value| format!("KAGGLE_KERNEL_RUN_TYPE is {value}"));
    variable.or_else(|| exists(tree, "/kaggle/working"))
}

/// `/content` alone is too common a name to mean Colab.
fn colab(tree: &Tree, environment: &Environment) -> Option<String> {
    let by_variable = environment.colab_release_tag.as_ref();
    let variable = by_variable.map(|value| format!("COLAB_RELEASE_TAG is {value}"));
    variable.or_else(|| exists(tree, "/content").and_then(|_| colab_package(tree)))
}

/// The `google.colab` Python package, wherever Python keeps it.
fn colab_package(tree: &Tree) -> Option<String> {
    let versions = tree.names("/usr/local/lib", PYTHONS_MAX);
    versions
        .iter()
        .find_map(|version| exists(tree, &format!("/usr/local/lib/{version}/dist-packages/google/colab")))
}

fn container(tree: &Tree) -> Option<String> {
    let marker = exists(tree, "/.dockerenv").or_else(|| exists(tree, "/run/.containerenv"));
    marker.or_else(|| {
        let groups = tree.optional("/proc/self/cgroup")?;
        let word = CONTAINER_GROUPS.into_iter().find(|word| groups.contains(word))?;
        Some(format!("/proc/self/cgroup contains {word}"))
    })
}

fn wsl2(tree: &Tree) -> Option<String> {
    let version = tree.optional("/proc/version")?.to_lowercase();
    version.contains("microsoft").then(|| "/proc/version names Microsoft".to_owned())
}

fn exists(tree: &Tree, path: &str) -> Option<String> {
    tree.exists(path).then(|| format!("{path} exists"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fake::FakeTree;

    const LINUX: &str = "Linux version 6.18.44 (builder@host) (gcc 15) #1 SMP\n";
    const WSL: &str = "Linux version 5.15.167.4-microsoft-standard-WSL2 (root@host) #1 SMP\n";

    fn check(files: &[(&str, &str)], environment: &Environment, kind: PlatformKind, evidence: &str) {
        let found = Platform::probe(&FakeTree::new(files).tree(), environment);
        assert_eq!((found.kind, found.evidence.as_str()), (kind, evidence));
    }

    #[test]
    fn a_notebook_is_known_by_its_variable_or_its_directories() {
        let kaggle =
            Environment { kaggle_kernel_run_type: Some("Interactive".to_owned()), ..Environment::default() };
        let colab = Environment { colab_release_tag: Some("release-1".to_owned()), ..Environment::default() };
        let none = Environment::default();
        check(&[], &kaggle, PlatformKind::Kaggle, "KAGGLE_KERNEL_RUN_TYPE is Interactive");
        check(&[("kaggle/working/x", "")], &none, PlatformKind::Kaggle, "/kaggle/working exists");
        check(&[(".dockerenv", "")], &colab, PlatformKind::Colab, "COLAB_RELEASE_TAG is release-1");
        let files = [("content/x", ""), ("usr/local/lib/python3.13/dist-packages/google/colab/y", "")];
        let evidence = "/usr/local/lib/python3.13/dist-packages/google/colab exists";
        check(&files, &none, PlatformKind::Colab, evidence);
    }

    #[test]
    fn a_content_directory_alone_is_no_notebook() {
        let evidence = "no sign of a notebook, a container or WSL2";
        check(&[("content/x", "")], &Environment::default(), PlatformKind::Bare, evidence);
    }

    #[test]
    fn containers_and_wsl_are_told_from_bare_machines() {
        let none = Environment::default();
        check(&[(".dockerenv", "")], &none, PlatformKind::Container, "/.dockerenv exists");
        check(&[("run/.containerenv", "")], &none, PlatformKind::Container, "/run/.containerenv exists");
        let groups = [("proc/self/cgroup", "0::/kubepods/besteffort/pod1\n")];
        check(&groups, &none, PlatformKind::Container, "/proc/self/cgroup contains kubepods");
        check(&[("proc/version", WSL)], &none, PlatformKind::Wsl2, "/proc/version names Microsoft");
        let bare = [("proc/version", LINUX), ("proc/self/cgroup", "0::/user.slice\n")];
        check(&bare, &none, PlatformKind::Bare, "no sign of a notebook, a container or WSL2");
    }
}
