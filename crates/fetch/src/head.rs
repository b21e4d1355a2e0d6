//! The beginning of a file at a server, read forwards while it comes.

use std::{
    cell::{RefCell, RefMut},
    io,
};

use firepot_gguf::ByteSource;
use reqwest::{
    Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RANGE},
};
use tokio::{runtime::Handle, time::timeout};

use crate::{
    FetchError, FileSpec, HeaderError, Http,
    answer::{content_range, file_size, validator},
    error::{host_of, shown},
    http::{Answer, Source, is_html, refusal, refuse_coding, secret},
    limits::{FILE_HEADER_BYTES_MAX, FILE_HEADER_REQUESTS_MAX, FILE_HEADER_SKIP_BYTES_MIN, STALL_TIMEOUT},
};

/// The beginning of a file. Reading it blocks.
pub struct Head {
    stream: RefCell<Stream>,
    size_bytes: u64,
    runtime: Handle,
}

impl Head {
    /// Asks for it.
    pub fn begin(http: Http, file: FileSpec, runtime: Handle) -> Result<Self, HeaderError> {
        let mut stream = Stream {
            http,
            file,
            response: None,
            start: 0,
            bytes: Vec::new(),
            fetched_bytes: 0,
            requests: 0,
            version: None,
            ranges: true,
        };
        let size_bytes = runtime.block_on(stream.connect())?;
        Ok(Self { stream: RefCell::new(stream), size_bytes, runtime })
    }

    /// What is there when `least` bytes from `offset` are.
    fn reach(&self, offset: u64, least: usize) -> io::Result<RefMut<'_, Stream>> {
        let mut stream = self.stream.borrow_mut();
        self.runtime.block_on(stream.reach(offset, least)).map_err(io::Error::other)?;
        Ok(stream)
    }
}

impl ByteSource for Head {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.size_bytes)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_window(offset, buffer.len(), buffer).map(drop)
    }

    fn read_window(&self, offset: u64, least: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.reach(offset, least)?;
        let there = offset.checked_sub(stream.start).and_then(|at| stream.bytes.get(at as usize..));
        let there = there.ok_or_else(|| io::Error::other("a header is read forwards"))?;
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(length)
    }
}

/// What has come of a file, without gaps, and how more of it comes.
struct Stream {
    http: Http,
    file: FileSpec,
    /// An answer that has more.
    response: Option<Response>,
    /// Where in the file `bytes` begins.
    start: u64,
    bytes: Vec<u8>,
    /// Bytes that came, those before `start` too.
    fetched_bytes: u64,
    requests: u32,
    /// Length and version of the file, of the first answer.
    version: Option<(u64, Option<HeaderValue>)>,
    /// The server sends parts.
    ranges: bool,
}

const CUT: &str = "the connection ended within the file's header";

impl Stream {
    /// Where the next byte belongs that comes.
    const fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    const fn left_bytes(&self) -> u64 {
        FILE_HEADER_BYTES_MAX.saturating_sub(self.fetched_bytes)
    }

    /// Length of the file, by the first answer.
    async fn connect(&mut self) -> Result<u64, HeaderError> {
        loop {
            match self.version {
                Some((size_bytes, _)) => return Ok(size_bytes),
                None => self.receive().await?,
            }
        }
    }

    /// Waits until `least` bytes from `offset` are there. A long gap before them is skipped while there are requests left.
    async fn reach(&mut self, offset: u64, least: usize) -> Result<(), HeaderError> {
        let gap_bytes = offset.saturating_sub(self.end());
        if gap_bytes >= FILE_HEADER_SKIP_BYTES_MIN && self.ranges && self.requests < FILE_HEADER_REQUESTS_MAX
        {
            self.response = None;
            self.start = offset;
            self.bytes.clear();
        }
        let end = offset.saturating_add(least as u64);
        while self.end() < end {
            if end - self.end() > self.left_bytes() {
                return Err(HeaderError::TooLong { url: shown(&self.file.url) });
            }
            self.receive().await?;
        }
        Ok(())
    }

