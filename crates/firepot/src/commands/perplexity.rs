//! `firepot perplexity`: how well a model predicts a text. Started by `verify` in a process of its own, because llama.cpp may
//! end the one that it computes in; the routes show no log-probabilities of prompts.

use std::{collections::VecDeque, io};

use anyhow::{Context as _, ensure};
use firepot_chat::TokenId;
use firepot_engine::{Batch, BatchItem, Decoder, LoadSpec, SeqId};
use firepot_llama::{LlamaDecoder, LoadControl};
use serde::{Deserialize, Serialize};

/// Tokens of a piece of the text; the first half of each is only read.
pub const PIECE_TOKENS: usize = 512;

/// Positions whose logits are held at once: with a vocabulary of 150,000 that is 38 MB.
const LOGITS_AT_ONCE: usize = 64;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// How the model is loaded.
    pub spec: LoadSpec,
    /// The text.
    pub text: String,
    /// Most pieces of [`PIECE_TOKENS`] that are scored.
    pub pieces_max: usize,
}

/// What is answered.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Tokens that were scored.
    pub tokens: u32,
    /// Sum of the natural logarithms of their probabilities, negated.
    pub nll: f64,
}

/// Reads the question from standard input and writes the answer to standard output, both JSON.
pub fn perplexity() -> anyhow::Result<()> {
    let asked: Asked = serde_json::from_reader(io::stdin().lock())
        .context("these are not a text and a load's parameters")?;
    let mut decoder = LlamaDecoder::load(&asked.spec, &mut LoadControl { progress: &mut |_| true })?;
    let scored = score(&mut decoder, &asked.text, asked.pieces_max)?;
    println!("{}", serde_json::to_string(&scored)?);
    Ok(())
}

/// Scores a text piece by piece, each in an empty sequence.
fn score(decoder: &mut dyn Decoder, text: &str, pieces_max: usize) -> anyhow::Result<Scored> {
    let ids = decoder.tokenizer().tokenize(text, false, false)?;
    let bos = decoder.tokenizer().tokenize("", true, true)?;
    let info = decoder.info();
    let piece = PIECE_TOKENS.min(info.ctx_per_answer as usize).saturating_sub(bos.len());
    let at_once = (info.batch_tokens as usize).min(LOGITS_AT_ONCE);
    ensure!(piece >= 2, "the context of {} tokens is too short", info.ctx_per_answer);
    let mut scored = Scored::default();
    for tokens in ids.chunks_exact(piece).take(pieces_max) {
        let whole = [bos.as_slice(), tokens].concat();
        add(decoder, &whole, bos.len() + piece / 2, at_once, &mut scored)?;
    }
    ensure!(scored.tokens > 0, "the text is shorter than {piece} tokens");
    Ok(scored)
}

/// Adds the log-probabilities of the tokens from `from` on.
fn add(
    decoder: &mut dyn Decoder,
    tokens: &[TokenId],
    from: usize,
    at_once: usize,
    scored: &mut Scored,
) -> anyhow::Result<()> {
    const SEQUENCE: SeqId = SeqId(0);
    decoder.remove(SEQUENCE, 0, None);
    let mut rest: VecDeque<(usize, TokenId)> = tokens.iter().copied().enumerate().collect();
    while !rest.is_empty() {
        let now: Vec<_> = rest.drain(..at_once.min(rest.len())).collect();
        // Logits after a token are about the next one.
        let wanted = |position: usize| position + 1 >= from && position + 1 < tokens.len();
        let item = |&(position, token): &(usize, TokenId)| BatchItem {
            token,
            position: position as u32,
            sequence: SEQUENCE,
            logits: wanted(position),
        };
        decoder.decode(&Batch { items: now.iter().map(item).collect() })?;
        for (place, (position, _)) in now.iter().enumerate() {
            if wanted(*position) {
                let next = usize::try_from(tokens[position + 1])?;
                scored.nll -=
                    log_probability(decoder.logits(place), next).context("an id beyond the vocabulary")?;
                scored.tokens += 1;
            }
        }
    }
    Ok(())
}

/// Natural logarithm of a token's probability.
fn log_probability(logits: &[f32], token: usize) -> Option<f64> {
    let chosen = f64::from(*logits.get(token)?);
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - most).exp()).sum();
    Some(chosen - most - sum.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_softmax() {
        let logits = [1.0, 2.0, 3.0];
        let sum: f64 = (0..3).filter_map(|token| log_probability(&logits, token)).map(f64::exp).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!((log_probability(&logits, 2).unwrap() + 0.407_605_964).abs() < 1e-6);
        assert_eq!(log_probability(&logits, 3), None);
    }
}
