//! Answers that wait for a place.

use std::collections::{HashMap, VecDeque};

use super::{Key, QueueFull, generation::Waiting};
use crate::limits::BYPASS_MAX;

/// A bounded queue, fair between clients: next is the oldest request of a client with the fewest running answers.
pub struct Queue {
    waiting: VecDeque<Waiting>,
    max: usize,
}

impl Queue {
    pub const fn new(max: usize) -> Self {
        Self { waiting: VecDeque::new(), max }
    }

    pub fn push(&mut self, waiting: Waiting) -> Result<(), QueueFull> {
        if self.waiting.len() >= self.max {
            return Err(QueueFull(Box::new(waiting.request)));
        }
        self.waiting.push_back(waiting);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn remove(&mut self, key: Key) -> Option<Waiting> {
        let index = self.waiting.iter().position(|waiting| waiting.request.key == key)?;
        self.waiting.remove(index)
    }

    pub fn get(&self, index: usize) -> Option<&Waiting> {
        self.waiting.get(index)
    }

    pub fn take(&mut self, index: usize) -> Option<Waiting> {
        self.waiting.remove(index)
    }

    /// The order in which requests are tried.
    pub fn order(&self, running_by_client: &HashMap<u64, u32>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.waiting.len()).collect();
        let running = |index: usize| running_by_client.get(&self.waiting[index].request.client).copied();
        order.sort_by_key(|&index| running(index).unwrap_or(0));
        order
    }

    /// A request did not fit; whether smaller ones may still pass it.
    pub fn may_be_passed(&self, index: usize) -> bool {
        self.waiting[index].passed < BYPASS_MAX
    }

    /// A smaller request went before this one.
    pub fn passed(&mut self, index: usize) {
        self.waiting[index].passed += 1;
    }
}
