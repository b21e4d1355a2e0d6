//! When the session ends: what the user says, else what is known of the platform. And what outlives it in a folder.

use firepot_machine::{Machine, Reading};
use firepot_server::{Clocks, DeadlineSource};
use firepot_store::{
    Home,
    state::{Begun, Mirror},
};

use crate::{
    cli::Session,
    commands::state,
    exit::{Exit, Failure},
    settings::Settings,
};

/// Who says when the session ends.
pub fn deadline(settings: &Settings, session: &Session) -> anyhow::Result<DeadlineSource> {
    match &session.deadline {
        Some(text) => Ok(DeadlineSource::parse(text, Clocks::read()).map_err(|problem| {
            Failure::new(Exit::Failed, format!("--deadline: {problem}"))
                .hint("say a duration from now (11h50m), a time (2026-11-28T21:00:00Z), a file with either, or none")
        })?),
        None => Ok(of_platform(&settings.planner().probe())),
    }
}

/// Begins to mirror the home's state, if a folder was named; an empty home has the folder's state afterwards.
pub fn mirror(home: &Home, session: &Session) -> anyhow::Result<Option<Mirror>> {
    let Some(dir) = &session.state else { return Ok(None) };
    let (mirror, begun) =
        tokio::task::block_in_place(|| Mirror::begin(home, dir, env!("CARGO_PKG_VERSION")))?;
    match begun {
        Begun::New => eprintln!("the state is kept in {} from now on", dir.display()),
        Begun::GoesOn => {}
        Begun::TookIn(imported) => eprintln!("from {}: {}", dir.display(), state::told(&imported)),
    }
    Ok(Some(mirror))
}

fn of_platform(machine: &Machine) -> DeadlineSource {
    match &machine.platform.session {
        Reading::Known(limit) => {
            let left = std::time::Duration::from_secs(limit.left_s);
            DeadlineSource::after(left, limit.source.clone(), Clocks::read().now)
        }
        Reading::Absent { reason } => DeadlineSource::Unknown(reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use firepot_machine::SessionLimit;

    use super::*;

    #[test]
    fn what_is_known_of_the_platform_is_the_deadline_of_those_who_say_none() {
        let mut machine = Machine::unread("not looked at");
        assert_eq!(of_platform(&machine), DeadlineSource::Unknown("not looked at".into()));
        machine.platform.session = Reading::Known(SessionLimit {
            total_s: 43_200,
            since_unix_s: 0,
            left_s: 600,
            source: "Kaggle's limit".to_owned(),
        });
        let DeadlineSource::At(end) = of_platform(&machine) else { panic!() };
        assert_eq!(end.source, "Kaggle's limit");
        assert!(end.at > Clocks::read().now);
    }
}
