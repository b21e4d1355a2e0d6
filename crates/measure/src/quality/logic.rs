//! Small puzzles: who is tallest, brackets, sorting, who tells the truth, and numbers that must give another.

use std::fmt::Write as _;

use super::{Expected, Task};
use crate::{bundle::QualityKind, stats::random::Random};

const NAMES: [&str; 8] = ["Ada", "Bruno", "Clara", "Dmitri", "Elif", "Farid", "Grace", "Hiro"];

pub(super) fn task(seed: u64, index: u32, level: u32) -> Task {
    let mut random = Random::of(seed, "logic", u64::from(index));
    let (question, expected) = match index % 5 {
        0 => order(&mut random, level),
        1 => brackets(&mut random, level),
        2 => sorting(&mut random, level),
        3 => truth(&mut random),
        _ => countdown(&mut random),
    };
    let prompt = format!("{question} Think step by step and end with a line of the form \"Answer: …\".");
    Task { kind: QualityKind::Logic, seed, index, level, prompt, expected }
}

fn some_names(random: &mut Random, count: usize) -> Vec<&'static str> {
    let mut names = NAMES;
    random.shuffle(&mut names);
    names[..count.min(NAMES.len())].to_vec()
}

/// Neighbours in an order, told in any order: the chain has one solution.
fn order(random: &mut Random, level: u32) -> (String, Expected) {
    let names = some_names(random, level as usize + 2);
    let mut told: Vec<String> =
        names.windows(2).map(|pair| format!("{} is taller than {}.", pair[0], pair[1])).collect();
    random.shuffle(&mut told);
    let question =
        format!("{} List all of them from tallest to shortest, separated by commas.", told.join(" "));
    (question, Expected::Words(names.iter().map(ToString::to_string).collect()))
}

fn brackets(random: &mut Random, level: u32) -> (String, Expected) {
    let mut text = String::new();
    let (mut depth, mut deepest) = (0_i64, 0);
    let length = 4 + 4 * i64::from(level);
    for place in 0..length {
        let open = depth == 0 || (depth < length - place && random.below(2) == 0);
        depth += if open { 1 } else { -1 };
        deepest = deepest.max(depth);
        text.push(if open { '(' } else { ')' });
    }
    (0..depth).for_each(|_| text.push(')'));
    let question = format!(
        "In {text} the depth of a place is the number of brackets that are open there. What is the largest depth? Answer with a number."
    );
    (question, Expected::Number(deepest))
}

fn sorting(random: &mut Random, level: u32) -> (String, Expected) {
    let mut numbers: Vec<i64> = Vec::new();
    while numbers.len() < 4 + level as usize {
        let number = random.between(10, 99);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let told: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.sort_unstable();
    let question =
        format!("Sort these numbers from smallest to largest, separated by commas: {}.", told.join(", "));
    (question, Expected::Words(numbers.iter().map(ToString::to_string).collect()))
}

/// Two people, each a knight (who always tells the truth) or a knave (who never does). Statements are drawn until one solution is left.
fn truth(random: &mut Random) -> (String, Expected) {
    let names = some_names(random, 2);
    loop {
        let said = [random.below(4), random.below(4)];
        let holds = |statement: u64, speaker: usize, knights: [bool; 2]| match statement {
            0 => knights[1 - speaker],
            1 => !knights[1 - speaker],
            2 => knights[0] == knights[1],
            _ => knights[0] != knights[1],
        };
        let worlds = [[true, true], [true, false], [false, true], [false, false]];
        let possible: Vec<[bool; 2]> = worlds
            .into_iter()
            .filter(|&knights| {
                (0..2).all(|speaker| holds(said[speaker], speaker, knights) == knights[speaker])
            })
            .collect();
        let [only] = possible[..] else { continue };
        let mut question =
            String::from("Each person is a knight, who always tells the truth, or a knave, who never does.");
        for speaker in 0..2 {
            let other = names[1 - speaker];
            let statement = match said[speaker] {
                0 => format!("{other} is a knight."),
                1 => format!("{other} is a knave."),
                2 => "We are of the same kind.".to_owned(),
                _ => "We are of different kinds.".to_owned(),
            };
            let _ = write!(question, " {} says: \"{statement}\"", names[speaker]);
        }
        let _ = write!(
            question,
            " What are {} and {}? Answer with two words, such as \"knight, knave\".",
            names[0], names[1]
        );
        let word = |knight: bool| if knight { "knight" } else { "knave" }.to_owned();
        return (question, Expected::Words(only.map(word).to_vec()));
    }
}

fn countdown(random: &mut Random) -> (String, Expected) {
    let numbers: Vec<i64> = (0..4).map(|_| random.between(2, 12)).collect();
    let mut value = numbers[0] * numbers[1];
    value = if random.below(2) == 0 { value + numbers[2] } else { value - numbers[2] };
    value += numbers[3];
    let told: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let question = format!(
        "Use each of the numbers {} at most once, with +, -, * and parentheses, to make {value}. Answer with the expression alone.",
        told.join(", ")
    );
    (question, Expected::Expression { numbers, value })
}

/// Whether an expression of `+`, `-`, `*` and parentheses has the value and uses each of the numbers at most once.
pub(super) fn is_solution(line: &str, numbers: &[i64], value: i64) -> bool {
    let text = line.split('=').next().unwrap_or_default().trim().trim_matches(['`', '$']);
    let mut parser = Parser { rest: text, left: numbers.to_vec() };
    parser.sum(0) == Some(value) && parser.rest.trim().is_empty()
}

struct Parser<'a> {
    rest: &'a str,
    /// Numbers that were not used yet.
    left: Vec<i64>,
}

impl Parser<'_> {
    fn take(&mut self, signs: &[char]) -> Option<char> {
        self.rest = self.rest.trim_start();
        let sign = self.rest.chars().next().filter(|c| signs.contains(c))?;
        self.rest = &self.rest[sign.len_utf8()..];
        Some(sign)
    }

    fn sum(&mut self, depth: u32) -> Option<i64> {
        let mut value = self.product(depth)?;
        while let Some(sign) = self.take(&['+', '-', '−']) {
            let next = self.product(depth)?;
            value = if sign == '+' { value.checked_add(next)? } else { value.checked_sub(next)? };
        }
        Some(value)
    }

    fn product(&mut self, depth: u32) -> Option<i64> {
        let mut value = self.factor(depth)?;
        while self.take(&['*', '×', '·']).is_some() {
            value = value.checked_mul(self.factor(depth)?)?;
        }
        Some(value)
    }

    fn factor(&mut self, depth: u32) -> Option<i64> {
        /// Deeper nesting than four numbers can need.
        const DEEPEST: u32 = 16;
        if depth > DEEPEST {
            return None;
        }
        if self.take(&['(']).is_some() {
            let value = self.sum(depth + 1)?;
            return self.take(&[')']).map(|_| value);
        }
        self.rest = self.rest.trim_start();
        let digits = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let number = self.rest[..digits].parse().ok()?;
        self.rest = &self.rest[digits..];
        let place = self.left.iter().position(|&left| left == number)?;
        self.left.swap_remove(place);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_must_have_the_value_and_use_each_number_once() {
        let check = |text| is_solution(text, &[3, 4, 5, 6], 27);
        assert!(check("3*(4+5)") && !check("(3 + 6) * (4 - 1 + 0)"));
        assert!(check("`3 × (4 + 5)`") && check("3*(4+5) = 27"));
        assert!(!check("3*9") && !check("3*3*3") && !check("27") && !check("3*(4+5"));
        assert!(!check(&"(".repeat(10_000)));
    }
}
