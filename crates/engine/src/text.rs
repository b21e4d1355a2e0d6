//! Token bytes become text: UTF-8 is never cut, and nothing that may begin a stop string gets out.

/// What a token added.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Text that is certain; may be empty.
    Text(String),
    /// A stop string is complete; this is the text before it.
    Stopped(String),
}

/// The text of one answer.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    stop: Vec<String>,
    /// Bytes of a character that is not complete yet.
    bytes: Vec<u8>,
    /// Text that may begin a stop string.
    held: String,
}

impl TextStream {
    /// A stream that ends before any of these strings; empty ones are ignored.
    pub fn new(stop: &[String]) -> Self {
        let stop = stop.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stop, ..Self::default() }
    }

    /// Takes a token's bytes.
    pub fn push(&mut self, piece: &[u8]) -> Step {
        self.bytes.extend_from_slice(piece);
        let complete = decode_complete(&mut self.bytes);
        self.held.push_str(&complete);
        if let Some(at) = self.first_stop() {
            self.held.truncate(at);
            return Step::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.possible_stop_bytes();
        let rest = self.held.split_off(self.held.len() - keep);
        Step::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The answer is over: what was held is text after all; bytes that never became a character are U+FFFD.
    pub fn finish(&mut self) -> String {
        let tail = String::from_utf8_lossy(&self.bytes).into_owned();
        self.bytes.clear();
        std::mem::take(&mut self.held) + &tail
    }

    fn first_stop(&self) -> Option<usize> {
        self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min()
    }

    /// Length of the longest end of `held` that some stop string begins with.
    fn possible_stop_bytes(&self) -> usize {
        let longest = |stop: &String| {
            let most = self.held.len().min(stop.len() - 1);
            (1..=most).rev().find(|&n| self.held.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
        };
        // A match is at a character boundary of `held` when it is one of the stop string's.
        let keep = self.stop.iter().map(longest).max().unwrap_or(0);
        (keep..=self.held.len()).find(|&n| self.held.is_char_boundary(self.held.len() - n)).unwrap_or(0)
    }
}

/// The text that is out after these pieces of an answer: nothing of a character that is cut, or of what may begin a stop
/// string.
#[must_use]
pub fn released(stop: &[String], pieces: impl Iterator<Item = Vec<u8>>) -> String {
    let mut stream = TextStream::new(stop);
    let mut text = String::new();
    for piece in pieces {
        match stream.push(&piece) {
            Step::Text(more) => text.push_str(&more),
            Step::Stopped(more) => return text + &more,
        }
    }
    text
}

/// Takes the complete characters from the front; invalid bytes become U+FFFD, an unfinished character stays.
fn decode_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        rest += chunk.valid().len();
        let invalid = chunk.invalid();
        let waits = rest + invalid.len() == bytes.len() && is_unfinished(invalid);
        if !invalid.is_empty() && !waits {
            text.push(char::REPLACEMENT_CHARACTER);
            rest += invalid.len();
        }
    }
    bytes.drain(..rest);
    text
}

/// Whether these bytes can still become a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(pieces: &[&[u8]], stop: &[&str]) -> (String, bool) {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut stream = TextStream::new(&stop);
        let mut text = String::new();
        for piece in pieces {
            match stream.push(piece) {
                Step::Text(more) => text.push_str(&more),
                Step::Stopped(more) => return (text + &more, true),
            }
        }
        (text + &stream.finish(), false)
    }

    #[test]
    fn a_stop_string_across_tokens_ends_the_text_before_it() {
        assert_eq!(run(&[b"one tw", b"o th", b"ree"], &["two three"]), ("one ".into(), true));
        assert_eq!(run(&[b"a<", b"b"], &["</s>"]), ("a<b".into(), false));
        assert_eq!(run(&[b"a</", b"s"], &["</s>"]), ("a</s".into(), false));
        assert_eq!(run(&[b"xyz"], &["z", "y"]), ("x".into(), true));
        assert_eq!(run(&[b"abc"], &[""]), ("abc".into(), false));
    }

    #[test]
    fn a_character_split_over_tokens_comes_out_whole() {
        let mut stream = TextStream::new(&[]);
        assert_eq!(stream.push(&[0xF0, 0x9F]), Step::Text(String::new()));
        assert_eq!(stream.push(&[0x94]), Step::Text(String::new()));
        assert_eq!(stream.push(&[0xA5]), Step::Text("🔥".into()));
    }

    #[test]
    fn bytes_that_never_become_a_character_are_replaced() {
        assert_eq!(run(&[b"a\xff", b"b"], &[]), ("a\u{fffd}b".into(), false));
        assert_eq!(run(&[b"a\xf0\x9f"], &[]), ("a\u{fffd}".into(), false));
    }

    proptest! {
        #[test]
        fn text_split_at_any_bytes_is_the_same(text in "[a-c🔥é]{0,30}", stop in "[a-c🔥]{1,3}", cut in 1_usize..5) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            let expected = text.find(&stop).map_or((text.clone(), false), |at| (text[..at].to_owned(), true));
            prop_assert_eq!(run(&pieces, &[&stop]), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(pieces: Vec<Vec<u8>>, stop: Vec<String>) {
            let mut stream = TextStream::new(&stop);
            for piece in &pieces {
                let _ = stream.push(piece);
            }
            stream.finish();
        }
    }
}
