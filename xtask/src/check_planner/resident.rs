//! Resident memory of runners whose context was filled, beside the plan.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use firepot_catalogue::Quant;
use serde_json::Value;

use super::mib;
use crate::{
    bench::{Program, Service, output},
    synth,
};

/// So many answers are computed with flash attention where nothing was measured, and one without.
const WITH_FLASH: u32 = 8;
/// Contexts of the test model, which is quick enough to fill all that it was trained with.
const CTX: [u32; 3] = [1024, 4096, 8192];
/// Shapes of the catalogue with random weights, and their contexts.
const MODELS: [(&str, Quant, &[u32]); 3] = [
    ("qwen3-0.6b", Quant::Q4KM, &[1024, 4096]),
    ("granite-3.1-1b-a400m", Quant::Q4KM, &[1024]),
    ("smollm2-1.7b", Quant::Q4KM, &[1024]),
];
/// Tokens of the context that are left for the answer.
const ANSWER: u32 = 16;

/// One load.
#[derive(Debug)]
pub struct Row {
    model: String,
    ctx: u32,
    parallel: u32,
    flash: bool,
    planned_bytes: u64,
    peak_bytes: u64,
}

impl Row {
    pub const HEAD: &str = "| model | context | answers | flash attention | planned, MiB | peak, MiB | off, MiB |\n\
        |---|---|---|---|---|---|---|\n";

    /// A line of the report.
    pub fn line(&self) -> String {
        let Self { model, ctx, parallel, flash, planned_bytes, peak_bytes } = self;
        let (planned, peak) = (mib(*planned_bytes), mib(*peak_bytes));
        let mark = if self.near() { "" } else { " ✗" };
        let flash = if *flash { "with" } else { "without" };
        format!(
            "| {model} | {ctx} | {parallel} | {flash} | {planned:.0} | {peak:.0} | {:+.0}{mark} |\n",
            planned - peak
        )
    }

    /// Within 5 % or 24 MiB.
    const fn near(&self) -> bool {
        let off = self.planned_bytes.abs_diff(self.peak_bytes);
        off * 20 <= self.peak_bytes || off <= 24 << 20
    }
}

/// Loads every model with every context, with flash attention and without, and fills it.
pub fn check(firepot: &Path, model: &Path) -> anyhow::Result<Vec<Row>> {
    let home = tempfile::tempdir()?;
    let checked = Checked { firepot, home: home.path() };
    let mut rows = Vec::new();
    let mut fill = |name: &str, ctx: &[u32]| {
        for (&ctx, parallel) in ctx.iter().flat_map(|ctx| [(ctx, 1), (ctx, WITH_FLASH)]) {
            let row = checked.fill(name, ctx, parallel)?;
            eprint!("{}", row.line());
            rows.push(row);
        }
        anyhow::Ok(())
    };
    checked.import(model, "smollm2-135m-Q4_1")?;
    fill("smollm2-135m-Q4_1", &CTX)?;
    for (shape, quant, ctx) in MODELS {
        let shape = synth::model(shape).map_err(anyhow::Error::msg)?;
        let name = format!("{}-{}", shape.id, quant.name());
        checked.import(&synth::write_missing(shape, quant, model)?, &name)?;
        fill(&name, ctx)?;
    }
    Ok(rows)
}

struct Checked<'a> {
    firepot: &'a Path,
    home: &'a Path,
}

impl Checked<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.firepot);
        // Without a calibration the plan depends on the arguments alone.
        command.env("FIREPOT_NO_CALIBRATION", "1").arg("--home").arg(self.home).stdin(Stdio::null());
        command
    }

    fn import(&self, file: &Path, name: &str) -> anyhow::Result<()> {
        output(self.command().arg("import").arg(file).arg(name)).map(drop)
    }

    fn fill(&self, model: &str, ctx: u32, parallel: u32) -> anyhow::Result<Row> {
        let wants = ["--ctx".to_owned(), ctx.to_string(), "--parallel".to_owned(), parallel.to_string()];
        let fit = output(self.command().args(["fit", "--json", model]).args(&wants))?;
        let fit: Value = serde_json::from_str(&fit)?;
        let plan = &fit["models"][0]["plan"];
        let predicted = &plan["predicted"];
        let bytes = |of: &Value, name: &str| of[name].as_u64().with_context(|| format!("no {name}"));
        let host = &predicted["host"];
        let planned_bytes = bytes(host, "weights_bytes")?
            + bytes(host, "kv_bytes")?
            + bytes(host, "compute_bytes")?
            + bytes(predicted, "runner_bytes")?;
        let mut serve = self.command();
        serve.args(["serve", "--no-reload", "--snapshot-bytes", "0"]).args(&wants);
        let service = Service::start(Program::Firepot, &mut serve, model, &self.home.join("serve.log"))?;
        let answer = service.complete_stamped(&words(ctx - ANSWER), ANSWER, true)?;
        ensure!(
            answer.prompt_tokens * 20 >= u64::from(ctx) * 19,
            "a prompt of {} tokens does not fill {ctx}",
            answer.prompt_tokens
        );
        let peak_bytes = service.memory()?.peak_bytes;
        let flash = plan["flash_attention"].as_bool().context("no flash_attention")?;
        Ok(Row { model: model.to_owned(), ctx, parallel, flash, planned_bytes, peak_bytes })
    }
}

/// So many tokens, the one that may stand before them included.
fn words(tokens: u32) -> String {
    " river stone".repeat(tokens as usize / 2 - 1)
}
