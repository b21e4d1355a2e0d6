//! One request → the values that are defined of it (docs: the measurement words of the design).

use crate::bundle::{Finish, Phase, Probe, Request};

/// Requests of a case and target that count: samples without an error, in order.
pub(super) fn usable<'a>(requests: &'a [Request], case: &str, target: &str) -> Vec<&'a Request> {
    let mut usable: Vec<&Request> = requests
        .iter()
        .filter(|request| request.case == case && request.target == target)
        .filter(|request| request.phase == Phase::Sample && request.error.is_none())
        .collect();
    usable.sort_by_key(|request| request.index);
    usable
}

/// Time to the first token at the client, from sending, or of a cold start from the start of the process; in milliseconds.
#[must_use]
pub fn ttft_ms(request: &Request) -> Option<f64> {
    let begun = request.spawned_us.unwrap_or(request.client.sent_us);
    between_ms(begun, request.client.first_us?)
}

/// Time to the first token of the answer, when it came after thinking.
pub(super) fn ttft_answer_ms(request: &Request) -> Option<f64> {
    request.tokens.thinking.filter(|&tokens| tokens > 0)?;
    between_ms(request.client.sent_us, request.client.first_answer_us?)
}

pub(super) fn ttft_server_ms(request: &Request) -> Option<f64> {
    between_ms(request.server.received_us?, request.server.first_us?)
}

pub(super) fn load_ms(request: &Request) -> Option<f64> {
    between_ms(request.spawned_us?, request.ready_us?)
}

pub(super) fn total_ms(request: &Request) -> Option<f64> {
    between_ms(request.client.sent_us, request.client.end_us)
}

/// Share of an answer's tokens that may have come without a chunk of their own: no more than the precision that is aimed at.
const UNSEEN: f64 = 0.02;

/// Time for each token after the first: by the server, else by the client's stamps, where [`is_seen`] says that they are of tokens.
pub(crate) fn tpot_ms(request: &Request) -> Option<f64> {
    let generated = request.tokens.generated?;
    let (server, client) = (&request.server, &request.client);
    let after_first = generated.checked_sub(1)?;
    // Stamps of pieces are of tokens where there is a gap for each.
    let is_stamped = server.gaps_us.len() == after_first as usize;
    let stamped = || between_us(server.first_us?, server.last_us?).filter(|_| is_stamped);
    let by_server = server.decode_us.map(|us| us as f64).or_else(stamped).map(|us| (us, after_first));
    let by_client = || {
        let us = between_us(client.first_us?, client.last_us?).filter(|_| is_seen(request))?;
        Some((us, after_first.saturating_sub(u32::from(ends_unseen(request)))))
    };
    let (us, tokens) = by_server.or_else(by_client)?;
    (us > 0.0 && tokens > 0).then(|| us / 1000.0 / f64::from(tokens))
}

/// Whether the client saw the tokens one by one. Where a chunk holds several, the first one's other tokens would be counted without their
/// time, and nothing says how many they were.
pub(super) fn is_seen(request: &Request) -> bool {
    let Some(generated) = request.tokens.generated else { return false };
    let told = request.tokens.chunks + u32::from(ends_unseen(request));
    told <= generated && f64::from(generated - told) <= UNSEEN * f64::from(generated)
}

/// Whether the token that ended the answer was counted: it has no text and so no chunk.
fn ends_unseen(request: &Request) -> bool {
    let is_short = request.tokens.generated.is_some_and(|count| count > request.tokens.chunks);
    is_short && request.finish == Some(Finish::Stop)
}

/// Tokens per second after the first.
#[must_use]
pub fn decode_tokens_per_s(request: &Request) -> Option<f64> {
    tpot_ms(request).map(|ms| 1000.0 / ms)
}

/// Prompt tokens that were computed over the time that it took, by the server alone.
pub(crate) fn prefill_tokens_per_s(request: &Request) -> Option<f64> {
    let computed = request.tokens.prompt?.checked_sub(request.tokens.cached?).filter(|&tokens| tokens > 0)?;
    let prefill_us = request.server.prefill_us.filter(|&us| us > 0)?;
    Some(f64::from(computed) * 1e6 / prefill_us as f64)
}

/// Gaps between tokens by the server's stamps, else between chunks at the client, in milliseconds.
pub(crate) fn gaps_ms(request: &Request) -> impl Iterator<Item = f64> {
    let server = &request.server.gaps_us;
    let gaps = if server.is_empty() { &request.client.gaps_us } else { server };
    gaps.iter().map(|&us| f64::from(us) / 1000.0)
}

fn between_us(from_us: u64, to_us: u64) -> Option<f64> {
    to_us.checked_sub(from_us).map(|us| us as f64)
}

fn between_ms(from_us: u64, to_us: u64) -> Option<f64> {
    between_us(from_us, to_us).map(|us| us / 1000.0)
}

/// Memory bandwidth at a time: of the last probe before it.
pub(super) struct BandwidthAt(Vec<(u64, f64)>);

impl BandwidthAt {
    pub(crate) fn new(probes: &[Probe]) -> Self {
        let mut sorted: Vec<_> =
            probes.iter().map(|probe| (probe.at_us, probe.bandwidth_bytes_per_s)).collect();
        sorted.sort_by_key(|(at_us, _)| *at_us);
        Self(sorted)
    }

    /// Bytes per second; `None` without any probe.
    pub(crate) fn bytes_per_s(&self, at_us: u64) -> Option<f64> {
        let after = self.0.partition_point(|(probed_us, _)| *probed_us <= at_us);
        self.0
            .get(after.saturating_sub(1))
            .map(|(_, bandwidth)| *bandwidth)
            .filter(|bandwidth| *bandwidth > 0.0)
    }
}
