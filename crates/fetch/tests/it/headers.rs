//! Headers of files that are somewhere else.

use firepot_fetch::{FetchError, FileSpec, HeaderError, Url, fetch_header};
use firepot_gguf::{Gguf, write::Builder};

use crate::hub::{Client, Hub, Reply};

/// Bytes of data behind a header: more than is ever asked for.
const DATA_BYTES: usize = 20 << 20;

/// A model whose header has about so many bytes.
fn model(header_bytes: usize) -> Builder {
    Builder::llama().raw(
        "filler",
        8,
        &[&(header_bytes as u64).to_le_bytes()[..], &vec![b'x'; header_bytes]].concat(),
    )
}

fn file(header: &Builder) -> Vec<u8> {
    let mut file = header.build();
    file.resize(file.len() + DATA_BYTES, 7);
    file
}

fn spec(url: Url) -> FileSpec {
    FileSpec { url, size_bytes: None, digest: None, authorization: None, label: "model".to_owned() }
}

async fn read(urls: Vec<Url>) -> Result<Gguf, HeaderError> {
    fetch_header(&Client::new().http, &urls.into_iter().map(spec).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn one_request_of_bounded_length_reads_a_header() {
    for header_bytes in [100, 300_000, 900_000] {
        let file = file(&model(header_bytes));
        let total = file.len() as u64;
        let hub = Hub::start(move |request| Reply::file(request, &file)).await;
        let header = read(vec![hub.at("model")]).await.unwrap();
        assert_eq!((header.layout().unwrap().layers.len(), header.file_bytes), (2, total));
        let seen = hub.seen();
        assert_eq!((seen.len(), seen[0].headers["range"].as_str()), (1, "bytes=0-12582911"));
    }
}

#[tokio::test]
async fn a_server_without_ranges_or_behind_a_redirect_serves_too() {
    let file = file(&model(100));
    let hub = Hub::start(move |request| match &*request.path {
        "/model" => Reply::redirect("/elsewhere"),
        _ => Reply::new("200 OK", &[], file.clone()),
    })
    .await;
    assert_eq!(read(vec![hub.at("model")]).await.unwrap().layout().unwrap().layers.len(), 2);
}

#[tokio::test]
async fn a_small_file_is_read_whole() {
    let file = model(10).build();
    let hub = Hub::start(move |request| Reply::file(request, &file)).await;
    assert!(read(vec![hub.at("model")]).await.is_ok());
}

#[tokio::test]
async fn a_connection_that_is_cut_within_the_header_is_tried_again() {
    let file = file(&model(600_000));
    let mended = file.clone();
    let hub = Hub::start(move |request| match request.nth {
        0 | 1 => Reply::file(request, &mended).cut_after(300_000),
        _ => Reply::file(request, &mended),
    })
    .await;
    assert!(read(vec![hub.at("model")]).await.is_ok());
    assert_eq!(hub.seen().len(), 3);
    let broken = Hub::start(move |request| Reply::file(request, &file).cut_after(300_000)).await;
    let error = read(vec![broken.at("model")]).await.unwrap_err();
    assert!(matches!(error, HeaderError::Fetch(FetchError::Broken { .. })), "{error}");
    assert_eq!(broken.seen().len(), 3);
}

#[tokio::test]
async fn what_is_no_header_or_too_long_a_one_is_refused() {
    let long = file(&model((12 << 20) + 1));
    let hub = Hub::start(move |request| match &*request.path {
        "/long" => Reply::file(request, &long),
        "/text" => Reply::file(request, &[b'a'; 5000]),
        "/page" => Reply::new("200 OK", &[("Content-Type", "text/html")], "<html>log in</html>"),
        "/endless" => Reply::new("200 OK", &[("Transfer-Encoding", "chunked")], "0\r\n\r\n"),
        _ => Reply::new("404 Not Found", &[], "none"),
    })
    .await;
    for (path, words) in [
        ("long", "longer than 12 MiB"),
        ("text", "text: "),
        ("page", "web page"),
        ("endless", "long"),
        ("none", "404"),
    ] {
        let error = read(vec![hub.at(path)]).await.unwrap_err().to_string();
        assert!(error.contains(words), "{path}: {error}");
    }
}

#[tokio::test]
async fn the_files_of_a_split_model_are_read_as_one() {
    let part = |number: u32, tensor: &str| {
        let entry = |name: &str, value: u32| (name.to_owned(), value);
        let entries = [entry("split.no", number), entry("split.count", 2)];
        let builder = if number == 0 { Builder::llama() } else { Builder::new() };
        let builder = entries.iter().fold(builder, |builder, (name, value)| builder.u32(name, *value));
        builder.tensor(tensor, &[32, 2], 2, 36)
    };
    let (first, second) = (file(&part(0, "blk.0.attn_q.weight")), file(&part(1, "blk.1.attn_q.weight")));
    let hub =
        Hub::start(move |request| Reply::file(request, if request.path == "/1" { &first } else { &second }))
            .await;
    let whole = read(vec![hub.at("1"), hub.at("2")]).await.unwrap();
    assert_eq!(whole.tensors.len(), 3);
    assert_eq!(hub.seen().len(), 2);
    let half = read(vec![hub.at("1")]).await.unwrap_err().to_string();
    assert!(half.contains('2'), "{half}");
}
