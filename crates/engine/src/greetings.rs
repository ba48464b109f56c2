//! Whom an engine that began with nothing has still to greet, and how fast: thousands of handshakes at once would hold
//! up this node's threads, and their answers the socket's buffer. Without I/O; `control` has the clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Those who wait for a greeting.
#[derive(Debug)]
pub struct Greetings<T> {
    waiting: VecDeque<T>,
    /// When the next ones may go out.
    due: Option<Instant>,
}

impl<T> Default for Greetings<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), due: None }
    }
}

impl<T> Greetings<T> {
    /// Takes whom to greet in the place of those who wait.
    pub fn put(&mut self, all: impl IntoIterator<Item = T>) {
        self.waiting = all.into_iter().collect();
    }

    /// Greets those whose turn it is. `greet` tells whether anything was sent, and what was not costs nothing.
    pub fn go_on(&mut self, now: Instant, mut greet: impl FnMut(T) -> bool) {
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        let mut sent = 0;
        while sent < AT_A_TIME
            && let Some(one) = self.waiting.pop_front()
        {
            sent += usize::from(greet(one));
        }
        self.due = (sent > 0).then(|| now + PAUSE);
    }

    /// How long until it goes on; `None` when nobody waits.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        let due = self.due.unwrap_or(now);
        (!self.waiting.is_empty()).then(|| due.saturating_duration_since(now))
    }
}

/// 5,000 peers are greeted within ten seconds: after 15 they would do it themselves.
const AT_A_TIME: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_greeted_a_few_at_a_time_and_then_nothing_is_waited_for() {
        let start = Instant::now();
        let mut greetings = Greetings::default();
        assert_eq!(greetings.time_left(start), None);
        greetings.put(0..5_000);
        let (mut now, mut greeted) = (start, Vec::new());
        while let Some(left) = greetings.time_left(now) {
            now += left;
            let before = greeted.len();
            greetings.go_on(now, |one| {
                greeted.push(one);
                true
            });
            assert!(greeted.len() - before <= AT_A_TIME);
            // Whatever else happens meanwhile brings nobody's turn forward.
            greetings.go_on(now, |_| panic!("too soon"));
        }
        assert_eq!(greeted, (0..5_000).collect::<Vec<_>>());
        assert!(now - start <= Duration::from_secs(10));
    }

    #[test]
    fn a_few_are_greeted_at_once_and_whoever_needs_none_takes_no_place() {
        let start = Instant::now();
        let mut greetings = Greetings::default();
        greetings.put(0..1_000);
        let mut greeted = 0;
        greetings.go_on(start, |one| {
            let is_new = one >= 960;
            greeted += usize::from(is_new);
            is_new
        });
        assert_eq!((greeted, greetings.time_left(start)), (40, None));
    }
}
