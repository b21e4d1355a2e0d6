//! Something to be found in a long text that means nothing (after the idea of RULER: its own filler, its own needles).

use std::fmt::Write as _;

use super::{Expected, Task};
use crate::{bundle::QualityKind, stats::random::Random};

const WHO: [&str; 8] = [
    "The gardener",
    "A clerk",
    "My neighbour",
    "The captain",
    "A student",
    "The baker",
    "Our teacher",
    "The pilot",
];
const DID: [&str; 8] =
    ["counted", "painted", "repaired", "described", "moved", "cleaned", "borrowed", "sold"];
const WHAT: [&str; 8] = [
    "the old boat",
    "a wooden chair",
    "the garden wall",
    "two lamps",
    "a small bell",
    "the map",
    "a blue bicycle",
    "the kitchen table",
];
const WHEN: [&str; 8] = [
    "before noon",
    "last winter",
    "in the rain",
    "on a quiet day",
    "after lunch",
    "by the river",
    "near the station",
    "at dusk",
];
const COLOURS: [&str; 8] = ["amber", "crimson", "indigo", "olive", "silver", "teal", "violet", "white"];
/// Tokens that a sentence of the filler takes, about: the words of `WHO`, `DID`, `WHAT`, `WHEN` and a full stop, most of them one token each.
const SENTENCE_TOKENS: u32 = 11;
/// Tokens of the question and of each needle, about.
const AROUND_TOKENS: u32 = 90;

/// A question after `count` numbers (1 to 4) in a text of about `length_tokens`; the first stands at `depth_percent` of it, the
/// others are spread evenly over it.
#[must_use]
pub fn needle(seed: u64, index: u32, count: u32, length_tokens: u32, depth_percent: u32) -> Task {
    let mut random = Random::of(seed, "needle", u64::from(index));
    let count = count.clamp(1, 4);
    let sentences = (length_tokens.saturating_sub(AROUND_TOKENS) / SENTENCE_TOKENS).max(4);
    let mut colours = COLOURS;
    random.shuffle(&mut colours);
    let needles: Vec<(&str, i64)> =
        colours[..count as usize].iter().map(|colour| (*colour, random.between(100_000, 999_999))).collect();
    let place = |which: u32| {
        let percent = (depth_percent.min(100) + which * 100 / count) % 101;
        sentences * percent / 100
    };
    let mut text = String::new();
    for sentence in 0..=sentences {
        for (which, (colour, number)) in (0..).zip(&needles) {
            if place(which) == sentence {
                let _ = write!(text, "The {colour} number is {number}. ");
            }
        }
        if sentence < sentences {
            text.push_str(&filler(&mut random));
        }
    }
    let asked: Vec<String> = needles.iter().map(|(colour, _)| format!("the {colour} number")).collect();
    let prompt = format!(
        "Read this text.\n\n{text}\n\nThe text says what {} is. End with a line of the form \"Answer: …\" that says it{}.",
        asked.join(" and what "),
        if count > 1 { ", the numbers in this order, separated by commas" } else { "" }
    );
    let expected = Expected::Words(needles.iter().map(|(_, number)| number.to_string()).collect());
    Task { kind: QualityKind::Needle, seed, index, level: count, prompt, expected }
}

fn filler(random: &mut Random) -> String {
    format!("{} {} {} {}. ", random.pick(&WHO), random.pick(&DID), random.pick(&WHAT), random.pick(&WHEN))
}
