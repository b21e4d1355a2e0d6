//! Compiles the C++ shim against the llama.cpp that `llama-cpp-sys-2` has built.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/shim.cpp");
    // llama-cpp-sys-2 says where it installed ggml's CMake files; the headers lie beside them.
    let cmake_dir =
        env::var_os("DEP_LLAMA_GGML_CMAKE_DIR").map(PathBuf::from).expect("llama-cpp-sys-2 ran first");
    let include = cmake_dir.ancestors().nth(2).expect("<out>/lib/cmake").join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .include(include)
        .file("src/shim.cpp")
        .compile("firepot_llama_shim");
}
