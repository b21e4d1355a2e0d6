//! Integer expressions: as many operations as the level says and one more, remainders from level 3, other bases at level 5.

use super::{Expected, Task};
use crate::{bundle::QualityKind, stats::random::Random};

pub(super) fn task(seed: u64, index: u32, level: u32) -> Task {
    let mut random = Random::of(seed, "arithmetic", u64::from(index));
    let (question, value) = if level == 5 { other_base(&mut random) } else { expression(&mut random, level) };
    let prompt = format!(
        "{question} Work it out step by step and end with a line of the form \"Answer: N\", where N is an integer in decimal notation."
    );
    Task { kind: QualityKind::Arithmetic, seed, index, level, prompt, expected: Expected::Number(value) }
}

/// Each step takes the whole before it, in parentheses, so that no rule of precedence is asked for.
fn expression(random: &mut Random, level: u32) -> (String, i64) {
    let mut value = random.between(2, 30);
    let mut text = value.to_string();
    for step in 0..=level {
        let (sign, number, next) = operation(random, level, value);
        text =
            if step == 0 { format!("{value} {sign} {number}") } else { format!("({text}) {sign} {number}") };
        value = next;
    }
    (format!("What is {text}?"), value)
}

fn operation(random: &mut Random, level: u32, value: i64) -> (&'static str, i64, i64) {
    let number = random.between(2, 20);
    let choices = if level >= 3 && value > number { 4 } else { 3 };
    match random.below(choices) {
        0 => ("+", number, value + number),
        1 => ("-", number, value - number),
        2 => {
            let factor = random.between(2, 9);
            ("*", factor, value * factor)
        }
        _ => ("mod", number, value.rem_euclid(number)),
    }
}

fn other_base(random: &mut Random) -> (String, i64) {
    let base = *random.pick(&[2_i64, 3, 5, 7, 8]);
    let (first, second) = (random.between(20, 200), random.between(5, 60));
    let question = format!(
        "{} and {} are written in base {base}. What is their sum in base ten?",
        in_base(first, base),
        in_base(second, base)
    );
    (question, first + second)
}

fn in_base(mut number: i64, base: i64) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(char::from(b'0' + (number % base) as u8));
        number /= base;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_other_bases() {
        assert_eq!(in_base(10, 2), "1010");
        assert_eq!(in_base(200, 7), "404");
    }
}
