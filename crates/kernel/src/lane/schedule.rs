//! When the lane acts: pure, `now` is an argument.
//!
//! A wish is fulfilled at once. Events come in bursts (a flush, a flapping link), so after one the lane
//! waits for a moment of quiet, but never long. What was refused is tried again with a growing pause, and
//! everything is read back on its own deadline.

use std::time::{Duration, Instant};

use russet_desired::Flag;

/// The lane's deadlines.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    sweep_every: Duration,
    sweep_at: Instant,
    apply_at: Option<Instant>,
    /// When the first event of the burst came.
    burst_since: Option<Instant>,
    retry_at: Option<Instant>,
    pause: Duration,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Apply,
    Retry,
    Sweep,
}

impl Schedule {
    pub(super) fn new(sweep_every: Duration, now: Instant) -> Self {
        Self {
            sweep_every,
            sweep_at: now + sweep_every,
            apply_at: None,
            burst_since: None,
            retry_at: None,
            pause: RETRY_MIN,
        }
    }

    /// A wish came.
    pub(super) fn wish(&mut self, now: Instant) {
        self.apply_at = Some(now);
    }

    /// An event came that leaves something to do.
    pub(super) fn event(&mut self, now: Instant) {
        let latest = *self.burst_since.get_or_insert(now) + BURST;
        let quiet = (now + QUIET).min(latest);
        // A wish that waits already is not put off.
        let wished = self.apply_at.filter(|at| *at <= now);
        self.apply_at = Some(wished.unwrap_or(quiet));
    }

    /// What is due now. A sweep and a retry begin their next period by being told.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        if self.sweep_at <= now {
            self.sweep_at = now + self.sweep_every;
            return Due::Sweep;
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            return Due::Retry;
        }
        match self.apply_at {
            Some(at) if at <= now => Due::Apply,
            _ => Due::Nothing,
        }
    }

    /// Everything that could be done has been.
    pub(super) fn applied(&mut self, outcome: Outcome, now: Instant) {
        self.apply_at = None;
        self.burst_since = None;
        match outcome {
            Outcome::Clean => {
                self.retry_at = None;
                self.pause = RETRY_MIN;
            }
            // A wish or an event in between does not put the next try off.
            Outcome::Left if self.retry_at.is_some() => {}
            Outcome::Left => {
                self.retry_at = Some(now + self.pause);
                self.pause = (self.pause * 2).min(RETRY_MAX);
            }
        }
    }

    /// How long there is nothing to do.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        let next = [self.apply_at, self.retry_at].into_iter().flatten().min();
        let next = next.map_or(self.sweep_at, |at| at.min(self.sweep_at));
        next.saturating_duration_since(now)
    }
}

/// How long events wait in their socket behind some that were nothing to us: others may change their routes a thousand times
/// a second. It is longer each time that goes on, so that what is ours waits hardly at all behind a few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lull(Duration);

impl Lull {
    pub(super) const fn new() -> Self {
        Self(LULL_MIN)
    }

    /// After events were read: none waits where there were none, or some that leave something to do.
    pub(super) fn after(&mut self, were_nothing: Flag) -> Option<Duration> {
        if !were_nothing.is_on() {
            self.0 = LULL_MIN;
            return None;
        }
        let lull = self.0;
        self.0 = (lull * 2).min(LULL_MAX);
        Some(lull)
    }
}

/// Whether something is left to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Clean,
    Left,
}

const QUIET: Duration = Duration::from_millis(3);
const BURST: Duration = Duration::from_millis(50);
const LULL_MIN: Duration = Duration::from_millis(1);
const LULL_MAX: Duration = Duration::from_millis(10);
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_wish_is_due_at_once_and_an_event_after_a_moment_of_quiet() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::from_mins(1), start);
        schedule.event(start);
        assert_eq!(schedule.due(start), Due::Nothing);
        assert_eq!(schedule.idle(start), QUIET);
        assert_eq!(schedule.due(start + QUIET), Due::Apply);

        schedule.wish(start);
        schedule.event(start);
        assert_eq!(schedule.due(start), Due::Apply);
    }

    #[test]
    fn a_burst_of_events_puts_the_repair_off_by_50_ms_at_most() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::from_mins(1), start);
        let due_after = (0..1_000).find(|n| {
            schedule.event(start + MS * *n);
            schedule.due(start + MS * *n) == Due::Apply
        });
        assert_eq!(due_after, Some(50));
    }

    #[test]
    fn events_wait_ever_longer_while_they_are_nothing_to_us_and_not_at_all_when_they_are() {
        let mut lull = Lull::new();
        let mut waits = |n| (0..n).map(|_| lull.after(Flag::On).unwrap()).collect::<Vec<_>>();
        assert_eq!(waits(6), [MS, MS * 2, MS * 4, MS * 8, MS * 10, MS * 10]);
        assert_eq!(lull.after(Flag::Off), None);
        assert_eq!(lull.after(Flag::On), Some(MS));
    }

    #[test]
    fn what_is_refused_is_tried_again_with_a_growing_pause() {
        let start = Instant::now();
        let mut now = start;
        let mut schedule = Schedule::new(Duration::from_hours(1), start);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            schedule.applied(Outcome::Left, now);
            pauses.push(schedule.idle(now).as_millis());
            now += schedule.idle(now);
            assert_eq!(schedule.due(now), Due::Retry);
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);

        schedule.applied(Outcome::Clean, now);
        assert_eq!(schedule.due(now + Duration::from_mins(5)), Due::Nothing);
    }

    #[test]
    fn everything_is_read_back_on_its_own_deadline() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Duration::from_mins(1), start);
        let late = start + Duration::from_mins(1);
        assert_eq!(schedule.due(late), Due::Sweep);
        assert_eq!(schedule.due(late), Due::Nothing);
        assert_eq!(schedule.idle(late), Duration::from_mins(1));
    }
}
