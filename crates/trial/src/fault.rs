//! Finds a server's runners and kills them at a moment that the caller has waited for. (Named states of our own processes are what
//! `firepot_fail` is for, which `cargo xtask chaos` uses.)
//!
//! It knows processes alone: neither trials nor dialects. Only runners of a server whose id is given are ever killed.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::limits::RUNNER_POLL;

/// A process that was killed, and when.
#[derive(Clone, Copy, Debug)]
pub struct Killed {
    /// Its id.
    pub pid: u32,
    /// Just before the signal was sent.
    pub at: Instant,
}

/// The runners of a server: its children whose last argument is `runner`. A trial that a page has begun is a child, too, and
/// no runner.
#[must_use]
pub fn runners(server: u32) -> Vec<u32> {
    let is_runner = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.strip_suffix(b"\0").is_some_and(|line| line.ends_with(b"\0runner"))
    };
    children(server).into_iter().filter(is_runner).collect()
}

/// Children of a process. Empty when it has none, or is gone.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of_thread =
        |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let texts: Vec<String> = threads.flatten().map(of_thread).collect();
    texts.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits until a server has a runner that is not `known`, at most for `patience`.
pub async fn runner_appears(server: u32, known: &[u32], patience: Duration) -> Option<u32> {
    let end = Instant::now() + patience;
    loop {
        if let Some(pid) = runners(server).into_iter().find(|pid| !known.contains(pid) && is_alive(*pid)) {
            return Some(pid);
        }
        if Instant::now() > end {
            return None;
        }
        tokio::time::sleep(RUNNER_POLL).await;
    }
}

/// Sends SIGKILL to a runner of a server.
///
/// # Errors
/// When it is no runner of the server, or cannot be killed.
pub fn kill_runner(server: u32, runner: u32) -> io::Result<Killed> {
    if !runners(server).contains(&runner) {
        let message = format!("process {runner} is no runner of process {server}");
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    let pid = i32::try_from(runner).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is no process id"))?;
    let at = Instant::now();
    kill_process(pid, Signal::KILL)?;
    Ok(Killed { pid: runner, at })
}

/// Whether a process exists and is not a zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn waits_for_input(name: &str) -> std::process::Child {
        Command::new("sh").args(["-c", "read line", name]).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_runner_is_found_and_killed_and_no_other_child_is() {
        let own = std::process::id();
        let (mut child, mut other) = (waits_for_input("runner"), waits_for_input("other"));
        assert_eq!(runner_appears(own, &[], Duration::from_secs(10)).await, Some(child.id()));
        assert!(children(own).contains(&other.id()));
        assert!(kill_runner(own, other.id()).is_err());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(is_alive(child.id()));
        assert_eq!(kill_runner(own, own).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(kill_runner(own, child.id()).unwrap().pid, child.id());
        assert!(!child.wait().unwrap().success());
        assert!(!is_alive(child.id()));
        let none = runner_appears(u32::MAX, &[], Duration::ZERO).await;
        assert_eq!(none, None);
    }
}
