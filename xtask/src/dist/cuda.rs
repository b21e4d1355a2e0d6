//! The wheel `firepot-cuda`: one library, which llama.cpp loads where the NVIDIA driver is.
//!
//! cudart and cublas are linked into it, with machine code for the shipped architectures only: a notebook may have CUDA 12 or 13, or
//! none, and all that is asked of it is a driver. It is built with the oldest toolkit that knows the cards, since a driver runs what older
//! toolkits built ("CUDA Compatibility", NVIDIA), and nothing depends on PTX.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use firepot_store::write_atomic;
use serde_json::json;

use super::{Args, Built, elf, empty, output_of, proof, run_tool, tool, wheels};

/// What was built.
#[derive(Debug)]
pub struct Cuda {
    pub wheel: PathBuf,
    pub library: PathBuf,
    /// Version of the toolkit.
    pub toolkit: String,
    /// Oldest driver.
    pub driver_min: String,
    /// What the library is made of, as Markdown.
    pub breakdown: String,
    /// How many pieces of machine code it has for each architecture.
    pub machine_code: String,
}

/// Oldest Linux driver for programs of a toolkit's major version, by "CUDA Compatibility", table of minor version compatibility.
const DRIVERS: [(&str, &str); 3] = [("11", "450.80.02"), ("12", "525.60.13"), ("13", "580.65.06")];

/// Static libraries of the toolkit that come along, without what is for other architectures.
const STATIC: [&str; 2] = ["cublas_static", "cublasLt_static"];

/// Builds it, to lie beside the `known` libraries of the first wheel.
///
/// # Errors
/// When the toolkit is missing or fails, or the library needs more than it may.
pub fn build(built: &Built, known: &BTreeSet<String>, target: &Path, args: &Args) -> anyhow::Result<Cuda> {
    let dir = target.join("cuda");
    fs::create_dir_all(&dir)?;
    let toolkit = toolkit()?;
    let driver_min = DRIVERS.iter().find(|(major, _)| toolkit.starts_with(&format!("{major}.")));
    let driver_min =
        driver_min.with_context(|| format!("no driver is known for CUDA {toolkit}"))?.1.to_owned();
    let archives = STATIC.iter().map(|name| prune(name, &dir, args)).collect::<Result<Vec<_>, _>>()?;
    compile(&built.source()?, &dir, &archives, args)?;
    let data = dir.join("wheel");
    let library = lay_out(&dir, &data, &toolkit, &driver_min, args)?;
    proof::check(&library, known)?;
    let wheel = pack(&data, &args.out)?;
    let (breakdown, machine_code) = (breakdown(&dir, &archives, &library)?, machine_code(&library)?);
    Ok(Cuda { wheel, library, toolkit, driver_min, breakdown, machine_code })
}

fn toolkit() -> anyhow::Result<String> {
    let said = output_of("nvcc", &["--version"])
        .context("a CUDA toolkit is needed: apt install nvidia-cuda-toolkit g++-11 (Debian non-free)")?;
    let version = said.split("release ").nth(1).and_then(|rest| rest.split([',', ' ']).next());
    Ok(version.context("nvcc tells no version")?.to_owned())
}

/// A copy of a static library without what is for other architectures.
fn prune(name: &str, dir: &Path, args: &Args) -> anyhow::Result<PathBuf> {
    let file = format!("lib{name}.a");
    let found = archive(&file, args)?;
    let pruned = dir.join(&file);
    if !pruned.exists() {
        let mut command = Command::new("nvprune");
        for architecture in &args.architectures {
            command.arg(format!("-gencode=arch=compute_{architecture},code=sm_{architecture}"));
        }
        run_tool(command.arg(found).arg("-o").arg(&pruned))?;
    }
    Ok(pruned)
}

