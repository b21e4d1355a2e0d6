//! The task around one runner: starts it, reads its link, watches it, and sees it to its end.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use firepot_engine::LoadSpec;
use firepot_link::{FrameReader, LoadFailure, Loaded, PROTOCOL, SnapshotFolder, ToServer};
use firepot_store::ModelName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    process::Child,
    sync::mpsc,
    time::{sleep_until, timeout},
};

use super::{
    connection::Connection,
    error::Death,
    launch::{Launched, Launcher},
    watchdog::Watchdog,
};
use crate::{limits, settings::Times};

/// What the pool wants to know of a runner. The last event is `Ended`.
#[derive(Debug)]
pub enum RunnerEvent {
    /// The load goes on; thousandths.
    Progress(u16),
    /// The model is ready.
    Loaded(Box<Loaded>),
    /// The model cannot be loaded.
    LoadFailed(LoadFailure),
    /// It does not answer any more; its process may take a while to go.
    Lost,
    /// The process is gone, and what it used is free.
    Ended(Death),
}

/// What a runner needs to run.
pub struct Runner<R> {
    /// What it loads.
    pub model: ModelName,
    /// How.
    pub spec: LoadSpec,
    /// Where it keeps KV caches of conversations.
    pub snapshots: Option<SnapshotFolder>,
    /// Its link.
    pub connection: Arc<Connection>,
    /// When it counts as hung.
    pub times: Times,
    /// Told what happens.
    pub report: R,
}

impl<R: Fn(RunnerEvent) + Send> Runner<R> {
    /// Runs it from start to end, writing `frames` to its link.
    pub async fn run(self, launcher: &dyn Launcher, frames: mpsc::Receiver<Vec<u8>>) {
        let (reader, writer, process) = match launcher.launch(&self.model).and_then(into_tokio) {
            Ok(parts) => parts,
            Err(error) => return self.end(Death::NotStarted { reason: error.to_string() }, None).await,
        };
        if let Some(pid) = process.as_ref().and_then(Child::id) {
            let _ = self.connection.pid.set(pid);
        }
        self.connection.begin(self.spec.clone(), self.snapshots.clone());
        let writing = tokio::spawn(write(frames, writer));
        let mut reading = Reading {
            connection: &self.connection,
            report: &self.report,
            frames: FrameReader::new(),
            greeted: false,
            watchdog: Watchdog::new(self.times, Instant::now()),
        };
        let death = reading.run(reader, self.times.stop_grace).await;
        writing.abort();
        self.end(death, process).await;
    }

    async fn end(self, mut death: Death, mut process: Option<Child>) {
        if let (Death::Ended { status }, Some(process)) = (&mut death, &mut process) {
            *status = timeout(limits::EXIT_STATUS_WAIT, process.wait()).await.ok().and_then(Result::ok);
        }
        (self.report)(RunnerEvent::Lost);
        self.connection.lose(&death);
        if let Some(process) = &mut process
            && let Err(error) = process.kill().await
        {
            tracing::warn!(%error, "a runner could not be killed");
        }
        (self.report)(RunnerEvent::Ended(death));
    }
}

fn into_tokio(launched: Launched) -> io::Result<(OwnedReadHalf, OwnedWriteHalf, Option<Child>)> {
    launched.link.set_nonblocking(true)?;
    let (reader, writer) = tokio::net::UnixStream::from_std(launched.link)?.into_split();
    Ok((reader, writer, launched.process))
}

async fn write(mut frames: mpsc::Receiver<Vec<u8>>, mut link: OwnedWriteHalf) {
    while let Some(frame) = frames.recv().await {
        // A broken link is noticed by whoever reads it.
        if link.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// The reading side of a link.
struct Reading<'a, R> {
    connection: &'a Connection,
    report: &'a R,
    frames: FrameReader,
    greeted: bool,
    watchdog: Watchdog,
}

impl<R: Fn(RunnerEvent)> Reading<'_, R> {
    /// Reads until the runner ends, hangs, or was asked to end and its grace is over.
    async fn run(&mut self, mut link: OwnedReadHalf, stop_grace: Duration) -> Death {
        let mut buffer = vec![0; limits::LINK_READ_BYTES];
        let mut killed_at = None;
        loop {
            let stopping = killed_at.is_some();
            let deadline = killed_at.unwrap_or_else(|| self.watchdog.deadline());
            tokio::select! {
                read = link.read(&mut buffer) => match read {
                    Ok(bytes @ 1..) => {
                        if let Err(death) = self.take(&buffer[..bytes]) {
                            return death;
                        }
                    }
                    _ if stopping => return Death::Stopped,
                    _ => return Death::Ended { status: None },
                },
                () = self.connection.stop.cancelled(), if !stopping => {
                    killed_at = Some(Instant::now() + stop_grace);
                }
                () = self.connection.deaf.cancelled() => return Death::Deaf,
                () = sleep_until(deadline.into()) => {
                    if stopping {
                        return Death::Stopped;
                    }
                    if let Some(hang) = self.watchdog.check(Instant::now()) {
                        return Death::Hung(hang);
                    }
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Death> {
        self.frames.push(bytes);
        while let Some(message) = self.frames.next().map_err(|_| Death::Garbled)? {
            self.handle(message)?;
        }
        Ok(())
    }

    fn handle(&mut self, message: ToServer) -> Result<(), Death> {
        let now = Instant::now();
        match message {
            ToServer::Hello { protocol, build } => {
                if protocol != PROTOCOL {
                    return Err(Death::OtherProtocol { theirs: protocol });
                }
                tracing::debug!(build, "a runner is there");
                self.greeted = true;
            }
            _ if !self.greeted => return Err(Death::Garbled),
            ToServer::LoadProgress { permille } => {
                self.watchdog.load_progress(now);
                (self.report)(RunnerEvent::Progress(permille));
            }
            ToServer::Loaded(loaded) => {
                self.watchdog.loaded(now);
                (self.report)(RunnerEvent::Loaded(loaded));
            }
            ToServer::LoadFailed(failure) => (self.report)(RunnerEvent::LoadFailed(failure)),
            ToServer::Event { id, event } => self.connection.dispatch(id, event),
            ToServer::Heartbeat(heartbeat) => {
                self.watchdog.heartbeat(heartbeat, now);
                self.connection.set_heartbeat(heartbeat);
            }
        }
        Ok(())
    }
}
