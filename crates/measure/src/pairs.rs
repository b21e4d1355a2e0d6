//! Samples in pairs: both sides within a minute of each other, in alternating order, so that a drift of the machine
//! favours neither.

use serde::{Deserialize, Serialize};

/// One of two things that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What is looked at.
    Ours,
    /// What it is compared with.
    Peer,
}

/// One sample of each side; a sample holds a value for each thing that is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The side that ran first.
    pub first: Side,
    /// What our side gave.
    pub ours: Vec<f64>,
    /// What the other side gave.
    pub peer: Vec<f64>,
    /// What the probe said before the pair: how fast the machine was just then.
    pub probe: f64,
}

/// Takes `count` pairs in the order ABBA, with a probe of the machine before each.
///
/// # Errors
/// The first error of `sample`.
pub fn sample_pairs<E>(
    count: usize,
    mut probe: impl FnMut() -> f64,
    mut sample: impl FnMut(Side) -> Result<Vec<f64>, E>,
) -> Result<Vec<Pair>, E> {
    let mut pairs = Vec::with_capacity(count);
    for index in 0..count {
        let probe = probe();
        let pair = if index.is_multiple_of(2) {
            let ours = sample(Side::Ours)?;
            Pair { first: Side::Ours, ours, peer: sample(Side::Peer)?, probe }
        } else {
            let peer = sample(Side::Peer)?;
            Pair { first: Side::Peer, ours: sample(Side::Ours)?, peer, probe }
        };
        pairs.push(pair);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_alternate_and_each_sample_reaches_its_place() {
        let mut order = Vec::new();
        let mut probes = 0.0;
        let probe = || {
            probes += 1.0;
            probes
        };
        let pairs = sample_pairs(3, probe, |side| {
            order.push(side);
            Ok::<_, ()>(vec![if side == Side::Ours { 1.0 } else { 2.0 }])
        });
        let (ours, peer) = (Side::Ours, Side::Peer);
        assert_eq!(order, [ours, peer, peer, ours, ours, peer]);
        let pairs = pairs.unwrap();
        assert!(pairs.iter().all(|pair| pair.ours == [1.0] && pair.peer == [2.0]));
        assert_eq!(
            pairs.iter().map(|pair| (pair.first, pair.probe)).collect::<Vec<_>>(),
            [(ours, 1.0), (peer, 2.0), (ours, 3.0)]
        );
    }

    #[test]
    fn an_error_ends_the_run() {
        assert_eq!(sample_pairs(2, || 0.0, |_| Err("no")), Err("no"));
    }
}
