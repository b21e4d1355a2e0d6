//! What happens to a conversation that is longer than the context.

use crate::{ErrorKind, GenerateError, Message, Overflow, Role};

/// A conversation that fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The turns that remain.
    pub messages: Vec<Message>,
    /// How many messages were dropped.
    pub dropped: u32,
    /// Tokens of the rendered conversation.
    pub tokens: u32,
}

/// Drops the oldest turns until the rendered conversation fits, or refuses.
///
/// A turn is a question with everything up to the next one, so that a tool's result never loses its call. System messages and
/// the last turn stay. `count` renders and counts; it is called about log₂(turns) times. `ctx` is the whole context,
/// `budget` what the prompt may use of it when turns are dropped anyway.
///
/// # Errors
/// [`ErrorKind::ContextOverflow`] with the numbers, or what `count` failed with.
pub fn fit(
    messages: &[Message],
    overflow: Overflow,
    ctx: u32,
    budget: u32,
    count: &mut dyn FnMut(&[Message]) -> Result<u32, GenerateError>,
) -> Result<Fitted, GenerateError> {
    let tokens = count(messages)?;
    if tokens < ctx {
        return Ok(Fitted { messages: messages.to_vec(), dropped: 0, tokens });
    }
    let turns = droppable_turns(messages);
    if overflow == Overflow::Refuse || turns.is_empty() {
        return Err(too_long(tokens, ctx));
    }
    let without = |dropped_turns: usize| -> Vec<Message> {
        let from = turns[dropped_turns - 1];
        let kept = |(index, message): &(usize, &Message)| *index >= from || message.role == Role::System;
        messages.iter().enumerate().filter(kept).map(|(_, message)| message.clone()).collect()
    };
    // The fewest turns to drop; the last try is the one that fits.
    let (mut low, mut high) = (1, turns.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        if count(&without(middle))? <= budget { high = middle } else { low = middle + 1 }
    }
    let kept = without(low);
    let tokens = count(&kept)?;
    if tokens >= ctx {
        return Err(too_long(tokens, ctx));
    }
    Ok(Fitted { dropped: (messages.len() - kept.len()) as u32, messages: kept, tokens })
}

/// For each number of dropped turns, where what remains begins.
fn droppable_turns(messages: &[Message]) -> Vec<usize> {
    let starts: Vec<usize> = messages
        .iter()
        .enumerate()
        .filter(|(_, message)| message.role == Role::User)
        .map(|(index, _)| index)
        .collect();
    let first_other = messages.iter().position(|message| message.role != Role::System).unwrap_or(0);
    starts.into_iter().filter(|&start| start > first_other).collect()
}

fn too_long(tokens: u32, ctx: u32) -> GenerateError {
    let message = format!("the prompt has {tokens} tokens and the context holds {ctx}");
    GenerateError::new(ErrorKind::ContextOverflow, message)
}
