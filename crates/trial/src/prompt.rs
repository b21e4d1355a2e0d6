//! What is asked: made from a seed, of words that are one token each in the usual vocabularies. Lengths are about what a
//! case wants; how long a prompt really was, the server counts.

use crate::target::Turn;

const WORDS: [&str; 24] = [
    "river", "sea", "stone", "bridge", "light", "cloud", "garden", "winter", "music", "paper", "table",
    "window", "road", "hill", "field", "bird", "horse", "ship", "wind", "rain", "house", "water", "night",
    "fire",
];

/// Tokens that a template and the request for a story add to the words.
const AROUND: u32 = 40;

/// Words in an order of their own for each seed.
#[must_use]
pub fn words(seed: u64, count: u32) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let picked: Vec<&str> = (0..count).map(|_| WORDS[rng.usize(..WORDS.len())]).collect();
    picked.join(" ")
}

fn mix(seed: u64, index: u64) -> u64 {
    fastrand::Rng::with_seed(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
}

/// A request for a text that is longer than any that is measured.
fn story(seed: u64) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let pick = |rng: &mut fastrand::Rng| WORDS[rng.usize(..WORDS.len())];
    format!("Write a very long story about a {}, a {} and a journey.", pick(&mut rng), pick(&mut rng))
}

/// A prompt of about so many tokens that no cache has: it differs from its beginning on.
#[must_use]
pub fn fresh(seed: u64, index: u64, tokens: u32) -> Vec<Turn> {
    let seed = mix(seed, index);
    let text = match tokens.saturating_sub(AROUND) {
        // Without words of its own a prompt would share all but the last ones with others.
        0 => format!("{}: {}", words(seed, 4), story(seed)),
        count => format!("Notes: {}\n\n{}", words(seed, count), story(seed)),
    };
    vec![Turn::user(text)]
}

/// A conversation of about so many tokens, the same for each index but for its last turn.
#[must_use]
pub fn behind(seed: u64, index: u64, depth: u32) -> Vec<Turn> {
    let notes = format!("Read these notes: {}", words(seed, depth.saturating_sub(AROUND)));
    vec![Turn::user(notes), Turn::assistant("I have read them."), Turn::user(story(mix(seed, index)))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_follow_from_seed_and_index_and_differ_from_the_first_word_on() {
        assert_eq!(fresh(1, 2, 200), fresh(1, 2, 200));
        let first = |index| fresh(1, index, 200)[0].text.split(' ').take(8).collect::<Vec<_>>().join(" ");
        assert_ne!(first(2), first(3));
        let short: std::collections::BTreeSet<String> =
            (0..64).map(|index| fresh(1, index, 32)[0].text.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(short.len(), 64, "short prompts share their beginning");
        let words = fresh(1, 2, 200)[0].text.split_whitespace().count();
        assert!((165..200).contains(&words), "{words}");
    }

    #[test]
    fn a_conversation_keeps_all_but_its_last_turn() {
        let (one, other) = (behind(1, 0, 500), behind(1, 1, 500));
        assert_eq!(one[..2], other[..2]);
        assert_ne!(one[2], other[2]);
    }
}
