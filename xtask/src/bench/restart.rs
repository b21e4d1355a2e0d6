//! What a conversation's next turn costs after everything was killed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use firepot_measure::Side;
use serde_json::{Value, json};

use super::{
    cases::{Case, story, words},
    rig::Rig,
    service::Service,
};

/// Room for the conversation several times.
const SNAPSHOT_BYTES: &str = "2147483648";

/// Longest wait for a snapshot after its answer.
const WRITTEN_WITHIN: Duration = Duration::from_mins(1);

/// About 2,000 tokens, the first turn of a conversation.
fn first_turn() -> Vec<Value> {
    let ask = story(6);
    vec![json!({"role": "user", "content": format!("{ask}\n\nNotes: {}\n\nNow, {ask}", words(9, 1950))})]
}

/// Seconds from the start of the process to the first token of the second turn. On our side with snapshots, the first turn was
/// answered by a process that was then killed; nobody else has anything left of it.
pub fn next_turn(rig: &Rig, case: &Case, side: Side) -> anyhow::Result<Vec<f64>> {
    rig.warm(case.model)?;
    if side == Side::Ours {
        let service = rig.serve_ours(case, SNAPSHOT_BYTES, &[])?;
        service.chat(&Value::Array(first_turn()), 8)?;
        wait_for_snapshot(&service)?;
    }
    // Another one each time, or the snapshot of the last sample's second turn would be found.
    let years = fastrand::u32(1000..10_000);
    let mut messages = first_turn();
    messages
        .push(json!({"role": "assistant", "content": format!("Once, {years} years ago, there was a ship.")}));
    messages.push(json!({"role": "user", "content": story(7)}));
    let service = match side {
        Side::Ours => rig.serve_ours(case, SNAPSHOT_BYTES, &[])?,
        Side::Peer => rig.serve(case, side, &[])?,
    };
    let second = service.chat(&Value::Array(messages), 8)?;
    if side == Side::Ours {
        // A heartbeat carries the count.
        thread::sleep(Duration::from_secs(1));
        let read = service.get("firepot/v1/runners")?;
        let read = read.pointer("/runners/0/stats/snapshots_read").and_then(Value::as_u64);
        ensure!(read >= Some(1), "the snapshot was not used");
    }
    Ok(vec![(second.sent + second.ttft() - service.spawned()).as_secs_f64()])
}

fn wait_for_snapshot(service: &Service) -> anyhow::Result<()> {
    let end = Instant::now() + WRITTEN_WITHIN;
    loop {
        let runners = service.get("firepot/v1/runners")?;
        let files = runners.pointer("/snapshots/files").and_then(Value::as_u64);
        if files.context("the server keeps no snapshots")? > 0 {
            return Ok(());
        }
        ensure!(Instant::now() < end, "no snapshot was written");
        thread::sleep(Duration::from_millis(50));
    }
}