fn compile(source: &Path, dir: &Path, archives: &[PathBuf], args: &Args) -> anyhow::Result<()> {
    let [cublas, cublas_lt] = archives else { anyhow::bail!("two libraries are linked") };
    let real: Vec<String> = args.architectures.iter().map(|arch| format!("{arch}-real")).collect();
    // culibos is what both of NVIDIA's libraries need; what comes first on the line is taken whole or not at all.
    let culibos = archive("libculibos.a", args)?;
    let linked =
        format!("-Wl,--whole-archive {} -Wl,--no-whole-archive -Wl,--exclude-libs,ALL", culibos.display());
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(source).arg("-B").arg(dir.join("build"));
    for (name, value) in [
        ("CMAKE_BUILD_TYPE", "Release"),
        ("BUILD_SHARED_LIBS", "ON"),
        ("GGML_BACKEND_DL", "ON"),
        ("GGML_CUDA", "ON"),
        ("GGML_NATIVE", "OFF"),
        ("GGML_CPU", "OFF"),
        ("GGML_CUDA_NCCL", "OFF"),
        ("LLAMA_BUILD_COMMON", "OFF"),
        ("LLAMA_BUILD_TESTS", "OFF"),
        ("LLAMA_BUILD_EXAMPLES", "OFF"),
        ("LLAMA_BUILD_TOOLS", "OFF"),
        ("LLAMA_BUILD_SERVER", "OFF"),
        ("LLAMA_BUILD_APP", "OFF"),
        ("CMAKE_CUDA_RUNTIME_LIBRARY", "Static"),
        ("CMAKE_CUDA_FLAGS", "-Xfatbin=-compress-all"),
        ("CMAKE_CUDA_ARCHITECTURES", &real.join(";")),
        ("CUDA_cudart_LIBRARY", &archive("libcudart_static.a", args)?.to_string_lossy()),
        ("CUDA_cublas_LIBRARY", &cublas.to_string_lossy()),
        ("CUDA_cublasLt_LIBRARY", &cublas_lt.to_string_lossy()),
        ("CMAKE_MODULE_LINKER_FLAGS", &linked),
        ("CMAKE_BUILD_WITH_INSTALL_RPATH", "ON"),
        ("CMAKE_INSTALL_RPATH", "$ORIGIN"),
    ] {
        configure.arg(format!("-D{name}={value}"));
    }
    // Debian's toolkit 11.8 wants a host compiler no newer than 11.
    if Path::new("/usr/bin/g++-11").exists() {
        configure.arg("-DCMAKE_CUDA_HOST_COMPILER=/usr/bin/g++-11");
    }
    run_tool(&mut configure)?;
    let jobs = std::thread::available_parallelism()?.to_string();
    run_tool(Command::new("cmake").arg("--build").arg(dir.join("build")).args([
        "--target",
        "ggml-cuda",
        "-j",
        &jobs,
    ]))
}

/// A static library of the toolkit.
fn archive(file: &str, args: &Args) -> anyhow::Result<PathBuf> {
    let places = [Path::new("/usr/lib/x86_64-linux-gnu").join(file), args.cuda_home.join("lib64").join(file)];
    places.into_iter().find(|path| path.is_file()).with_context(|| format!("{file} is not here"))
}

