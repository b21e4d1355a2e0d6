//! Addresses that showed wrong keys: they wait, twice as long after each further one. A value over `now`.
//!
//! A key of 256 bits cannot be guessed, so this is no wall in front of the keys: it keeps those who try from costing anything,
//! and shows them early that it is of no use. Whoever shows a right key is never kept out by what others do from the same
//! address (a tunnel's, a company's).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::net::Net;
use crate::limits::{
    FIRST_LOCKOUT, FREE_WRONG_KEYS, LIMITER_SWEEP_INTERVAL, LOCKOUT_FORGOTTEN_AFTER, MAX_LIMITED_CLIENTS,
    MAX_LOCKOUT,
};

/// Who must wait, and until when.
#[derive(Debug, Default)]
pub struct Lockouts {
    known: HashMap<Net, Wrong>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Instant,
    until: Instant,
}

impl Lockouts {
    /// How long an address must still wait before it may try another key.
    pub fn wait(&self, net: Net, now: Instant) -> Option<Duration> {
        let wait = self.known.get(&net)?.until.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Notes a wrong key.
    pub fn wrong(&mut self, net: Net, now: Instant) {
        self.sweep(now);
        if self.known.len() >= MAX_LIMITED_CLIENTS && !self.known.contains_key(&net) {
            return;
        }
        let wrong = self.known.entry(net).or_insert(Wrong { count: 0, last: now, until: now });
        if forgotten(wrong, now) {
            wrong.count = 0;
        }
        wrong.count = wrong.count.saturating_add(1);
        wrong.last = now;
        if let Some(doublings) = wrong.count.checked_sub(FREE_WRONG_KEYS) {
            let pause = FIRST_LOCKOUT.saturating_mul(1 << doublings.min(16));
            wrong.until = now + pause.min(MAX_LOCKOUT);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let due = self.swept.is_none_or(|at| now.saturating_duration_since(at) >= LIMITER_SWEEP_INTERVAL);
        if self.known.len() >= MAX_LIMITED_CLIENTS && due {
            self.swept = Some(now);
            self.known.retain(|_, wrong| !forgotten(wrong, now));
        }
    }
}

fn forgotten(wrong: &Wrong, now: Instant) -> bool {
    now.saturating_duration_since(wrong.last.max(wrong.until)) >= LOCKOUT_FORGOTTEN_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(last: u8) -> Net {
        Net::of([10, 0, 0, last].into())
    }

    #[test]
    fn some_wrong_keys_are_free_then_each_costs_twice_the_wait_of_the_one_before() {
        let mut lockouts = Lockouts::default();
        let mut now = Instant::now();
        for _ in 1..FREE_WRONG_KEYS {
            lockouts.wrong(net(1), now);
            assert_eq!(lockouts.wait(net(1), now), None);
        }
        let mut expected = FIRST_LOCKOUT;
        for _ in 0..20 {
            lockouts.wrong(net(1), now);
            assert_eq!(lockouts.wait(net(1), now), Some(expected));
            assert_eq!(lockouts.wait(net(2), now), None);
            now += expected;
            assert_eq!(lockouts.wait(net(1), now), None);
            expected = (expected * 2).min(MAX_LOCKOUT);
        }
        assert_eq!(expected, MAX_LOCKOUT);
        now += LOCKOUT_FORGOTTEN_AFTER;
        lockouts.wrong(net(1), now);
        assert_eq!(lockouts.wait(net(1), now), None, "it is forgotten");
    }

    #[test]
    fn so_many_addresses_are_remembered_and_no_more() {
        let mut lockouts = Lockouts::default();
        let now = Instant::now();
        for number in 0..MAX_LIMITED_CLIENTS as u32 + 10 {
            lockouts.wrong(Net::of(std::net::Ipv4Addr::from(number).into()), now);
        }
        assert_eq!(lockouts.known.len(), MAX_LIMITED_CLIENTS);
        lockouts.wrong(net(1), now + LOCKOUT_FORGOTTEN_AFTER);
        assert_eq!(lockouts.known.len(), 1);
    }
}
