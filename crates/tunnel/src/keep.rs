//! Starts a tunnel's program, watches it, and starts it again when it ends.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    io::AsyncRead,
    process::{Child, Command},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::codec::{FramedRead, LinesCodec};

use crate::{
    limits::{FIRST_PAUSE, MAX_LINE_BYTES, MAX_PAUSE, OPEN_TIMEOUT, SAME_PORT_TRIES},
    said::{Ends, Said, Trouble},
    ssh,
    tether::NOT_FOUND,
    via::{SshOptions, Target, Via},
};

/// What happens to a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is open and leads from this address.
    Opened {
        /// The address.
        url: String,
    },
    /// It is not open, and is tried again.
    Lost {
        /// Why.
        trouble: Trouble,
        /// When.
        again_in: Duration,
    },
    /// It is not tried again.
    GaveUp {
        /// Why.
        trouble: Trouble,
        /// It was open before.
        was_open: bool,
    },
}

/// A tunnel that is wanted.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// By which program.
    pub via: Via,
    /// What else is said of an SSH tunnel.
    pub options: SshOptions,
    /// Where it leads to.
    pub address: std::net::SocketAddr,
    /// What listens there speaks TLS.
    pub tls: bool,
    /// The program, when it is not to be looked for by its name.
    pub program: Option<PathBuf>,
    /// The command that [`tether`](crate::tether)s what is behind it, so that a tunnel does not outlive this process. Without
    /// one, the program is started as it is.
    pub tether: Option<Vec<OsString>>,
    /// How long to wait between tries.
    pub pauses: Pauses,
}

/// How long to wait between tries. Tests shorten it.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// At first.
    pub first: Duration,
    /// At most.
    pub max: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { first: FIRST_PAUSE, max: MAX_PAUSE }
    }
}

/// How one run of the program ended.
struct Ended {
    /// It had opened the tunnel.
    opened: bool,
    trouble: Trouble,
}

/// Keeps a tunnel open and tells what happens. Ends when the tunnel cannot be opened, or nobody listens; when it is dropped, the
/// program is ended.
pub async fn keep(tunnel: Tunnel, events: mpsc::Sender<Event>) {
    let mut keeper = Keeper { tunnel, port: None, refused: 0, was_open: false };
    let mut pause = keeper.tunnel.pauses.first;
    loop {
        let ended = match keeper.run(&events).await {
            Ok(ended) => ended,
            Err(error) => Ended { opened: false, trouble: keeper.not_started(&error) },
        };
        if ended.opened {
            pause = keeper.tunnel.pauses.first;
        }
        let was_open = keeper.was_open;
        let event = if keeper.is_final(&ended.trouble) {
            Event::GaveUp { trouble: ended.trouble, was_open }
        } else {
            Event::Lost { trouble: ended.trouble, again_in: pause }
        };
        let over = matches!(event, Event::GaveUp { .. });
        if events.send(event).await.is_err() || over {
            return;
        }
        sleep(pause).await;
        if !ended.opened {
            pause = (pause * 2).min(keeper.tunnel.pauses.max);
        }
    }
}

struct Keeper {
    tunnel: Tunnel,
    /// The port that an SSH server gave, which is asked for again.
    port: Option<u16>,
    /// How often it was not given again.
    refused: u32,
    was_open: bool,
}

