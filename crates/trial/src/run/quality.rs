//! Questions with exact checkers: made from the case's seed, asked one by one, checked at once, and written down with what
//! the checker says.

use firepot_measure::{
    bundle::{Case, QualityKind, QualityLine, Question, Suite, Verdict},
    limits::ANSWER_CHARS,
    quality::{Task, needle, task},
};

use super::{Side, Trial, TrialError};
use crate::{
    error::TargetError,
    seen::Seen,
    target::{Fact, Turn},
};

/// Where needles lie in their haystacks, in percent.
const DEPTHS: [u32; 5] = [50, 0, 100, 25, 75];

/// The shortest haystack, in tokens.
const HAYSTACK_MIN: u32 = 128;

/// A question with what the bundle keeps of how it was made.
struct Posed {
    task: Task,
    length_tokens: Option<u32>,
    depth_percent: Option<u32>,
    constrained: Option<bool>,
}

fn kind_of(case: &str) -> QualityKind {
    const KINDS: [QualityKind; 4] =
        [QualityKind::Arithmetic, QualityKind::WordProblem, QualityKind::Logic, QualityKind::Needle];
    KINDS.into_iter().find(|kind| kind.case() == case).unwrap_or(QualityKind::JsonSchema)
}

impl Trial {
    /// Asks the next question of a case.
    pub(super) async fn question(&self, case: &Case, side: &Side) -> Result<bool, TrialError> {
        let key = (case.id.clone(), side.id.clone());
        let asked = self.done().questions.get(&key).cloned().unwrap_or_default();
        let index = (0..case.max_samples).find(|index| !asked.contains(index)).unwrap_or(0);
        let can_hold = side.target.withholds(Fact::Schema).is_none();
        let posed = pose(kind_of(&case.id), case, index, self.workload.suite, can_hold);
        let mut ask = self.question_of(case, side, vec![Turn::user(posed.task.prompt.clone())]);
        if posed.constrained == Some(true) {
            ask.schema = posed.task.schema().cloned();
        }
        let (seen, error) = self.ask(side, &ask, |_| {}).await;
        let question = record(&posed, side, index, &seen, error.as_ref());
        let good = question.verdict != Verdict::Failed;
        self.done().answered(&question);
        self.writer.append(&QualityLine::Question(question))?;
        self.give_up(side, error.filter(TargetError::is_lasting))?;
        Ok(good)
    }
}

/// Harder ones come in turn, as far as a suite goes.
fn pose(kind: QualityKind, case: &Case, index: u32, suite: Suite, can_hold: bool) -> Posed {
    let hardest = match suite {
        Suite::Smoke => 1,
        Suite::Standard => 3,
        Suite::Full => firepot_measure::quality::LEVELS,
    };
    let plain = |task: Task| Posed { task, length_tokens: None, depth_percent: None, constrained: None };
    match kind {
        QualityKind::Needle => {
            let length = (case.prompt_tokens >> (index % 3)).max(HAYSTACK_MIN);
            let depth = DEPTHS[index as usize % DEPTHS.len()];
            let needles = if suite == Suite::Full && index % 2 == 1 { 4 } else { 1 };
            Posed {
                length_tokens: Some(length),
                depth_percent: Some(depth),
                ..plain(needle(case.seed, index, needles, length, depth))
            }
        }
        QualityKind::JsonSchema => Posed {
            // Each schema is asked for freely; with every second one the server is asked to hold the answer to it.
            constrained: Some(can_hold && index % 2 == 1),
            ..plain(task(kind, case.seed, index, 1 + index % hardest))
        },
        _ => plain(task(kind, case.seed, index, 1 + index % hardest)),
    }
}

fn record(posed: &Posed, side: &Side, index: u32, seen: &Seen, error: Option<&TargetError>) -> Question {
    let tokens = seen.tokens();
    let client = seen.client();
    let task = &posed.task;
    Question {
        target: side.id.clone(),
        kind: task.kind,
        index,
        seed: task.seed,
        level: task.level,
        length_tokens: posed.length_tokens,
        depth_percent: posed.depth_percent,
        constrained: posed.constrained,
        expected: task.expected_text(),
        answer: seen.content.chars().take(ANSWER_CHARS).collect(),
        verdict: if error.is_some() { Verdict::Failed } else { task.check(&seen.content) },
        cut_in_thinking: seen.cut_in_thinking(),
        thinking_tokens: tokens.thinking,
        generated_tokens: tokens.generated,
        ttft_answer_us: client.first_answer_us.map(|first| first.saturating_sub(client.sent_us)),
        total_us: client.end_us.saturating_sub(client.sent_us),
    }
}
