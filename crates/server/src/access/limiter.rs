//! How much one client may ask for: a rate, and requests at the same time. A value over `now`; nothing here knows keys.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::limits::{LIMITER_SWEEP_INTERVAL, MAX_LIMITED_CLIENTS};

/// What one client may do.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Requests a second, over time.
    pub per_second: f64,
    /// Requests at once after a pause.
    pub burst: f64,
    /// Requests whose answers are not over.
    pub in_flight: usize,
}

/// Counts the requests of clients named by `W`. Clones count together.
#[derive(Debug)]
pub struct Limiter<W: Eq + Hash> {
    allowance: Allowance,
    inner: Arc<Mutex<Inner<W>>>,
}

#[derive(Debug)]
struct Inner<W> {
    clients: HashMap<W, Client>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    left: f64,
    at: Instant,
    in_flight: usize,
}

/// A request that counts as long as this lives.
#[derive(Debug)]
pub struct Place<W: Copy + Eq + Hash> {
    who: W,
    inner: Arc<Mutex<Inner<W>>>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Too many in a short time; there is one again after this.
    Rate(Duration),
    /// Too many whose answers are not over.
    InFlight,
    /// So many clients that no other can be counted.
    Clients,
}

impl<W: Copy + Eq + Hash> Limiter<W> {
    pub fn new(allowance: Allowance) -> Self {
        let inner = Inner { clients: HashMap::new(), swept: None };
        Self { allowance, inner: Arc::new(Mutex::new(inner)) }
    }

    /// Counts a request.
    pub fn enter(&self, who: W, now: Instant) -> Result<Place<W>, Over> {
        let mut inner = lock(&self.inner);
        let allowance = self.allowance;
        if !inner.clients.contains_key(&who) && !inner.make_room(allowance, now) {
            return Err(Over::Clients);
        }
        let fresh = Client { left: allowance.burst, at: now, in_flight: 0 };
        let client = inner.clients.entry(who).or_insert(fresh);
        client.refill(allowance, now);
        if client.in_flight >= allowance.in_flight {
            return Err(Over::InFlight);
        }
        if client.left < 1.0 {
            let wait = (1.0 - client.left) / allowance.per_second;
            return Err(Over::Rate(Duration::from_secs_f64(wait)));
        }
        client.left -= 1.0;
        client.in_flight += 1;
        Ok(Place { who, inner: Arc::clone(&self.inner) })
    }
}

impl<W: Eq + Hash> Inner<W> {
    /// Forgets those who may do everything again, when there are too many.
    fn make_room(&mut self, allowance: Allowance, now: Instant) -> bool {
        let due = self.swept.is_none_or(|at| now.saturating_duration_since(at) >= LIMITER_SWEEP_INTERVAL);
        if self.clients.len() >= MAX_LIMITED_CLIENTS && due {
            self.swept = Some(now);
            self.clients.retain(|_, client| {
                client.refill(allowance, now);
                client.in_flight > 0 || client.left < allowance.burst
            });
        }
        self.clients.len() < MAX_LIMITED_CLIENTS
    }
}

impl Client {
    fn refill(&mut self, allowance: Allowance, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = passed.mul_add(allowance.per_second, self.left).min(allowance.burst);
        self.at = now;
    }
}

impl<W: Copy + Eq + Hash> Drop for Place<W> {
    fn drop(&mut self) {
        if let Some(client) = lock(&self.inner).clients.get_mut(&self.who) {
            client.in_flight = client.in_flight.saturating_sub(1);
        }
    }
}

fn lock<W>(inner: &Mutex<Inner<W>>) -> MutexGuard<'_, Inner<W>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIGHT: Allowance = Allowance { per_second: 2.0, burst: 3.0, in_flight: 2 };

    #[test]
    fn a_burst_is_let_through_then_the_rate_holds_and_others_are_not_concerned() {
        let limiter = Limiter::new(TIGHT);
        let start = Instant::now();
        for _ in 0..3 {
            drop(limiter.enter("a", start).unwrap());
        }
        assert_eq!(limiter.enter("a", start).unwrap_err(), Over::Rate(Duration::from_millis(500)));
        drop(limiter.enter("b", start).unwrap());
        let later = start + Duration::from_millis(500);
        drop(limiter.enter("a", later).unwrap());
        assert!(limiter.enter("a", later).is_err());
        let idle = start + Duration::from_mins(1);
        assert_eq!((0..9).filter(|_| limiter.enter("a", idle).is_ok()).count(), 3);
    }

    #[test]
    fn a_place_is_taken_as_long_as_its_answer_runs() {
        let limiter = Limiter::new(TIGHT);
        let now = Instant::now();
        let (one, _two) = (limiter.enter("a", now).unwrap(), limiter.enter("a", now).unwrap());
        assert_eq!(limiter.enter("a", now).unwrap_err(), Over::InFlight);
        drop(one);
        drop(limiter.enter("a", now).unwrap());
    }

    #[test]
    fn there_are_never_more_clients_than_the_most_and_idle_ones_make_room() {
        let limiter = Limiter::new(TIGHT);
        let start = Instant::now();
        let held = limiter.enter(0, start).unwrap();
        for who in 1..MAX_LIMITED_CLIENTS {
            drop(limiter.enter(who, start).unwrap());
        }
        let more = MAX_LIMITED_CLIENTS;
        assert_eq!(limiter.enter(more, start).unwrap_err(), Over::Clients);
        drop(limiter.enter(1, start).unwrap());
        drop(limiter.enter(more, start + Duration::from_mins(1)).unwrap());
        assert_eq!(lock(&limiter.inner).clients.len(), 2, "the one in flight and the new one");
        drop(held);
    }
}
