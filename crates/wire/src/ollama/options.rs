//! `options`: how the model is loaded and how tokens are chosen (`reference/ollama-api.md` 1.4).

use firepot_chat::{Limits, Sampling};

use crate::{
    ApiError, common,
    fields::{Fields, set},
    limits,
};

/// Wishes for loading the model; `None` is left to the planner. A change of any of them reloads the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Context of one answer, in tokens.
    pub num_ctx: Option<u32>,
    /// Most tokens in one decode call.
    pub num_batch: Option<u32>,
    /// Layers placed on GPUs; 0 none.
    pub num_gpu: Option<u32>,
    /// Index of the GPU that takes what is not split.
    pub main_gpu: Option<u32>,
    /// Threads for decode and prefill.
    pub num_thread: Option<u32>,
    /// Map the file instead of reading it.
    pub use_mmap: Option<bool>,
    /// Lock the mapped file in memory.
    pub use_mlock: Option<bool>,
}

/// What an option's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One text or several.
    Texts,
}

/// Every option that has an effect.
pub(crate) const KINDS: [(&str, Kind); 23] = [
    ("num_ctx", Kind::Integer),
    ("num_batch", Kind::Integer),
    ("num_gpu", Kind::Integer),
    ("main_gpu", Kind::Integer),
    ("num_thread", Kind::Integer),
    ("use_mmap", Kind::Boolean),
    ("use_mlock", Kind::Boolean),
    ("seed", Kind::Integer),
    ("num_predict", Kind::Integer),
    ("top_k", Kind::Integer),
    ("top_p", Kind::Number),
    ("min_p", Kind::Number),
    ("typical_p", Kind::Number),
    ("repeat_last_n", Kind::Integer),
    ("temperature", Kind::Number),
    ("repeat_penalty", Kind::Number),
    ("presence_penalty", Kind::Number),
    ("frequency_penalty", Kind::Number),
    ("stop", Kind::Texts),
    ("thinking_budget", Kind::Integer),
    ("strict", Kind::Boolean),
    ("ignore_eos", Kind::Boolean),
    ("cache_prompt", Kind::Boolean),
];

/// Their names.
pub(crate) const NAMES: [&str; KINDS.len()] = {
    let mut names = [""; KINDS.len()];
    let mut index = 0;
    while index < KINDS.len() {
        names[index] = KINDS[index].0;
        index += 1;
    }
    names
};

/// All that `options` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) load: LoadOptions,
    pub(crate) sampling: Sampling,
    pub(crate) limits: Limits,
    /// Our own extension `thinking_budget`.
    pub(crate) thinking_budget: Option<u32>,
    /// Our own extension `strict`.
    pub(crate) strict: bool,
    /// `cache_prompt` is `false`.
    pub(crate) uncached: bool,
    pub(crate) warnings: Vec<String>,
}

impl Options {
    pub(super) fn from_body(body: &Fields<'_>) -> Result<Self, ApiError> {
        body.object("options")?.map_or_else(|| Ok(Self::default()), |options| Self::read(&options))
    }

    pub(crate) fn read(options: &Fields<'_>) -> Result<Self, ApiError> {
        refuse_mirostat(options)?;
        let mut read = Self {
            load: load(options)?,
            sampling: sampling(options)?,
            limits: common::limits(options, num_predict(options)?)?,
            thinking_budget: common::thinking_budget(options, "thinking_budget")?,
            strict: options.bool("strict")?.unwrap_or(false),
            uncached: common::uncached(options)?,
            warnings: without_effect(options)?,
        };
        read.warnings.extend(common::unknown_fields(options));
        Ok(read)
    }
}

fn load(options: &Fields<'_>) -> Result<LoadOptions, ApiError> {
    let auto_at_0 =
        |name, max| Ok::<_, ApiError>(options.int(name, 0..=max)?.filter(|n| *n > 0).map(|n| n as u32));
    Ok(LoadOptions {
        num_ctx: auto_at_0("num_ctx", limits::MAX_CTX)?,
        num_batch: auto_at_0("num_batch", limits::MAX_BATCH)?,
        num_gpu: options
            .int("num_gpu", -1..=limits::MAX_GPU_LAYERS)?
            .and_then(|layers| u32::try_from(layers).ok()),
        main_gpu: options.int("main_gpu", 0..=limits::MAX_GPU_INDEX)?.map(|index| index as u32),
        num_thread: auto_at_0("num_thread", limits::MAX_THREADS)?,
        use_mmap: options.bool("use_mmap")?,
        use_mlock: options.bool("use_mlock")?,
    })
}

