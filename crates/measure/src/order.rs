//! In which order two sides run.

/// One of two things that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What is looked at.
    Ours,
    /// What it is compared with.
    Peer,
}

/// The first and the second side of each pair, alternating (ABBA), so that a drift of the machine favours neither.
pub fn abba(pairs: usize) -> impl Iterator<Item = [Side; 2]> {
    (0..pairs)
        .map(|pair| if pair.is_multiple_of(2) { [Side::Ours, Side::Peer] } else { [Side::Peer, Side::Ours] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_is_first_as_often_as_the_other() {
        let firsts: Vec<Side> = abba(4).map(|[first, _]| first).collect();
        assert_eq!(firsts, [Side::Ours, Side::Peer, Side::Ours, Side::Peer]);
    }
}