impl Keeper {
    /// Runs the program to its end.
    async fn run(&mut self, events: &mpsc::Sender<Event>) -> io::Result<Ended> {
        let mut child = self.start()?;
        let lines = lines_of(&mut child);
        tokio::pin!(lines);
        let begun = Instant::now();
        let (mut opened, mut reason) = (false, None::<Trouble>);
        loop {
            let left = if opened { Duration::MAX } else { OPEN_TIMEOUT.saturating_sub(begun.elapsed()) };
            let Ok(line) = timeout(left, lines.next()).await else {
                reason.get_or_insert_with(|| Trouble::passing("it did not open in time"));
                break;
            };
            // The program has closed its output, so it is at its end.
            let Some(line) = line else { break };
            match self.read(&line) {
                Some(Said::Open(url)) if !opened => {
                    (opened, self.was_open) = (true, true);
                    if events.send(Event::Opened { url }).await.is_err() {
                        break;
                    }
                }
                Some(Said::Reason(trouble)) => keep_worse(&mut reason, trouble),
                _ => {}
            }
        }
        let status = self.end(child).await?;
        if self.tunnel.tether.is_some() && status.code() == Some(NOT_FOUND.into()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let program = self.tunnel.via.program();
        let trouble = reason.unwrap_or_else(|| Trouble::passing(&format!("{program} ended: {status}")));
        self.note_port(&trouble, opened);
        Ok(Ended { opened, trouble })
    }

    fn start(&self) -> io::Result<Child> {
        let tunnel = &self.tunnel;
        let program = tunnel.program.clone().unwrap_or_else(|| tunnel.via.program().into());
        let words = tunnel.tether.clone().unwrap_or_default();
        let mut words = words.into_iter().chain([program.into_os_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let wanted = tunnel.options.bind.as_ref().map_or(0, |bind| bind.port);
        tunnel.via.arguments(&mut command, self.target(), &tunnel.options, self.port.unwrap_or(wanted));
        // In a group of its own: Ctrl-C on a terminal reaches only us, and we end it.
        let input = if tunnel.tether.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A tether that is killed cannot end its program; it ends when its standard input is dropped.
        command.kill_on_drop(tunnel.tether.is_none()).process_group(0).spawn()
    }

    async fn end(&self, mut child: Child) -> io::Result<ExitStatus> {
        match child.stdin.take() {
            Some(input) => drop(input),
            None => child.start_kill()?,
        }
        child.wait().await
    }

    fn read(&mut self, line: &str) -> Option<Said> {
        tracing::trace!(program = self.tunnel.via.program(), bytes = line.len(), "a line");
        if matches!(self.tunnel.via, Via::Ssh { .. })
            && let Some(port) = ssh::opened_port(line)
        {
            self.port = Some(port);
        }
        self.tunnel.via.read(line, self.target(), &self.tunnel.options)
    }

    const fn target(&self) -> Target {
        Target { address: self.tunnel.address, tls: self.tunnel.tls }
    }

    /// A server that does not see that the last connection is dead still holds its port; after some tries another one will do.
    fn note_port(&mut self, trouble: &Trouble, opened: bool) {
        let refused = !opened && self.was_open && trouble.ends == Ends::First;
        self.refused = if refused { self.refused + 1 } else { 0 };
        if self.refused >= SAME_PORT_TRIES {
            (self.port, self.refused) = (None, 0);
        }
    }

    fn is_final(&self, trouble: &Trouble) -> bool {
        match trouble.ends {
            Ends::Never => false,
            Ends::First => !self.was_open,
            Ends::Always => true,
        }
    }

    fn not_started(&self, error: &io::Error) -> Trouble {
        let via = &self.tunnel.via;
        if error.kind() == io::ErrorKind::NotFound {
            let message = format!("the program {} is not installed", via.program());
            return Trouble::of(message, via.install_hint(), Ends::Always);
        }
        Trouble::passing(&format!("{} cannot be started: {error}", via.program()))
    }
}

/// Of several reasons the one that is most final is told, else the last.
fn keep_worse(reason: &mut Option<Trouble>, trouble: Trouble) {
    if reason.as_ref().is_none_or(|known| known.ends <= trouble.ends && known.ends != Ends::Always) {
        *reason = Some(trouble);
    }
}

/// What a program prints, on both of its outputs. Lines that are too long are left out.
fn lines_of(child: &mut Child) -> impl Stream<Item = String> + use<> {
    stream::select(lines(child.stdout.take()), lines(child.stderr.take()))
}

fn lines<R: AsyncRead + Unpin>(output: Option<R>) -> impl Stream<Item = String> {
    let lines = output.map(|output| FramedRead::new(output, LinesCodec::new_with_max_length(MAX_LINE_BYTES)));
    stream::iter(lines).flatten().filter_map(async |line| line.ok())
}
