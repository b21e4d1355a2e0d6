//! The suites, as data: what is asked, how often, and how long each case may take at most.
//!
//! Times are shares of the suite's limit, so that a slow machine measures less of everything rather than nothing of the
//! last cases; what a case does not need is there for those after it, and at the end for the fewest samples of those that were cut
//! short. What was left out is named in the bundle. A case that a server or a model cannot do is left out by name, too.

use std::time::Duration;

use firepot_measure::bundle::{Case, CaseKind, Suite};

/// A line of a suite.
struct Row {
    id: &'static str,
    kind: CaseKind,
    prompt: u32,
    depth: u32,
    concurrency: u32,
    tokens: u32,
    samples: (u32, u32),
    /// Share of the suite's time, in thousandths.
    permille: u32,
}

const fn row(
    id: &'static str,
    kind: CaseKind,
    [prompt, depth, concurrency, tokens]: [u32; 4],
    samples: (u32, u32),
    permille: u32,
) -> Row {
    Row { id, kind, prompt, depth, concurrency, tokens, samples, permille }
}

use CaseKind::{ColdStart, Concurrency, Depth, Determinism, PrefixHit, Quality, Restart, Warm};

/// [prompt, depth, concurrency, tokens], (fewest, most samples), thousandths of the time. Six samples are the fewest whose median
/// has an interval of 95 %.
const SMOKE: &[Row] = &[
    row("cold", ColdStart, [32, 0, 1, 8], (3, 5), 70),
    row("warm-64", Warm, [64, 0, 1, 16], (6, 12), 145),
    row("prefix-hit-512", PrefixHit, [32, 512, 1, 8], (6, 12), 120),
    row("depth-512", Depth, [32, 512, 1, 16], (5, 8), 140),
    row("concurrency-1", Concurrency, [32, 0, 1, 16], (2, 3), 25),
    row("concurrency-4", Concurrency, [32, 0, 4, 16], (2, 3), 80),
    row("determinism", Determinism, [64, 0, 1, 16], (6, 6), 105),
    row("restart-decode", Restart, [32, 0, 1, 32], (1, 1), 55),
    row("quality-arithmetic", Quality, [0, 0, 1, 48], (3, 3), 60),
    row("quality-word-problem", Quality, [0, 0, 1, 64], (2, 2), 60),
    row("quality-logic", Quality, [0, 0, 1, 64], (2, 2), 50),
    row("quality-needle", Quality, [192, 0, 1, 32], (2, 2), 45),
    row("quality-json-schema", Quality, [0, 0, 1, 64], (2, 2), 45),
];

const STANDARD: &[Row] = &[
    row("cold", ColdStart, [32, 0, 1, 8], (10, 10), 25),
    row("warm-32", Warm, [32, 0, 1, 64], (10, 12), 40),
    row("warm-128", Warm, [128, 0, 1, 64], (10, 12), 60),
    row("warm-512", Warm, [512, 0, 1, 64], (10, 10), 100),
    row("warm-1024", Warm, [1024, 0, 1, 32], (10, 10), 165),
    row("prefix-hit-512", PrefixHit, [32, 512, 1, 16], (10, 16), 25),
    row("depth-512", Depth, [32, 512, 1, 64], (10, 11), 40),
    row("depth-2048", Depth, [32, 2048, 1, 64], (10, 10), 90),
    row("concurrency-1", Concurrency, [32, 0, 1, 48], (3, 4), 10),
    row("concurrency-2", Concurrency, [32, 0, 2, 48], (3, 4), 15),
    row("concurrency-4", Concurrency, [32, 0, 4, 48], (3, 4), 27),
    row("concurrency-8", Concurrency, [32, 0, 8, 32], (3, 4), 45),
    row("concurrency-16", Concurrency, [32, 0, 16, 32], (3, 4), 85),
    row("determinism", Determinism, [64, 0, 1, 96], (6, 6), 25),
    row("restart-loading", Restart, [32, 0, 1, 32], (1, 1), 10),
    row("restart-prefill", Restart, [1024, 0, 1, 16], (1, 1), 32),
    row("restart-decode", Restart, [32, 0, 1, 48], (1, 2), 15),
    row("quality-arithmetic", Quality, [0, 0, 1, 96], (12, 12), 36),
    row("quality-word-problem", Quality, [0, 0, 1, 128], (8, 8), 43),
    row("quality-logic", Quality, [0, 0, 1, 128], (8, 8), 30),
    row("quality-needle", Quality, [512, 0, 1, 48], (8, 8), 35),
    row("quality-json-schema", Quality, [0, 0, 1, 128], (8, 8), 45),
];

