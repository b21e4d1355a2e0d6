//! Compiles `shim.cpp` against the headers of the very llama.cpp that `llama-cpp-sys-2` was built from.
//!
//! `llama-cpp-sys-2` installs only llama.cpp's C headers. The C++ ones that the shim needs are in its source tree,
//! whose place `CMake` wrote into the cache beside the build.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-changed=src/shim.cpp");
    let build_dir = PathBuf::from(required("DEP_LLAMA_ROOT")).join("build");
    let source = llama_cpp_source(&build_dir);
    let mut shim = cc::Build::new();
    shim.cpp(true).std("c++17").define("NDEBUG", None).file("src/shim.cpp");
    for directory in ["include", "ggml/include", "common", "src", "vendor"] {
        shim.include(source.join(directory));
    }
    // Warnings inside llama.cpp's headers are not ours to mend.
    shim.warnings(false).compile("firepot_llama_shim");
}

fn llama_cpp_source(build_dir: &Path) -> PathBuf {
    let cache = build_dir.join("CMakeCache.txt");
    println!("cargo::rerun-if-changed={}", cache.display());
    let text = fs::read_to_string(&cache).expect("llama-cpp-sys-2 leaves its CMake cache beside its build");
    let source = text
        .lines()
        .find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="))
        .expect("a CMake cache names its source directory");
    PathBuf::from(source)
}

#[expect(clippy::disallowed_methods, reason = "how Cargo speaks to a build script")]
fn required(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name} from llama-cpp-sys-2's `links` key"))
}
