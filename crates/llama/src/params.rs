//! From a [`LoadSpec`] to llama.cpp's parameters, and what llama.cpp would not survive.

use std::{ffi::CString, ptr};

use firepot_engine::{KvType, LoadSpec};
use llama_cpp_sys_2::{
    GGML_TYPE_F16, GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, LLAMA_FLASH_ATTN_TYPE_DISABLED,
    LLAMA_FLASH_ATTN_TYPE_ENABLED, LLAMA_LOAD_MODE_MLOCK, LLAMA_LOAD_MODE_MMAP, LLAMA_LOAD_MODE_MMAP_MLOCK,
    LLAMA_LOAD_MODE_NONE, ggml_backend_cpu_buffer_type, ggml_backend_dev_t, ggml_type,
    llama_context_default_params, llama_context_params, llama_load_mode, llama_max_devices,
    llama_max_parallel_sequences, llama_model_default_params, llama_model_params,
    llama_model_tensor_buft_override,
};

use crate::{LoadError, devices};

/// Whether memory is really taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Load for use.
    Real,
    /// Only compute sizes.
    DryRun,
}

/// Parameters of a model, with the lists that they point to.
pub struct ModelParams {
    pub raw: llama_model_params,
    _devices: Vec<ggml_backend_dev_t>,
    _tensor_split: Vec<f32>,
    _overrides: Overrides,
}

/// Tensors that go elsewhere than their layers: patterns of names, with the end that llama.cpp looks for.
struct Overrides {
    #[cfg_attr(not(test), expect(dead_code, reason = "the rows point into them"))]
    patterns: Vec<CString>,
    rows: Vec<llama_model_tensor_buft_override>,
}

