//! Several connections that fetch the parts of one file.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use firepot_store::PartialBlob;
use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, HeaderValue, IF_RANGE, RANGE},
};
use tokio::{sync::watch, time::sleep};

use crate::{
    FetchError, Http,
    answer::{content_range, file_size, validator},
    error::shown,
    http::{Answer, Source, is_html, refusal, refuse_coding},
    limits::PART_BYTES,
    piece::{Pieces, Stopped},
    retry::{Failures, is_temporary, retry_after},
    transfer::Remote,
};

/// What all connections of a transfer share.
pub struct Transfer<'a> {
    http: &'a Http,
    file: &'a Remote,
    partial: &'a Arc<PartialBlob>,
    progress: &'a (dyn Fn(u64) + Sync),
    shared: Mutex<Shared>,
    mode: watch::Sender<Mode>,
}

struct Shared {
    missing: VecDeque<Range<u64>>,
    /// Where the origin has sent us, so that it need not be asked for each part.
    target: Option<Source>,
    /// Grows with each piece that was written.
    progress: u64,
    /// The most that was told.
    done_bytes: u64,
}

/// How the server gives the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Unknown,
    /// In parts, as they are asked for.
    Ranges,
    /// Only as a whole.
    Whole,
}

/// Why a connection brought no further byte.
enum Failure {
    /// Another try would end the same.
    Final(FetchError),
    /// Another try may do.
    Passing(FetchError, Option<Duration>),
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Offline { .. }
            | FetchError::Connect { .. }
            | FetchError::Broken { .. }
            | FetchError::Stalled { .. } => Self::Passing(error, None),
            error => Self::Final(error),
        }
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Store(error) => Self::Final(error),
            Stopped::Server(error) => Self::Passing(error, None),
        }
    }
}

impl<'a> Transfer<'a> {
    pub fn new(
        http: &'a Http,
        file: &'a Remote,
        partial: &'a Arc<PartialBlob>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let missing = partial.missing().into();
        let shared = Mutex::new(Shared { missing, target: None, progress: 0, done_bytes: 0 });
        Self { http, file, partial, progress, shared, mode: watch::Sender::new(Mode::Unknown) }
    }

    /// Fetches parts until none is left. All but the first connection wait for what the first one learns.
    pub async fn work(&self, first: bool) -> Result<(), FetchError> {
        if !first && self.mode().await != Mode::Ranges {
            return Ok(());
        }
        let mut failures = Failures::default();
        while let Some(mut part) = self.take_part() {
            while !part.is_empty() {
                let begin = part.start;
                let Err(failure) = self.fetch(&mut part).await else { continue };
                let Failure::Passing(error, wished) = failure else { return Err(failure.into_error()) };
                // Without network at all nobody shall wait to be told so.
                let first_contact = *self.mode.borrow() == Mode::Unknown && error.is_offline();
                let (moved, progress) = (part.start != begin, self.shared().progress);
                let wait = failures.count(&self.http.patience, moved, progress, wished);
                let Some(wait) = wait.filter(|_| !first_contact) else { return Err(error) };
                tracing::debug!(%error, ?wait, part.start, "a part is tried again");
                sleep(wait).await;
            }
        }
        Ok(())
    }

    async fn mode(&self) -> Mode {
        let mut mode = self.mode.subscribe();
        // The sender lives as long as `self`.
        mode.wait_for(|mode| *mode != Mode::Unknown).await.map_or(Mode::Unknown, |mode| *mode)
    }

    fn take_part(&self) -> Option<Range<u64>> {
        let mut shared = self.shared();
        let gap = shared.missing.front_mut()?;
        let part = gap.start..gap.end.min(gap.start + PART_BYTES);
        gap.start = part.end;
        if gap.is_empty() {
            shared.missing.pop_front();
        }
        Some(part)
    }

