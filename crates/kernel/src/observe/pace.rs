//! How often a table that keeps changing is told: at once after a while of quiet, else ever less often. Pure, `now` is an
//! argument.
//!
//! To tell of a table costs what it is long, and few go by it; so others may change theirs a thousand times a second.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    told: Option<Instant>,
    pause: Duration,
    due: Option<Instant>,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { told: None, pause: SHORTEST, due: None }
    }

    /// Something has changed.
    pub(super) fn changed(&mut self, now: Instant) {
        let earliest = self.told.map_or(now, |told| told + self.pause);
        self.due.get_or_insert(earliest.max(now));
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// All has been told.
    pub(super) fn told(&mut self, now: Instant) {
        let is_again = self.told.is_some_and(|told| now < told + self.pause * 2);
        self.pause = if is_again { (self.pause * 2).min(LONGEST) } else { SHORTEST };
        self.told = Some(now);
        self.due = None;
    }
}

const SHORTEST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_due_at_once_and_a_thousand_a_second_every_ten_seconds() {
        let start = Instant::now();
        let mut pace = Pace::new();
        let mut told = Vec::new();
        for ms in 0..60_000 {
            let now = start + Duration::from_millis(ms);
            pace.changed(now);
            if pace.due().is_some_and(|due| due <= now) {
                told.push(ms);
                pace.told(now);
            }
        }
        assert_eq!(told[..4], [0, 20, 60, 140]);
        assert!(told.len() <= 14, "{told:?}");
        assert_eq!(told[told.len() - 1] - told[told.len() - 2], 10_000);

        pace.told(start + Duration::from_mins(2));
        let late = start + Duration::from_mins(5);
        pace.changed(late);
        assert_eq!(pace.due(), Some(late));
    }
}
