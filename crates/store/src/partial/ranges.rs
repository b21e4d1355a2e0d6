//! Which bytes of a file are there: sorted ranges that neither touch nor overlap.

use std::ops::Range;

/// A set of bytes, by their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds the bytes of `range`; those that are there already are kept.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|present| present.end < range.start);
        let last = self.0.partition_point(|present| present.start <= range.end);
        let merged = self.0[first..last]
            .iter()
            .fold(range, |merged, present| merged.start.min(present.start)..merged.end.max(present.end));
        self.0.splice(first..last, [merged]);
    }

    /// How many bytes are there.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// How many bytes from the beginning on are there without a gap.
    pub fn frontier(&self) -> u64 {
        self.0.first().filter(|range| range.start == 0).map_or(0, |range| range.end)
    }

    /// What is not there of a file of `size_bytes`, in order.
    pub fn missing(&self, size_bytes: u64) -> Vec<Range<u64>> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|range| range.end));
        let ends = self.0.iter().map(|range| range.start).chain([size_bytes]);
        starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 40;

    proptest! {
        #[test]
        fn a_set_of_ranges_holds_what_a_list_of_flags_holds(
            inserted in prop::collection::vec((0..SIZE as u64, 0..12_u64), 0..12),
        ) {
            let mut ranges = Ranges::default();
            let mut flags = [false; SIZE];
            for (start, length) in inserted {
                let end = (start + length).min(SIZE as u64);
                ranges.insert(start..end);
                flags[start as usize..end as usize].fill(true);
            }
            prop_assert_eq!(ranges.total(), flags.iter().filter(|&&flag| flag).count() as u64);
            prop_assert_eq!(ranges.frontier(), flags.iter().take_while(|&&flag| flag).count() as u64);
            let missing = ranges.missing(SIZE as u64);
            let absent: Vec<u64> = missing.iter().cloned().flatten().collect();
            let expected: Vec<u64> = (0..SIZE as u64).filter(|&at| !flags[at as usize]).collect();
            prop_assert_eq!(absent, expected);
            prop_assert!(missing.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
