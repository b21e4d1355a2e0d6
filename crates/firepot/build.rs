//! Lets the program say what it was built from: commit, whether files had changed since, target, profile, features.
//!
//! Without Git, or outside a checkout, nothing is set, and the program says that it does not know.

use std::{env, process::Command};

fn main() {
    for path in ["HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", path]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=..");
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=FIREPOT_COMMIT={commit}");
        let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
        if let Some(changed) = changed {
            println!("cargo::rustc-env=FIREPOT_DIRTY={}", !changed.is_empty());
        }
    }
    let built_in = |name: &&str| variable(&format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some();
    let features: Vec<&str> = ["cuda", "vulkan"].into_iter().filter(built_in).collect();
    let of = |name: &str| variable(name).unwrap_or_default();
    println!("cargo::rustc-env=FIREPOT_BUILD_TARGET={}", of("TARGET"));
    println!("cargo::rustc-env=FIREPOT_BUILD_PROFILE={} opt-level {}", of("PROFILE"), of("OPT_LEVEL"));
    println!("cargo::rustc-env=FIREPOT_BUILD_FEATURES={}", features.join(","));
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

#[expect(clippy::disallowed_methods, reason = "how Cargo speaks to a build script")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}
