//! The page, from the binary. `/` is also where Ollama's clients look whether somebody is there.
//!
//! The files are those of `web/dist` when the crate was compiled. Names under `/assets/` hold a hash of the content, so
//! browsers may keep them for ever; the rest is asked for each time.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    response::Response,
    routing::get,
};

use super::{Routes, reply};

/// The page loads nothing from elsewhere, talks to nobody else, and is shown in nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; \
     img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const NOT_BUILT: &str = "<!doctype html><meta charset=\"utf-8\"><title>Firepot</title><p>This server was compiled \
    without its page. <code>make build</code> builds both; the API works.";

/// A file of the built page.
#[derive(Debug)]
pub struct File {
    path: &'static str,
    bytes: &'static [u8],
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

pub fn routes() -> Routes {
    let others = FILES.iter().filter(|file| file.path != "/index.html");
    let first = Routes::new().route("/", get(root)).route("/login", get(login));
    others.fold(first, |router, file| {
        router.route(file.path, get(async move |headers: HeaderMap| response(file, &headers)))
    })
}

/// Whether a request is for a file of the page. They are the same for everybody and hold nothing of anybody, so whoever is to
/// log in may have them without a key: the page itself asks for it.
pub fn is_page(method: &Method, route: &str, headers: &HeaderMap) -> bool {
    let reads = method == Method::GET || method == Method::HEAD;
    let is_file = route == "/login" || (route != "/" && FILES.iter().any(|file| file.path == route));
    reads && (is_file || (route == "/" && accepts(headers, &header::ACCEPT, "text/html")))
}

/// Where login links lead: the page, which finds the link's secret in the address.
async fn login(headers: HeaderMap) -> Response {
    index(&headers)
}

fn index(headers: &HeaderMap) -> Response {
    match FILES.iter().find(|file| file.path == "/index.html") {
        Some(index) => response(index, headers),
        None => guarded(reply::bytes("text/html; charset=utf-8", NOT_BUILT)),
    }
}

/// The page for browsers, Ollama's greeting for everybody else.
async fn root(headers: HeaderMap) -> Response {
    let mut response = if accepts(&headers, &header::ACCEPT, "text/html") {
        index(&headers)
    } else {
        reply::bytes("text/plain; charset=utf-8", "Ollama is running")
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    response
}

fn response(file: &'static File, asked: &HeaderMap) -> Response {
    let zipped = file.gzip.filter(|_| accepts(asked, &header::ACCEPT_ENCODING, "gzip"));
    let mut response = guarded(reply::bytes(content_type(file.path), zipped.unwrap_or(file.bytes)));
    let headers = response.headers_mut();
    if zipped.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let keep =
        if file.path.starts_with("/assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn accepts(headers: &HeaderMap, name: &HeaderName, what: &str) -> bool {
    headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(what))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}
