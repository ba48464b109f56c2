//! What runs while a connection stands, and how long to wait before the next.

use std::time::{Duration, Instant};

use crate::wire::HoldTime;

/// Hold and keepalive deadlines. Both are `None` when the negotiated hold time is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timers {
    hold: HoldTime,
    hold_until: Option<Instant>,
    keepalive_at: Option<Instant>,
}

impl Timers {
    pub fn start(hold: HoldTime, now: Instant) -> Self {
        Self { hold, hold_until: None, keepalive_at: None }.heard(now).spoke(now)
    }

    #[must_use]
    pub fn heard(self, now: Instant) -> Self {
        Self { hold_until: self.hold.period().map(|p| now + p), ..self }
    }

    /// Keepalives go out at a third of the hold time (RFC 4271 §4.4).
    #[must_use]
    pub fn spoke(self, now: Instant) -> Self {
        Self { keepalive_at: self.hold.period().map(|p| now + p / 3), ..self }
    }

    pub fn expired(self, now: Instant) -> bool {
        self.hold_until.is_some_and(|at| at <= now)
    }

    pub fn keepalive_is_due(self, now: Instant) -> bool {
        self.keepalive_at.is_some_and(|at| at <= now)
    }

    pub fn next(self) -> Option<Instant> {
        self.hold_until.into_iter().chain(self.keepalive_at).min()
    }
}

/// A delay that doubles with each attempt up to `longest`, less a quarter at most by chance (RFC 4271 §10), so
/// that two that dial each other part.
pub(super) fn backoff(attempt: u32, longest: Duration, random: &mut Random) -> Duration {
    let whole = FIRST_DELAY.saturating_mul(1 << attempt.min(16)).min(longest);
    whole.mul_f64(1.0 - f64::from(random.below(1_000)) / 4_000.0)
}

/// Chance out of a seed: xorshift, which is enough to keep two apart.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        // Zero would stay zero for ever.
        Self(seed | 1)
    }

    pub fn below(&mut self, bound: u16) -> u16 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u16::try_from((self.0 >> 16) % u64::from(bound.max(1))).unwrap_or_default()
    }
}

const FIRST_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_and_stays_within_its_bounds() {
        let mut random = Random::new(7);
        let longest = Duration::from_mins(1);
        for attempt in 0..100 {
            let whole = Duration::from_secs(1 << attempt.min(6)).min(longest);
            let delay = backoff(attempt, longest, &mut random);
            assert!(delay <= whole && delay >= whole * 3 / 4, "{attempt}: {delay:?}");
        }
    }

    #[test]
    fn two_seeds_give_two_delays() {
        let delay = |seed| backoff(3, Duration::from_mins(1), &mut Random::new(seed));
        assert_ne!(delay(0x1234_5678), delay(0x8765_4321));
    }
}
