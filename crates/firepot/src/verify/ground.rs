//! The ground that a trial stands on: how long it lasts and what it costs, as far as anybody says.

use std::{collections::BTreeMap, time::Duration};

use firepot_machine::{Machine, PlatformKind, Reading};
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

/// Kaggle's weekly quota of GPU hours, by its documentation; nothing in the machine says what is left of it.
fn quota(machine: &Machine) -> Reading<Quota> {
    match machine.platform.kind {
        PlatformKind::Kaggle if !machine.gpus.devices.is_empty() => Reading::Known(Quota {
            hours_per_week: 30.0,
            source: "Kaggle's documentation: about 30 h of GPU a week; `kaggle quota` says what is left"
                .to_owned(),
        }),
        PlatformKind::Kaggle => Reading::absent("Kaggle has no quota of CPU hours"),
        PlatformKind::Colab => Reading::absent("Colab does not publish its quota"),
        _ => Reading::absent("no quota is known of this platform"),
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
