//! Headers of files that are somewhere else.

use std::time::Duration;

use firepot_fetch::{FetchError, FileSpec, HeaderError, Url, fetch_header};
use firepot_gguf::{Gguf, write::Builder};

use crate::hub::{Client, Hub, Reply, Request};

/// Most bytes that are fetched of a file.
const MOST: usize = 12 << 20;

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

/// The first bytes of what was asked for, and of how much.
fn asked(request: &Request) -> (usize, usize) {
    let range = request.range().unwrap();
    (range.start, range.len())
}

#[tokio::test]
async fn a_connection_that_is_cut_within_the_header_goes_on_from_where_it_was() {
    let file = file(&model(600_000));
    let expected = Gguf::read(&file).unwrap();
    let cut = file.clone();
    let hub = Hub::start(move |request| match request.nth {
        0 | 1 => Reply::file(request, &cut).cut_after(200_000),
        _ => Reply::file(request, &cut),
    })
    .await;
    assert_eq!(read(vec![hub.at("model")]).await.unwrap(), expected);
    let asked: Vec<_> = hub.seen().iter().map(asked).collect();
    assert_eq!(asked, [(0, MOST), (200_000, MOST - 200_000), (400_000, MOST - 400_000)]);

    let broken = Hub::start(move |request| Reply::file(request, &file).cut_after(100_000)).await;
    let error = read(vec![broken.at("model")]).await.unwrap_err();
    assert!(matches!(error, HeaderError::Fetch(FetchError::Broken { .. })), "{error}");
    assert_eq!(broken.seen().len(), 3);
}

#[tokio::test]
async fn without_ranges_a_connection_that_is_cut_begins_anew() {
    let file = file(&model(600_000));
    let expected = Gguf::read(&file).unwrap();
    let hub = Hub::start(move |request| match request.nth {
        0 | 1 => Reply::new("200 OK", &[], file.clone()).cut_after(500_000),
        _ => Reply::new("200 OK", &[], file.clone()),
    })
    .await;
    assert_eq!(read(vec![hub.at("model")]).await.unwrap(), expected);
    assert_eq!(hub.seen().len(), 3);
}

#[tokio::test]
async fn another_version_or_another_part_in_the_middle_is_refused() {
    let file = file(&model(600_000));
    let hub = Hub::start(move |request| {
        let range = request.range().unwrap();
        match &*request.path {
            _ if request.nth % 2 == 0 => Reply::file(request, &file).cut_after(300_000),
            "/longer" => Reply::part(&file, range, file.len() + 1),
            _ => Reply::part(&file, range.start - 1..range.end, file.len()),
        }
    })
    .await;
    let error = read(vec![hub.at("longer")]).await.unwrap_err();
    assert!(matches!(error, HeaderError::Fetch(FetchError::ChangedOnServer { .. })), "{error}");
    let error = read(vec![hub.at("shifted")]).await.unwrap_err();
    assert!(matches!(error, HeaderError::Fetch(FetchError::WrongRange { .. })), "{error}");
}

/// A vocabulary as that of gpt-oss: 201,088 tokens with a number each, and 446,189 merges of so many bytes.
fn large_vocabulary(merge_bytes: usize) -> Builder {
    let (token, merge) = ("x".repeat(8), "x".repeat(merge_bytes));
    Builder::llama()
        .texts("tokens", &vec![token.as_str(); 201_088])
        .u32s("token_type", &vec![1; 201_088])
        .texts("merges", &vec![merge.as_str(); 446_189])
}

#[tokio::test]
async fn numbers_of_a_large_vocabulary_are_not_fetched() {
    let header = large_vocabulary(12);
    let file = file(&header);
    let numbers = file.windows(18).position(|bytes| bytes.ends_with(b"token_type")).unwrap() + 18 + 4 + 4 + 8;
    let expected = Gguf::read(&file).unwrap();
    assert!(expected.data_offset > MOST as u64, "{}", expected.data_offset);
    // In pieces, so that no more has come than what was read.
    let hub = Hub::start(move |request| Reply {
        drip: Some((64 << 10, Duration::from_micros(100))),
        ..Reply::file(request, &file)
    })
    .await;
    assert_eq!(read(vec![hub.at("model")]).await.unwrap(), expected);
    let asked: Vec<_> = hub.seen().iter().map(asked).collect();
    assert_eq!((asked.len(), asked[0], asked[1].0), (2, (0, MOST), numbers + 4 * 201_088));
    // Both together bring no more than one may.
    assert!(asked[1].1 <= MOST - numbers, "{asked:?}");
}

#[tokio::test]
async fn what_is_no_header_or_too_long_a_one_is_refused() {
    let long = file(&model(MOST + 1));
    let vocabulary = file(&large_vocabulary(14));
    let hub = Hub::start(move |request| match &*request.path {
        "/long" => Reply::file(request, &long),
        "/vocabulary" => Reply::file(request, &vocabulary),
        "/text" => Reply::file(request, &[b'a'; 5000]),
        "/page" => Reply::new("200 OK", &[("Content-Type", "text/html")], "<html>log in</html>"),
        "/endless" => Reply::new("200 OK", &[("Transfer-Encoding", "chunked")], "0\r\n\r\n"),
        _ => Reply::new("404 Not Found", &[], "none"),
    })
    .await;
    for (path, words) in [
        ("long", "/long: the header is longer than 12 MiB"),
        ("vocabulary", "/vocabulary: the header is longer than 12 MiB"),
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
