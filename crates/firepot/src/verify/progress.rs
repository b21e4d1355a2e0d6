//! How far a trial is: a bar for people, lines of JSON for the server that has started it.

use std::io::Write as _;

use firepot_trial::{Progress, Progressed};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// A bar on standard error.
#[derive(Debug)]
pub struct Bars {
    bar: ProgressBar,
}

impl Bars {
    /// A bar for a trial of a model.
    pub fn new(model: &str) -> Self {
        let bar = ProgressBar::new(1).with_prefix(model.to_owned());
        let style = ProgressStyle::with_template("{prefix} {bar:30} case {pos}/{len} {msg} {elapsed}");
        Self { bar: style.map(|style| bar.clone().with_style(style)).unwrap_or(bar) }
    }
}

impl Progress for Bars {
    fn tell(&self, progressed: Progressed<'_>) {
        let Progressed { case, number, cases, samples, most } = progressed;
        self.bar.set_length(cases as u64);
        self.bar.set_position(number as u64);
        self.bar.set_message(format!("{case}: {samples} of at most {most} samples"));
        self.bar.tick();
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line of JSON on standard output for each step.
#[derive(Debug)]
pub struct Lines;

impl Lines {
    /// Writes a line. Whoever reads may be gone; the trial goes on.
    pub fn write(line: &Value) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }
}

impl Progress for Lines {
    fn tell(&self, progressed: Progressed<'_>) {
        let Progressed { case, number, cases, samples, most } = progressed;
        Self::write(
            &json!({"case": case, "number": number, "cases": cases, "samples": samples, "most": most}),
        );
    }

    fn note(&self, text: &str) {
        Self::write(&json!({ "note": text }));
    }
}
