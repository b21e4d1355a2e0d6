//! A tree of foreign messages, brought into the order of ours: parents before their children, without circles, and
//! without the nodes that are no messages.

use std::{collections::HashMap, mem};

use jiff::Timestamp;

use super::{Fault, ImportedMessage};
use crate::{MessageBody, MessageRole, checks::check_limit, limits::IMPORT_NODES_MAX};

/// A node of a foreign tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// What others name it by.
    pub id: String,
    /// The node above; one that does not exist is as none.
    pub parent: Option<String>,
    /// What it is for us.
    pub content: Content,
    /// When it was said.
    pub created_at: Option<Timestamp>,
}

/// What a foreign node is for us.
#[derive(Clone, Debug)]
pub enum Content {
    /// A message.
    Message(Box<MessageBody>),
    /// What the model thought before the answer that follows.
    Thinking(String),
    /// Nothing; what follows it follows its parent.
    Nothing,
}

/// Messages in order.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Parents before their children.
    pub messages: Vec<ImportedMessage>,
    /// The end of the shown branch; the last message where the file does not say.
    pub leaf: Option<usize>,
}

/// Sorts nodes by their time, those without one first; of equals the order stays.
pub fn sort_by_time(nodes: &mut [Node]) {
    nodes.sort_by_key(|node| node.created_at);
}

/// Brings nodes into order; where the tree leaves a choice, theirs stays. `shown` names the end of the shown branch.
pub fn ordered(nodes: Vec<Node>, shown: Option<&str>) -> Result<Ordered, Fault> {
    check_limit("the number of nodes of the chat", nodes.len(), IMPORT_NODES_MAX)?;
    let index = index_of(&nodes)?;
    let place_of = |id: Option<&str>| id.and_then(|id| index.get(id).copied());
    let parents: Vec<_> = nodes.iter().map(|node| place_of(node.parent.as_deref())).collect();
    let shown = place_of(shown);
    drop(index);

    let mut builder = Builder::new(nodes.len());
    let mut nodes: Vec<_> = nodes.into_iter().map(Some).collect();
    for place in parents_first(&parents)? {
        if let Some(node) = nodes[place].take() {
            builder.add(place, parents[place], node);
        }
    }
    Ok(builder.finish(shown))
}

fn index_of(nodes: &[Node]) -> Result<HashMap<&str, usize>, Fault> {
    let mut index = HashMap::with_capacity(nodes.len());
    for (place, node) in nodes.iter().enumerate() {
        if index.insert(node.id.as_str(), place).is_some() {
            return Err(Fault::DuplicateId(node.id.chars().take(ID_CHARS_QUOTED).collect()));
        }
    }
    Ok(index)
}

/// How much of an id a reason quotes.
const ID_CHARS_QUOTED: usize = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    None,
    /// On the way up from a node.
    Begun,
    Done,
}

/// The nodes, each after its parent. Goes up from each node to the first one that is done, so every node is visited
/// once and depth costs no stack.
fn parents_first(parents: &[Option<usize>]) -> Result<Vec<usize>, Fault> {
    let mut visits = vec![Visit::None; parents.len()];
    let mut sequence = Vec::with_capacity(parents.len());
    let mut way = Vec::new();
    for start in 0..parents.len() {
        let mut next = Some(start);
        while let Some(place) = next.filter(|&place| visits[place] != Visit::Done) {
            if visits[place] == Visit::Begun {
                return Err(Fault::Circle);
            }
            visits[place] = Visit::Begun;
            way.push(place);
            next = parents[place];
        }
        while let Some(place) = way.pop() {
            visits[place] = Visit::Done;
            sequence.push(place);
        }
    }
    Ok(sequence)
}

/// Takes nodes, each after its parent.
struct Builder {
    messages: Vec<ImportedMessage>,
    /// For each node: the index of its message, or of the nearest one above.
    indices: Vec<Option<usize>>,
    /// For each node: what was thought up to it and not yet said. The first answer below takes it.
    thoughts: Vec<String>,
}

impl Builder {
    fn new(nodes: usize) -> Self {
        Self { messages: Vec::new(), indices: vec![None; nodes], thoughts: vec![String::new(); nodes] }
    }

    fn add(&mut self, place: usize, above: Option<usize>, node: Node) {
        let parent = above.and_then(|above| self.indices[above]);
        let mut thoughts = above.map(|above| mem::take(&mut self.thoughts[above])).unwrap_or_default();
        match node.content {
            Content::Nothing => self.pass(place, parent, thoughts),
            Content::Thinking(text) => {
                push_paragraph(&mut thoughts, &text);
                self.pass(place, parent, thoughts);
            }
            Content::Message(mut body) => {
                if body.role == MessageRole::Assistant && !thoughts.is_empty() {
                    push_paragraph(&mut thoughts, body.thinking.as_deref().unwrap_or_default());
                    body.thinking = Some(thoughts);
                }
                self.indices[place] = Some(self.messages.len());
                self.messages.push(ImportedMessage { parent, body: *body, created_at: node.created_at });
            }
        }
    }

    /// Goes past a node that is no message.
    fn pass(&mut self, place: usize, parent: Option<usize>, thoughts: String) {
        self.indices[place] = parent;
        self.thoughts[place] = thoughts;
    }

    fn finish(self, shown: Option<usize>) -> Ordered {
        let leaf = shown.and_then(|place| self.indices[place]).or(self.messages.len().checked_sub(1));
        Ordered { messages: self.messages, leaf }
    }
}

/// Adds a paragraph to a text; an empty one adds nothing.
pub fn push_paragraph(text: &mut String, paragraph: &str) {
    let paragraph = paragraph.trim();
    if paragraph.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(paragraph);
}
