//! Log-probabilities, in the two shapes in use: the one that Ollama and OpenAI's chat share, and the older
//! one of `/v1/completions`.
//!
//! A token's bytes need not be valid UTF-8 by themselves. `token` is then approximate, `bytes` always exact.

use firepot_chat::{Logprob, TokenLogprob};
use serde::Serialize;
use serde_json::{Map, Value};

/// One emitted token and its rivals.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    #[serde(flatten)]
    chosen: Candidate<'a>,
    top_logprobs: Vec<Candidate<'a>>,
}

#[derive(Serialize)]
struct Candidate<'a> {
    token: String,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> From<&'a Logprob> for Candidate<'a> {
    fn from(token: &'a Logprob) -> Self {
        Self { token: text(token), logprob: token.logprob, bytes: &token.bytes }
    }
}

/// The shape of Ollama and OpenAI's chat.
pub(crate) fn entries(logprobs: &[TokenLogprob]) -> Vec<Entry<'_>> {
    logprobs
        .iter()
        .map(|l| Entry {
            chosen: (&l.chosen).into(),
            top_logprobs: l.top.iter().map(Candidate::from).collect(),
        })
        .collect()
}

/// The shape of `/v1/completions`: parallel lists.
#[derive(Serialize)]
pub(crate) struct Columns {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Map<String, Value>>,
    text_offset: Vec<usize>,
}

/// The columns of `logprobs`; `offset` is where the first token stands in the text, in characters, and is
/// moved behind the last.
pub(crate) fn columns(logprobs: &[TokenLogprob], offset: &mut usize) -> Columns {
    let start_of = |l: &TokenLogprob| {
        let start = *offset;
        *offset += text(&l.chosen).chars().count();
        start
    };
    Columns {
        text_offset: logprobs.iter().map(start_of).collect(),
        tokens: logprobs.iter().map(|l| text(&l.chosen)).collect(),
        token_logprobs: logprobs.iter().map(|l| l.chosen.logprob).collect(),
        top_logprobs: logprobs.iter().map(|l| by_text(&l.top)).collect(),
    }
}

/// Two tokens can read the same when their bytes are not valid UTF-8; the likelier one, which comes first,
/// stays.
fn by_text(top: &[Logprob]) -> Map<String, Value> {
    let mut map = Map::new();
    for token in top {
        map.entry(text(token)).or_insert_with(|| token.logprob.into());
    }
    map
}

fn text(token: &Logprob) -> String {
    String::from_utf8_lossy(&token.bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(bytes: &[u8], logprob: f32) -> Logprob {
        Logprob { id: 1, bytes: bytes.to_vec(), logprob }
    }

    #[test]
    fn a_token_that_is_half_a_character_keeps_its_exact_bytes() {
        let half = TokenLogprob { chosen: token(b"\xc3", -0.5), top: vec![token(b"a", -1.0)] };
        insta::assert_json_snapshot!(entries(&[half]), @r#"
        [
          {
            "token": "�",
            "logprob": -0.5,
            "bytes": [
              195
            ],
            "top_logprobs": [
              {
                "token": "a",
                "logprob": -1.0,
                "bytes": [
                  97
                ]
              }
            ]
          }
        ]
        "#);
    }

    #[test]
    fn columns_count_characters_and_keep_the_likelier_of_two_equal_texts() {
        let first = TokenLogprob {
            chosen: token("é".as_bytes(), -0.5),
            top: vec![token(b"\xc3", -1.0), token(b"\xa9", -2.0)],
        };
        let second = TokenLogprob { chosen: token(b"b", -0.25), top: vec![] };
        let mut offset = 3;
        insta::assert_compact_json_snapshot!(columns(&[first, second], &mut offset), @r#"{"tokens": ["é", "b"], "token_logprobs": [-0.5, -0.25], "top_logprobs": [{"�": -1.0}, {}], "text_offset": [3, 4]}"#);
        assert_eq!(offset, 5);
    }
}
