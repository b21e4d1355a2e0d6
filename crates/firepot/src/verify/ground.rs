//! The ground that a trial stands on: how long it lasts and what it costs, as far as anybody says.

use std::{collections::BTreeMap, time::Duration};

use firepot_machine::{Machine, PlatformKind, Reading, Terms};
use firepot_measure::bundle::{Cost, Quota};
use firepot_trial::{Ground, Hosts, hosts};

/// What is known at the end of a trial.
pub fn ground(
    machine: &Machine,
    seen: &Hosts,
    hosts_expected: Vec<String>,
    mut settings: BTreeMap<String, String>,
) -> Ground {
    settings.insert("hosts_contacted_by".to_owned(), hosts::METHOD.to_owned());
    Ground {
        left_s: machine.platform.session.clone().map(|session| session.left_s),
        quota: quota(machine),
        cost: cost(machine.platform.kind),
        hosts_contacted: seen.seen(),
        hosts_expected,
        settings,
    }
}

/// The weekly quota of GPU hours, by what is known of the platform; nothing in the machine says what is left of it.
fn quota(machine: &Machine) -> Reading<Quota> {
    let Some(quota) = Terms::of(machine.platform.kind).quota else {
        return Reading::absent("no quota is known of this platform");
    };
    match quota.gpu_hours_per_week {
        Some(_) if machine.gpus.devices.is_empty() => {
            Reading::absent("it is of GPU hours, and there is no GPU")
        }
        Some(hours) => Reading::Known(Quota {
            hours_per_week: f64::from(hours),
            source: format!("{}: {}", quota.fact.source, quota.fact.says),
        }),
        None => Reading::absent(quota.fact.says),
    }
}

fn cost(kind: PlatformKind) -> Reading<Cost> {
    match kind {
        PlatformKind::Kaggle => Reading::Known(Cost {
            amount: 0.0,
            currency: "USD".to_owned(),
            source: "Kaggle's notebooks are free of charge".to_owned(),
        }),
        PlatformKind::Colab => Reading::absent("it is not known whether this session was paid for"),
        _ => Reading::absent("nobody says what this machine costs"),
    }
}

/// What the session leaves for a trial; `None` where nothing limits it.
pub fn time_left(machine: &Machine) -> Option<Duration> {
    machine.platform.session.known().map(|session| Duration::from_secs(session.left_s))
}
