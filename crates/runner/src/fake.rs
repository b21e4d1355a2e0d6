//! A loader without a model, made to go wrong on request. It never stands in for a claim about a real model.

use std::{process, thread, time::Duration};

use firepot_engine::{
    Decoder, LoadSpec,
    fake::{DecodeHook, FakeConfig, FakeDecoder, Reply},
};
use firepot_link::{LoadFailure, LoadFailureKind};

use crate::loader::{LoadProgress, Loader};

/// Loads a [`FakeDecoder`] as the spec's path says: `fake:` and then `name=value` pairs between semicolons.
///
/// | name | effect |
/// |---|---|
/// | `reply` | what every answer says (markers such as `<think>` included); `echo` repeats the question |
/// | `token_us` | real time for each token |
/// | `load_ms` | real time for loading, in ten steps |
/// | `load_fail` | loading fails with this message |
/// | `load_die` | the process aborts while loading |
/// | `die_at` | the process aborts in the decode call with this number |
/// | `hang_at` | the decode call with this number never returns |
/// | `plain` | the model has no chat template |
#[derive(Clone, Copy, Debug, Default)]
pub struct FakeLoader;

impl Loader for FakeLoader {
    fn build(&self) -> String {
        "fake".to_owned()
    }

    fn load(
        &mut self,
        spec: &LoadSpec,
        progress: &LoadProgress<'_>,
    ) -> Result<Box<dyn Decoder>, LoadFailure> {
        let text = spec.path.to_string_lossy().into_owned();
        let wish = |name: &str| {
            let pairs = text.strip_prefix("fake:").unwrap_or_default().split(';');
            pairs
                .filter_map(|pair| pair.split_once('=').or(Some((pair, ""))))
                .find(|(key, _)| *key == name)
                .map(|(_, v)| v)
        };
        let number = |name: &str| wish(name).and_then(|value| value.parse::<u64>().ok());
        for step in 1_u8..=10 {
            thread::sleep(Duration::from_millis(number("load_ms").unwrap_or(0) / 10));
            progress.report(f32::from(step) / 10.0);
            if wish("load_die").is_some() {
                process::abort();
            }
        }
        if let Some(message) = wish("load_fail") {
            let (kind, message) = (LoadFailureKind::BadModel, message.to_owned());
            return Err(LoadFailure { kind, message, hint: Some("try another file".to_owned()) });
        }
        let reply = match wish("reply") {
            Some("echo") => Reply::Echo,
            Some(text) => Reply::Text(text.to_owned()),
            None => Reply::Hash,
        };
        let defaults = FakeConfig::default();
        Ok(Box::new(FakeDecoder::new(FakeConfig {
            reply,
            ctx_per_answer: spec.ctx_per_answer,
            kv_cells: spec.kv_cells,
            parallel: spec.parallel,
            token_time: number("token_us").map_or(Duration::ZERO, Duration::from_micros),
            call_time: Duration::ZERO,
            sleep: true,
            template: if wish("plain").is_some() { None } else { defaults.template },
            hook: Some(hook(number("die_at"), number("hang_at"))),
            ..FakeConfig::default()
        })))
    }
}

fn hook(die_at: Option<u64>, hang_at: Option<u64>) -> DecodeHook {
    Box::new(move |call| {
        if die_at == Some(call) {
            process::abort();
        }
        while hang_at == Some(call) {
            thread::sleep(Duration::from_hours(1));
        }
        Ok(())
    })
}
