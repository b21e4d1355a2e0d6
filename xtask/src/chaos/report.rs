//! `docs/survival.md`.

use std::{fmt::Write as _, path::Path, time::Duration};

use firepot_measure::quantile;

use super::{Args, Counted};

/// What was counted, as Markdown.
pub fn markdown(counted: &Counted, args: &Args, took: Duration) -> String {
    let mut text = format!(
        "# Survival\n\nWritten by `cargo xtask chaos --kills {} --seed {} --write`. The real program on SmolLM2-135M: {} processes died in \
         the named state (`firepot_fail` lets a process kill itself as by `kill -9` at a point that it passes), while {} answers were read \
         by clients that send their request again. Every answer was then read a second time, whole, and from the journal. {} s in all.\n\n",
        args.kills,
        args.seed,
        counted.deaths.values().sum::<u32>(),
        counted.answers,
        took.as_secs(),
    );
    text.push_str("| state | runner died | server died | both |\n|---|--:|--:|--:|\n");
    let mut points: Vec<_> = counted.deaths.keys().map(|(point, _)| *point).collect();
    points.dedup();
    for point in points {
        let of = |victim| counted.deaths.get(&(point, victim)).copied().unwrap_or(0);
        let _ =
            writeln!(text, "| {} | {} | {} | {} |", point.as_str(), of("runner"), of("server"), of("both"));
    }
    text.push_str("\n| what | count |\n|---|--:|\n");
    for (what, count) in [
        ("positions lost", counted.lost),
        ("positions told twice", counted.twice),
        ("answers that differ from the journal or from a second reading", counted.different),
        ("answers whose text before a death changed", counted.changed),
        ("answers that ended with an error", counted.failed.len() as u32),
    ] {
        let _ = writeln!(text, "| {what} | {count} |");
    }
    let (strict, differ) = counted.strict;
    let _ = writeln!(text, "| strict answers that differ from the undisturbed one, of {strict} | {differ} |");
    for error in &counted.failed {
        let _ = writeln!(text, "\n- {error}");
    }
    let mut pauses = counted.pauses_ms.clone();
    pauses.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (pauses.first(), pauses.last()) {
        let median = quantile(&pauses, 0.5).unwrap_or_default();
        let _ = writeln!(
            text,
            "\nFrom a runner's death in decode to the next token at the client: median {median:.0} ms ({least:.0} to {most:.0}, {} deaths).",
            pauses.len()
        );
    }
    let _ = writeln!(
        text,
        "\nTokens in the journal: {}. Ordered deaths that the answer's end forestalled: {}.",
        counted.tokens, counted.missed
    );
    text
}

/// Writes the document.
pub fn write(text: &str) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/survival.md");
    Ok(firepot_store::write_atomic(&path, text.as_bytes())?)
}
