//! An answer's text → thinking, content and tool calls, as it streams.

use crate::{Part, ThinkMarkers, ThinkSplitter, ToolParser, ToolStyle, think::push_part};

/// How an answer is read.
#[derive(Clone, Copy, Debug)]
pub struct OutputConfig {
    /// The model thinks, between these.
    pub markers: Option<ThinkMarkers>,
    /// The prompt itself opened the block.
    pub starts_thinking: bool,
    /// Tools were given, and calls look like this.
    pub tool_style: Option<ToolStyle>,
    /// Makes ids of calls unique.
    pub id_seed: u64,
}

/// Reads one answer.
#[derive(Clone, Debug)]
pub struct OutputParser {
    think: ThinkSplitter,
    tools: Option<ToolParser>,
}

impl OutputParser {
    /// A reader of one answer.
    #[must_use]
    pub fn new(config: OutputConfig) -> Self {
        Self {
            think: ThinkSplitter::new(config.markers, config.starts_thinking),
            tools: config.tool_style.map(|style| ToolParser::new(style, config.id_seed)),
        }
    }

    /// Takes text; gives what became certain, in order.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        let mut split = Vec::new();
        self.think.push(text, &mut split);
        self.find_calls(split)
    }

    /// The answer is over; gives what was held back.
    pub fn finish(&mut self) -> Vec<Part> {
        let mut split = Vec::new();
        self.think.finish(&mut split);
        let mut parts = self.find_calls(split);
        if let Some(tools) = &mut self.tools {
            tools.finish(&mut parts);
        }
        parts
    }

    /// Whether a tool was called.
    #[must_use]
    pub fn called_tools(&self) -> bool {
        self.tools.as_ref().is_some_and(ToolParser::found)
    }

    fn find_calls(&mut self, split: Vec<Part>) -> Vec<Part> {
        let Some(tools) = &mut self.tools else { return split };
        let mut parts = Vec::new();
        for part in split {
            match part {
                Part::Content(text) => tools.push(&text, &mut parts),
                Part::Thinking(text) => push_part(&mut parts, Part::Thinking, &text),
                call @ Part::ToolCall(_) => parts.push(call),
            }
        }
        parts
    }
}
