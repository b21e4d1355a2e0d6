//! Whether a trial that was broken off can be gone on with: its samples are of one program, one machine, one model and one server.

use firepot_machine::Reading;
use firepot_measure::bundle::{Bundle, MachineRecord, Models, Target, Tool};

/// What has changed since a trial was begun. Facts that nobody told then, or nobody tells now, are no change.
pub fn differences(
    before: &Bundle,
    tool: &Tool,
    machine: &MachineRecord,
    models: &Models,
    targets: &[Target],
) -> Vec<&'static str> {
    let told = [
        ("the program", changed(&before.trial.tool.binary_sha256, &tool.binary_sha256)),
        ("the processor", changed(&before.machine.cpu, &machine.cpu)),
        ("the GPUs", changed(&before.machine.gpus, &machine.gpus)),
        ("the model", !same_models(&before.models, models)),
        ("the server", before.workload.targets != targets),
    ];
    told.into_iter().filter_map(|(what, changed)| changed.then_some(what)).collect()
}

fn changed<T: PartialEq>(before: &Reading<T>, now: &Reading<T>) -> bool {
    before.known().zip(now.known()).is_some_and(|(before, now)| before != now)
}

fn same_models(before: &Models, now: &Models) -> bool {
    before.models.len() == now.models.len()
        && before
            .models
            .iter()
            .zip(&now.models)
            .all(|(before, now)| before.name == now.name && !changed(&before.sha256, &now.sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_facts_that_are_told_both_times_can_differ() {
        let known = |text: &str| Reading::Known(text.to_owned());
        assert!(changed(&known("a"), &known("b")));
        assert!(!changed(&known("a"), &known("a")));
        assert!(!changed(&known("a"), &Reading::absent("nobody tells it")));
        assert!(!changed(&Reading::absent("nobody told it"), &known("b")));
    }
}
