//! Memory that logs of others tell of loads on T4s, beside what `firepot fit --on` says of the same loads.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::Context as _;
use firepot_catalogue::{Quant, models};
use serde_json::Value;

use super::mib;
use crate::bench::output;

/// What a log tells, in MiB.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// KV cache on each GPU.
    Kv(&'static [f64]),
    /// The largest context that fits with an f16 cache, in tokens.
    Context(u32),
    /// Compute buffer on the GPU with the output.
    Compute(f64),
    /// The same on another GPU of a split model.
    ComputeBefore(f64),
}

struct Published {
    model: &'static str,
    on: &'static str,
    ctx: Option<u32>,
    told: Told,
    by: &'static str,
}

const LLAMA_CPP: &str = "llama.cpp's log";
const IK_LOG: &str = "ik_llama.cpp issue 398, log";
const IK_DISCUSSION: &str = "ik_llama.cpp discussion 397";
const CALCULATED: &str = "calculated for 14,912 MiB in all";

const PUBLISHED: [Published; 9] = [
    Published {
        model: "qwen3-30b-a3b",
        on: "kaggle-t4x2",
        ctx: Some(32_768),
        told: Told::Kv(&[1600.0, 1472.0]),
        by: IK_LOG,
    },
    Published {
        model: "qwen3-30b-a3b",
        on: "kaggle-t4x2",
        ctx: Some(32_768),
        told: Told::Compute(444.77),
        by: IK_LOG,
    },
    Published {
        model: "qwen3-30b-a3b",
        on: "kaggle-t4x2",
        ctx: Some(32_768),
        told: Told::ComputeBefore(368.01),
        by: IK_LOG,
    },
    Published {
        model: "qwen3-32b",
        on: "kaggle-t4x2",
        ctx: Some(8192),
        told: Told::Kv(&[2048.0]),
        by: IK_DISCUSSION,
    },
    Published {
        model: "llama-3.1-8b",
        on: "colab-t4",
        ctx: Some(8192),
        told: Told::Compute(258.50),
        by: LLAMA_CPP,
    },
    Published {
        model: "qwen2.5-coder-7b",
        on: "colab-t4",
        ctx: Some(8192),
        told: Told::Compute(304.00),
        by: LLAMA_CPP,
    },
    Published {
        model: "qwen3-8b",
        on: "colab-t4",
        ctx: Some(8192),
        told: Told::Compute(304.75),
        by: LLAMA_CPP,
    },
    Published {
        model: "r1-distill-qwen-7b",
        on: "colab-t4",
        ctx: None,
        told: Told::Context(131_072),
        by: CALCULATED,
    },
    Published { model: "qwen3-14b", on: "colab-t4", ctx: None, told: Told::Context(37_900), by: CALCULATED },
];

const HEAD: &str = "\n## Beside published logs\n\nWhat `firepot fit MODEL --on PROFILE --parallel 1` says of loads that others have published. \
    Nothing of this was loaded here. The logs' versions of llama.cpp reserve a row of logits for each of 512 tokens; the one that Firepot uses reserves one for each sequence, so its compute \
    buffers are smaller: the last column has the larger of what is planned and what those rows take (512 × 4 bytes × (vocabulary + embedding), beside what a pipeline over two GPUs keeps). ik_llama.cpp has its own \
    graph of a mixture of experts.\n\n\
    | model | on | context | what | published | by | planned | with those rows |\n|---|---|---|---|---|---|---|---|\n";

/// The table.
pub fn table(firepot: &Path) -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    for published in &PUBLISHED {
        let line = published.line(&published.plan(firepot)?)?;
        writeln!(text, "{line}")?;
    }
    Ok(text)
}

impl Published {
    fn plan(&self, firepot: &Path) -> anyhow::Result<Value> {
        let home = tempfile::tempdir()?;
        let mut command = Command::new(firepot);
        command.arg("--home").arg(home.path()).args([
            "fit",
            self.model,
            "--on",
            self.on,
            "--json",
            "--parallel",
            "1",
        ]);
        if let Some(ctx) = self.ctx {
            command.args(["--ctx", &ctx.to_string()]);
        }
        let fits: Value = serde_json::from_str(&output(&mut command)?)?;
        Ok(fits["models"][0]["plan"].clone())
    }

    fn line(&self, plan: &Value) -> anyhow::Result<String> {
        let gpus = plan["predicted"]["gpus"].as_array().context("no GPUs in the plan")?;
        let bytes =
            |gpu: usize, what: &str| gpus[gpu][1][what].as_u64().map(mib).context("no bytes in the plan");
        let (last, ctx) =
            (gpus.len() - 1, plan["ctx_per_answer"].as_u64().context("no context in the plan")?);
        let (what, published, planned, rows) = match self.told {
            Told::Kv(told) => {
                let each: Vec<f64> =
                    (0..=last).map(|gpu| bytes(gpu, "kv_bytes")).collect::<anyhow::Result<_>>()?;
                // Of some loads only the sum is told.
                let each = if told.len() == 1 { vec![each.iter().sum()] } else { each };
                ("KV cache, MiB", list(told), list(&each), None)
            }
            Told::Context(tokens) => ("largest context", tokens.to_string(), ctx.to_string(), None),
            Told::Compute(told) => {
                let planned = bytes(last, "compute_bytes")?;
                (
                    "compute buffer with the output, MiB",
                    list(&[told]),
                    list(&[planned]),
                    Some(self.with_rows(planned, ctx, last > 0)?),
                )
            }
            Told::ComputeBefore(told) => {
                ("compute buffer before it, MiB", list(&[told]), list(&[bytes(0, "compute_bytes")?]), None)
            }
        };
        let rows = rows.map_or_else(|| "–".to_owned(), |rows| format!("{rows:.2}"));
        let Self { model, on, by, .. } = self;
        Ok(format!("| {model} | {on} | {ctx} | {what} | {published} | {by} | {planned} | {rows} |"))
    }

    /// The compute buffer where a row of logits is reserved for each token of a ubatch.
    fn with_rows(&self, planned: f64, ctx: u64, is_split: bool) -> anyhow::Result<f64> {
        const UBATCH: u64 = 512;
        let model = models().iter().find(|model| model.id == self.model).context("not in the catalogue")?;
        let layout = model.layout(Quant::Q4KM)?;
        let embedding = u64::from(layout.embedding_length);
        let output = 4 * UBATCH * (layout.vocab_size + embedding);
        let copies = if is_split { 4 * (2 * ctx * UBATCH + 4 * UBATCH * embedding) } else { 0 };
        Ok(planned.max(mib(output + copies)))
    }
}

fn list(figures: &[f64]) -> String {
    figures.iter().map(|figure| format!("{figure:.2}")).collect::<Vec<_>>().join(" + ")
}
