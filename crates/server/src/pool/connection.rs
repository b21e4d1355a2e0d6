//! The server's end of a link: what it sends, and to whom it hands what arrives. Reading and the process are
//! in
//! `runner`.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use firepot_chat::{ErrorKind, GenerateError, GenerateEvent, GenerateRequest};
use firepot_link::{FrameError, GenerationId, Heartbeat, PROTOCOL, Resume, SnapshotFolder, ToRunner, encode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Lease,
    error::{Death, PoolError},
    generation::{Delivery, Flight, Run},
};
use crate::limits;

/// A link to one runner, shared by everybody who uses it.
#[derive(Debug)]
pub struct Connection {
    model: String,
    frames: mpsc::Sender<Vec<u8>>,
    flights: Mutex<Flights>,
    heartbeat: Mutex<Heartbeat>,
    /// The runner's process; not set when it is a thread of this one.
    pub(super) pid: OnceLock<u32>,
    /// Somebody asked the runner to end.
    pub(super) stop: CancellationToken,
    /// The runner does not read what it is sent.
    pub(super) deaf: CancellationToken,
}

#[derive(Debug)]
enum Flights {
    Alive(HashMap<GenerationId, Flight>),
    Lost,
}

impl Connection {
    /// A link for a runner of `model`, and the frames that are to be written to it.
    pub fn new(model: String) -> (Arc<Self>, mpsc::Receiver<Vec<u8>>) {
        let (frames, receiver) = mpsc::channel(limits::MAX_WAITING_FRAMES);
        let connection = Self {
            model,
            frames,
            flights: Mutex::new(Flights::Alive(HashMap::new())),
            heartbeat: Mutex::default(),
            pid: OnceLock::new(),
            stop: CancellationToken::new(),
            deaf: CancellationToken::new(),
        };
        (Arc::new(connection), receiver)
    }

    /// Greets the runner and tells it what to load.
    pub fn begin(&self, spec: firepot_engine::LoadSpec, snapshots: Option<SnapshotFolder>) {
        let _ = self.send(&ToRunner::Hello { protocol: PROTOCOL });
        let _ = self.send(&ToRunner::Load { spec, snapshots });
    }

    /// Starts an answer, or continues one. When the runner is gone the run is broken from its beginning.
    ///
    /// # Errors
    /// [`PoolError::TooLarge`].
    pub fn generate(
        self: &Arc<Self>,
        id: GenerationId,
        request: &GenerateRequest,
        client: u64,
        resume: Option<Resume>,
        lease: &Arc<Lease>,
    ) -> Result<Run, PoolError> {
        let (run, flight) = Run::new(Arc::clone(self), Arc::clone(lease));
        match &mut *self.flights() {
            Flights::Alive(flights) => drop(flights.insert(id, flight)),
            Flights::Lost => {
                flight.break_off(GenerateError::new(ErrorKind::RunnerLost, PoolError::Lost.to_string()));
                return Ok(run);
            }
        }
        let request = Box::new(request.clone());
        match self.send(&ToRunner::Generate { id, request, client, resume }) {
            Ok(()) => Ok(run),
            Err(_) => Err(PoolError::TooLarge),
        }
    }

    /// Ends an answer whose client is gone.
    pub fn cancel(&self, id: GenerationId) {
        let known = match &mut *self.flights() {
            Flights::Alive(flights) => flights.remove(&id).is_some(),
            Flights::Lost => false,
        };
        if known {
            let _ = self.send(&ToRunner::Cancel { id });
        }
    }

    /// Asks for the end of an answer whose client goes on reading.
    pub fn ask_to_end(&self, id: GenerationId) {
        let known = matches!(&*self.flights(), Flights::Alive(flights) if flights.contains_key(&id));
        if known {
            let _ = self.send(&ToRunner::Cancel { id });
        }
    }

    /// Asks the runner to end.
    pub fn stop(&self) {
        let _ = self.send(&ToRunner::Shutdown);
        self.stop.cancel();
    }

    /// Hands an event to the client of its generation. A client that reads too slowly loses its answer.
    pub fn dispatch(&self, id: GenerationId, event: GenerateEvent) {
        let delivery = {
            let mut flights = self.flights();
            let Flights::Alive(flights) = &mut *flights else { return };
            let Some(flight) = flights.get(&id) else { return };
            let delivery = flight.deliver(event);
            if delivery != Delivery::Delivered {
                flights.remove(&id);
            }
            delivery
        };
        if matches!(delivery, Delivery::TooSlow | Delivery::Gone) {
            let _ = self.send(&ToRunner::Cancel { id });
        }
    }

    /// The runner is gone: every answer in flight is broken off here, and goes on elsewhere unless it was stopped.
    pub fn lose(&self, death: &Death) {
        let Flights::Alive(flights) = mem::replace(&mut *self.flights(), Flights::Lost) else { return };
        for flight in flights.into_values() {
            flight.break_off(self.loss(death));
        }
    }

    /// Takes the runner's sign of life.
    pub fn set_heartbeat(&self, heartbeat: Heartbeat) {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = heartbeat;
    }

    /// The runner's last sign of life; all zero before the first.
    pub fn heartbeat(&self) -> Heartbeat {
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loss(&self, death: &Death) -> GenerateError {
        if *death == Death::Stopped {
            let message = format!("the answer was cut off because {} was stopped", self.model);
            return GenerateError::new(ErrorKind::ShuttingDown, message);
        }
        let message = format!("the runner of {} was lost: {death}", self.model);
        GenerateError::new(ErrorKind::RunnerLost, message)
    }

    fn send(&self, message: &ToRunner) -> Result<(), FrameError> {
        if self.frames.try_send(encode(message)?).is_err() && !self.frames.is_closed() {
            self.deaf.cancel();
        }
        Ok(())
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
