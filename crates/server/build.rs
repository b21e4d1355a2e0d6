#![expect(
    clippy::disallowed_methods,
    reason = "a build script gets its folders by the environment and writes into them"
)]
#![expect(clippy::unnecessary_debug_formatting, reason = "paths become string literals of Rust code")]
//! Puts the built page (`web/dist`, made by `make build`) into the crate: writes a table of its files. Without one the
//! table is empty, so that the server compiles and is tested without Node.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

const DIST: &str = "../../web/dist";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={DIST}");
    let dist = Path::new(&variable("CARGO_MANIFEST_DIR")?).join(DIST);
    let mut paths = Vec::new();
    if dist.is_dir() {
        collect(&dist, &mut paths)?;
    }
    paths.sort();
    let mut table = String::from("pub static FILES: &[File] = &[\n");
    for path in paths.iter().filter(|path| path.extension().is_none_or(|extension| extension != "gz")) {
        let zipped = path.with_added_extension("gz");
        let gzip = if paths.contains(&zipped) {
            format!("Some(include_bytes!({zipped:?}))")
        } else {
            "None".to_owned()
        };
        let address = path.strip_prefix(&dist).map_err(io::Error::other)?.display();
        writeln!(
            table,
            "    File {{ path: \"/{address}\", bytes: include_bytes!({path:?}), gzip: {gzip} }},"
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    fs::write(Path::new(&variable("OUT_DIR")?).join("page_files.rs"), table)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(io::Error::other)
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, paths)? } else { paths.push(path) }
    }
    Ok(())
}
