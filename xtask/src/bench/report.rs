//! `docs/benchmarks.md`, and the samples that it is made of.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use firepot_measure::{Pair, Summary, median_interval, paired_ratios};
use serde::{Deserialize, Serialize};

use super::{
    cases::{CASES, Case, Metric, Reach},
    peers::{CMAKE_FLAGS, PACKAGE},
    rig::Peer,
};

/// All samples of the last run of each case.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    cases: Vec<Taken>,
}

/// The samples of a case, and where they were taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct Taken {
    /// The case.
    pub name: String,
    /// Day, in UTC.
    pub date: String,
    /// Our commit.
    pub commit: String,
    /// What `firepot doctor` says of the machine and of llama.cpp.
    pub machine: Vec<String>,
    /// The peer's settings, where they are not its defaults.
    pub settings: String,
    /// In the order in which they were taken. The probe is the read bandwidth, in GB/s.
    pub pairs: Vec<Pair>,
}

impl Report {
    /// The samples beside a report; none where there is no report.
    pub fn open(report: &Path) -> anyhow::Result<Self> {
        let path = samples_path(report);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path)?;
        serde_json::from_str(&text).with_context(|| format!("{}; delete it to start anew", path.display()))
    }

    /// Puts a case's new samples in the place of its old ones.
    pub fn put(&mut self, taken: Taken) {
        self.cases.retain(|old| old.name != taken.name);
        self.cases.push(taken);
        self.cases.sort_by_key(|taken| CASES.iter().position(|case| case.name == taken.name));
    }

    /// Writes report and samples.
    pub fn write(&self, report: &Path) -> anyhow::Result<()> {
        if let Some(folder) = report.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut samples = BufWriter::new(File::create(samples_path(report))?);
        serde_json::to_writer_pretty(&mut samples, self)?;
        samples.write_all(b"\n")?;
        samples.flush()?;
        File::create(report)?.write_all(self.markdown().as_bytes())?;
        Ok(())
    }

    fn markdown(&self) -> String {
        let known = || {
            self.cases
                .iter()
                .filter_map(|taken| Some((CASES.iter().find(|case| case.name == taken.name)?, taken)))
        };
        let mut text = HEAD.to_owned();
        for (case, taken) in known() {
            for (index, metric) in case.metrics.iter().enumerate() {
                text += &row(case, metric, index, taken);
            }
        }
        let machines = self.machines();
        text += "\n## How it was taken\n\n| figure | pairs | day | commit | machine | read bandwidth meanwhile | the peer's settings |\n";
        text += "|---|---|---|---|---|---|---|\n";
        for (_, taken) in known() {
            let bandwidth = || taken.pairs.iter().map(|pair| pair.probe);
            let (low, high) = (bandwidth().fold(f64::MAX, f64::min), bandwidth().fold(0.0, f64::max));
            let Taken { name, date, commit, settings, pairs, .. } = taken;
            let settings = if settings.is_empty() { "–".to_owned() } else { format!("`{settings}`") };
            let count = pairs.len();
            let machine =
                1 + machines.iter().position(|machine| same(machine, &taken.machine)).unwrap_or_default();
            let _ = writeln!(
                text,
                "| `{name}` | {count} | {date} | {commit} | {machine} | {low:.1} to {high:.1} GB/s | {settings} |"
            );
        }
        for (index, machine) in machines.iter().enumerate() {
            let _ = write!(text, "\n## Machine {}\n\n```\n{}\n```\n", index + 1, machine.join("\n"));
        }
        let _ = write!(text, "\nPeers: {PACKAGE}, `{}`\n", CMAKE_FLAGS.join(" "));
        text
    }

    /// The machines on which the samples were taken, each once.
    fn machines(&self) -> Vec<&[String]> {
        let mut machines: Vec<&[String]> = Vec::new();
        for taken in &self.cases {
            if !machines.iter().any(|machine| same(machine, &taken.machine)) {
                machines.push(&taken.machine);
            }
        }
        machines
    }
}

/// Whether two descriptions are of one machine: all but the memory that happened to be available.
fn same(one: &[String], other: &[String]) -> bool {
    let lasting = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !line.starts_with("memory")).cloned().collect()
    };
    lasting(one) == lasting(other)
}

const HEAD: &str = "\
# Our engine beside llama.cpp's own tools

