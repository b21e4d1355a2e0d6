//! Loading: what is loaded, what it takes, what is refused.

use std::{fs, io::Write, path::Path, process::Command, thread};

use firepot_engine::{Decoder, DeviceMemory, KvType, LoadSpec, PrefixCut};
use firepot_llama::{LlamaDecoder, LoadControl, LoadError, dry_run};

use crate::support::{decoder, load, model_file, refusal, spec};

fn sums(memory: &[DeviceMemory]) -> [u64; 3] {
    memory.iter().fold([0; 3], |[weights, kv, compute], device| {
        [weights + device.weights_bytes, kv + device.kv_bytes, compute + device.compute_bytes]
    })
}

#[test]
fn it_says_what_was_loaded() {
    let decoder = decoder();
    let info = decoder.info();
    assert_eq!((info.architecture.as_str(), info.ctx_train, info.vocab_size), ("llama", 8192, 49_152));
    assert_eq!((info.ctx_per_answer, info.kv_cells, info.parallel), (1024, 2048, 4));
    assert_eq!((info.batch_tokens, info.max_sequences), (512, 64));
    assert_eq!(info.prefix_cut, PrefixCut::Anywhere);
    assert!(info.chat_template.as_ref().unwrap().contains("<|im_start|>"));
    assert_eq!((info.bos_text.as_str(), info.eos_text.as_str()), ("<|im_start|>", "<|im_end|>"));
    assert!(info.description.contains("Q4_1"), "{}", info.description);
    assert!(info.build.contains("llama.cpp"));
}

#[test]
fn cells_are_rounded_up_and_the_batch_fits_them() {
    let decoder = load(&LoadSpec { ctx_per_answer: 100, kv_cells: 300, ..spec() }).unwrap();
    assert_eq!((decoder.info().kv_cells, decoder.info().batch_tokens), (512, 300));
}

#[test]
fn memory_is_that_of_the_file_and_the_cache() {
    let decoder = decoder();
    let [weights, kv, compute] = sums(&decoder.info().memory);
    let file = fs::metadata(model_file()).unwrap().len();
    assert!((file * 9 / 10..=file).contains(&weights), "{weights} of {file}");
    // 30 layers, 3 KV heads of 64, K and V in f16.
    assert_eq!(kv, 2048 * 30 * 3 * 64 * 2 * 2);
    assert!(compute > 0);
}

#[test]
fn a_dry_run_predicts_what_the_load_takes() {
    for kv_type in [KvType::F16, KvType::Q8_0] {
        let spec = LoadSpec { kv_type_k: kv_type, kv_type_v: kv_type, kv_cells: 4096, ..spec() };
        assert_eq!(dry_run(&spec).unwrap(), load(&spec).unwrap().info().memory);
    }
}

#[test]
fn a_dry_run_refuses_what_a_load_refuses() {
    let text = tempfile::NamedTempFile::new().unwrap();
    let spec = LoadSpec { path: text.path().into(), ..spec() };
    assert!(matches!(dry_run(&spec), Err(LoadError::Empty { .. })));
}

#[test]
fn progress_rises_to_one_and_can_cancel() {
    let mut seen = Vec::new();
    let mut progress = |share| {
        seen.push(share);
        true
    };
    LlamaDecoder::load(&spec(), &mut LoadControl { progress: &mut progress }).unwrap();
    assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]));
    assert_eq!(seen.last(), Some(&1.0));
    let cancelled = LlamaDecoder::load(&spec(), &mut LoadControl { progress: &mut |_| false });
    assert!(matches!(cancelled, Err(LoadError::Cancelled)));
}

#[test]
fn parameters_that_cannot_be_met_are_refused_by_name() {
    let check = |spec: LoadSpec, expected: &str| {
        assert_eq!(refusal(&spec).to_string(), expected);
    };
    check(
        LoadSpec { ctx_per_answer: 9000, kv_cells: 9000, ..spec() },
        "ctx_per_answer: 9000 is more than the 8192 tokens that the model was trained with",
    );
    check(
        LoadSpec { flash_attention: false, kv_type_v: KvType::Q8_0, ..spec() },
        "kv_type_v: a quantized V cache needs flash attention",
    );
    let device = refusal(&LoadSpec { devices: vec!["CUDA7".into()], ..spec() }).to_string();
    assert!(device.starts_with("there is no device \"CUDA7\"; this build sees "), "{device}");
}

