//! Filters over candidates, each as llama.cpp defines it.

use firepot_chat::TokenId;

/// A token that may be chosen, with its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: TokenId,
    /// Its logit.
    pub logit: f32,
}

/// The largest logit, `-inf` when there are none; `None` when one is not a number. Comparisons without branches, in as many
/// lanes as a vector register holds: with one branch a logit this took 3 % of the time of a small model's tick.
pub fn largest(logits: &[f32]) -> Option<f32> {
    const LANES: usize = 16;
    let mut most = [f32::NEG_INFINITY; LANES];
    let mut not_numbers = [false; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut tail = [f32::NEG_INFINITY; LANES];
    tail[..rest.len()].copy_from_slice(rest);
    for chunk in chunks.iter().chain([&tail]) {
        for lane in 0..LANES {
            most[lane] = if chunk[lane] > most[lane] { chunk[lane] } else { most[lane] };
            not_numbers[lane] |= chunk[lane].is_nan();
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (!not_numbers.contains(&true)).then_some(most)
}

/// Up to this `k` the best are kept in a small heap while scanning; above it, by selection.
const HEAP_MAX: usize = 256;

/// The `k` best tokens of a dense array, best first; all of them, in id order, when `k` is 0.
pub fn top_k(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let all = logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as TokenId, logit });
    if k == 0 || k >= logits.len() {
        out.extend(all.filter(|candidate| candidate.logit > f32::NEG_INFINITY));
    } else if k <= HEAP_MAX {
        scan_best(all, k, out);
    } else {
        out.extend(all);
        out.select_nth_unstable_by(k - 1, better);
        out.truncate(k);
    }
    if k != 0 {
        out.retain(|candidate| candidate.logit > f32::NEG_INFINITY);
        out.sort_unstable_by(better);
    }
}

/// Keeps the best `k` in a buffer with its worst member known, so that most tokens cost one comparison.
fn scan_best(all: impl Iterator<Item = Candidate>, k: usize, out: &mut Vec<Candidate>) {
    let mut worst = (0, f32::INFINITY);
    for candidate in all {
        if out.len() < k {
            out.push(candidate);
            if out.len() == k {
                worst = worst_of(out);
            }
        } else if candidate.logit > worst.1 {
            out[worst.0] = candidate;
            worst = worst_of(out);
        }
    }
}

fn worst_of(candidates: &[Candidate]) -> (usize, f32) {
    let mut worst = (0, f32::INFINITY);
    for (index, candidate) in candidates.iter().enumerate() {
        if candidate.logit <= worst.1 {
            worst = (index, candidate.logit);
        }
    }
    worst
}

/// Higher logit first; the lower id first among equals, so that the order is total.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that sorting wants")]
pub fn better(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Probabilities of the candidates at a temperature, in their order.
pub fn softmax(candidates: &[Candidate], temperature: f32, out: &mut Vec<f32>) {
    let best = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    out.clear();
    out.extend(candidates.iter().map(|c| ((c.logit - best) / temperature).exp()));
    let sum: f32 = out.iter().sum();
    for probability in out {
        *probability /= sum;
    }
}

/// Keeps the smallest set of the best whose probability reaches `p`. The candidates must be sorted.
pub fn top_p(candidates: &mut Vec<Candidate>, p: f32, probabilities: &mut Vec<f32>) {
    if p >= 1.0 {
        return;
    }
    softmax(candidates, 1.0, probabilities);
    let mut sum = 0.0;
    let keep = probabilities.iter().position(|probability| {
        sum += probability;
        sum >= p
    });
    candidates.truncate(keep.map_or(candidates.len(), |last| last + 1).max(1));
}

/// Drops what is less likely than `p` times the best.
pub fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    if p > 0.0 {
        let best = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let least = best + p.min(1.0).ln();
        candidates.retain(|candidate| candidate.logit >= least);
    }
}

/// Keeps the tokens whose surprise is closest to the entropy until their probability reaches `p` (Meister et al.,
/// "Locally typical sampling", 2022).
pub fn typical(candidates: &mut Vec<Candidate>, p: f32, probabilities: &mut Vec<f32>) {
    if p >= 1.0 {
        return;
    }
    softmax(candidates, 1.0, probabilities);
    let surprise = |probability: f32| -probability.max(f32::MIN_POSITIVE).ln();
    let entropy: f32 = probabilities.iter().map(|&probability| probability * surprise(probability)).sum();
    let mut order: Vec<(f32, f32, Candidate)> = candidates
        .iter()
        .zip(probabilities.iter())
        .map(|(&candidate, &probability)| ((surprise(probability) - entropy).abs(), probability, candidate))
        .collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(better(&a.2, &b.2)));
    let mut sum = 0.0;
    candidates.clear();
    for (_, probability, candidate) in order {
        candidates.push(candidate);
        sum += probability;
        if sum >= p {
            break;
        }
    }
    candidates.sort_unstable_by(better);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(candidates: &[Candidate]) -> Vec<TokenId> {
        candidates.iter().map(|candidate| candidate.id).collect()
    }

    fn all(logits: &[f32]) -> Vec<Candidate> {
        let mut out = Vec::new();
        top_k(logits, logits.len() + 1, &mut out);
        out.sort_unstable_by(better);
        out
    }

    proptest! {
        #[test]
        fn top_k_keeps_the_k_best_in_order(logits in proptest::collection::vec(-9.0_f32..9.0, 1..700), k in 1_usize..400) {
            let mut out = Vec::new();
            top_k(&logits, k, &mut out);
            let mut expected = all(&logits);
            expected.truncate(k);
            let values = |c: &[Candidate]| c.iter().map(|c| c.logit).collect::<Vec<_>>();
            prop_assert_eq!(values(&out), values(&expected));
        }

        #[test]
        fn the_largest_is_found_and_what_is_no_number_too(
            mut logits in proptest::collection::vec(-9.0_f32..9.0, 0..70),
            nan in proptest::option::of(0_usize..70),
        ) {
            let expected = logits.iter().copied().reduce(f32::max).unwrap_or(f32::NEG_INFINITY);
            prop_assert_eq!(largest(&logits), Some(expected));
            if let Some(place) = nan.filter(|place| *place < logits.len()) {
                logits[place] = f32::NAN;
                prop_assert_eq!(largest(&logits), None);
            }
        }

        #[test]
        fn top_p_keeps_the_least_that_reaches_p(logits in proptest::collection::vec(-5.0_f32..5.0, 1..50), p in 0.01_f32..0.99) {
            let mut kept = all(&logits);
            let mut probabilities = Vec::new();
            softmax(&kept, 1.0, &mut probabilities);
            let full = probabilities.clone();
            top_p(&mut kept, p, &mut probabilities);
            let mass: f32 = full[..kept.len()].iter().sum();
            prop_assert!(mass >= p - 1e-4);
            prop_assert!(kept.len() == 1 || full[..kept.len() - 1].iter().sum::<f32>() < p + 1e-4);
        }
    }

    #[test]
    fn min_p_compares_with_the_best() {
        let mut kept = all(&[0.0, (0.5_f32).ln(), (0.1_f32).ln()]);
        min_p(&mut kept, 0.4);
        assert_eq!(ids(&kept), [0, 1]);
    }

    #[test]
    fn typical_prefers_what_is_as_surprising_as_expected() {
        // One likely token and many that share the rest: the likely one is least typical of the entropy.
        let mut logits = vec![0.0_f32; 64];
        logits[0] = 2.0;
        let mut kept = all(&logits);
        typical(&mut kept, 0.5, &mut Vec::new());
        assert!(!ids(&kept).contains(&0));
    }

    #[test]
    fn forbidden_tokens_are_no_candidates() {
        let mut out = Vec::new();
        for k in [0, 2, 3] {
            top_k(&[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], k, &mut out);
            assert_eq!(ids(&out), [1], "k = {k}");
        }
    }
}
