//! The header of a model file that is somewhere else: as much of its beginning as is needed, and no more.

use std::{cell::Cell, io};

use firepot_gguf::{ByteSource, Gguf, GgufError};
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RANGE},
};
use tokio::time::timeout;

use crate::{
    FetchError, FileSpec, Http,
    answer::file_size,
    error::{host_of, shown},
    http::{Answer, Source, is_html, refusal, refuse_coding, secret},
    limits::{FILE_HEADER_BYTES_MAX, FILE_HEADER_TRIES_MAX, STALL_TIMEOUT},
};

/// Why a header was not read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It came and is none.
    #[error("{url}: {error}")]
    Gguf {
        /// Where it came from.
        url: String,
        /// What is wrong.
        error: GgufError,
    },
    /// It is longer than what is fetched of a file.
    #[error("{url}: the header is longer than {} MiB", FILE_HEADER_BYTES_MAX >> 20)]
    TooLong {
        /// Where it came from.
        url: String,
    },
}

/// Reads the headers of a model's files, in their order, as one.
///
/// # Errors
/// See [`HeaderError`].
pub async fn fetch_header(http: &Http, files: &[FileSpec]) -> Result<Gguf, HeaderError> {
    let mut heads = Vec::new();
    for file in files {
        heads.push(fetch_head(http, file).await?);
    }
    let url = files.first().map(|file| shown(&file.url)).unwrap_or_default();
    Gguf::read_split(&heads).map_err(|error| HeaderError::Gguf { url, error })
}

/// The beginning of a file, in which its header is whole. A connection that breaks is tried again from the start.
async fn fetch_head(http: &Http, file: &FileSpec) -> Result<Head, HeaderError> {
    let mut tries = 1;
    loop {
        match once(http, file).await {
            Err(HeaderError::Fetch(error @ (FetchError::Broken { .. } | FetchError::Stalled { .. })))
                if tries < FILE_HEADER_TRIES_MAX =>
            {
                tracing::debug!(%error, "a header is asked for again");
                tries += 1;
            }
            done => return done,
        }
    }
}

async fn once(http: &Http, file: &FileSpec) -> Result<Head, HeaderError> {
    let mut headers = HeaderMap::new();
    let range = format!("bytes=0-{}", FILE_HEADER_BYTES_MAX - 1);
    headers.extend(HeaderValue::try_from(range).ok().map(|range| (RANGE, range)));
    headers.extend(file.authorization.as_deref().and_then(secret).map(|value| (AUTHORIZATION, value)));
    let Answer { response, .. } = http.follow(&Source::origin(file.url.clone()), headers).await?;
    if is_html(response.headers()) {
        return Err(FetchError::Html { url: shown(&file.url) }.into());
    }
    // A server without ranges sends the whole file; the connection is dropped when the header is there.
    if !matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        return Err(refusal(response).await.into());
    }
    refuse_coding(&response)?;
    let size_bytes = file_size(&response).or(file.size_bytes);
    let size_bytes = size_bytes.ok_or_else(|| FetchError::NoSize { url: shown(&file.url) })?;
    let mut head = Head { bytes: Vec::new(), size_bytes, short: Cell::new(false) };
    head.fill(response, file).await
}

/// What is there of a file.
struct Head {
    bytes: Vec<u8>,
    size_bytes: u64,
    /// Somebody wanted to read what is not there.
    short: Cell<bool>,
}

/// How much is there when the header is first tried, in bytes; then twice as much each time.
const FIRST_TRY_BYTES: usize = 256 << 10;

impl Head {
    /// Reads until the header is whole.
    async fn fill(&mut self, mut response: Response, file: &FileSpec) -> Result<Self, HeaderError> {
        let url = || shown(&file.url);
        let mut next_try = FIRST_TRY_BYTES;
        loop {
            let stalled = |_| FetchError::Stalled { host: host_of(&file.url) };
            let chunk = timeout(STALL_TIMEOUT, response.chunk()).await.map_err(stalled)?;
            let chunk = chunk.map_err(|error| FetchError::receiving(&file.url, &error))?;
            let ended = chunk.is_none();
            self.bytes.extend(chunk.unwrap_or_default());
            let full = self.bytes.len() as u64 >= FILE_HEADER_BYTES_MAX.min(self.size_bytes);
            if self.bytes.len() < next_try && !ended && !full {
                continue;
            }
            next_try = self.bytes.len().saturating_mul(2);
            self.short.set(false);
            match Gguf::read(self) {
                Ok(_) if !self.short.get() => return Ok(self.take()),
                Err(error) if !self.short.get() => return Err(HeaderError::Gguf { url: url(), error }),
                _ if full => return Err(HeaderError::TooLong { url: url() }),
                _ if ended => {
                    return Err(
                        FetchError::Broken { host: host_of(&file.url), reason: CUT.to_owned() }.into()
                    );
                }
                _ => {}
            }
        }
    }

    fn take(&mut self) -> Self {
        Self { bytes: std::mem::take(&mut self.bytes), size_bytes: self.size_bytes, short: Cell::new(false) }
    }
}

const CUT: &str = "the connection ended within the file's header";

impl ByteSource for Head {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.size_bytes)
    }

    /// What is not there reads as zeros, and is noted: the reader's window may reach beyond what it needs.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        let there =
            usize::try_from(offset).ok().and_then(|start| self.bytes.get(start..)).unwrap_or_default();
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        if length < buffer.len() {
            self.short.set(true);
        }
        Ok(())
    }
}
