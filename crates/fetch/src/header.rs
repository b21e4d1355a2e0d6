//! The header of a model file that is somewhere else: as much of its beginning as is needed, and no more.
//!
//! The reader of headers wants its bytes in order, and long arrays of numbers not at all. It runs on a thread of its own and waits
//! there for the connection; what it leaves out is skipped by a further request.

use firepot_gguf::{Gguf, GgufError};
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{FetchError, FileSpec, Http, error::shown, head::Head, limits::FILE_HEADER_BYTES_MAX};

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
    #[error(
        "{url}: the header is longer than {} MiB, without what need not be fetched of it",
        FILE_HEADER_BYTES_MAX >> 20
    )]
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
    let mut headers = Vec::new();
    for file in files {
        headers.push(read(http.clone(), file.clone()).await?);
    }
    let url = files.first().map(|file| shown(&file.url)).unwrap_or_default();
    Gguf::join(headers).map_err(|error| HeaderError::Gguf { url, error })
}

async fn read(http: Http, file: FileSpec) -> Result<Gguf, HeaderError> {
    let runtime = Handle::current();
    let url = shown(&file.url);
    let reading = spawn_blocking(move || {
        let head = Head::begin(http, file, runtime)?;
        Gguf::read(&head).map_err(|error| refused(url, error))
    });
    reading.await.map_err(|_| FetchError::CutOff)?
}

/// What the connection failed with passes through the reader.
fn refused(url: String, error: GgufError) -> HeaderError {
    match error {
        GgufError::Io(error) => {
            error.downcast().unwrap_or_else(|error| HeaderError::Gguf { url, error: GgufError::Io(error) })
        }
        error => HeaderError::Gguf { url, error },
    }
}
