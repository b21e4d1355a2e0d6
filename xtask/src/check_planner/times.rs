//! How long planning takes.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::ensure;
use firepot_gguf::Gguf;
use firepot_machine::{Environment, Machine};
use firepot_measure::quantile;
use firepot_plan::{Want, plan};

const RUNS: usize = 21;

/// Times of planning `model` and of the whole catalogue, as text.
pub fn report(firepot: &Path, model: &Path) -> anyhow::Result<String> {
    let environment = Environment { kaggle_kernel_run_type: None, colab_release_tag: None };
    let machine = Machine::probe(Path::new("."), &environment);
    let one = median(|| {
        let layout = Gguf::read(&File::open(model)?)?.layout()?;
        plan(&layout, &machine, &Want::default())?;
        Ok(())
    })?;
    let home = tempfile::tempdir()?;
    let fit = |names: &[&str]| {
        let mut command = Command::new(firepot);
        command.arg("--home").arg(home.path()).arg("fit").args(names);
        ensure!(command.stdout(Stdio::null()).status()?.success(), "firepot fit {names:?} failed");
        Ok(())
    };
    let name = model.display().to_string();
    let (file, catalogue) = (median(|| fit(&[&name]))?, median(|| fit(&[]))?);
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!(
        "\n## How long planning takes\n\nMedians of {RUNS} runs.\n\n| what | time |\n|---|---|\n\
         | reading the header of {name} and planning it | {} |\n\
         | `firepot fit {name}`: the process's start, a look at the machine and memory's bandwidth with it | {} |\n\
         | `firepot fit`: the whole catalogue | {} |\n",
        ms(one),
        ms(file),
        ms(catalogue)
    ))
}

fn median(mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut seconds = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let started = Instant::now();
        run()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(Duration::from_secs_f64(quantile(&seconds, 0.5).unwrap_or_default()))
}
