//! The lists for a README: what works, what does not, what was not measured.

use std::fmt::Write as _;

use super::{Input, markdown::escape, sections::model_on_machine};
use crate::claims::{Answer, Answered};

/// Line before the lists in a file that holds them.
pub const BEGIN: &str = "<!-- firepot report: begin; written by `firepot report --format readme` -->";
/// Line after them.
pub const END: &str = "<!-- firepot report: end -->";

/// The lists, in Markdown. A confirmed claim that something does not work is under what does not work. A refuted one begins with a word that
/// turns it round: it stands in the list of its opposite.
#[must_use]
pub fn readme(input: &Input<'_>) -> String {
    let sessions = input.pairs();
    let answered: Vec<(bool, Answered)> = input
        .claims
        .iter()
        .flat_map(|claims| {
            let negative = claims.claims.iter().map(|claim| claim.negative);
            negative.zip(claims.answer(&sessions)).collect::<Vec<_>>()
        })
        .collect();
    let mut out = String::new();
    for (bundle, _) in &sessions {
        let _ = writeln!(out, "Measured: {}.", escape(&model_on_machine(bundle)));
    }
    let wanted = |title: &str, works: Option<bool>| {
        let list =
            answered.iter().filter(|(negative, answered)| does_work(*negative, answered.answer) == works);
        (title.to_owned(), list.map(|(_, answered)| answered).collect::<Vec<_>>())
    };
    for (title, list) in
        [wanted("Works", Some(true)), wanted("Does not work", Some(false)), wanted("Not measured", None)]
    {
        let _ = write!(out, "\n**{title}**\n\n");
        if list.is_empty() {
            out.push_str("- nothing\n");
        }
        for answered in list {
            let because = answered.because.join("; ");
            let word = answered.answer.name();
            let turned = if answered.answer == Answer::Refuted { "Not so: " } else { "" };
            let _ = writeln!(out, "- {turned}{} ({word}: {})", escape(&answered.says), escape(&because));
        }
    }
    out
}

const fn does_work(negative: bool, answer: Answer) -> Option<bool> {
    match answer {
        Answer::Confirmed => Some(!negative),
        Answer::Refuted => Some(negative),
        Answer::NotMeasured => None,
    }
}

/// A file's text with new lists between its marks; `None` when it has no marks.
#[must_use]
pub fn replaced(text: &str, lists: &str) -> Option<String> {
    let begin = text.find(BEGIN)? + BEGIN.len();
    let end = begin + text[begin..].find(END)?;
    Some(format!("{}\n{lists}{}", &text[..begin], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_go_between_the_marks_and_a_second_time_changes_nothing() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&text, "- new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n- new\n{END}\nafter\n"));
        assert_eq!(replaced(&new, "- new\n").unwrap(), new);
        assert_eq!(replaced("none", ""), None);
    }
}
