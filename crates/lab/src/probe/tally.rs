//! Counts questions and answers by number. Pure: time comes in as an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// What was asked and what came back.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sent: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    /// Questions without an answer so far, and when they were asked.
    open: BTreeMap<u64, Instant>,
    /// Questions that could not even be asked, so that nobody waits for their answers.
    unasked: BTreeSet<u64>,
    highest: Option<u64>,
    latencies: Vec<Duration>,
    last_answer: Option<Instant>,
    longest_silence: Duration,
    last_error: Option<String>,
}

/// The result of a run, as it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub by: String,
    pub to: String,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// The numbers of what was lost, in runs: `17-23`.
    pub lost_numbers: Vec<String>,
    pub latency: Option<Latency>,
    /// The longest time between two answers, in milliseconds.
    pub longest_silence_ms: u64,
    /// The last error of a socket, where there was one.
    pub error: Option<String>,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub min_us: u64,
    pub median_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Tally {
    pub(crate) fn asked(&mut self, number: u64, now: Instant) {
        self.sent += 1;
        self.open.insert(number, now);
    }

    pub(crate) fn answered(&mut self, number: u64, now: Instant) {
        let Some(asked) = self.open.remove(&number) else {
            // One of ours that had its answer; what we never asked is not ours.
            self.duplicated += u64::from(self.highest.is_some_and(|highest| number <= highest));
            return;
        };
        self.received += 1;
        match self.highest {
            Some(highest) if number < highest => self.reordered += 1,
            _ => self.highest = Some(number),
        }
        if self.latencies.len() < MAX_SAMPLES {
            self.latencies.push(now.duration_since(asked));
        }
        if let Some(last) = self.last_answer.replace(now) {
            self.longest_silence = self.longest_silence.max(now.duration_since(last));
        }
    }

    /// The question could not be asked: it is lost, and no answer is waited for.
    pub(crate) fn unasked(&mut self, number: u64, error: &dyn fmt::Display) {
        self.open.remove(&number);
        self.unasked.insert(number);
        self.failed(error);
    }

    pub(crate) fn failed(&mut self, error: &dyn fmt::Display) {
        self.last_error = Some(error.to_string());
    }

    /// Forgets what was asked before this number: whoever watches from the first answer on has not waited for it.
    pub(crate) fn begin_at(&mut self, number: u64) {
        let before = self.open.len() + self.unasked.len();
        self.open = self.open.split_off(&number);
        self.unasked = self.unasked.split_off(&number);
        let forgotten = before - self.open.len() - self.unasked.len();
        self.sent -= u64::try_from(forgotten).unwrap_or_default();
    }

    /// Whether no answer has come so far.
    pub(crate) fn is_silent(&self) -> bool {
        self.received == 0
    }

    /// Whether every question has its answer.
    pub(crate) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn summary(mut self, by: &str, to: &str) -> Summary {
        self.latencies.sort_unstable();
        let lost: BTreeSet<_> = self.open.keys().chain(&self.unasked).copied().collect();
        Summary {
            by: by.to_owned(),
            to: to.to_owned(),
            sent: self.sent,
            received: self.received,
            lost: self.sent - self.received,
            duplicated: self.duplicated,
            reordered: self.reordered,
            lost_numbers: runs(lost.into_iter()),
            latency: latency(&self.latencies),
            longest_silence_ms: u64::try_from(self.longest_silence.as_millis()).unwrap_or(u64::MAX),
            error: self.last_error,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, to, sent, received, lost, .. } = self;
        write!(f, "{by} {to}: {sent} sent, {received} answered, {lost} lost")?;
        if !self.lost_numbers.is_empty() {
            write!(f, " ({})", self.lost_numbers.join(", "))?;
        }
        write!(f, ", {} doubled, {} overtaken", self.duplicated, self.reordered)?;
        if let Some(latency) = self.latency {
            let ms = |us: u64| format!("{}.{:03}", us / 1_000, us % 1_000);
            let Latency { min_us, median_us, p99_us, .. } = latency;
            write!(
                f,
                "\nlatency in ms: min {}, median {}, p99 {}",
                ms(min_us),
                ms(median_us),
                ms(p99_us)
            )?;
        }
        match &self.error {
            Some(error) => write!(f, "\nlast error: {error}"),
            None => Ok(()),
        }
    }
}

/// Of sorted samples.
fn latency(sorted: &[Duration]) -> Option<Latency> {
    let us = |duration: &Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let at = |percent: usize| sorted.get((sorted.len().saturating_sub(1) * percent) / 100).map(us);
    Some(Latency { min_us: at(0)?, median_us: at(50)?, p99_us: at(99)?, max_us: at(100)? })
}

/// Numbers in ascending order as runs, at most so many.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        let count = runs.len();
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ if count == MAX_RUNS => break,
            _ => runs.push((number, number)),
        }
    }
    runs.into_iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect()
}

/// 16 MB; what comes later is still counted.
const MAX_SAMPLES: usize = 1_000_000;
const MAX_RUNS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_doubles_and_overtaking_are_told_by_number() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tally = Tally::default();
        for number in 0..10 {
            tally.asked(number, at(number * 10));
        }
        for (number, ms) in [(0, 1), (1, 12), (3, 35), (2, 40), (3, 41), (9, 95), (77, 99)] {
            tally.answered(number, at(ms));
        }
        assert!(!tally.is_complete());
        let summary = tally.summary("udp", "x");
        assert_eq!((summary.sent, summary.received, summary.lost), (10, 5, 5));
        assert_eq!((summary.duplicated, summary.reordered), (1, 1));
        assert_eq!(summary.lost_numbers, ["4-8"]);
        assert_eq!(summary.longest_silence_ms, 55);
        let latency = summary.latency.unwrap();
        assert_eq!((latency.min_us, latency.median_us, latency.max_us), (1_000, 5_000, 20_000));
    }

    #[test]
    fn a_question_that_could_not_be_asked_is_lost_and_not_waited_for() {
        let mut tally = Tally::default();
        for number in 0..3 {
            tally.asked(number, Instant::now());
        }
        tally.unasked(1, &"network is unreachable");
        tally.answered(0, Instant::now());
        assert!(!tally.is_complete());
        tally.answered(2, Instant::now());
        assert!(tally.is_complete());
        let summary = tally.summary("udp", "x");
        assert_eq!((summary.lost, summary.lost_numbers), (1, vec!["1".to_owned()]));
        assert_eq!(summary.error.as_deref(), Some("network is unreachable"));
    }

    #[test]
    fn what_was_asked_before_the_first_answer_is_no_loss_to_a_watch() {
        let mut tally = Tally::default();
        let now = Instant::now();
        (0..5).for_each(|number| tally.asked(number, now));
        tally.unasked(1, &"no route");
        tally.begin_at(3);
        tally.answered(3, now);
        let summary = tally.summary("icmp", "x");
        assert_eq!((summary.sent, summary.received, summary.lost), (2, 1, 1));
        assert_eq!(summary.lost_numbers, ["4"]);
    }

    #[test]
    fn without_an_answer_there_is_no_latency() {
        let mut tally = Tally::default();
        tally.asked(0, Instant::now());
        let summary = tally.summary("icmp", "x");
        assert_eq!((summary.lost, summary.latency), (1, None));
    }
}
