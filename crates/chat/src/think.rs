//! Separates the thinking block from the answer while both stream.

use crate::{Part, ThinkMarkers};

/// Follows one answer. Markers never get out, however the text is cut.
#[derive(Clone, Debug)]
pub struct ThinkSplitter {
    markers: Option<ThinkMarkers>,
    place: Place,
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but white space or the beginning of the opening marker so far.
    Start,
    /// Inside, before the first visible character: the model may repeat the marker that the prompt already has.
    InsideStart,
    /// After the marker; white space is dropped.
    Opened,
    Inside,
    /// White space between the block and the answer is dropped.
    Between,
    Answer,
}

impl ThinkSplitter {
    /// Without markers everything is content.
    #[must_use]
    pub const fn new(markers: Option<ThinkMarkers>, starts_inside: bool) -> Self {
        let place = match (markers, starts_inside) {
            (None, _) => Place::Answer,
            (_, true) => Place::InsideStart,
            (_, false) => Place::Start,
        };
        Self { markers, place, held: String::new() }
    }

    /// Whether the next text is inside the block.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        matches!(self.place, Place::Inside | Place::InsideStart | Place::Opened)
    }

    /// Takes text; gives what became certain.
    pub fn push(&mut self, text: &str, out: &mut Vec<Part>) {
        self.held.push_str(text);
        while self.step(out) {}
    }

    /// The answer is over.
    pub fn finish(&mut self, out: &mut Vec<Part>) {
        let rest = std::mem::take(&mut self.held);
        match self.place {
            Place::Start | Place::Answer => push_part(out, Part::Content, &rest),
            Place::Inside | Place::InsideStart => push_part(out, Part::Thinking, &rest),
            Place::Opened | Place::Between => {}
        }
    }

    /// One change of place; `false` when more text is needed.
    fn step(&mut self, out: &mut Vec<Part>) -> bool {
        let Some(markers) = self.markers else {
            push_part(out, Part::Content, &std::mem::take(&mut self.held));
            return false;
        };
        match self.place {
            Place::Start => self.open(markers.open, Place::Answer),
            Place::InsideStart => self.open(markers.open, Place::Inside),
            Place::Inside => self.inside(markers.close, out),
            Place::Opened => self.skip_space(Place::Inside),
            Place::Between => self.skip_space(Place::Answer),
            Place::Answer => {
                push_part(out, Part::Content, &std::mem::take(&mut self.held));
                false
            }
        }
    }

    fn skip_space(&mut self, next: Place) -> bool {
        self.held = self.held.trim_start().to_owned();
        if self.held.is_empty() {
            return false;
        }
        self.place = next;
        true
    }

    fn open(&mut self, open: &str, otherwise: Place) -> bool {
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(open) {
            self.held = rest.to_owned();
            self.place = Place::Opened;
            return true;
        }
        if open.starts_with(text) {
            return false;
        }
        if otherwise == Place::Inside {
            self.held = text.to_owned();
        }
        self.place = otherwise;
        true
    }

    fn inside(&mut self, close: &str, out: &mut Vec<Part>) -> bool {
        if let Some(at) = self.held.find(close) {
            push_part(out, Part::Thinking, &self.held[..at]);
            self.held.drain(..at + close.len());
            self.place = Place::Between;
            return true;
        }
        let keep = held_back(&self.held, close);
        let certain: String = self.held.drain(..self.held.len() - keep).collect();
        push_part(out, Part::Thinking, &certain);
        false
    }
}

/// Length of the longest end of `text` that `marker` begins with.
pub fn held_back(text: &str, marker: &str) -> usize {
    let most = text.len().min(marker.len() - 1);
    (1..=most)
        .rev()
        .find(|&length| marker.is_char_boundary(length) && text.ends_with(&marker[..length]))
        .unwrap_or(0)
}

/// Appends text to the last part of the same kind, or as a new one.
pub fn push_part(out: &mut Vec<Part>, kind: fn(String) -> Part, text: &str) {
    if text.is_empty() {
        return;
    }
    match (kind(String::new()), out.last_mut()) {
        (Part::Content(_), Some(Part::Content(last))) | (Part::Thinking(_), Some(Part::Thinking(last))) => {
            last.push_str(text);
        }
        _ => out.push(kind(text.to_owned())),
    }
}
