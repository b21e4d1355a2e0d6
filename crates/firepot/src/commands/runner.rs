//! `firepot runner`: hosts one model with llama.cpp. Started by the server, with the link on standard input.

use firepot_engine::{Decoder, LoadSpec};
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
        let mut report = |fraction| {
            progress.report(fraction);
            true
        };
        let decoder = LlamaDecoder::load(spec, &mut LoadControl { progress: &mut report })
            .map_err(|error| failure(&error))?;
        Ok(Box::new(decoder))
    }
}

fn failure(error: &LoadError) -> LoadFailure {
    let (kind, hint) = match error {
        LoadError::OutOfMemory { .. } => {
            (LoadFailureKind::OutOfMemory, Some("use a smaller --ctx or --parallel, or a smaller model"))
        }
        LoadError::BadParameter { .. } | LoadError::Cancelled => (LoadFailureKind::BadParameters, None),
        LoadError::UnknownArchitecture { .. } => {
            (LoadFailureKind::BadModel, Some("the model may be newer than this version of Firepot"))
        }
        _ => (LoadFailureKind::BadModel, Some("the file may be damaged; import it again")),
    };
    LoadFailure { kind, message: error.to_string(), hint: hint.map(str::to_owned) }
}
