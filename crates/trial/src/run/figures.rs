//! What the stopping rule looks at. The summary's own figures are computed from the bundle, by `firepot-measure`.

use firepot_measure::bundle::Request;

/// From sending to the first text, in milliseconds.
pub(super) fn ttft_ms(request: &Request) -> Option<f64> {
    let first = request.client.first_us?;
    Some(first.checked_sub(request.client.sent_us)? as f64 / 1e3)
}

/// Tokens per second after the first: by the server's stamps of tokens, else by those of the client.
pub(super) fn decode(request: &Request) -> Option<f64> {
    let server: u64 = request.server.gaps_us.iter().map(|gap| u64::from(*gap)).sum();
    let (tokens, us) = if server > 0 {
        (request.server.gaps_us.len() as u64, server)
    } else {
        let span = request.client.last_us?.checked_sub(request.client.first_us?)?;
        (u64::from(request.tokens.generated?.checked_sub(1)?), span)
    };
    (us > 0 && tokens > 0).then(|| tokens as f64 / us as f64 * 1e6)
}
