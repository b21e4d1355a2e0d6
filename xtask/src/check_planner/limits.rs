//! Memory limits: what is said to fit must run, and what is refused must not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::bench::output;

/// Context sizes; the prompt fills each.
const CTX: [u32; 4] = [512, 1024, 2048, 4096];
/// Limits for each, evenly from well below what is needed to well above.
const LIMITS: u64 = 16;
/// First and last limit, in percent of what the run takes without one.
const RANGE: (u64, u64) = (70, 160);
/// A run that takes so many times as long as without a limit, and met it, thrashes.
const THRASHES: u32 = 3;

/// How a run under a limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Answered, in about the usual time.
    Answered,
    /// Answered, far too slowly, since memory was taken away and read again.
    Thrashed,
    /// The plan refused it.
    Refused,
    /// It died.
    Died,
}

/// All runs of one context size.
#[derive(Debug)]
pub struct Row {
    pub ctx: u32,
    /// What it takes without a limit: all processes' memory at its highest, without page cache, and the mapped file.
    pub needs_bytes: u64,
    answered: u32,
    thrashed: u32,
    died: u32,
    refused: u32,
    /// Refused, although the limit is above what was needed.
    refused_needlessly: u32,
}

impl Row {
    pub const HEAD: &str = "| context | takes, MiB | limits | answered | thrashed | died | refused | refused needlessly |\n\
        |---|---|---|---|---|---|---|---|\n";

    /// A line of the report.
    pub fn line(&self) -> String {
        let Self { ctx, answered, thrashed, died, refused, refused_needlessly, .. } = self;
        let (needs, all) = (self.needs_bytes >> 20, answered + thrashed + died + refused);
        format!(
            "| {ctx} | {needs} | {all} | {answered} | {thrashed} | {died} | {refused} | {refused_needlessly} |\n"
        )
    }
}

/// Runs the test model under every limit; `None` where no control group can be made.
pub fn check(firepot: &Path, model: &Path) -> anyhow::Result<Option<Vec<Row>>> {
    let Some(group) = Group::make() else { return Ok(None) };
    let home = tempfile::tempdir()?;
    let mut import = Command::new(firepot);
    output(import.arg("--home").arg(home.path()).args(["import", "--copy"]).arg(model).arg(NAME))?;
    CTX.into_iter().map(|ctx| row(&group, firepot, home.path(), ctx)).collect::<Result<_, _>>().map(Some)
}

const NAME: &str = "checked:latest";

fn row(group: &Group, firepot: &Path, home: &Path, ctx: u32) -> anyhow::Result<Row> {
    group.limit(None)?;
    let (end, usual) = run(group, firepot, home, ctx, 0)?;
    ensure!(end.status.success(), "{}", String::from_utf8_lossy(&end.stderr));
    let needs_bytes = group.peak()?;
    let mut row =
        Row { ctx, needs_bytes, answered: 0, thrashed: 0, died: 0, refused: 0, refused_needlessly: 0 };
    for step in 0..LIMITS {
        let percent = RANGE.0 + (RANGE.1 - RANGE.0) * step / (LIMITS - 1);
        let limit_bytes = needs_bytes / 100 * percent;
        group.limit(Some(limit_bytes))?;
        let (output, took) = run(group, firepot, home, ctx, step + 1)?;
        let end = match output.status.code() {
            Some(0) if took > usual * THRASHES && group.met()? => End::Thrashed,
            Some(0) => End::Answered,
            _ if String::from_utf8_lossy(&output.stderr).contains("are available") => End::Refused,
            _ => End::Died,
        };
        eprintln!("{ctx} tokens, {} MiB: {end:?} after {took:.1?}", limit_bytes >> 20);
        if end == End::Died {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        match end {
            End::Answered => row.answered += 1,
            End::Thrashed => row.thrashed += 1,
            End::Died => row.died += 1,
            End::Refused => row.refused += 1,
        }
        row.refused_needlessly += u32::from(end == End::Refused && limit_bytes >= needs_bytes);
    }
    Ok(row)
}

/// One question that fills the context, in the group: another one for each number, so that no snapshot has it.
fn run(
    group: &Group,
    firepot: &Path,
    home: &Path,
    ctx: u32,
    number: u64,
) -> anyhow::Result<(std::process::Output, Duration)> {
    group.forget_peak()?;
    forget_files(&home.join("blobs"))?;
    let started = Instant::now();
    // A word is a token and a half.
    let prompt = format!("{number} {}", "river stone ".repeat(ctx as usize * 9 / 20));
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ > \"$0/tasks\" && exec \"$@\""])
        .arg(&group.path)
        .arg(firepot)
        .arg("--home")
        .arg(home);
    command.args([
        "run",
        NAME,
        "--ctx",
        &ctx.to_string(),
        "--parallel",
        "1",
        "--max-tokens",
        "8",
        "--temperature",
        "0",
    ]);
    let output = command.arg(prompt).stdin(Stdio::null()).output()?;
    Ok((output, started.elapsed()))
}

/// Takes the model out of the page cache, so that the group is charged for what it maps.
fn forget_files(blobs: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(blobs)? {
        let file = fs::File::open(entry?.path())?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// A control group of the kernel's memory controller, version 1.
struct Group {
    path: PathBuf,
}

impl Group {
    fn make() -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/firepot-check-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self { path };
        group.limit(None).ok()?;
        Some(group)
    }

    fn write(&self, file: &str, value: &str) -> anyhow::Result<()> {
        use std::io::Write as _;
        let path = self.path.join(file);
        let mut file = fs::OpenOptions::new().write(true).open(&path)?;
        file.write_all(value.as_bytes()).with_context(|| format!("{}: {value}", path.display()))
    }

    fn limit(&self, bytes: Option<u64>) -> anyhow::Result<()> {
        // Page cache of earlier runs would count against a lower limit.
        self.write("memory.force_empty", "0")?;
        self.write("memory.limit_in_bytes", &bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string()))
    }

    fn forget_peak(&self) -> anyhow::Result<()> {
        self.write("memory.force_empty", "0")?;
        self.write("memory.failcnt", "0")?;
        self.write("memory.max_usage_in_bytes", "0")
    }

    /// Whether more was wanted than the limit since the peak was forgotten.
    fn met(&self) -> anyhow::Result<bool> {
        Ok(fs::read_to_string(self.path.join("memory.failcnt"))?.trim() != "0")
    }

    fn peak(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.path.join("memory.max_usage_in_bytes"))?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.path));
    }
}
