//! Files into the store: in parts, several at once, and from where an earlier try ended.
//!
//! The future can be dropped at any moment; what has arrived stays and is not fetched again. What a file means is
//! not known here.

use std::sync::Arc;

use firepot_store::{Blob, Digest, Home, Opened, PartialBlob, StoreError};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::{
    StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RANGE},
};
use tokio::{runtime::Handle, task::spawn_blocking, time::sleep};

use crate::{
    FetchError, Http,
    answer::{file_size, validator},
    error::shown,
    http::{Answer, Source, is_html, refusal, refuse_coding, secret},
    limits::{BUSY_POLL_INTERVAL, PARTS_AT_ONCE},
    part::Transfer,
    retry::{Failures, is_temporary, retry_after},
};

/// A file to be fetched.
#[derive(Clone, Debug)]
pub struct FileSpec {
    /// Where it is.
    pub url: Url,
    /// Its length in bytes; the server is asked when it is not known.
    pub size_bytes: Option<u64>,
    /// What it must hash to, when that is known.
    pub digest: Option<Digest>,
    /// Value of the `Authorization` header, for the URL's own server only.
    pub authorization: Option<String>,
    /// What the file is to the user.
    pub label: String,
}

/// Fetches a file into the store. `progress` is told the bytes that are there, whoever fetched them. Where another
/// process or task fetches the same file, it is waited for, and continued should it end.
///
/// # Errors
/// When there is no answer, the file is not what it should be, or the store cannot take it. What has arrived
/// stays for the next try, except after [`FetchError::Mismatch`] and [`FetchError::ChangedOnServer`].
pub async fn fetch_file(
    http: &Http,
    home: &Home,
    spec: FileSpec,
    progress: impl Fn(u64) + Send + Sync,
) -> Result<Blob, FetchError> {
    if let Some(blob) = stored(home, &spec).await? {
        progress(blob.size_bytes);
        return Ok(blob);
    }
    let file = Remote::find(http, spec).await?;
    let partial = match obtain(home, &file, &progress).await? {
        Obtained::Partial(partial) => partial,
        Obtained::Stored(blob) => {
            progress(blob.size_bytes);
            return Ok(blob);
        }
    };
    progress(partial.get().done_bytes());
    if !partial.get().missing().is_empty() {
        transfer(http, &file, &partial, &progress).await?;
    }
    finish(&file, partial.get()).await
}

/// A file of which everything is known that is needed to fetch it.
#[derive(Debug)]
pub struct Remote {
    pub url: Url,
    pub size_bytes: u64,
    pub digest: Option<Digest>,
    /// Tells its version, where no digest does.
    pub validator: Option<HeaderValue>,
    pub authorization: Option<HeaderValue>,
}

impl Remote {
    async fn find(http: &Http, spec: FileSpec) -> Result<Self, FetchError> {
        let FileSpec { url, size_bytes, digest, authorization, label } = spec;
        let authorization = authorization.as_deref().and_then(secret);
        let mut file = Self { url, size_bytes: 0, digest, validator: None, authorization };
        match (size_bytes, digest) {
            (Some(size_bytes), Some(_)) => file.size_bytes = size_bytes,
            _ => file.ask(http, size_bytes).await?,
        }
        tracing::debug!(url = shown(&file.url), label, file.size_bytes, "a file to be fetched");
        Ok(file)
    }

    /// Asks for one byte: unlike HEAD, that is allowed by signed URLs, and tells whether ranges are served.
    async fn ask(&mut self, http: &Http, expected: Option<u64>) -> Result<(), FetchError> {
        let mut headers = self.headers();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        let mut failures = Failures::default();
        let response = loop {
            let answer = http.follow(&Source::origin(self.url.clone()), headers.clone()).await;
            let (error, wished) = match answer {
                Ok(Answer { response, .. }) if is_temporary(response.status()) => {
                    let wished = retry_after(response.headers());
                    (refusal(response).await, wished)
                }
                Ok(Answer { response, .. }) => break response,
                Err(error @ (FetchError::Broken { .. } | FetchError::Stalled { .. })) => (error, None),
                Err(error) => return Err(error),
            };
            let Some(wait) = failures.count(&http.patience, false, 0, wished) else { return Err(error) };
            sleep(wait).await;
        };
        let size_bytes = file_size(&response);
        let empty = response.status() == StatusCode::RANGE_NOT_SATISFIABLE && size_bytes.is_some();
        if !response.status().is_success() && !empty {
            return Err(refusal(response).await);
        }
        refuse_coding(&response)?;
        if is_html(response.headers()) {
            return Err(FetchError::Html { url: shown(&self.url) });
        }
        self.size_bytes = size_bytes.ok_or_else(|| FetchError::NoSize { url: shown(&self.url) })?;
        if expected.is_some_and(|expected| expected != self.size_bytes) {
            let detail = format!("it has {} bytes, not {}", self.size_bytes, expected.unwrap_or_default());
            return Err(FetchError::ChangedOnServer { url: shown(&self.url), detail });
        }
        // A digest tells more than any version.
        self.validator = validator(response.headers()).filter(|_| self.digest.is_none());
        Ok(())
    }

