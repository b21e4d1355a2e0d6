//! Where the time of a figure goes, on either side: `perf` over one sample, as a table of functions.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use firepot_measure::Side;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    cases::Case,
    commit,
    rig::{Peer, Rig, output},
};

/// Samples a second.
const RATE: &str = "199";
/// Functions of less than this share are left out.
const SHARE_MIN: f64 = 1.0;

/// Profiles one sample of each side of each case and writes the tables.
pub fn run(rig: &Rig, cases: &[&Case], out: &Path) -> anyhow::Result<()> {
    let mut text = HEAD.to_owned();
    for case in cases {
        ensure!(!matches!(case.peer, Peer::None), "{} has no peer to be profiled beside", case.name);
        let what: Vec<&str> = case.metrics.iter().map(|metric| metric.what).collect();
        writeln!(text, "\n## `{}`: {}\n", case.name, what.join("; "))?;
        writeln!(text, "{}, beside {}; commit {}", case.model.title(), case.peer.title(), commit()?)?;
        for (side, program) in [(Side::Ours, "firepot"), (Side::Peer, "llama-")] {
            eprintln!("{} {side:?}", case.name);
            let rows = profile(rig, case, side, program)?;
            let title = if side == Side::Ours { "Firepot" } else { case.peer.title() };
            writeln!(text, "\n| {title} | share of its time |\n|---|---|")?;
            for (symbol, share) in rows {
                writeln!(text, "| `{symbol}` | {share:.1} % |")?;
            }
        }
    }
    File::create(out)?.write_all(text.as_bytes())?;
    println!("{}", out.display());
    Ok(())
}

const HEAD: &str = "# Where the time goes\n\n`cargo xtask bench-engine --profile NAME` wrote this: `perf` over one whole sample of \
    each side, start of the program included, all functions of the program itself with at least 1 % of its time.\n";

/// Functions of the program with their shares of the program's own time, in percent, largest first.
fn profile(rig: &Rig, case: &Case, side: Side, program: &str) -> anyhow::Result<Vec<(String, f64)>> {
    if case.peer == Peer::ServerBest {
        // Found by llama-bench, which is not to be profiled.
        rig.best(case.model)?;
    }
    let data = rig.file_in_work("perf.data");
    let perf = Perf::start(&data)?;
    let sample = (case.sample)(rig, case, side);
    perf.stop()?;
    sample?;
    let mut report = Command::new("perf");
    report.args(["report", "--stdio", "--no-children", "--sort", "dso,symbol", "-i"]).arg(&data);
    let rows = rows(&output(report.stderr(Stdio::null()))?, program);
    fs::remove_file(data)?;
    let all: f64 = rows.iter().map(|row| row.1).sum();
    ensure!(all > 0.0, "perf saw nothing of {program}");
    let of_program = rows.into_iter().map(|(symbol, share)| (symbol, share / all * 100.0));
    Ok(of_program.filter(|row| row.1 >= SHARE_MIN).collect())
}

/// Lines such as `  45.20%  firepot  [.] ggml_vec_dot_q4_K_q8_K  -  -`.
fn rows(report: &str, program: &str) -> Vec<(String, f64)> {
    let row = |line: &str| {
        let (share, rest) = line.trim().split_once('%')?;
        let (dso, symbol) = rest.trim().split_once(char::is_whitespace)?;
        let symbol = symbol.trim().strip_prefix("[.]")?.trim();
        let symbol = symbol.split("  ").next().unwrap_or(symbol);
        dso.starts_with(program).then_some((symbol.to_owned(), share.parse().ok()?))
    };
    report.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
}

/// `perf` over the whole machine, which does nothing else meanwhile.
struct Perf(Child);

impl Perf {
    fn start(data: &PathBuf) -> anyhow::Result<Self> {
        let mut command = Command::new("perf");
        command.args(["record", "--all-cpus", "--quiet", "--freq", RATE, "--output"]).arg(data);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Self).context("perf cannot be started; it is in the package linux-perf")
    }

    /// An interrupt lets it write what it has.
    fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::INT)?;
        self.0.wait()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_program_are_told_from_others() {
        let report = "# Overhead\n    45.20%  firepot  [.] ggml_vec_dot_q4_K_q8_K  -      -\n     9.10%  [kernel.kallsyms]  [k] clear_page\n     \
            1.00%  libc.so.6  [.] memcpy\n     3.50%  firepot  [.] 0x00000000004f\n\n";
        assert_eq!(
            rows(report, "firepot"),
            [("ggml_vec_dot_q4_K_q8_K".to_owned(), 45.2), ("0x00000000004f".to_owned(), 3.5)]
        );
    }
}