`cargo xtask bench-engine` wrote this; the samples are in [benchmarks.json](benchmarks.json). Each figure is of our real server
and runner over HTTP, and of its peer within the same minutes, in alternating order (ABBA). What counts is the ratio, ours
over the peer's: its median, and in brackets an interval that holds the true median with at least 95 %. A time alone says
little, since the machine is shared.

| what | model | beside | Firepot | peer | ratio | to reach | reached |
|---|---|---|---|---|---|---|---|
";

fn row(case: &Case, metric: &Metric, index: usize, taken: &Taken) -> String {
    let ours: Vec<f64> = taken.pairs.iter().filter_map(|pair| pair.ours.get(index).copied()).collect();
    let both: Vec<(f64, f64)> = taken
        .pairs
        .iter()
        .filter_map(|pair| Some((*pair.ours.get(index)?, *pair.peer.get(index)?)))
        .collect();
    let peers: Vec<f64> = both.iter().map(|(_, peer)| *peer).collect();
    let (ours, peer, ratio) = (median_interval(&ours), median_interval(&peers), paired_ratios(&both));
    let with_unit = |summary: Option<Summary>| {
        summary.map_or_else(|| "–".to_owned(), |summary| format!("{} {}", short(summary.median), metric.unit))
    };
    let span = |summary: Summary| {
        let Summary { median, interval, .. } = summary;
        format!("{} [{}, {}]", short(median), short(interval.low), short(interval.high))
    };
    let (to_reach, reached) = verdict(metric.reach, ours, ratio);
    let beside = if case.peer == Peer::None { "–" } else { case.peer.title() };
    format!(
        "| {} | {} | {beside} | {} | {} | {} | {to_reach} | {reached} |\n",
        metric.what,
        case.model.title(),
        with_unit(ours),
        with_unit(peer),
        ratio.map_or_else(|| "–".to_owned(), span),
    )
}

fn verdict(reach: Reach, ours: Option<Summary>, ratio: Option<Summary>) -> (String, &'static str) {
    let (text, holds) = match reach {
        Reach::AtLeast(bound) => (format!("≥ {bound}"), ratio.map(|ratio| ratio.median >= bound)),
        Reach::AtMost(bound) => (format!("≤ {bound}"), ratio.map(|ratio| ratio.median <= bound)),
        Reach::UpperEndAtLeast(bound) => {
            (format!("upper end ≥ {bound}"), ratio.map(|ratio| ratio.interval.high >= bound))
        }
        Reach::OursAtMost(bound) => (format!("≤ {bound}"), ours.map(|ours| ours.median <= bound)),
        Reach::Shown => return (String::new(), ""),
    };
    (text, holds.map_or("no samples", |holds| if holds { "yes" } else { "**no**" }))
}

/// Three significant digits.
fn short(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).max(0) as usize };
    format!("{value:.digits$}")
}

fn samples_path(report: &Path) -> PathBuf {
    report.with_extension("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown() {
        let shown = [0.0, 0.051_23, 0.997, 1.5, 13.88, 14_666.4].map(short);
        assert_eq!(shown, ["0", "0.0512", "0.997", "1.50", "13.9", "14666"]);
    }

    #[test]
    fn each_machine_is_listed_once_whatever_memory_it_had_left() {
        let taken = |cpu: &str, memory: &str| Taken {
            name: String::new(),
            date: String::new(),
            commit: String::new(),
            machine: vec![format!("CPU        {cpu}"), format!("memory     {memory}")],
            settings: String::new(),
            pairs: Vec::new(),
        };
        let cases = vec![taken("A", "1 GB"), taken("B", "1 GB"), taken("A", "2 GB")];
        let report = Report { cases };
        assert_eq!(report.machines().len(), 2);
        assert_eq!(report.machines()[1][0], "CPU        B");
    }

    #[test]
    fn a_verdict_needs_samples_and_can_be_no() {
        let ratio = median_interval(&[0.9, 0.95, 0.96, 0.96, 0.97, 0.98]);
        assert_eq!(verdict(Reach::AtLeast(1.0), None, ratio).1, "**no**");
        assert_eq!(verdict(Reach::UpperEndAtLeast(0.97), None, ratio).1, "yes");
        assert_eq!(verdict(Reach::AtMost(0.2), None, ratio).1, "**no**");
        assert_eq!(verdict(Reach::AtMost(0.2), None, None).1, "no samples");
    }
}
