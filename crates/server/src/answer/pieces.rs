//! The pieces of a stream that can be sent again: each has a number, and those that its client has are left out.

use axum::body::Bytes;
use firepot_wire::ApiError;

/// Counts the pieces of a stream: server-sent events, which get an `id`, or lines.
#[derive(Debug)]
pub struct Pieces {
    /// `None`: nothing is counted.
    end: Option<&'static [u8]>,
    sse: bool,
    /// Pieces that went by.
    count: u64,
    /// Pieces that the client has.
    after: u64,
}

impl Pieces {
    /// A stream as it comes.
    #[must_use]
    pub const fn plain() -> Self {
        Self { end: None, sse: false, count: 0, after: 0 }
    }

    /// A stream of so many answers, from behind the piece `after`.
    ///
    /// # Errors
    /// Several answers mix as they come, so that their pieces have no lasting order.
    pub fn numbered(sse: bool, choices: usize, after: u64) -> Result<Self, ApiError> {
        if choices > 1 && after > 0 {
            let problem = "cannot be used with several answers; send the request again without it";
            return Err(ApiError::invalid("Last-Event-ID", problem));
        }
        if choices > 1 {
            return Ok(Self::plain());
        }
        let end: &[u8] = if sse { b"\n\n" } else { b"\n" };
        Ok(Self { end: Some(end), sse, count: 0, after })
    }

    /// What of the next bytes, which are whole pieces, the client gets.
    pub fn next(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(end) = self.end else { return bytes };
        let mut rest = Bytes::from(bytes);
        let mut out = Vec::new();
        while !rest.is_empty() {
            let length = rest.windows(end.len()).position(|window| window == end);
            let piece = rest.split_to(length.map_or(rest.len(), |length| length + end.len()));
            self.count += 1;
            if self.count <= self.after {
                continue;
            }
            if self.sse {
                out.extend_from_slice(format!("id: {}\n", self.count).as_bytes());
            }
            out.extend_from_slice(&piece);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &mut Pieces, bytes: &str) -> String {
        String::from_utf8(pieces.next(bytes.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn events_are_numbered_and_those_that_were_seen_are_left_out() {
        let mut all = Pieces::numbered(true, 1, 0).unwrap();
        assert_eq!(told(&mut all, "data: a\n\n"), "id: 1\ndata: a\n\n");
        assert_eq!(told(&mut all, "data: b\n\ndata: c\n\n"), "id: 2\ndata: b\n\nid: 3\ndata: c\n\n");
        let mut rest = Pieces::numbered(true, 1, 2).unwrap();
        assert_eq!(told(&mut rest, "data: a\n\n"), "");
        assert_eq!(told(&mut rest, "data: b\n\ndata: c\n\n"), "id: 3\ndata: c\n\n");
    }

    #[test]
    fn lines_are_counted_and_stay_as_they_are() {
        let mut rest = Pieces::numbered(false, 1, 1).unwrap();
        assert_eq!(told(&mut rest, "{}\n{1}\n"), "{1}\n");
        assert_eq!(told(&mut Pieces::plain(), "{}\n"), "{}\n");
    }

    #[test]
    fn several_answers_have_no_numbers() {
        assert!(Pieces::numbered(true, 2, 1).is_err());
        assert_eq!(told(&mut Pieces::numbered(true, 2, 0).unwrap(), "data: a\n\n"), "data: a\n\n");
    }
}
