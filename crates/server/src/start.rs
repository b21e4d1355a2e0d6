//! Taking the address, and what is said when somebody else has it.

use std::{
    fmt, io,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
};

use firepot_store::StoreError;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::limits;

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The home cannot be used, or another server uses it.
    #[error(transparent)]
    Home(#[from] StoreError),
    /// Somebody else listens there.
    #[error("port {} is in use by {occupant}", address.port())]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// Who listens there.
        occupant: Occupant,
        /// A port nearby that is free.
        next_free: Option<u16>,
    },
    /// The address cannot be used.
    #[error("cannot listen at {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

impl StartError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::AddressInUse { occupant, next_free, .. } => Some(occupant.hint(*next_free)),
            Self::Bind { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some("use a port above 1023: --port".to_owned()),
                io::ErrorKind::AddrNotAvailable => Some("use an address of this machine: --host".to_owned()),
                _ => None,
            },
        }
    }
}

/// Who listens at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// Another Firepot.
    Firepot,
    /// An Ollama.
    Ollama,
    /// Somebody else, or nobody who answers.
    Other,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firepot => "another Firepot",
            Self::Ollama => "an Ollama",
            Self::Other => "another program",
        })
    }
}

impl Occupant {
    fn hint(self, next_free: Option<u16>) -> String {
        let what = match self {
            Self::Firepot => "use that server, or another port",
            Self::Ollama => "stop Ollama, or use another port",
            Self::Other => "use another port",
        };
        let port = next_free.map_or_else(|| "--port".to_owned(), |port| format!("--port {port}"));
        format!("{what}: {port}")
    }

    /// Asks whoever listens at `address`.
    fn ask(address: SocketAddr) -> Self {
        let answer = greeting(reachable(address)).unwrap_or_default().to_ascii_lowercase();
        if answer.contains("server: firepot") {
            Self::Firepot
        } else if answer.contains("ollama is running") {
            Self::Ollama
        } else {
            Self::Other
        }
    }
}

/// Listens at an address. Blocks for moments, longer when the address is taken.
///
/// # Errors
/// [`StartError::AddressInUse`], [`StartError::Bind`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let (occupant, next_free) = (Occupant::ask(address), next_free(address));
            Err(StartError::AddressInUse { address, occupant, next_free })
        }
        Err(source) => Err(StartError::Bind { address, source }),
    }
}

/// Lets this process have as many files open as its connections may need, as far as the system allows.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= limits::OPEN_FILES_WANTED) {
        return;
    }
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    limit.current = Some(limits::OPEN_FILES_WANTED.min(allowed));
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn greeting(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, limits::PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(limits::PROBE_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    // What came before a timeout is enough.
    let _ = stream.take(limits::MAX_PROBE_BYTES).read_to_end(&mut bytes);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An address for clients of this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn next_free(address: SocketAddr) -> Option<u16> {
    let ports = (1..=limits::NEXT_PORTS).filter_map(|step| address.port().checked_add(step));
    ports.into_iter().find(|port| TcpListener::bind((address.ip(), *port)).is_ok())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn check(answer: &'static [u8], message: &str, hint: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 16];
            stream.read_exact(&mut head).unwrap();
            stream.write_all(answer).unwrap();
            // The listener lives until the port was tried again.
            listener
        });
        let error = listen(address).unwrap_err();
        assert_eq!(error.to_string(), format!("port {} is in use by {message}", address.port()));
        let StartError::AddressInUse { next_free: Some(port), .. } = error else { panic!("{error:?}") };
        assert!(port > address.port());
        assert_eq!(error.hint().unwrap(), format!("{hint}: --port {port}"));
        drop(server.join());
    }

    #[test]
    fn whoever_has_the_port_is_named_and_a_free_one_is_offered() {
        check(
            b"HTTP/1.1 200 OK\r\nServer: firepot/0.1.0\r\n\r\nOllama is running",
            "another Firepot",
            "use that server, or another port",
        );
        check(b"HTTP/1.1 200 OK\r\n\r\nOllama is running", "an Ollama", "stop Ollama, or use another port");
        check(b"SSH-2.0-OpenSSH_9.2\r\n", "another program", "use another port");
    }

    #[test]
    fn an_address_of_another_machine_is_not_ours_to_take() {
        let error = listen("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "cannot listen at 192.0.2.1:0");
        assert_eq!(error.hint().unwrap(), "use an address of this machine: --host");
    }

    #[test]
    fn a_server_on_all_interfaces_is_asked_on_loopback() {
        let reach = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:7"), "127.0.0.1:7");
        assert_eq!(reach("[::]:7"), "[::1]:7");
        assert_eq!(reach("10.0.0.1:7"), "10.0.0.1:7");
    }
}
