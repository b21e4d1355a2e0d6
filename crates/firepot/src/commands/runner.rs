//! `firepot runner`: hosts one model with llama.cpp. Started by the server, with the link on standard input.

use firepot_engine::{Decoder, DeviceMemory, LoadSpec};
use firepot_link::{LoadFailure, LoadFailureKind};
use firepot_llama::{LlamaDecoder, LoadControl, LoadError};
use firepot_runner::{AtEnd, LoadProgress, Loader, serve, stdin_link};

use crate::exit::{Exit, Failure};

/// Serves until the link ends.
pub fn runner() -> anyhow::Result<()> {
    let link = stdin_link().map_err(|_| {
        Failure::new(
            Exit::Failed,
            "a runner is started by the server, which gives it a link as standard input",
        )
        .hint("to ask a model in the terminal: firepot run MODEL")
    })?;
    Ok(serve(link, &mut LlamaLoader, AtEnd::ExitProcess)?)
}

struct LlamaLoader;

impl Loader for LlamaLoader {
    fn build(&self) -> String {
        firepot_llama::build_info()
    }

    fn load(
        &mut self,
        spec: &LoadSpec,
        progress: &LoadProgress<'_>,
    ) -> Result<Box<dyn Decoder>, LoadFailure> {
        confirm(spec)?;
        let mut report = |fraction| {
            progress.report(fraction);
            true
        };
        let decoder = LlamaDecoder::load(spec, &mut LoadControl { progress: &mut report })
            .map_err(|error| failure(&error))?;
        Ok(Box::new(decoder))
    }
}

/// Where memory is tight, what llama.cpp counts decides, before anything is taken.
fn confirm(spec: &LoadSpec) -> Result<(), LoadFailure> {
    if spec.limits.is_empty() {
        return Ok(());
    }
    let counted = firepot_llama::dry_run(spec).map_err(|error| failure(&error))?;
    for limit in &spec.limits {
        let on_device = counted.iter().filter(|memory| memory.device == limit.device);
        let needs_bytes: u64 = on_device.map(DeviceMemory::total_bytes).sum();
        if needs_bytes > limit.bytes {
            let mib = |bytes: u64| bytes >> 20;
            let (needs, has) = (mib(needs_bytes), mib(limit.bytes));
            let message =
                format!("llama.cpp counts {needs} MiB on {}, and {has} MiB are available", limit.device);
            return Err(LoadFailure {
                kind: LoadFailureKind::OutOfMemory,
                message,
                hint: Some(SMALLER.to_owned()),
            });
        }
    }
    Ok(())
}

const SMALLER: &str = "use a smaller --ctx or --parallel, or a smaller model";

fn failure(error: &LoadError) -> LoadFailure {
    let (kind, hint) = match error {
        LoadError::OutOfMemory { .. } => (LoadFailureKind::OutOfMemory, Some(SMALLER)),
        LoadError::DeviceGone { .. } => {
            (LoadFailureKind::DeviceGone, Some("`firepot doctor` lists what is there"))
        }
        LoadError::BadParameter { .. } | LoadError::Cancelled => (LoadFailureKind::BadParameters, None),
        LoadError::UnknownArchitecture { .. } => {
            (LoadFailureKind::BadModel, Some("the model may be newer than this version of Firepot"))
        }
        _ => (LoadFailureKind::BadModel, Some("the file may be damaged; import it again")),
    };
    LoadFailure { kind, message: error.to_string(), hint: hint.map(str::to_owned) }
}
