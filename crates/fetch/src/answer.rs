//! What the headers of an answer say about a file.

use std::ops::Range;

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED},
};

/// What `Content-Range` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that are sent; nothing in a refusal.
    pub range: Option<Range<u64>>,
    /// Length of the whole file, when the server knows it.
    pub total_bytes: Option<u64>,
}

/// Reads `Content-Range: bytes 0-9/100`, `bytes 0-9/*` or `bytes */100`.
pub fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (range, total) = text.strip_prefix("bytes")?.trim_start().split_once('/')?;
    let total_bytes = if total == "*" { None } else { Some(total.parse().ok()?) };
    if range == "*" {
        return Some(ContentRange { range: None, total_bytes });
    }
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let end = last.checked_add(1).filter(|&end| end > first)?;
    Some(ContentRange { range: Some(first..end), total_bytes })
}

/// Length of the whole file.
pub fn file_size(response: &Response) -> Option<u64> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => content_range(response.headers())?.total_bytes,
        // A file without bytes has no first one.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            content_range(response.headers())?.total_bytes.filter(|&bytes| bytes == 0)
        }
        _ => response.content_length(),
    }
}

/// What tells one version of a file from another: a strong `ETag` or else a date.
pub fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let strong = headers.get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/"));
    strong.or_else(|| headers.get(LAST_MODIFIED)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_read_in_its_three_forms() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            content_range(&headers).map(|content| (content.range, content.total_bytes))
        };
        assert_eq!(read("bytes 0-9/100"), Some((Some(0..10), Some(100))));
        assert_eq!(read("bytes 5-5/*"), Some((Some(5..6), None)));
        assert_eq!(read("bytes */0"), Some((None, Some(0))));
        for text in
            ["", "bytes", "bytes 9-0/10", "bytes 0-9", "items 0-9/10", "bytes 0-18446744073709551615/*"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_strong_etag_or_a_date_tells_versions_apart() {
        let mut headers = HeaderMap::new();
        assert_eq!(validator(&headers), None);
        headers.insert(ETAG, HeaderValue::from_static("W/\"a\""));
        assert_eq!(validator(&headers), None);
        headers.insert(LAST_MODIFIED, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(validator(&headers).is_some_and(|value| value != "W/\"a\""));
        headers.insert(ETAG, HeaderValue::from_static("\"a\""));
        assert_eq!(validator(&headers).unwrap(), "\"a\"");
    }
}
