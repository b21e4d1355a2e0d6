//! The life of a runner: handshake, load, answers, end.

use std::{
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Instant,
};

use firepot_engine::{Decoder, LoadSpec, NextCall, SchedulerConfig};
use firepot_link::{
    FrameError, FrameReader, GenerationId, Loaded, PROTOCOL, SnapshotFolder, ToRunner, ToServer,
};
use firepot_snapshots::{Key, Shelf, ShelfConfig};

use crate::{
    engine::{Command, run_engine, shutting_down},
    keeper::Keeper,
    limits::{HEARTBEAT, READ_BYTES, STAGE_QUEUE},
    loader::{LoadProgress, Loader},
    prepare::{Job, Preparer},
    shared::Shared,
};

/// What the reader does when the link has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Ends the process at once: a runner never outlives its server.
    ExitProcess,
    /// Lets [`serve`] return; for a runner within a test's process.
    Return,
}

/// Why a runner ended other than by its server's wish.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The link could not be used.
    #[error("the link cannot be used")]
    Link(#[from] io::Error),
    /// What came over it is not our language.
    #[error("the link does not carry messages")]
    Frame(#[from] FrameError),
    /// The other side is another version.
    #[error("the server speaks link version {server}, this runner {PROTOCOL}")]
    Protocol {
        /// The server's version.
        server: u32,
    },
    /// The model could not be loaded; the server was told.
    #[error("the model cannot be loaded: {0}")]
    Load(String),
}

/// The link that a server gives its child as standard input.
///
/// # Errors
/// When standard input is not a socket.
pub fn stdin_link() -> io::Result<UnixStream> {
    let link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    link.peer_addr()?;
    Ok(link)
}

/// Serves one server until the link ends. The caller's thread becomes the engine thread.
///
/// # Errors
/// See [`ServeError`].
pub fn serve(link: UnixStream, loader: &mut dyn Loader, at_end: AtEnd) -> Result<(), ServeError> {
    let shared = Arc::new(Shared::new(link.try_clone()?));
    let mut reader = LinkReader { link, frames: FrameReader::new(), buffer: vec![0; READ_BYTES] };
    shared.send(&ToServer::Hello { protocol: PROTOCOL, build: loader.build() });
    match reader.next()? {
        Some(ToRunner::Hello { protocol: PROTOCOL }) => {}
        Some(ToRunner::Hello { protocol: server }) => return Err(ServeError::Protocol { server }),
        _ => return Ok(()),
    }
    let Some(ToRunner::Load { spec, snapshots }) = reader.next()? else { return Ok(()) };
    let (jobs, prepare_queue) = sync_channel(STAGE_QUEUE);
    let (commands, engine_queue) = sync_channel(STAGE_QUEUE);
    spawn_reader(reader, Arc::clone(&shared), jobs, commands.clone(), at_end)?;
    spawn_heartbeat(Arc::clone(&shared))?;
    let mut decoder = load(loader, &spec, &shared)?;
    let keeper = snapshots
        .map(|folder| start_keeper(folder, &spec, &*decoder, commands.clone(), &shared))
        .transpose()?;
    spawn_prepare(Preparer::new(&*decoder), prepare_queue, commands, Arc::clone(&shared))?;
    let config = SchedulerConfig { parked_bytes_max: spec.parked_bytes_max, ..SchedulerConfig::default() };
    run_engine(&mut *decoder, config, &engine_queue, keeper, &shared);
    Ok(())
}

/// Snapshots of this model as it was loaded, no larger than what the engine takes back.
fn start_keeper(
    folder: SnapshotFolder,
    spec: &LoadSpec,
    decoder: &dyn Decoder,
    commands: SyncSender<Command>,
    shared: &Shared,
) -> io::Result<Keeper> {
    let SnapshotFolder { dir, bytes_max, model } = folder;
    let info = decoder.info();
    let (state_bytes_max, cut) = (spec.parked_bytes_max, info.prefix_cut);
    let config = ShelfConfig { dir, bytes_max, state_bytes_max, cut };
    let shelf = Arc::new(Shelf::open(Key::new(&model, spec, info), config));
    shared.count_snapshots(Arc::clone(&shelf));
    Keeper::start(shelf, commands)
}

fn load(loader: &mut dyn Loader, spec: &LoadSpec, shared: &Shared) -> Result<Box<dyn Decoder>, ServeError> {
    let start = Instant::now();
    shared.set_call(Some(NextCall::default()));
    let decoder = loader.load(spec, &LoadProgress::new(shared)).map_err(|failure| {
        shared.send(&ToServer::LoadFailed(failure.clone()));
        ServeError::Load(failure.message)
    })?;
    shared.watch(&*decoder);
    shared.set_call(None);
    let load_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    shared.send(&ToServer::Loaded(Box::new(Loaded { info: decoder.info().clone(), load_us })));
    Ok(decoder)
}

struct LinkReader {
    link: UnixStream,
    frames: FrameReader,
    buffer: Vec<u8>,
}

impl LinkReader {
    /// The next message; `None` when the link has ended.
    fn next(&mut self) -> Result<Option<ToRunner>, ServeError> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(message));
            }
            match self.link.read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(length) => self.frames.push(&self.buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn spawn_reader(
    mut reader: LinkReader,
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    commands: SyncSender<Command>,
    at_end: AtEnd,
) -> io::Result<()> {
    spawn("reader", move || {
        if let Err(error) = read_all(&mut reader, &shared, &jobs, &commands) {
            tracing::error!(%error, "the link broke");
        }
        if at_end == AtEnd::ExitProcess {
            std::process::exit(0);
        }
        shared.stop.store(true, Ordering::Relaxed);
        let _ = commands.send(Command::Shutdown);
    })
}

fn read_all(
    reader: &mut LinkReader,
    shared: &Shared,
    jobs: &SyncSender<Job>,
    commands: &SyncSender<Command>,
) -> Result<(), ServeError> {
    while let Some(message) = reader.next()? {
        let delivered = match message {
            ToRunner::Generate { id, request, client, resume } => {
                shared.open(id);
                jobs.send(Job { id, request: *request, client, resume, since: Instant::now() }).is_ok()
            }
            ToRunner::Cancel { id } => {
                let delivered = shared.cancel_open(id) || commands.send(Command::Cancel(id)).is_ok();
                shared.abort_for(id);
                delivered
            }
            ToRunner::Shutdown => {
                let _ = commands.send(Command::Shutdown);
                shared.abort_all();
                true
            }
            ToRunner::Hello { .. } | ToRunner::Load { .. } => {
                tracing::warn!("the server said hello or load again");
                true
            }
        };
        if !delivered {
            return Ok(());
        }
    }
    Ok(())
}

fn spawn_heartbeat(shared: Arc<Shared>) -> io::Result<()> {
    spawn("heartbeat", move || {
        while !shared.stop.load(Ordering::Relaxed) {
            shared.send(&ToServer::Heartbeat(shared.heartbeat()));
            thread::sleep(HEARTBEAT);
        }
    })
}

fn spawn_prepare(
    preparer: Preparer,
    jobs: Receiver<Job>,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    spawn("prepare", move || {
        for job in jobs {
            let id = job.id;
            match preparer.prepare(job) {
                Ok(ready) => {
                    send_event(&shared, id, firepot_chat::GenerateEvent::Prompt(ready.report.clone()));
                    if commands.send(Command::Start(Box::new(ready))).is_err() && shared.give_up(id) {
                        send_event(&shared, id, firepot_chat::GenerateEvent::Failed(shutting_down()));
                    }
                }
                Err(error) => {
                    shared.close(id);
                    send_event(&shared, id, firepot_chat::GenerateEvent::Failed(error));
                }
            }
        }
    })
}

/// A thread whose name `top` and `perf` show.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

fn send_event(shared: &Shared, id: GenerationId, event: firepot_chat::GenerateEvent) {
    shared.send(&ToServer::Event { id, event });
}