    /// The headers of every request for it.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        headers
    }

    /// Under what the store keeps it until it is complete.
    fn id(&self) -> Digest {
        self.digest.unwrap_or_else(|| {
            let validator = self.validator.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
            let url = shown(&self.url);
            let size = self.size_bytes.to_string();
            Digest::of(&[url.as_bytes(), size.as_bytes(), validator].join(&b'\n'))
        })
    }
}

/// A partial blob. Letting it go waits for its threads, which is not for a thread of the runtime.
#[derive(Debug)]
pub struct Held(Arc<PartialBlob>);

impl Held {
    pub fn get(&self) -> &Arc<PartialBlob> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Ok(runtime) = Handle::try_current() {
            let partial = Arc::clone(&self.0);
            // The clone is let go there, after the one here.
            runtime.spawn_blocking(move || drop(partial));
        }
    }
}

enum Obtained {
    Partial(Held),
    Stored(Blob),
}

/// Takes the file's partial blob, or waits until whoever has it has finished or let it go.
async fn obtain(home: &Home, file: &Remote, progress: &impl Fn(u64)) -> Result<Obtained, FetchError> {
    let id = file.id();
    loop {
        let (at, size_bytes) = (home.clone(), file.size_bytes);
        let opened = blocking(move || match at.partial(&id, size_bytes)? {
            Opened::Ready(partial) => Ok(Ok(Obtained::Partial(Held(Arc::new(partial))))),
            Opened::Stored(blob) => Ok(Ok(Obtained::Stored(blob))),
            Opened::Busy => Ok(Err(at.partial_progress(&id))),
        });
        match opened.await? {
            Ok(obtained) => return Ok(obtained),
            Err(done_bytes) => done_bytes.into_iter().for_each(progress),
        }
        sleep(BUSY_POLL_INTERVAL).await;
    }
}

async fn transfer(
    http: &Http,
    file: &Remote,
    partial: &Held,
    progress: &(impl Fn(u64) + Sync),
) -> Result<(), FetchError> {
    let transfer = Transfer::new(http, file, partial.get(), progress);
    let mut workers: FuturesUnordered<_> =
        (0..PARTS_AT_ONCE).map(|index| transfer.work(index == 0)).collect();
    while let Some(result) = workers.next().await {
        if let Err(error) = result {
            // Parts of another version are of no use.
            if matches!(error, FetchError::ChangedOnServer { .. }) {
                let partial = Arc::clone(partial.get());
                blocking(move || partial.discard()).await?;
            }
            return Err(error);
        }
    }
    Ok(())
}

async fn finish(file: &Remote, partial: &Arc<PartialBlob>) -> Result<Blob, FetchError> {
    let (partial, digest, source) = (Arc::clone(partial), file.digest, shown(&file.url));
    blocking(move || partial.finish(digest.as_ref(), &source)).await.map_err(|error| match error {
        FetchError::Store(StoreError::DigestMismatch { expected, actual }) => {
            FetchError::Mismatch { url: shown(&file.url), expected, actual }
        }
        error => error,
    })
}

async fn stored(home: &Home, spec: &FileSpec) -> Result<Option<Blob>, FetchError> {
    let Some(digest) = spec.digest else { return Ok(None) };
    let home = home.clone();
    let blob = blocking(move || Ok(home.blob(&digest))).await?;
    Ok(blob.filter(|blob| spec.size_bytes.is_none_or(|size_bytes| size_bytes == blob.size_bytes)))
}

/// Runs something of the store where it may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FetchError> {
    Ok(spawn_blocking(work).await.map_err(|_| FetchError::CutOff)??)
}
