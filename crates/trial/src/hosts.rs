//! Which hosts outside this machine the tool's processes talk to: their sockets, looked at once a second. A connection that
//! lives shorter than that can be missed, which is why the bundle says how it was looked.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use firepot_machine::Reading;

use crate::fault::children;

/// How the hosts are found, for the bundle.
pub const METHOD: &str = "sockets of the tool's processes, once a second";

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks until it is dropped or asked what it has seen.
#[derive(Debug)]
pub struct Hosts {
    seen: Arc<Mutex<Result<BTreeSet<IpAddr>, String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hosts {
    /// Begins to look at this process, these, and all of their children.
    #[must_use]
    pub fn watch(pids: Vec<u32>) -> Self {
        let seen = Arc::new(Mutex::new(Ok(BTreeSet::new())));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen_too, stop_too) = (Arc::clone(&seen), Arc::clone(&stop));
        let look = move || {
            while !stop_too.load(Ordering::Relaxed) {
                let found = outside(&pids);
                let mut seen = seen_too.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *seen, found) {
                    (Ok(seen), Ok(found)) => seen.extend(found),
                    (seen @ Ok(_), Err(why)) => *seen = Err(why),
                    (Err(_), _) => {}
                }
                drop(seen);
                thread::park_timeout(INTERVAL);
            }
        };
        let thread = thread::Builder::new().name("hosts".to_owned()).spawn(look).ok();
        Self { seen, stop, thread }
    }

    /// What was seen until now, or why that is not known.
    #[must_use]
    pub fn seen(&self) -> Reading<Vec<String>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.map(|hosts| hosts.iter().map(ToString::to_string).collect()).into()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // One that panicked has seen what it has seen.
            let _ = thread.join();
        }
    }
}

/// Addresses outside this machine that processes are connected to.
fn outside(pids: &[u32]) -> Result<BTreeSet<IpAddr>, String> {
    let all = family(std::iter::once(std::process::id()).chain(pids.iter().copied()).collect());
    let sockets: HashSet<String> = all.iter().flat_map(|pid| sockets(*pid)).collect();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let path = format!("/proc/self/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(|line| remote(line, &sockets))),
            // A system without IPv6 has no table of it.
            Err(_) if table.ends_with('6') => {}
            Err(error) => return Err(format!("{path}: {error}")),
        }
    }
    Ok(found)
}

/// These processes, and all that they have started, and those.
fn family(mut unseen: Vec<u32>) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    while let Some(pid) = unseen.pop() {
        if all.insert(pid) {
            unseen.extend(children(pid));
        }
    }
    all
}

/// Inodes of a process's sockets.
fn sockets(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

/// The other end of a row of `/proc/net/tcp` (proc(5)), when the socket is one of these and leads out of the machine.
fn remote(line: &str, sockets: &HashSet<String>) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (remote, inode) = (fields.get(2)?, fields.get(9)?);
    let address = address(remote.split(':').next()?)?;
    let leads_out = !address.is_loopback() && !address.is_unspecified();
    (leads_out && sockets.contains(*inode)).then_some(address)
}

/// An address as the kernel writes it: words of 32 bits in the machine's own order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            let address = Ipv6Addr::from(bytes);
            Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let text = |hex: &str| address(hex).map(|address| address.to_string());
        if cfg!(target_endian = "little") {
            assert_eq!(text("0100007F").as_deref(), Some("127.0.0.1"));
            assert_eq!(text("0000000000000000FFFF00000100007F").as_deref(), Some("127.0.0.1"));
            assert_eq!(text("B80D0120000000000000000001000000").as_deref(), Some("2001:db8::1"));
        }
        assert_eq!(text("01"), None);
    }

    #[test]
    fn children_of_children_belong_to_the_family() {
        use std::process::{Command, Stdio};
        // The shell waits for its `cat`, which ends with its input.
        let mut shell = Command::new("sh").args(["-c", "cat; true"]).stdin(Stdio::piped()).spawn().unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        let grandchild = loop {
            if let Some(pid) = children(shell.id()).first() {
                break *pid;
            }
            assert!(std::time::Instant::now() < end, "the shell starts nothing");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(family(vec![std::process::id()]).contains(&grandchild));
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    #[test]
    fn a_socket_that_leads_out_is_seen_and_one_of_loopback_is_not() {
        // Connecting a datagram socket sends nothing.
        let out = UdpSocket::bind("0.0.0.0:0").unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        inside.connect("127.0.0.1:9").unwrap();
        assert_eq!(outside(&[]).unwrap(), BTreeSet::new());
        if out.connect("192.0.2.1:9").is_ok() {
            assert_eq!(outside(&[]).unwrap(), BTreeSet::from(["192.0.2.1".parse().unwrap()]));
            let hosts = Hosts::watch(Vec::new());
            let end = std::time::Instant::now() + Duration::from_secs(20);
            while hosts.seen() != Reading::Known(vec!["192.0.2.1".to_owned()]) {
                assert!(std::time::Instant::now() < end, "{:?}", hosts.seen());
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