/// As llama.cpp's `--n-cpu-moe` (`llm_ffn_exps_block_regex` in `common.h`).
fn expert_overrides(layers: u32) -> Overrides {
    let pattern = |layer: u32| CString::new(format!(r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"));
    let patterns: Vec<CString> = (0..layers).filter_map(|layer| pattern(layer).ok()).collect();
    // SAFETY: returns a pointer to a static value.
    let buft = unsafe { ggml_backend_cpu_buffer_type() };
    let row = |pattern: &CString| llama_model_tensor_buft_override { pattern: pattern.as_ptr(), buft };
    let mut rows: Vec<_> = patterns.iter().map(row).collect();
    if !rows.is_empty() {
        rows.push(llama_model_tensor_buft_override { pattern: ptr::null(), buft: ptr::null_mut() });
    }
    Overrides { patterns, rows }
}

impl ModelParams {
    /// # Errors
    /// When a field of `spec` cannot be honoured.
    pub fn new(spec: &LoadSpec, allocation: Allocation) -> Result<Self, LoadError> {
        check(spec)?;
        let mut devices = offload_devices(spec)?;
        let tensor_split = tensor_split(spec)?;
        // SAFETY: returns a plain value.
        let mut raw = unsafe { llama_model_default_params() };
        if let Some(devices) = &mut devices {
            raw.devices = devices.as_mut_ptr();
        }
        raw.tensor_split = if tensor_split.is_empty() { ptr::null() } else { tensor_split.as_ptr() };
        let overrides = expert_overrides(spec.host_experts);
        if !overrides.rows.is_empty() {
            raw.tensor_buft_overrides = overrides.rows.as_ptr();
        }
        raw.n_gpu_layers = spec.gpu_layers;
        raw.use_extra_bufts = spec.repack;
        raw.check_tensors = spec.check_tensors;
        raw.load_mode = load_mode(spec, allocation);
        raw.no_alloc = allocation == Allocation::DryRun;
        Ok(Self {
            raw,
            _devices: devices.unwrap_or_default(),
            _tensor_split: tensor_split,
            _overrides: overrides,
        })
    }
}

/// Parameters of a context with `max_sequences` sequences.
pub fn context_params(spec: &LoadSpec, max_sequences: u32) -> llama_context_params {
    // SAFETY: returns a plain value.
    let mut raw = unsafe { llama_context_default_params() };
    raw.n_ctx = spec.kv_cells;
    raw.n_batch = spec.batch_tokens;
    raw.n_ubatch = spec.ubatch_tokens.min(spec.batch_tokens);
    raw.n_seq_max = max_sequences;
    // The compute buffer holds a row of logits for each possible output of a batch; without this limit that is
    // `n_ubatch` rows. llama.cpp asserts that it is not below `n_seq_max`.
    raw.n_outputs_max = max_sequences;
    raw.n_threads = spec.threads as i32;
    raw.n_threads_batch = spec.threads_batch as i32;
    raw.flash_attn_type =
        if spec.flash_attention { LLAMA_FLASH_ATTN_TYPE_ENABLED } else { LLAMA_FLASH_ATTN_TYPE_DISABLED };
    raw.type_k = cache_type(spec.kv_type_k);
    raw.type_v = cache_type(spec.kv_type_v);
    // Copying a part of a sequence aborts without it.
    raw.kv_unified = true;
    // A full-size window cache costs as much as full attention; prefixes are cut by `pos_min` instead.
    raw.swa_full = false;
    raw.no_perf = true;
    raw
}

/// How many sequences a context gets: as many as were decided, within llama.cpp's limits.
pub fn max_sequences(spec: &LoadSpec) -> u32 {
    spec.sequences.max(spec.parallel).min(sequences_limit(spec))
}

/// llama.cpp asserts that there are no more sequences than tokens in a batch, and caps a batch by the context.
fn sequences_limit(spec: &LoadSpec) -> u32 {
    // SAFETY: returns a constant.
    let library = unsafe { llama_max_parallel_sequences() } as u32;
    library.min(spec.batch_tokens).min(spec.kv_cells)
}

/// Refuses answers longer than the model can attend to; llama.cpp computes them all the same.
pub fn check_training(spec: &LoadSpec, ctx_train: u32) -> Result<(), LoadError> {
    let asked = spec.ctx_per_answer;
    if ctx_train > 0 && asked > ctx_train {
        let reason = format!("{asked} is more than the {ctx_train} tokens that the model was trained with");
        return Err(LoadError::bad_parameter("ctx_per_answer", reason));
    }
    Ok(())
}

fn check(spec: &LoadSpec) -> Result<(), LoadError> {
    let at_least_one = [
        ("ctx_per_answer", spec.ctx_per_answer),
        ("kv_cells", spec.kv_cells),
        ("parallel", spec.parallel),
        ("batch_tokens", spec.batch_tokens),
        ("ubatch_tokens", spec.ubatch_tokens),
        ("threads", spec.threads),
        ("threads_batch", spec.threads_batch),
    ];
    for (parameter, value) in at_least_one {
        if value == 0 || value > i32::MAX as u32 {
            return Err(LoadError::bad_parameter(parameter, format!("{value} is not between 1 and 2^31")));
        }
    }
    check_combinations(spec)
}

fn check_combinations(spec: &LoadSpec) -> Result<(), LoadError> {
    if spec.ctx_per_answer > spec.kv_cells {
        let reason = format!("{} does not fit {} KV cells", spec.ctx_per_answer, spec.kv_cells);
        return Err(LoadError::bad_parameter("ctx_per_answer", reason));
    }
    let limit = sequences_limit(spec);
    if spec.parallel > limit {
        let reason = format!("{} is more than the {limit} that this batch and context allow", spec.parallel);
        return Err(LoadError::bad_parameter("parallel", reason));
    }
    if spec.kv_type_v != KvType::F16 && !spec.flash_attention {
        return Err(LoadError::bad_parameter("kv_type_v", "a quantized V cache needs flash attention"));
    }
    // Where devices are named, the one that is gone is.
    if spec.gpu_layers != 0 && spec.devices.is_empty() && !devices::gpu_supported() {
        let reason = format!("{} asked for, but this build of llama.cpp sees no GPU", spec.gpu_layers);
        return Err(LoadError::bad_parameter("gpu_layers", reason));
    }
    Ok(())
}

/// The null-terminated list of devices; `None` leaves the choice of all GPUs to llama.cpp.
fn offload_devices(spec: &LoadSpec) -> Result<Option<Vec<ggml_backend_dev_t>>, LoadError> {
    let mut handles = devices::by_names(&spec.devices)?;
    if spec.gpu_layers == 0 {
        // Without an empty list llama.cpp would start every GPU's backend for nothing.
        handles.clear();
    } else if handles.is_empty() {
        return Ok(None);
    }
    handles.push(ptr::null_mut());
    Ok(Some(handles))
}

/// The shares, padded to the length that llama.cpp reads.
fn tensor_split(spec: &LoadSpec) -> Result<Vec<f32>, LoadError> {
    let mut shares = spec.tensor_split.clone();
    if shares.is_empty() {
        return Ok(shares);
    }
    // SAFETY: returns a constant.
    let length = unsafe { llama_max_devices() };
    let valid = |share: &f32| share.is_finite() && *share >= 0.0;
    if shares.len() > length || !shares.iter().all(valid) || shares.iter().all(|share| *share == 0.0) {
        let reason = format!("wants up to {length} shares, none negative and not all zero");
        return Err(LoadError::bad_parameter("tensor_split", reason));
    }
    shares.resize(length, 0.0);
    Ok(shares)
}

fn load_mode(spec: &LoadSpec, allocation: Allocation) -> llama_load_mode {
    match (allocation, spec.mmap, spec.mlock) {
        (Allocation::DryRun, _, _) | (_, false, false) => LLAMA_LOAD_MODE_NONE,
        (_, true, false) => LLAMA_LOAD_MODE_MMAP,
        (_, false, true) => LLAMA_LOAD_MODE_MLOCK,
        (_, true, true) => LLAMA_LOAD_MODE_MMAP_MLOCK,
    }
}

fn cache_type(kind: KvType) -> ggml_type {
    match kind {
        KvType::F16 => GGML_TYPE_F16,
        KvType::Q8_0 => GGML_TYPE_Q8_0,
        KvType::Q4_0 => GGML_TYPE_Q4_0,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn spec() -> LoadSpec {
        LoadSpec {
            ctx_per_answer: 2048,
            kv_cells: 8192,
            parallel: 4,
            sequences: 64,
            batch_tokens: 512,
            ubatch_tokens: 512,
            threads: 2,
            threads_batch: 2,
            ..LoadSpec::small(PathBuf::new())
        }
    }

    fn refusal(change: impl FnOnce(&mut LoadSpec)) -> String {
        let mut spec = spec();
        change(&mut spec);
        match ModelParams::new(&spec, Allocation::Real) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_llama_cpp_would_abort_on_is_refused_by_name() {
        insta::assert_snapshot!(refusal(|_| ()), @"accepted");
        insta::assert_snapshot!(refusal(|spec| spec.threads = 0), @"threads: 0 is not between 1 and 2^31");
        insta::assert_snapshot!(
            refusal(|spec| spec.kv_cells = u32::MAX),
            @"kv_cells: 4294967295 is not between 1 and 2^31"
        );
        insta::assert_snapshot!(
            refusal(|spec| spec.kv_cells = 1024),
            @"ctx_per_answer: 2048 does not fit 1024 KV cells"
        );
        insta::assert_snapshot!(
            refusal(|spec| spec.parallel = 513),
            @"parallel: 513 is more than the 256 that this batch and context allow"
        );
        insta::assert_snapshot!(
            refusal(|spec| spec.batch_tokens = 2),
            @"parallel: 4 is more than the 2 that this batch and context allow"
        );
        insta::assert_snapshot!(
            refusal(|spec| {
                spec.flash_attention = false;
                spec.kv_type_v = KvType::Q8_0;
            }),
            @"kv_type_v: a quantized V cache needs flash attention"
        );
    }

    #[test]
    fn a_device_of_the_plan_that_is_gone_is_told_as_gone_even_when_it_was_the_only_one() {
        let on_gone = LoadSpec { gpu_layers: -1, devices: vec!["CUDA77".to_owned()], ..spec() };
        let error = ModelParams::new(&on_gone, Allocation::Real).err().expect("there is no such device");
        assert!(matches!(error, LoadError::DeviceGone { .. }), "{error}");
    }

    #[test]
    fn shares_are_checked_and_padded() {
        assert!(refusal(|spec| spec.tensor_split = vec![0.0, 0.0]).starts_with("tensor_split"));
        assert!(refusal(|spec| spec.tensor_split = vec![1.0, f32::NAN]).starts_with("tensor_split"));
        assert!(refusal(|spec| spec.tensor_split = vec![1.0; 99]).starts_with("tensor_split"));
        let shares = tensor_split(&LoadSpec { tensor_split: vec![3.0, 1.0], ..spec() }).unwrap();
        assert!(shares.len() >= 2);
        assert_eq!(&shares[..2], [3.0, 1.0]);
        assert!(shares[2..].iter().all(|share| *share == 0.0));
    }

    #[test]
    fn mapping_and_locking_choose_the_load_mode() {
        let mode = |mmap, mlock| load_mode(&LoadSpec { mmap, mlock, ..spec() }, Allocation::Real);
        assert_eq!(mode(false, false), LLAMA_LOAD_MODE_NONE);
        assert_eq!(mode(true, false), LLAMA_LOAD_MODE_MMAP);
        assert_eq!(mode(false, true), LLAMA_LOAD_MODE_MLOCK);
        assert_eq!(mode(true, true), LLAMA_LOAD_MODE_MMAP_MLOCK);
        assert_eq!(load_mode(&spec(), Allocation::DryRun), LLAMA_LOAD_MODE_NONE);
    }

    #[test]
    fn a_context_is_unified_and_has_an_output_for_each_sequence() {
        let raw = context_params(&LoadSpec { kv_type_k: KvType::Q8_0, kv_type_v: KvType::Q4_0, ..spec() }, 7);
        assert!(raw.kv_unified);
        assert_eq!((raw.n_ctx, raw.n_seq_max, raw.n_outputs_max), (8192, 7, 7));
        assert_eq!((raw.type_k, raw.type_v), (GGML_TYPE_Q8_0, GGML_TYPE_Q4_0));
        assert_eq!(raw.flash_attn_type, LLAMA_FLASH_ATTN_TYPE_ENABLED);
    }

    #[test]
    fn sequences_stay_within_llama_cpp_s_limits() {
        let count = |sequences, batch_tokens| max_sequences(&LoadSpec { sequences, batch_tokens, ..spec() });
        assert_eq!(count(40, 512), 40);
        assert_eq!(count(0, 512), 4, "the running answers");
        assert_eq!(count(1000, 512), 256);
        assert_eq!(count(64, 16), 16);
    }

    #[test]
    fn experts_of_some_layers_stay_in_main_memory() {
        let overrides = expert_overrides(2);
        let patterns: Vec<&str> =
            overrides.patterns.iter().map(|pattern| pattern.to_str().unwrap()).collect();
        assert_eq!(
            patterns,
            [
                r"blk\.0\.ffn_(up|down|gate|gate_up)_(ch|)exps",
                r"blk\.1\.ffn_(up|down|gate|gate_up)_(ch|)exps"
            ]
        );
        assert_eq!(overrides.rows.len(), 3);
        assert!(overrides.rows[2].pattern.is_null());
        assert!(expert_overrides(0).rows.is_empty());
    }
}
