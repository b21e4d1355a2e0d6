//! Where an answer stands relative to its thinking block, and when that block must be closed.

use std::collections::VecDeque;

use firepot_chat::TokenId;

/// How a model thinks, and for how long it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinkControl {
    /// Text that opens the block, such as `<think>`.
    pub open: String,
    /// Text that closes it.
    pub close: String,
    /// The prompt itself opened the block.
    pub starts_inside: bool,
    /// After this many tokens inside, the block is closed by force; `None`: never.
    pub budget_tokens: Option<u32>,
    /// Tokens that close it by force.
    pub close_ids: Vec<TokenId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Only white space or the beginning of the opening marker so far.
    Start,
    Inside,
    After,
}

/// Follows one answer.
#[derive(Clone, Debug)]
pub struct ThinkTracker {
    control: Option<ThinkControl>,
    place: Place,
    /// Text that decides what comes next: all of it at the start, the last bytes inside.
    tail: String,
    /// Tokens seen inside the block.
    pub tokens: u32,
    forced: VecDeque<TokenId>,
}

impl ThinkTracker {
    /// `None` is for a model that does not think: every answer is `After`.
    pub fn new(control: Option<ThinkControl>) -> Self {
        let place = match &control {
            None => Place::After,
            Some(control) if control.starts_inside => Place::Inside,
            Some(_) => Place::Start,
        };
        Self { control, place, tail: String::new(), tokens: 0, forced: VecDeque::new() }
    }

    /// Whether a format holds for the next token.
    pub fn is_after(&self) -> bool {
        self.place == Place::After
    }

    /// Whether the next token is inside the block.
    pub const fn is_inside(&self) -> bool {
        matches!(self.place, Place::Inside)
    }

    /// Whether this text can begin, or go on with, the opening marker.
    pub fn may_open(&self, piece: &str) -> bool {
        let Some(control) = self.control.as_ref().filter(|_| self.place == Place::Start) else {
            return false;
        };
        let text = format!("{}{piece}", self.tail);
        let text = text.trim_start();
        !text.is_empty() && (control.open.starts_with(text) || text.starts_with(&control.open))
    }

    /// A token that must come next, whatever the model says.
    pub fn forced(&mut self) -> Option<TokenId> {
        self.forced.pop_front()
    }

    /// Takes a token's text.
    pub fn push(&mut self, piece: &str) {
        let Some(control) = &self.control else { return };
        match self.place {
            Place::After => {}
            Place::Start => {
                self.tail.push_str(piece);
                let text = self.tail.trim_start();
                if text.starts_with(&control.open) {
                    self.place = Place::Inside;
                    self.tokens += 1;
                    self.tail.clear();
                } else if !control.open.starts_with(text) {
                    self.place = Place::After;
                }
            }
            Place::Inside => self.push_inside(piece),
        }
    }

    fn push_inside(&mut self, piece: &str) {
        let Some(control) = &self.control else { return };
        self.tokens += 1;
        self.tail.push_str(piece);
        if self.tail.contains(&control.close) {
            self.place = Place::After;
            self.forced.clear();
            return;
        }
        let surplus = self.tail.len().saturating_sub(control.close.len());
        let cut = (0..=surplus).rev().find(|&at| self.tail.is_char_boundary(at)).unwrap_or(0);
        self.tail.drain(..cut);
        if control.budget_tokens == Some(self.tokens) {
            self.forced.extend(&control.close_ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(starts_inside: bool, budget_tokens: Option<u32>) -> ThinkTracker {
        ThinkTracker::new(Some(ThinkControl {
            open: "<think>".into(),
            close: "</think>".into(),
            starts_inside,
            budget_tokens,
            close_ids: vec![7, 8],
        }))
    }

    #[test]
    fn a_block_opens_only_at_the_start_and_closes_across_tokens() {
        let mut tracker = tracker(false, None);
        assert!(tracker.may_open("\n<thi") && !tracker.may_open("Hello"));
        for piece in ["\n", "<thi", "nk>", "so </th", "ink>"] {
            assert!(!tracker.is_after(), "before {piece:?}");
            tracker.push(piece);
        }
        assert!(tracker.is_after());
        assert_eq!(tracker.tokens, 3);
        tracker.push("<think>");
        assert!(tracker.is_after());
    }

    #[test]
    fn an_answer_without_a_block_is_after_at_once() {
        let mut tracker = tracker(false, None);
        tracker.push("Hi");
        assert!(tracker.is_after() && tracker.tokens == 0);
        assert!(ThinkTracker::new(None).is_after());
    }

    #[test]
    fn the_budget_forces_the_closing_tokens_once() {
        let mut tracker = tracker(true, Some(2));
        tracker.push("a");
        assert_eq!(tracker.forced(), None);
        tracker.push("é");
        assert_eq!((tracker.forced(), tracker.forced(), tracker.forced()), (Some(7), Some(8), None));
        tracker.push("</think>");
        assert!(tracker.is_after());
    }
}
