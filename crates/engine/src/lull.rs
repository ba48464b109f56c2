//! How a thread waits for its next packet: for a moment awake, then asleep.
//!
//! Each thread that must be woken adds its share to a round trip. So one that often waits only shortly looks again a
//! few times before it sleeps. Whether that pays is learned from how long it slept, as `haltpoll` of the kernel's
//! `cpuidle` does: a sleep shorter than the longest wait would have been better spent awake, a longer one not.
//! Whoever else wants the processor has it at once, and is left alone with it for some time; and an idle engine
//! sleeps without a clock.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// One thread's.
#[derive(Debug)]
pub struct Lull {
    longest: Duration,
    state: State,
    /// How long it stays awake now.
    awake: Duration,
    /// Until when it is not tried again, because somebody else wants the processor.
    crowded: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Busy,
    Looking { since: Instant, last: Instant },
}

/// What a thread does that found no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    LookAgain,
    Sleep,
}

impl Lull {
    /// `longest` is spent awake for nothing at most.
    pub const fn new(longest: Duration) -> Self {
        Self { longest, state: State::Busy, awake: Duration::ZERO, crowded: None }
    }

    /// There was a packet.
    pub const fn over(&mut self) {
        self.state = State::Busy;
    }

    /// There was none.
    pub fn then(&mut self, now: Instant) -> Then {
        let (since, last) = match self.state {
            State::Busy => (now, now),
            State::Looking { since, last } => (since, last),
        };
        self.state = State::Looking { since, last: now };
        if now.duration_since(last) > CROWDED {
            self.awake = Duration::ZERO;
            self.crowded = Some(now + LEFT_ALONE);
        }
        if now.duration_since(since) < self.awake { Then::LookAgain } else { Then::Sleep }
    }

    /// It slept from one moment to another, and was woken.
    pub fn woken(&mut self, slept: Range<Instant>) {
        self.state = State::Busy;
        let crowded = self.crowded.is_some_and(|until| slept.end < until);
        let pays = slept.end.duration_since(slept.start) < self.longest && !crowded;
        self.awake = if pays { self.longest } else { Duration::ZERO };
    }
}

/// As long as `haltpoll` has it (`guest_halt_poll_ns`).
pub const LONGEST: Duration = Duration::from_micros(200);
/// Who gives the processor up and has it back after so long has given it to somebody who computes. A thread that
/// sleeps is preferred to such a one when it is woken; one that yields is not.
const CROWDED: Duration = Duration::from_micros(500);
/// Then it is not tried again for so long: each attempt may cost some milliseconds.
const LEFT_ALONE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_woken_soon_stays_awake_next_time_and_one_that_slept_long_does_not() {
        let (mut lull, at) = (Lull::new(us(200)), clock());
        assert_eq!(lull.then(at(0)), Then::Sleep, "nothing is known yet");
        lull.woken(at(0)..at(150));
        assert_eq!(lull.then(at(150)), Then::LookAgain);
        assert_eq!(lull.then(at(349)), Then::LookAgain);
        lull.over();
        assert_eq!(lull.then(at(500)), Then::LookAgain, "there was a packet between");
        assert_eq!(lull.then(at(700)), Then::Sleep);
        lull.woken(at(700)..at(10_000));
        assert_eq!(lull.then(at(10_000)), Then::Sleep);
    }

    #[test]
    fn who_has_to_share_the_processor_sleeps_for_a_long_time() {
        let (mut lull, at) = (Lull::new(us(2_000)), clock());
        lull.woken(at(0)..at(10));
        assert_eq!(lull.then(at(10)), Then::LookAgain);
        assert_eq!(lull.then(at(511)), Then::Sleep, "somebody had the processor");
        lull.woken(at(511)..at(600));
        assert_eq!(lull.then(at(600)), Then::Sleep);
        lull.woken(at(1_000_400)..at(1_000_510));
        assert_eq!(lull.then(at(1_000_510)), Then::Sleep);
        lull.woken(at(1_000_510)..at(1_000_511));
        assert_eq!(lull.then(at(1_000_511)), Then::LookAgain);
    }

    #[test]
    fn who_may_not_stay_awake_never_does() {
        let (mut lull, at) = (Lull::new(Duration::ZERO), clock());
        lull.woken(at(0)..at(1));
        assert_eq!(lull.then(at(1)), Then::Sleep);
    }

    /// Microseconds since some moment.
    fn clock() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |micros| start + us(micros)
    }

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }
}
