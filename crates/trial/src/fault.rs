//! The one fault injector: finds a server's runners and kills them at a moment that the caller has waited for.
//!
//! It knows processes alone: neither trials nor dialects. Only children of a server whose id is given are ever killed.

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

/// Children of a process, such as the runners of a server. Empty when it has none, or is gone.
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
        if let Some(pid) = children(server).into_iter().find(|pid| !known.contains(pid) && is_alive(*pid)) {
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
/// When it is no child of the server, or cannot be killed.
pub fn kill_runner(server: u32, runner: u32) -> io::Result<Killed> {
    if !children(server).contains(&runner) {
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
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_child_is_found_and_killed_and_nobody_elses_is() {
        let own = std::process::id();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let found = runner_appears(own, &[], Duration::from_secs(10)).await;
        assert!(children(own).contains(&child.id()), "{found:?}");
        assert!(is_alive(child.id()));
        assert_eq!(kill_runner(own, own).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(kill_runner(own, child.id()).unwrap().pid, child.id());
        assert!(!child.wait().unwrap().success());
        assert!(!is_alive(child.id()));
        let none = runner_appears(u32::MAX, &[], Duration::ZERO).await;
        assert_eq!(none, None);
    }
}