    /// Some further bytes of the answer that there is, else a further answer. After a failure of the connection the next one goes on
    /// from where it was, while there are requests left.
    async fn receive(&mut self) -> Result<(), HeaderError> {
        let received = match self.response.take() {
            Some(response) => self.take(response).await,
            None => self.ask().await,
        };
        match received {
            Err(HeaderError::Fetch(error @ (FetchError::Broken { .. } | FetchError::Stalled { .. })))
                if self.requests < FILE_HEADER_REQUESTS_MAX =>
            {
                tracing::debug!(%error, at = self.end(), "the rest of a header is asked for again");
                Ok(())
            }
            done => done,
        }
    }

    async fn take(&mut self, mut response: Response) -> Result<(), HeaderError> {
        let host = || host_of(&self.file.url);
        let stalled = |_| FetchError::Stalled { host: host() };
        let chunk = timeout(STALL_TIMEOUT, response.chunk()).await.map_err(stalled)?;
        let chunk = chunk.map_err(|error| FetchError::receiving(&self.file.url, &error))?;
        let chunk = chunk.ok_or_else(|| FetchError::Broken { host: host(), reason: CUT.to_owned() })?;
        // A server without ranges sends the whole file.
        let chunk = &chunk[..chunk.len().min(self.left_bytes() as usize)];
        self.bytes.extend_from_slice(chunk);
        self.fetched_bytes += chunk.len() as u64;
        self.response = Some(response);
        Ok(())
    }

    /// Asks for what follows.
    async fn ask(&mut self) -> Result<(), HeaderError> {
        self.requests += 1;
        let (begin, url) = (self.end(), shown(&self.file.url));
        let mut headers = HeaderMap::new();
        let range = format!("bytes={begin}-{}", begin + self.left_bytes().max(1) - 1);
        headers.extend(HeaderValue::try_from(range).ok().map(|range| (RANGE, range)));
        headers
            .extend(self.file.authorization.as_deref().and_then(secret).map(|value| (AUTHORIZATION, value)));
        let origin = Source::origin(self.file.url.clone());
        let Answer { response, .. } = self.http.follow(&origin, headers).await?;
        if is_html(response.headers()) {
            return Err(FetchError::Html { url }.into());
        }
        if !matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Err(refusal(response).await.into());
        }
        refuse_coding(&response)?;
        self.check_version(&response)?;
        if response.status() == StatusCode::OK {
            self.start_over();
        } else if sent_from(&response).is_some_and(|first| first != begin) {
            let detail = format!("not those from byte {begin}");
            return Err(FetchError::WrongRange { url, detail }.into());
        }
        self.response = Some(response);
        Ok(())
    }

    /// The whole file comes, from its first byte. What came before does not count: it comes again.
    fn start_over(&mut self) {
        (self.ranges, self.start, self.fetched_bytes) = (false, 0, 0);
        self.bytes.clear();
    }

    fn check_version(&mut self, response: &Response) -> Result<(), FetchError> {
        let url = || shown(&self.file.url);
        let size_bytes = file_size(response).or(self.file.size_bytes);
        let size_bytes = size_bytes.ok_or_else(|| FetchError::NoSize { url: url() })?;
        let found = (size_bytes, validator(response.headers()));
        let (first_bytes, first) = self.version.get_or_insert_with(|| found.clone());
        if *first_bytes != found.0 || (first.is_some() && found.1.is_some() && *first != found.1) {
            let detail = "another version came in the middle".to_owned();
            return Err(FetchError::ChangedOnServer { url: url(), detail });
        }
        Ok(())
    }
}

/// The first byte of the part that is sent.
fn sent_from(response: &Response) -> Option<u64> {
    content_range(response.headers())?.range.map(|range| range.start)
}
