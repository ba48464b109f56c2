//! How long to wait before the next attempt: from 100 ms doubling to 1.5 s, half of it random so that
//! a thousand agents that lost the same server do not come back in the same moment.
//!
//! Not longer, whatever the break: a node is to be right again within 2 s of the store's return, and an attempt at a
//! server that is not there costs a refused connection.

use std::time::Duration;

/// The waiting times of one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const MIN: Duration = Duration::from_millis(100);
    pub(crate) const MAX: Duration = Duration::from_millis(1_500);

    pub(crate) fn new() -> Self {
        Self { next: Self::MIN }
    }

    /// Starts over from the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.next = Self::MIN;
    }

    /// Takes for how long what was tried has worked, `None` when it never did: how long it took to fail says nothing.
    pub(crate) fn worked_for(&mut self, span: Option<Duration>) {
        if span.is_some_and(|span| span > Self::MAX) {
            self.reset();
        }
    }

    /// Returns the next wait; `random` decides between half and all of it.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(Self::MAX);
        let half = whole / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_micros(random % spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_stay_there() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 750, 750, 750, 750]);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 50);
    }

    #[test]
    fn a_server_that_never_answered_is_asked_no_sooner_however_long_that_took() {
        let mut backoff = Backoff::new();
        for _ in 0..8 {
            backoff.next(0);
            backoff.worked_for(None);
            backoff.worked_for(Some(Duration::from_millis(10)));
        }
        assert_eq!(backoff.next(0).as_millis(), 750);
        backoff.worked_for(Some(Duration::from_secs(2)));
        assert_eq!(backoff.next(0).as_millis(), 50);
    }

    #[test]
    fn randomness_never_exceeds_the_wait() {
        for random in [0, 1, 49_999, 50_000, 50_001, u64::MAX] {
            assert!(Backoff::new().next(random) <= Backoff::MIN);
        }
    }
}