fn sampling(options: &Fields<'_>) -> Result<Sampling, ApiError> {
    let mut sampling = Sampling::default();
    common::sampling(options, &mut sampling)?;
    set(&mut sampling.temperature, options.number("temperature", limits::TEMPERATURE)?);
    set(&mut sampling.typical_p, options.number("typical_p", limits::PROBABILITY)?);
    set(&mut sampling.repeat_last_n, options.int("repeat_last_n", limits::REPEAT_LAST_N)?.map(|n| n as i32));
    // Only -1 asks for a random seed; every other negative number is a seed like any other.
    sampling.seed =
        options.int("seed", i64::MIN..=i64::MAX)?.filter(|seed| *seed != -1).map(|seed| seed as u64);
    Ok(sampling)
}

/// `num_predict`: -1 is without limit and -2 until the context is full, which here is the same: a context is
/// never shifted.
fn num_predict(options: &Fields<'_>) -> Result<Option<u32>, ApiError> {
    match options.int("num_predict", -2..=limits::MAX_TOKENS)? {
        Some(0) => {
            let rest = format!("must be -2, -1 or between 1 and {}, got 0", limits::MAX_TOKENS);
            Err(ApiError::invalid(options.path_of("num_predict"), rest))
        }
        tokens => Ok(tokens.and_then(|tokens| u32::try_from(tokens).ok())),
    }
}

fn refuse_mirostat(options: &Fields<'_>) -> Result<(), ApiError> {
    if options.int("mirostat", 0..=2)?.unwrap_or(0) > 0 {
        let error = ApiError::unsupported(options.path_of("mirostat"), "is not supported");
        return Err(error.with_hint("use temperature with top_p or min_p"));
    }
    Ok(())
}