const FULL: &[Row] = &[
    row("cold", ColdStart, [32, 0, 1, 8], (10, 20), 10),
    row("warm-32", Warm, [32, 0, 1, 128], (10, 40), 25),
    row("warm-128", Warm, [128, 0, 1, 128], (10, 40), 30),
    row("warm-512", Warm, [512, 0, 1, 128], (10, 24), 45),
    row("warm-2048", Warm, [2048, 0, 1, 64], (10, 12), 80),
    row("warm-4096", Warm, [4096, 0, 1, 64], (6, 8), 100),
    row("prefix-hit-512", PrefixHit, [32, 512, 1, 16], (10, 40), 12),
    row("prefix-hit-2048", PrefixHit, [32, 2048, 1, 16], (10, 30), 20),
    row("depth-512", Depth, [32, 512, 1, 128], (10, 24), 25),
    row("depth-2048", Depth, [32, 2048, 1, 128], (10, 20), 40),
    row("depth-4096", Depth, [32, 4096, 1, 128], (10, 16), 45),
    row("depth-7000", Depth, [32, 7000, 1, 128], (10, 12), 70),
    row("concurrency-1", Concurrency, [64, 0, 1, 96], (6, 8), 6),
    row("concurrency-2", Concurrency, [64, 0, 2, 96], (6, 8), 12),
    row("concurrency-4", Concurrency, [64, 0, 4, 96], (6, 8), 25),
    row("concurrency-8", Concurrency, [64, 0, 8, 96], (6, 8), 50),
    row("concurrency-16", Concurrency, [64, 0, 16, 96], (6, 6), 95),
    row("determinism", Determinism, [64, 0, 1, 256], (6, 6), 13),
    row("restart-loading", Restart, [32, 0, 1, 48], (3, 3), 7),
    row("restart-prefill", Restart, [2048, 0, 1, 16], (3, 3), 25),
    row("restart-decode", Restart, [32, 0, 1, 96], (3, 3), 10),
    row("quality-arithmetic", Quality, [0, 0, 1, 128], (40, 40), 38),
    row("quality-word-problem", Quality, [0, 0, 1, 192], (40, 40), 55),
    row("quality-logic", Quality, [0, 0, 1, 192], (40, 40), 33),
    row("quality-needle", Quality, [1536, 0, 1, 64], (20, 20), 88),
    row("quality-json-schema", Quality, [0, 0, 1, 192], (32, 32), 40),
];

/// How long a suite may take, from the first sample on. Finding the servers, loading the model and hashing files comes before it,
/// so that the whole command stays within 1, 8 and 45 minutes.
#[must_use]
pub const fn time(suite: Suite) -> Duration {
    match suite {
        Suite::Smoke => Duration::from_secs(55),
        Suite::Standard => Duration::from_secs(470),
        Suite::Full => Duration::from_secs(2680),
    }
}

const fn rows(suite: Suite) -> &'static [Row] {
    match suite {
        Suite::Smoke => SMOKE,
        Suite::Standard => STANDARD,
        Suite::Full => FULL,
    }
}

/// Tokens that a model which thinks gets for it before each answer to a question, beyond the answer's own: most thoughts about
/// such questions are shorter.
const fn thoughts(suite: Suite) -> u32 {
    match suite {
        // A minute has no time for them: such answers are cut, and counted so.
        Suite::Smoke => 0,
        Suite::Standard => 768,
        Suite::Full => 1536,
    }
}

/// The cases of a suite, for a model that thinks before it answers or one that does not.
#[must_use]
pub fn cases(suite: Suite, seed: u64, thinks: bool) -> Vec<Case> {
    let room = |kind: CaseKind| if thinks && kind == Quality { thoughts(suite) } else { 0 };
    let case = |(number, row): (u64, &Row)| Case {
        id: row.id.to_owned(),
        kind: row.kind,
        prompt_tokens: row.prompt,
        depth_tokens: row.depth,
        concurrency: row.concurrency,
        max_tokens: row.tokens + room(row.kind),
        strict: matches!(row.kind, Determinism | Restart),
        ignore_eos: row.kind != Quality,
        // JSON readers other than ours take numbers for floats.
        seed: fastrand::Rng::with_seed(seed.wrapping_add(number)).u64(..1 << 53),
        min_samples: row.samples.0,
        max_samples: row.samples.1,
    };
    (0..).zip(rows(suite)).map(case).collect()
}

/// When a case of a suite is to be over, counted from the first sample, when the whole suite may take `limit`.
#[must_use]
pub fn until(suite: Suite, case: &str, limit: Duration) -> Duration {
    let Some(place) = rows(suite).iter().position(|row| row.id == case) else { return limit };
    let permille: u32 = rows(suite)[..=place].iter().map(|row| row.permille).sum();
    limit * permille / 1000
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_suite_has_each_kind_once_by_name_and_fits_its_time() {
        for suite in [Suite::Smoke, Suite::Standard, Suite::Full] {
            let cases = cases(suite, 7, false);
            let ids: HashSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
            assert_eq!(ids.len(), cases.len(), "{suite:?}");
            let kinds: HashSet<String> = cases.iter().map(|case| format!("{:?}", case.kind)).collect();
            assert_eq!(kinds.len(), 8, "{suite:?}");
            // What is left is for probes, loads, and the writing of the bundle.
            let permille: u32 = rows(suite).iter().map(|row| row.permille).sum();
            assert!((900..=1000).contains(&permille), "{suite:?}: {permille}");
            assert!(cases.iter().all(|case| case.min_samples <= case.max_samples && case.seed < 1 << 53));
        }
    }

    #[test]
    fn a_model_that_thinks_has_room_for_it_in_questions_alone() {
        let (plain, thinking) = (cases(Suite::Standard, 7, false), cases(Suite::Standard, 7, true));
        for (plain, thinking) in plain.iter().zip(&thinking) {
            let room = if plain.kind == Quality { 768 } else { 0 };
            assert_eq!(thinking.max_tokens, plain.max_tokens + room, "{}", plain.id);
        }
    }
}
