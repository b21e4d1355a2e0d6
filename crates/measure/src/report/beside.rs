//! Two sides beside each other, as text and table.

use super::{
    Input,
    document::{Block, Mark, Table, Verdict},
    number,
};
use crate::compare::{Change, Comparison, versus};

pub(super) fn comparisons(input: &Input<'_>) -> Vec<Block> {
    let compared =
        input.sessions.iter().filter_map(|(bundle, summary)| Some((bundle, versus(bundle, summary)?)));
    compared
        .flat_map(|(bundle, comparison)| {
            let names: Vec<&str> =
                bundle.workload.targets.iter().map(|target| target.server.as_str()).collect();
            let heading = Block::Heading(2, format!("{} beside {}", names[1], names[0]));
            [Some(heading), unequal(&comparison), comparison_table(&comparison)].into_iter().flatten()
        })
        .collect()
}

/// What is not equal on both sides of a comparison.
pub(crate) fn unequal(comparison: &Comparison) -> Option<Block> {
    let unequal = comparison.unequal.iter().map(|unequal| Verdict {
        mark: Mark::Open,
        word: "unequal",
        says: unequal.says.clone(),
        because: Vec::new(),
    });
    let unequal: Vec<_> = unequal.collect();
    (!unequal.is_empty()).then_some(Block::Verdicts(unequal))
}

/// A comparison as a table.
pub(crate) fn comparison_table(comparison: &Comparison) -> Option<Block> {
    let row = |row: &crate::compare::Row| {
        let found = row.difference;
        vec![
            row.metric.to_owned(),
            row.case.clone(),
            format!("{} [{}, {}]", number(found.ratio), number(found.low), number(found.high)),
            number(row.p_adjusted),
            format!("{} / {}", found.first_samples, found.second_samples),
            match row.change {
                Change::Better => "better",
                Change::Worse => "worse",
                Change::NotFound => "no difference found",
            }
            .to_owned(),
        ]
    };
    let head = ["metric", "case", "second over first [95 %]", "p (Holm)", "samples", "second is"];
    Table::block("Second side over the first", &head, comparison.rows.iter().map(row).collect())
}
