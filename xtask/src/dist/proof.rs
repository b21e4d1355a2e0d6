//! Proof that the wheels run where they say: what every file in them needs, against what may be there.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use firepot_store::write_atomic;

use super::{cuda::Cuda, elf::Needs, output_of, tool};

/// Newest versions that `manylinux_2_35` has (Ubuntu 22.04, which Kaggle's image is made of).
const NEWEST: [(&str, [u32; 3]); 2] = [("GLIBC", [2, 35, 0]), ("GLIBCXX", [3, 4, 30])];
/// Libraries that every such system has.
const SYSTEM: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "ld-linux-x86-64.so.2", "libdl.so.2"];
/// Libraries of the NVIDIA driver.
const DRIVER: [&str; 1] = ["libcuda.so.1"];

const OUT: &str = "docs/wheel.md";

/// Names of files.
pub fn names(files: &[PathBuf]) -> BTreeSet<String> {
    files.iter().map(|path| name(path)).collect()
}

/// Fails when a file needs what may not be there: what neither the wheel, the system nor the driver has.
///
/// # Errors
/// Names the file and what it needs.
pub fn check(path: &Path, own: &BTreeSet<String>) -> anyhow::Result<()> {
    let needs = Needs::of(path)?;
    for library in &needs.libraries {
        let known =
            own.contains(library) || SYSTEM.contains(&library.as_str()) || DRIVER.contains(&library.as_str());
        ensure!(known, "{} needs {library}, which is not in the wheel", name(path));
    }
    for (family, newest) in NEWEST {
        let needed = needs.newest(family).unwrap_or_default();
        ensure!(needed <= newest.as_slice(), "{} needs {family} {needed:?}", name(path));
    }
    Ok(())
}

/// Writes what was found to docs/wheel.md.
///
/// # Errors
/// When a tool fails or the file cannot be written.
pub fn write(wheel: &Path, program: &Path, libraries: &[PathBuf], cuda: Option<&Cuda>) -> anyhow::Result<()> {
    let mut text = String::from("# What the wheels need\n\nWritten by `cargo xtask dist --write`.\n\n");
    let installed: u64 = libraries.iter().map(PathBuf::as_path).chain([program]).map(bytes).sum();
    writeln!(
        text,
        "`{}`: {} packed, {} installed (program and libraries).\n",
        name(wheel),
        megabytes(bytes(wheel)),
        megabytes(installed)
    )?;
    text.push_str("| file | size | needs | newest symbols |\n|---|---|---|---|\n");
    for path in [program].into_iter().chain(libraries.iter().map(PathBuf::as_path)) {
        row(&mut text, path)?;
    }
    section(&mut text, "auditwheel show", &audit(wheel)?)?;
    if let Some(cuda) = cuda {
        writeln!(
            text,
            "\n## The CUDA library\n\nCompiled, and not run by what wrote this. `{}`: {} packed. CUDA {}; drivers from {} on.\n",
            name(&cuda.wheel),
            megabytes(bytes(&cuda.wheel)),
            cuda.toolkit,
            cuda.driver_min
        )?;
        text.push_str("| file | size | needs | newest symbols |\n|---|---|---|---|\n");
        row(&mut text, &cuda.library)?;
        text.push('\n');
        text.push_str(&cuda.breakdown);
        section(&mut text, "cuobjdump --list-elf, counted by architecture", &cuda.machine_code)?;
        section(&mut text, "readelf -d", &output_of("readelf", &["-d", &cuda.library.to_string_lossy()])?)?;
    }
    write_atomic(Path::new(OUT), text.as_bytes())?;
    println!("{OUT}");
    Ok(())
}

fn row(text: &mut String, path: &Path) -> anyhow::Result<()> {
    let needs = Needs::of(path)?;
    let libraries: Vec<&str> = needs.libraries.iter().map(String::as_str).collect();
    let shown = |version: &[u32]| version.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    let versions: Vec<String> =
        needs.versions.iter().map(|(family, version)| format!("{family} {}", shown(version))).collect();
    writeln!(
        text,
        "| {} | {} | {} | {} |",
        name(path),
        megabytes(bytes(path)),
        libraries.join(", "),
        versions.join(", ")
    )?;
    Ok(())
}

fn section(text: &mut String, title: &str, body: &str) -> anyhow::Result<()> {
    Ok(write!(text, "\n### {title}\n\n```\n{}\n```\n", body.trim())?)
}

fn audit(wheel: &Path) -> anyhow::Result<String> {
    output_of(&tool("auditwheel").to_string_lossy(), &["show", &wheel.to_string_lossy()])
}

fn bytes(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