/// Options that Ollama knows and that have nothing to act on here.
fn without_effect(options: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let mut warnings = Vec::new();
    for (name, reason) in [
        ("num_keep", "the context policy drops whole turns and keeps the system prompt"),
        ("draft_num_predict", "there is no draft model"),
    ] {
        if options.int(name, i64::from(i32::MIN)..=i64::from(i32::MAX))?.is_some() {
            warnings.push(format!("{} has no effect: {reason}", options.path_of(name)));
        }
    }
    options.ignore(&["mirostat_eta", "mirostat_tau"]);
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(options: &Value) -> Result<Options, String> {
        let body = json!({ "options": options });
        Options::from_body(&Fields::root(body.as_object().unwrap())).map_err(|e| e.message)
    }

    fn check(name: &str, value: Value, expected: &str) {
        let mut options = serde_json::Map::new();
        options.insert(name.to_owned(), value);
        assert_eq!(read(&Value::Object(options)).unwrap_err(), expected);
    }

    #[test]
    fn every_option_has_its_place() {
        let options = read(&json!({
            "num_ctx": 8192, "num_batch": 256, "num_gpu": 99, "main_gpu": 1, "num_thread": 4, "use_mmap": false,
            "use_mlock": true, "seed": 7, "num_predict": 128, "top_k": 20, "top_p": 0.5, "min_p": 0.25,
            "typical_p": 0.75, "repeat_last_n": -1, "temperature": 0, "repeat_penalty": 1.5,
            "presence_penalty": 0.5, "frequency_penalty": -0.5, "stop": ["END", "", "\n\n"],
            "thinking_budget": 64, "strict": true, "ignore_eos": true,
            "cache_prompt": false
        }))
        .unwrap();
        insta::assert_debug_snapshot!(options, @r#"
        Options {
            load: LoadOptions {
                num_ctx: Some(
                    8192,
                ),
                num_batch: Some(
                    256,
                ),
                num_gpu: Some(
                    99,
                ),
                main_gpu: Some(
                    1,
                ),
                num_thread: Some(
                    4,
                ),
                use_mmap: Some(
                    false,
                ),
                use_mlock: Some(
                    true,
                ),
            },
            sampling: Sampling {
                temperature: 0.0,
                top_k: 20,
                top_p: 0.5,
                min_p: 0.25,
                typical_p: 0.75,
                repeat_penalty: 1.5,
                repeat_last_n: -1,
                presence_penalty: 0.5,
                frequency_penalty: -0.5,
                seed: Some(
                    7,
                ),
                choice: 0,
                logit_bias: [],
            },
            limits: Limits {
                max_tokens: Some(
                    128,
                ),
                stop: [
                    "END",
                    "\n\n",
                ],
                ignore_eos: true,
            },
            thinking_budget: Some(
                64,
            ),
            strict: true,
            uncached: true,
            warnings: [],
        }
        "#);
    }

    #[test]
    fn values_that_mean_automatic_are_left_to_the_planner() {
        let automatic = json!({"num_ctx": 0, "num_batch": 0, "num_gpu": -1, "num_thread": 0, "seed": -1,
            "num_predict": -1, "main_gpu": null, "mirostat": 0});
        assert_eq!(read(&automatic), Ok(Options::default()));
        assert_eq!(read(&json!({"num_predict": -2})), Ok(Options::default()));
        assert_eq!(read(&json!({"num_gpu": 0})).unwrap().load.num_gpu, Some(0));
        assert_eq!(read(&json!({"seed": -2})).unwrap().sampling.seed, Some(u64::MAX - 1));
        assert_eq!(read(&json!({"top_k": -1})).unwrap().sampling.top_k, 0);
        assert_eq!(read(&json!({"stop": "END"})).unwrap().limits.stop, ["END"]);
    }

    #[test]
    fn a_wrong_type_names_the_option_and_both_types() {
        check("temperature", json!("hot"), "options.temperature must be a number, got string");
        check("top_p", json!(true), "options.top_p must be a number, got boolean");
        check("num_ctx", json!("4096"), "options.num_ctx must be an integer, got string");
        check("num_ctx", json!(4096.5), "options.num_ctx must be an integer, got 4096.5");
        check("seed", json!([1]), "options.seed must be an integer, got array");
        check("use_mmap", json!(1), "options.use_mmap must be a boolean, got number");
        check("stop", json!(5), "options.stop must be a string or an array of strings, got number");
        check("stop", json!(["a", 5]), "options.stop[1] must be a string, got number");
        check("num_keep", json!({}), "options.num_keep must be an integer, got object");
        let body = json!({"options": []});
        let error = Options::from_body(&Fields::root(body.as_object().unwrap())).unwrap_err();
        assert_eq!(error.message, "options must be an object, got array");
    }

    #[test]
    fn a_value_out_of_range_names_the_range() {
        check("temperature", json!(-0.1), "options.temperature must be between 0 and 10, got -0.1");
        check("top_p", json!(1.01), "options.top_p must be between 0 and 1, got 1.01");
        check("repeat_penalty", json!(0), "options.repeat_penalty must be between 0.01 and 10, got 0");
        check("num_ctx", json!(-5), "options.num_ctx must be between 0 and 16777216, got -5");
        check("num_predict", json!(-3), "options.num_predict must be between -2 and 2147483647, got -3");
        check(
            "num_predict",
            json!(0),
            "options.num_predict must be -2, -1 or between 1 and 2147483647, got 0",
        );
        check("repeat_last_n", json!(-2), "options.repeat_last_n must be between -1 and 16777216, got -2");
        check("stop", json!(vec!["x"; 33]), "options.stop has 33 items, at most 32 are allowed");
        check("stop", json!("x".repeat(1025)), "options.stop is longer than 1024 bytes");
        check("mirostat", json!(2), "options.mirostat is not supported");
    }

    #[test]
    fn both_ends_of_every_range_are_allowed() {
        for (name, low, high) in [
            ("temperature", json!(0), json!(10)),
            ("top_k", json!(-1), json!(1_000_000)),
            ("top_p", json!(0), json!(1)),
            ("min_p", json!(0), json!(1)),
            ("typical_p", json!(0), json!(1)),
            ("repeat_penalty", json!(0.01), json!(10)),
            ("repeat_last_n", json!(-1), json!(limits::MAX_CTX)),
            ("presence_penalty", json!(-2), json!(2)),
            ("frequency_penalty", json!(-2), json!(2)),
            ("seed", json!(i64::MIN), json!(i64::MAX)),
            ("num_predict", json!(-2), json!(limits::MAX_TOKENS)),
            ("num_ctx", json!(0), json!(limits::MAX_CTX)),
            ("num_batch", json!(0), json!(limits::MAX_BATCH)),
            ("num_gpu", json!(-1), json!(limits::MAX_GPU_LAYERS)),
            ("main_gpu", json!(0), json!(limits::MAX_GPU_INDEX)),
            ("num_thread", json!(0), json!(limits::MAX_THREADS)),
            ("thinking_budget", json!(0), json!(limits::MAX_TOKENS)),
        ] {
            for value in [low, high] {
                let options = read(&json!({ name: value }));
                assert_eq!(options.map(|o| o.warnings), Ok(vec![]), "{name}");
            }
        }
    }

    #[test]
    fn unknown_options_and_those_without_effect_are_reported() {
        let options = read(&json!({"num_keep": 4, "tfs_z": 1.0, "low_vram": false, "f16_kv": null})).unwrap();
        assert_eq!(
            options.warnings,
            [
                "options.num_keep has no effect: the context policy drops whole turns and keeps the system prompt",
                r#"options."tfs_z" is not known and was ignored"#,
                r#"options."low_vram" is not known and was ignored"#,
            ]
        );
    }
}