#[test]
#[cfg(not(any(feature = "cuda", feature = "vulkan")))]
fn layers_for_a_gpu_that_is_not_there_are_an_error_and_no_quiet_fallback() {
    let error = refusal(&LoadSpec { gpu_layers: -1, ..spec() }).to_string();
    assert_eq!(error, "gpu_layers: -1 asked for, but this build of llama.cpp sees no GPU");
}

/// Name of the test that [`a_cache_without_memory_is_refused`] runs in a process of its own, and its limit.
const LIMITED_TEST: &str = "load::in_a_process_with_little_memory";
const LIMIT_KIB: u32 = 4 << 20;

#[test]
fn a_cache_without_memory_is_refused() {
    // Where the system promises any amount of memory, only a limit makes an allocation fail.
    let script = format!("ulimit -v {LIMIT_KIB} && exec \"$0\" --exact {LIMITED_TEST} --ignored");
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh").arg("-c").arg(script).arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "needs a memory limit; another test runs it"]
fn in_a_process_with_little_memory() {
    let error = refusal(&LoadSpec { kv_cells: 1 << 20, ..spec() });
    assert!(matches!(error, LoadError::OutOfMemory { .. }), "{error}");
}

/// Writes `bytes` to a file and returns the error of loading it.
fn refusal_of_file(directory: &Path, bytes: &[u8]) -> LoadError {
    let path = directory.join("broken.gguf");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(bytes).unwrap();
    refusal(&LoadSpec { path, ..spec() })
}

#[test]
fn a_file_cut_anywhere_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(model_file()).unwrap();
    // In the counts, in the first key, in the vocabulary, among the tensors, in their data, before the last byte.
    for length in [8, 20, 40, 200_000, 1_760_000, 60 << 20, whole.len() - 1] {
        let error = refusal_of_file(directory.path(), &whole[..length]);
        assert!(matches!(error, LoadError::Damaged { .. }), "{length} bytes: {error}");
    }
}

/// The file with another name of the same length in the place of `llama`.
fn with_architecture(file: &[u8], name: [u8; 5]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let key = b"general.architecture";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    // The value follows its type (4 bytes) and its length (8 bytes).
    let value = at + key.len() + 12;
    bytes[value..value + 5].copy_from_slice(&name);
    bytes
}

#[test]
fn an_unknown_architecture_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = with_architecture(&fs::read(model_file()).unwrap(), *b"alien");
    let error = refusal_of_file(directory.path(), &bytes);
    assert!(
        matches!(&error, LoadError::UnknownArchitecture { architecture, .. } if architecture == "alien"),
        "{error}"
    );
}

#[test]
fn what_is_no_model_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let text = refusal_of_file(directory.path(), b"this is not a model, only text");
    assert!(matches!(text, LoadError::NotGguf { .. }), "{text}");
    let empty = refusal_of_file(directory.path(), b"");
    assert!(matches!(empty, LoadError::Empty { .. }), "{empty}");
    let itself = refusal(&LoadSpec { path: directory.path().into(), ..spec() });
    assert!(matches!(itself, LoadError::NotAFile { .. }), "{itself}");
    let missing = refusal(&LoadSpec { path: directory.path().join("missing"), ..spec() });
    assert!(matches!(missing, LoadError::Unreadable { .. }), "{missing}");
}

#[test]
fn two_failing_loads_do_not_mix_their_reasons() {
    let good = fs::read(model_file()).unwrap();
    let load = |bytes: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        refusal_of_file(directory.path(), bytes)
    };
    thread::scope(|scope| {
        let cut = scope.spawn(|| load(&good[..60 << 20]));
        let alien = scope.spawn(|| load(&with_architecture(&good, *b"alien")));
        let (cut, alien) = (cut.join().unwrap(), alien.join().unwrap());
        assert!(matches!(&cut, LoadError::Damaged { reason, .. } if !reason.contains("alien")), "{cut}");
        assert!(matches!(alien, LoadError::UnknownArchitecture { .. }), "{alien}");
    });
}
