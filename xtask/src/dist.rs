//! The wheels: `firepot`, with llama.cpp's libraries for every level of x86-64, and `firepot-cuda`, with the one for NVIDIA's GPUs.
//!
//! A wheel's `data` folder is installed over Python's prefix: the program into `bin`, the libraries into `lib/firepot`, where the program
//! looks for them. So the second wheel adds a file beside those of the first, and nothing else.

mod cuda;
mod elf;
mod proof;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

/// Where maturin takes the libraries from.
const DATA: &str = "python/firepot.data";
/// Claims that come with the Python package.
const CLAIMS: &str = "python/firepot/claims";
/// Where the program looks for llama.cpp's libraries, seen from its folder.
const RUNPATH: &str = "$ORIGIN/../lib/firepot";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the wheels go.
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Build the CUDA library's wheel too; it wants a CUDA toolkit.
    #[arg(long)]
    cuda: bool,
    /// Compute capabilities that it has machine code for.
    #[arg(long, value_name = "LIST", default_value = "75", value_delimiter = ',')]
    architectures: Vec<String>,
    /// Where the toolkit is, but for Debian's, whose libraries lie with all others.
    #[arg(long, value_name = "DIR", default_value = "/usr/local/cuda")]
    cuda_home: PathBuf,
    /// Write what the wheels need and how large they are to docs/wheel.md.
    #[arg(long)]
    write: bool,
}

/// Builds the wheels.
///
/// # Errors
/// When a tool is missing or fails, or a wheel needs more than it may.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let target = target();
    fs::create_dir_all(&args.out)?;
    remove_dangling(&target)?;
    // The program has the page in it.
    run_tool(&mut Command::new("scripts/web.sh"))?;
    cargo(&target, &["build", "--release", "--package", "firepot", "--features", "portable"])?;
    let built = Built::find(&target)?;
    let libraries = built.lay_out(&Path::new(DATA).join("data/lib/firepot"))?;
    copy_claims()?;
    let wheel = maturin(&target, &args.out)?;
    println!("{}", wheel.display());
    let program = target.join("release/firepot");
    let known = proof::names(&libraries);
    for file in libraries.iter().chain([&program]) {
        proof::check(file, &known)?;
    }
    let cuda = if args.cuda { Some(cuda::build(&built, &known, &target, args)?) } else { None };
    if let Some(cuda) = &cuda {
        println!("{}", cuda.wheel.display());
    }
    if args.write { proof::write(&wheel, &program, &libraries, cuda.as_ref()) } else { Ok(()) }
}

/// A target folder of its own: the flags are others than those of a build for this machine.
fn target() -> PathBuf {
    target_dir().join("portable")
}

/// Where Cargo builds, as an absolute path.
#[expect(clippy::disallowed_methods, reason = "Cargo's own variable")]
fn target_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    std::path::absolute(&target).unwrap_or(target)
}

fn with_flags<'a>(command: &'a mut Command, target: &Path) -> &'a mut Command {
    command
        .env("CARGO_TARGET_DIR", target)
        // In place of `target-cpu=native`.
        .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{RUNPATH}"))
        // llama.cpp's own downloads would use it.
        .env("CMAKE_DISABLE_FIND_PACKAGE_OpenSSL", "ON")
        .env("CMAKE_BUILD_WITH_INSTALL_RPATH", "ON")
        .env("CMAKE_INSTALL_RPATH", "$ORIGIN")
}

/// Removes links to libraries that lead nowhere: `llama-cpp-sys-2` leaves such beside Cargo's own files, and fails over them when it runs again.
fn remove_dangling(target: &Path) -> anyhow::Result<()> {
    for folder in ["release", "release/deps", "release/examples"] {
        for entry in fs::read_dir(target.join(folder)).into_iter().flatten() {
            let path = entry?.path();
            if path.is_symlink() && !path.exists() {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

fn cargo(target: &Path, args: &[&str]) -> anyhow::Result<()> {
    run_tool(with_flags(Command::new("cargo").args(args), target))
}

fn maturin(target: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let out = fs::canonicalize(out)?;
    for old in wheels(&out, "firepot-")? {
        fs::remove_file(old)?;
    }
    let mut command = Command::new(tool("maturin"));
    command.args(["build", "--release", "--out"]).arg(&out).current_dir("python");
    run_tool(with_flags(&mut command, target))?;
    wheels(&out, "firepot-")?.pop().context("maturin made no wheel")
}

/// Wheels of a folder whose names begin so.
///
/// # Errors
/// When it cannot be listed.
pub fn wheels(dir: &Path, prefix: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.filter_map(Result::ok).map(|entry| entry.path());
    Ok(entries
        .filter(|path| path.extension().is_some_and(|end| end == "whl"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect())
}

/// A Python tool of the environment that `scripts/setup.sh wheel` made, else one in the path.
fn tool(name: &str) -> PathBuf {
    let own = target_dir().join("wheel-venv/bin").join(name);
    if own.exists() { own } else { PathBuf::from(name) }
}

fn run_tool(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status =
        command.status().with_context(|| format!("{name} cannot be started: scripts/setup.sh wheel"))?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

/// Makes a folder anew.
fn empty(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}

/// What a tool prints.
fn output_of(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn copy_claims() -> anyhow::Result<()> {
    fs::create_dir_all(CLAIMS)?;
    for name in ["kaggle-t4x2.toml", "cpu-smollm2.toml"] {
        fs::copy(Path::new("deployment/claims").join(name), Path::new(CLAIMS).join(name))?;
    }
    Ok(())
}

/// What `llama-cpp-sys-2` built.
struct Built {
    out: PathBuf,
}

impl Built {
    fn find(target: &Path) -> anyhow::Result<Self> {
        let builds = fs::read_dir(target.join("release/build"))?.filter_map(Result::ok);
        let outs = builds
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("llama-cpp-sys-2-"))
            .map(|entry| entry.path().join("out"))
            .filter(|out| out.join("backends").is_dir());
        let newest = outs.max_by_key(|out| out.metadata().and_then(|metadata| metadata.modified()).ok());
        Ok(Self { out: newest.context("llama-cpp-sys-2 left no libraries")? })
    }

    /// llama.cpp's source.
    fn source(&self) -> anyhow::Result<PathBuf> {
        let cache = fs::read_to_string(self.out.join("build/CMakeCache.txt"))?;
        let place = cache.lines().find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
        Ok(place.context("a CMake cache names its source")?.into())
    }

    /// Copies the libraries into an empty folder, each under the name by which it is asked for.
    fn lay_out(&self, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
        empty(dir)?;
        let mut laid = Vec::new();
        for folder in ["lib", "backends"] {
            for entry in fs::read_dir(self.out.join(folder))? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_symlink() || !name.contains(".so") {
                    continue;
                }
                let place = dir.join(elf::soname(&path)?.unwrap_or(name));
                fs::copy(&path, &place)?;
                run_tool(Command::new("strip").arg("--strip-unneeded").arg(&place))?;
                laid.push(place);
            }
        }
        laid.sort();
        Ok(laid)
    }
}