    /// Fetches a part; afterwards `part` is what is left of it.
    async fn fetch(&self, part: &mut Range<u64>) -> Result<(), Failure> {
        let response = self.ask(part).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => self.take_range(response, part).await,
            StatusCode::OK => self.take_whole(response, part).await,
            status if is_temporary(status) => {
                let wished = retry_after(response.headers());
                Err(Failure::Passing(refusal(response).await, wished))
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let detail = format!("byte {} is not there", part.start);
                Err(Failure::Final(FetchError::ChangedOnServer { url: shown(response.url()), detail }))
            }
            _ => Err(Failure::Final(refusal(response).await)),
        }
    }

    /// Asks where the origin has sent us before; when that is no longer good, the origin.
    async fn ask(&self, part: &Range<u64>) -> Result<Response, FetchError> {
        let headers = self.headers(part);
        let known = self.shared().target.clone();
        if let Some(source) = known {
            let answer = self.http.follow(&source, headers.clone()).await?;
            if !is_outdated(answer.response.status()) {
                return Ok(answer.response);
            }
            self.forget(&source);
        }
        let origin = Source::origin(self.file.url.clone());
        let Answer { response, source } = self.http.follow(&origin, headers).await?;
        if source != origin && response.status().is_success() {
            self.shared().target = Some(source);
        }
        Ok(response)
    }

    fn forget(&self, source: &Source) {
        let mut shared = self.shared();
        // Another connection may have been told a newer one.
        if shared.target.as_ref() == Some(source) {
            shared.target = None;
        }
    }

    fn headers(&self, part: &Range<u64>) -> HeaderMap {
        let mut headers = self.file.headers();
        let range = format!("bytes={}-{}", part.start, part.end - 1);
        if let Ok(range) = HeaderValue::try_from(range) {
            headers.insert(RANGE, range);
        }
        if let Some(validator) = &self.file.validator {
            headers.insert(IF_RANGE, validator.clone());
        }
        headers
    }

    async fn take_range(&self, response: Response, part: &mut Range<u64>) -> Result<(), Failure> {
        refuse_coding(&response)?;
        self.check_version(&response)?;
        let content = content_range(response.headers());
        let range = content.and_then(|content| content.range);
        // A server may send less than it was asked for; the rest is asked for again.
        let Some(range) = range.filter(|range| range.start == part.start && range.end <= part.end) else {
            let url = shown(response.url());
            let detail = format!("not bytes {} to {}", part.start, part.end - 1);
            return Err(Failure::Passing(FetchError::WrongRange { url, detail }, None));
        };
        self.mode.send_replace(Mode::Ranges);
        let mut pieces = Pieces::new(self.partial, part.start, |done_bytes| self.note(done_bytes));
        let result = pieces.take(response, range.end).await;
        part.start = pieces.position();
        Ok(result?)
    }

    /// Takes a file that the server gives only as a whole, leaving out what is there already.
    async fn take_whole(&self, response: Response, part: &mut Range<u64>) -> Result<(), Failure> {
        if is_html(response.headers()) {
            return Err(Failure::Final(FetchError::Html { url: shown(&self.file.url) }));
        }
        refuse_coding(&response)?;
        self.check_version(&response)?;
        if *self.mode.borrow() == Mode::Ranges {
            let url = shown(response.url());
            let detail = "the whole file in place of a part".to_owned();
            return Err(Failure::Passing(FetchError::WrongRange { url, detail }, None));
        }
        self.mode.send_replace(Mode::Whole);
        let mut pieces = Pieces::new(self.partial, 0, |done_bytes| self.note(done_bytes));
        let done_before = self.partial.done_bytes();
        let result = pieces.take(response, self.file.size_bytes).await;
        if result.is_ok() {
            self.shared().missing.clear();
            part.start = part.end;
        } else if self.partial.done_bytes() > done_before {
            // The next answer begins at byte 0 again, wherever the part begins: it must only not look complete.
            part.start = self.partial.frontier_bytes().clamp(part.start, part.end - 1);
        }
        Ok(result?)
    }

    fn check_version(&self, response: &Response) -> Result<(), FetchError> {
        let url = shown(response.url());
        let size_bytes = file_size(response);
        if let Some(size_bytes) = size_bytes.filter(|&size_bytes| size_bytes != self.file.size_bytes) {
            let detail = format!("it has {size_bytes} bytes, not {}", self.file.size_bytes);
            return Err(FetchError::ChangedOnServer { url, detail });
        }
        let actual = validator(response.headers());
        if self.file.validator.is_some() && actual.is_some() && self.file.validator != actual {
            let detail = "another version came in the middle".to_owned();
            return Err(FetchError::ChangedOnServer { url, detail });
        }
        Ok(())
    }

    fn note(&self, done_bytes: u64) {
        let mut shared = self.shared();
        shared.progress += 1;
        // Connections learn of their pieces in another order than they were written in.
        shared.done_bytes = shared.done_bytes.max(done_bytes);
        let done_bytes = shared.done_bytes;
        drop(shared);
        (self.progress)(done_bytes);
    }

    /// Nothing is done under this lock that could panic half-way.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn into_error(self) -> FetchError {
        match self {
            Self::Final(error) | Self::Passing(error, _) => error,
        }
    }
}

/// Whether an answer may mean that a signed URL has run out.
fn is_outdated(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 404 | 410)
}
