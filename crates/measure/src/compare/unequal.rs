//! What is not equal on two sides, so that a difference may come from it.

use std::collections::BTreeSet;

use firepot_machine::Reading;

use super::{Unequal, target};
use crate::{
    bundle::{Bundle, Model, Target},
    probed::PROBED,
    repeat::MACHINE_PERCENT,
    summary::Summary,
};

/// Of two bundles, by their first targets.
pub(super) fn sessions(
    (a, a_summary): (&Bundle, &Summary),
    (b, b_summary): (&Bundle, &Summary),
) -> Vec<Unequal> {
    let mut unequal = Vec::new();
    unequal.extend(models(model_of(a, target(a)), model_of(b, target(b))));
    unequal.extend(places(a.workload.targets.first(), b.workload.targets.first()));
    let mut say = |differs: bool, misleads: bool, says: String| {
        unequal.extend(differs.then_some(Unequal { says, misleads }));
    };
    let told = |reading: &Reading<String>| reading.known().cloned().unwrap_or_else(|| "unknown".to_owned());
    say(
        a.machine.cpu != b.machine.cpu,
        true,
        format!("the processors differ: {} and {}", told(&a.machine.cpu), told(&b.machine.cpu)),
    );
    say(a.machine.cores != b.machine.cores, true, "the machines have different numbers of cores".to_owned());
    let gpus = |bundle: &Bundle| {
        let gpus = bundle
            .machine
            .gpus
            .known()
            .map(|gpus| gpus.iter().map(|gpu| gpu.name.clone()).collect::<Vec<_>>());
        gpus.unwrap_or_default()
    };
    say(gpus(a) != gpus(b), true, format!("the GPUs differ: {:?} and {:?}", gpus(a), gpus(b)));
    let binary = |bundle: &Bundle| bundle.trial.tool.binary_sha256.known().cloned();
    say(
        binary(a) != binary(b),
        false,
        format!("the programs differ: {} and {}", a.trial.tool.version, b.trial.tool.version),
    );
    for probed in PROBED {
        let rate = |bundle: &Bundle, summary: &Summary| {
            summary.figure(probed.rate, None, target(bundle)).map(|figure| figure.value)
        };
        let (Some(first), Some(second)) = (rate(a, a_summary), rate(b, b_summary)) else { continue };
        let percent = 100.0 * (first.max(second) / first.min(second) - 1.0);
        say(
            percent > MACHINE_PERCENT,
            true,
            format!("the {} differs by {percent:.1} %: the machine changed", probed.what),
        );
    }
    let ids =
        |bundle: &Bundle| bundle.workload.cases.iter().map(|case| case.id.clone()).collect::<BTreeSet<_>>();
    say(
        ids(a) != ids(b),
        false,
        "the workloads differ: only the cases that both have are compared".to_owned(),
    );
    unequal
}

/// Of two targets of one trial.
pub(super) fn targets(bundle: &Bundle, a: &Target, b: &Target) -> Vec<Unequal> {
    let models = models(model_of(bundle, &a.id), model_of(bundle, &b.id));
    models.into_iter().chain(places(Some(a), Some(b))).collect()
}

fn model_of<'a>(bundle: &'a Bundle, target: &str) -> Option<&'a Model> {
    bundle.models.models.iter().find(|model| model.target == target)
}

fn models(first: Option<&Model>, second: Option<&Model>) -> Option<Unequal> {
    let name = |model: Option<&Model>| model.map_or("an unknown one", |model| model.name.as_str()).to_owned();
    let hash = |model: Option<&Model>| model.and_then(|model| model.sha256.known().cloned());
    let (names, hashes) = ((name(first), name(second)), (hash(first), hash(second)));
    let (says, misleads) = match hashes {
        (Some(one), Some(other)) if one == other => return None,
        (Some(_), Some(_)) => (format!("the models differ: {} and {}", names.0, names.1), true),
        _ if names.0 != names.1 => (
            format!(
                "the models have different names, {} and {}, and no digests of both to compare",
                names.0, names.1
            ),
            true,
        ),
        _ => (
            format!("whether {} is the same file on both sides is not known: its digest is not", names.0),
            false,
        ),
    };
    Some(Unequal { says, misleads })
}

/// Where the targets ran, as far as that is known.
fn places(first: Option<&Target>, second: Option<&Target>) -> Option<Unequal> {
    let here = |target: Option<&Target>| target.is_none_or(|target| target.on_this_machine);
    match (here(first), here(second)) {
        (true, true) => None,
        (false, false) => Some(Unequal {
            says:
                "whether both servers ran on the same machine is not known: neither ran on the one that asked"
                    .to_owned(),
            misleads: false,
        }),
        _ => Some(Unequal {
            says: "the servers ran on different machines: one on the machine that asked, one elsewhere"
                .to_owned(),
            misleads: true,
        }),
    }
}