/// The wheel as a folder: the library, what it is for, and the metadata that a wheel has.
fn lay_out(dir: &Path, data: &Path, toolkit: &str, driver_min: &str, args: &Args) -> anyhow::Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    empty(data)?;
    let libraries = data.join(format!("firepot_cuda-{version}.data/data/lib/firepot"));
    let info = data.join(format!("firepot_cuda-{version}.dist-info"));
    fs::create_dir_all(&libraries)?;
    fs::create_dir_all(&info)?;
    let library = libraries.join("libggml-cuda.so");
    let made = find_library(&dir.join("build"))?;
    fs::copy(made, &library)?;
    run_tool(Command::new("strip").arg("--strip-unneeded").arg(&library))?;
    let about = json!({ "toolkit": toolkit, "architectures": args.architectures, "driver_min": driver_min });
    write_atomic(&libraries.join("cuda.json"), &serde_json::to_vec_pretty(&about)?)?;
    let metadata = format!(
        "Metadata-Version: 2.1\nName: firepot-cuda\nVersion: {version}\nSummary: llama.cpp's CUDA library for Firepot\nLicense: MIT OR Apache-2.0, and NVIDIA's CUDA Toolkit EULA for what it has of cudart and cublas\nRequires-Python: >=3.10\nRequires-Dist: firepot (=={version})\n"
    );
    write_atomic(&info.join("METADATA"), metadata.as_bytes())?;
    let tag = "Wheel-Version: 1.0\nGenerator: firepot-xtask\nRoot-Is-Purelib: false\nTag: py3-none-manylinux_2_35_x86_64\n";
    write_atomic(&info.join("WHEEL"), tag.as_bytes())?;
    Ok(library)
}

fn find_library(build: &Path) -> anyhow::Result<PathBuf> {
    let places = ["bin/libggml-cuda.so", "src/ggml-cuda/libggml-cuda.so", "src/libggml-cuda.so"];
    let found = places.iter().map(|place| build.join(place)).find(|path| path.is_file());
    found.context("the build left no libggml-cuda.so")
}

fn pack(data: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    for old in wheels(out, "firepot_cuda-")? {
        fs::remove_file(old)?;
    }
    run_tool(Command::new(tool("python")).args(["-m", "wheel", "pack"]).arg(data).arg("-d").arg(out))?;
    wheels(out, "firepot_cuda-")?.pop().context("no wheel was packed")
}

fn breakdown(dir: &Path, archives: &[PathBuf], library: &Path) -> anyhow::Result<String> {
    let size = |path: &Path| proof::megabytes(path.metadata().map_or(0, |metadata| metadata.len()));
    let sections = output_of("size", &["-A", "-d", &library.to_string_lossy()])?;
    let fatbin: u64 = sections
        .lines()
        .filter(|line| line.contains("nv_fatbin"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    let objects = objects(&dir.join("build"))?;
    let mut rows = vec![
        ("the library, stripped".to_owned(), size(library)),
        ("of it code for GPUs".to_owned(), proof::megabytes(fatbin)),
        ("llama.cpp's kernels and their host code, before linking".to_owned(), proof::megabytes(objects)),
    ];
    for path in archives {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        rows.push((format!("{name}, pruned; linked as far as it is used"), size(path)));
    }
    let rows: Vec<String> = rows.into_iter().map(|(what, size)| format!("| {what} | {size} |")).collect();
    Ok(format!("| part | size |\n|---|---|\n{}\n", rows.join("\n")))
}

fn objects(build: &Path) -> anyhow::Result<u64> {
    let listed = output_of(
        "find",
        &[&build.to_string_lossy(), "-name", "*.o", "-path", "*ggml-cuda*", "-printf", "%s\n"],
    )?;
    Ok(listed.lines().filter_map(|line| line.parse::<u64>().ok()).sum())
}

fn machine_code(library: &Path) -> anyhow::Result<String> {
    let count = |option: &str| -> anyhow::Result<BTreeMap<String, u32>> {
        let listed = output_of("cuobjdump", &[option, &library.to_string_lossy()])?;
        let mut found = BTreeMap::new();
        for line in listed.lines() {
            for word in
                line.split(['.', ' ']).filter(|word| word.starts_with("sm_") || word.starts_with("compute_"))
            {
                *found.entry(word.to_owned()).or_default() += 1;
            }
        }
        Ok(found)
    };
    let (machine, virtual_code) = (count("--list-elf")?, count("--list-ptx").unwrap_or_default());
    ensure!(!machine.is_empty(), "the library has no machine code");
    let needs = elf::Needs::of(library)?;
    Ok(format!("machine code: {machine:?}\nPTX: {virtual_code:?}\nneeds: {:?}", needs.libraries))
}
