//! What is to be looked at, and when. Pure, `now` is an argument.
//!
//! One look is wanted at a time: what events ask for is due at once, and what failed is due a while later. Others' routes
//! have their own [`Pace`] beside it.

use std::time::{Duration, Instant};

use super::pace::Pace;

/// What must be looked at again; each includes the ones before, but for routes, which are looked at with the first and
/// the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Addresses,
    /// Others' routes too, as events told of them.
    Routes,
    Everything,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Agenda {
    /// Since or from when on.
    wanted: Option<(What, Instant)>,
    /// When others' routes are told.
    pace: Pace,
}

impl Agenda {
    /// Everything, at once.
    pub(super) const fn new(now: Instant) -> Self {
        Self { wanted: Some((What::Everything, now)), pace: Pace::new() }
    }

    /// Something is to be looked at. It comes with what is wanted already, where that is more.
    pub(super) fn want(&mut self, what: What, now: Instant) {
        self.wanted = self.wanted.max(Some((what, now)));
    }

    /// Others' routes have changed.
    pub(super) fn routes_changed(&mut self, now: Instant) {
        self.pace.changed(now);
    }

    /// When something is due; `None` while nothing is wanted. What has failed goes before the pace: whoever asks the
    /// kernel for less is refused like it, and would be at once again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.wanted.map(|(_, at)| at).or_else(|| self.pace.due())
    }

    /// What is to be looked at now, where `routes` is what others' routes ask for.
    pub(super) fn due(&self, routes: What, now: Instant) -> Option<What> {
        if self.next().is_none_or(|at| at > now) {
            return None;
        }
        let is_due = self.pace.due().is_some_and(|at| at <= now);
        self.wanted.map(|(what, _)| what).max(is_due.then_some(routes))
    }

    /// What was due has been looked at.
    pub(super) fn looked(&mut self, what: What, now: Instant) {
        self.wanted = None;
        if what != What::Addresses {
            self.pace.told(now);
        }
    }

    /// Nobody knows how far the look came.
    pub(super) fn failed(&mut self, now: Instant) {
        self.wanted = Some((What::Everything, now + RETRY));
    }
}

const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_fails_is_tried_once_a_second_while_routes_keep_changing() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        let mut looks = Vec::new();
        for ms in 0..3_000 {
            let now = start + Duration::from_millis(ms);
            agenda.routes_changed(now);
            if let Some(what) = agenda.due(What::Routes, now) {
                looks.push((ms, what));
                agenda.failed(now);
            }
            assert!(agenda.next().is_some_and(|at| at > now), "it would be awake all the time");
        }
        assert_eq!(looks, [0, 1_000, 2_000].map(|ms| (ms, What::Everything)));
    }

    #[test]
    fn what_failed_is_made_good_by_a_look_at_everything_and_by_no_less() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        agenda.failed(start);
        agenda.routes_changed(start);
        agenda.want(What::Addresses, start);
        assert_eq!(agenda.due(What::Routes, start), None);
        let later = start + RETRY;
        assert_eq!(agenda.due(What::Routes, later), Some(What::Everything));
        agenda.looked(What::Everything, later);
        assert_eq!((agenda.next(), agenda.due(What::Routes, later)), (None, None));
    }

    #[test]
    fn what_is_due_together_is_one_look() {
        let start = Instant::now();
        let mut agenda = Agenda::new(start);
        agenda.looked(What::Everything, start);
        agenda.want(What::Addresses, start);
        assert_eq!(agenda.due(What::Everything, start), Some(What::Addresses));
        agenda.looked(What::Addresses, start);
        agenda.routes_changed(start);
        let at = agenda.next().unwrap();
        assert_eq!(agenda.due(What::Everything, at), Some(What::Everything));
        agenda.want(What::Addresses, at);
        assert_eq!(agenda.due(What::Routes, at), Some(What::Routes));
    }
}
