//! `firepot down`: ends the server of this home.

use std::time::Instant;

use firepot_store::{Access, Home};

use crate::{
    attach::{STOP_LIMIT, terminate},
    exit::{Exit, Failure},
    settings::Settings,
};

/// Asks the server to end and waits until it has.
pub async fn down(settings: &Settings) -> anyhow::Result<()> {
    let home = Home::open(&settings.home, Access::ReadOnly)?;
    let Some(record) = home.server_record()? else {
        return Err(
            Failure::new(Exit::NoServer, format!("no server runs on {}", settings.home.display())).into()
        );
    };
    terminate(record.pid);
    let end = Instant::now() + STOP_LIMIT;
    while home.server_record()?.is_some_and(|now| now.pid == record.pid) {
        anyhow::ensure!(
            Instant::now() < end,
            "the server (process {}) does not end within {} s",
            record.pid,
            STOP_LIMIT.as_secs()
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    eprintln!("stopped the server at {}", record.address);
    Ok(())
}
