//! Stories with one number as answer: a beginning and as many events as the level says and one more.

use super::{Expected, Task};
use crate::{bundle::QualityKind, stats::random::Random};

const NAMES: [&str; 8] = ["Ada", "Bruno", "Clara", "Dmitri", "Elif", "Farid", "Grace", "Hiro"];
const THINGS: [&str; 8] = ["apples", "marbles", "stamps", "books", "pencils", "coins", "shells", "tickets"];

pub(super) fn task(seed: u64, index: u32, level: u32) -> Task {
    let mut random = Random::of(seed, "word problem", u64::from(index));
    let name = *random.pick(&NAMES);
    let things = *random.pick(&THINGS);
    let mut count = random.between(12, 60);
    let mut story = format!("{name} has {count} {things}.");
    for _ in 0..=level {
        let (sentence, next) = event(&mut random, name, things, count);
        story.push(' ');
        story.push_str(&sentence);
        count = next;
    }
    let prompt = format!(
        "{story} How many {things} does {name} have now? Work it out step by step and end with a line of the form \"Answer: N\"."
    );
    Task { kind: QualityKind::WordProblem, seed, index, level, prompt, expected: Expected::Number(count) }
}

/// An event of a story, and what is there after it: always a whole number, never less than 0.
fn event(random: &mut Random, name: &str, things: &str, count: i64) -> (String, i64) {
    match random.below(4) {
        0 => {
            let (boxes, each) = (random.between(2, 6), random.between(2, 9));
            (format!("{name} buys {boxes} boxes with {each} {things} each."), count + boxes * each)
        }
        1 if count >= 4 => {
            let lost = random.between(1, count / 2);
            (format!("Then {lost} of them are lost."), count - lost)
        }
        2 => {
            // Whoever shares keeps an equal part; what cannot be shared stays with the story's person.
            let friends = random.between(1, 3);
            let part = count / (friends + 1);
            let given = part * friends;
            let plural = if friends == 1 { "a friend" } else { "friends" };
            (format!("{name} gives {given} {things} to {plural}."), count - given)
        }
        _ => {
            let found = random.between(3, 25);
            (format!("A neighbour brings {found} more."), count + found)
        }
    }
}
