//! The runner as a process: it never outlives its server, and its death shows on the link.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use firepot_link::{PROTOCOL, ToRunner, encode};

/// Far beyond what a healthy machine needs.
const PATIENCE: Duration = Duration::from_secs(20);

fn start() -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let runner = Command::new(env!("CARGO_BIN_EXE_firepot-fake-runner"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("the fake runner starts");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (runner, ours)
}

fn hello(link: &mut UnixStream) {
    let frame = encode(&ToRunner::Hello { protocol: PROTOCOL }).expect("a frame");
    link.write_all(&frame).expect("the link takes it");
}

fn ended(runner: &mut Child) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if runner.try_wait().expect("its state").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    runner.kill().expect("it can be killed");
    false
}

#[test]
fn a_runner_ends_when_its_link_closes() {
    let (mut runner, mut link) = start();
    hello(&mut link);
    drop(link);
    assert!(ended(&mut runner));
}

#[test]
fn a_killed_runner_shows_as_the_end_of_the_link() {
    let (mut runner, mut link) = start();
    hello(&mut link);
    runner.kill().expect("it can be killed");
    runner.wait().expect("it is gone");
    // The end, or a reset where our greeting was not read; not the timeout.
    let end = link.read_to_end(&mut Vec::new());
    assert!(
        end.is_ok() || end.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
        "{end:?}"
    );
}

#[test]
fn a_runner_without_a_link_says_so() {
    let runner = Command::new(env!("CARGO_BIN_EXE_firepot-fake-runner")).stdin(Stdio::null()).output();
    let output = runner.expect("the fake runner starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("link"));
}
