//! From one connection into the partial blob, a piece at a time.
//!
//! While a piece is written the next one is gathered; there are never more than these two. The bytes are not
//! copied on the way: a piece is a list of what came off the connection.

use std::{ops::Range, sync::Arc, time::Instant};

use bytes::Bytes;
use firepot_store::{PartialBlob, StoreError};
use reqwest::Response;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use crate::{
    FetchError,
    error::{host_of, shown},
    limits::{HASH_LAG_BYTES_MAX, HASH_POLL_INTERVAL, PIECE_BYTES, PIECE_INTERVAL},
};

/// Why a body was not taken to its end.
pub enum Stopped {
    /// The store could not take it.
    Store(FetchError),
    /// The server did not send it as it should.
    Server(FetchError),
}

/// A writer of consecutive bytes.
pub struct Pieces<'a, F> {
    partial: &'a Arc<PartialBlob>,
    /// What is not there yet, in order; other bytes are left out.
    missing: Vec<Range<u64>>,
    note: F,
    position: u64,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    /// Where what is gathered ends.
    gathered_end: u64,
    since: Instant,
    writing: Option<JoinHandle<Result<u64, StoreError>>>,
}

impl<'a, F: Fn(u64)> Pieces<'a, F> {
    /// Begins at `position`. `note` is told the partial blob's bytes after each piece.
    pub fn new(partial: &'a Arc<PartialBlob>, position: u64, note: F) -> Self {
        Self {
            partial,
            missing: partial.missing(),
            note,
            position,
            gathered: Vec::new(),
            gathered_bytes: 0,
            gathered_end: position,
            since: Instant::now(),
            writing: None,
        }
    }

    /// Up to where everything was taken.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Takes a body up to the byte `end`; what comes behind it is left.
    pub async fn take(&mut self, mut response: Response, end: u64) -> Result<(), Stopped> {
        let url = response.url().clone();
        let result = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => self.gather(bytes, end).await?,
                Ok(None) if self.position < end => {
                    let detail = format!("they end at {}, not at {end}", self.position);
                    break Err(FetchError::WrongRange { url: shown(&url), detail });
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(FetchError::receiving(&url, &error)),
            }
            if self.position == end {
                break Ok(());
            }
        };
        self.submit().await?;
        self.written().await?;
        result.map_err(|error| {
            tracing::debug!(host = host_of(&url), %error, "a body was cut off");
            Stopped::Server(error)
        })
    }

    async fn gather(&mut self, bytes: Bytes, end: u64) -> Result<(), Stopped> {
        let begin = self.position;
        self.position = end.min(begin + bytes.len() as u64);
        for wanted in wanted(&self.missing, begin..self.position) {
            if self.gathered_end != wanted.start {
                self.submit().await?;
            }
            self.gathered_end = wanted.end;
            self.gathered_bytes += (wanted.end - wanted.start) as usize;
            self.gathered.push(bytes.slice((wanted.start - begin) as usize..(wanted.end - begin) as usize));
        }
        if self.gathered_bytes >= PIECE_BYTES || self.since.elapsed() >= PIECE_INTERVAL {
            self.submit().await?;
        }
        Ok(())
    }

    /// Begins to write what is gathered, after the piece before is written.
    async fn submit(&mut self) -> Result<(), Stopped> {
        self.since = Instant::now();
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.written().await?;
        while self.partial.hash_lag_bytes() > HASH_LAG_BYTES_MAX {
            sleep(HASH_POLL_INTERVAL).await;
        }
        let pieces = std::mem::take(&mut self.gathered);
        let offset = self.gathered_end - self.gathered_bytes as u64;
        self.gathered_bytes = 0;
        let partial = Arc::clone(self.partial);
        self.writing = Some(spawn_blocking(move || partial.write_at(offset, &pieces)));
        Ok(())
    }

    async fn written(&mut self) -> Result<(), Stopped> {
        if let Some(writing) = self.writing.take() {
            let done_bytes = writing.await.map_err(|_| Stopped::Store(FetchError::CutOff))?;
            (self.note)(done_bytes.map_err(|error| Stopped::Store(error.into()))?);
        }
        Ok(())
    }
}

/// What of `range` is missing.
fn wanted(missing: &[Range<u64>], range: Range<u64>) -> Vec<Range<u64>> {
    let first = missing.partition_point(|gap| gap.end <= range.start);
    let overlapping = missing[first..].iter().take_while(|gap| gap.start < range.end);
    overlapping.map(|gap| gap.start.max(range.start)..gap.end.min(range.end)).collect()
}
