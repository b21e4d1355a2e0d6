//! A server that answers as a test tells it to, byte by byte.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use firepot_fetch::{FetchError, FileSpec, Http, Patience, Url, fetch_file};
use firepot_store::{Access, Blob, Digest, Home};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// How many requests came before.
    pub nth: usize,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub head: String,
    pub body: Vec<u8>,
    /// Bytes of the body after which the connection is cut.
    pub cut_after: Option<usize>,
    /// Bytes of the body that are sent before each wait.
    pub drip: Option<(usize, Duration)>,
}

impl Request {
    pub fn range(&self) -> Option<Range<usize>> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().unwrap()..last.parse::<usize>().unwrap() + 1)
    }
}

impl Reply {
    pub fn new(status: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        let chunked = headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
        let length = (!chunked).then_some(("Content-Length", &*length));
        let fields = length.into_iter().chain(headers.iter().copied());
        let fields: String = fields.map(|(name, value)| [name, ": ", value, "\r\n"].concat()).collect();
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{fields}\r\n");
        Self { head, body, cut_after: None, drip: None }
    }

    /// What a good server answers.
    pub fn file(request: &Request, content: &[u8]) -> Self {
        match request.range() {
            Some(range) => Self::part(content, range, content.len()),
            None => Self::new("200 OK", &[], content),
        }
    }

    pub fn part(content: &[u8], range: Range<usize>, total: usize) -> Self {
        let range = range.start..range.end.min(content.len());
        let says = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        Self::new("206 Partial Content", &[("Content-Range", &says)], &content[range])
    }

    pub fn redirect(location: &str) -> Self {
        Self::new("302 Found", &[("Location", location)], "")
    }

    pub fn cut_after(self, bytes: usize) -> Self {
        Self { cut_after: Some(bytes), ..self }
    }
}

/// A listening server; it ends when dropped.
pub struct Hub {
    pub url: Url,
    pub requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Hub {
    pub async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        let count = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answer, count) = (Arc::clone(&seen), Arc::clone(&answer), Arc::clone(&count));
                // A client that goes away is no concern of the server's.
                tokio::spawn(async move { serve(stream, &*answer, &seen, &count).await });
            }
        });
        Self { url, requests, task }
    }

    pub fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    pub fn seen(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(impl Fn(&Request) -> Reply + Send + Sync),
    seen: &Mutex<Vec<Request>>,
    count: &AtomicUsize,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let request = Request { path, headers, nth: count.fetch_add(1, Ordering::SeqCst) };
    seen.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    stream.write_all(reply.head.as_bytes()).await.ok()?;
    let body = &reply.body[..reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len())];
    let (step, wait) = reply.drip.unwrap_or((body.len().max(1), Duration::ZERO));
    for chunk in body.chunks(step) {
        stream.write_all(chunk).await.ok()?;
        tokio::time::sleep(wait).await;
    }
    stream.shutdown().await.ok()
}

/// A home and a client that does not wait long.
pub struct Client {
    _dir: TempDir,
    pub home: Home,
    pub http: Http,
}

impl Client {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), Access::ReadWrite).unwrap();
        let patience =
            Patience { first: Duration::from_millis(2), max: Duration::from_millis(20), failures_max: 6 };
        Self { _dir: dir, home, http: Http::new().unwrap().with_patience(patience) }
    }

    pub async fn fetch(&self, url: Url, content: &[u8]) -> Result<Blob, FetchError> {
        fetch_file(&self.http, &self.home, spec(url, content), |_| {}).await
    }

    /// Fetches a file of which only the URL is known.
    pub async fn fetch_unknown(&self, url: Url) -> Result<Blob, FetchError> {
        let spec = FileSpec { size_bytes: None, digest: None, ..spec(url, b"") };
        fetch_file(&self.http, &self.home, spec, |_| {}).await
    }
}

pub fn spec(url: Url, content: &[u8]) -> FileSpec {
    FileSpec {
        url,
        size_bytes: Some(content.len() as u64),
        digest: Some(Digest::of(content)),
        authorization: None,
        label: "a file".to_owned(),
    }
}

/// Bytes in which every place is another.
pub fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}
