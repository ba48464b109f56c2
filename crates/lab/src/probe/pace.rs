//! The loop: asks at a steady pace, hears answers, ends when it is time.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::tally::Tally;

/// Something that carries numbered questions and answers.
pub(crate) trait Wire {
    /// Asks. An error is one question lost, not the end.
    fn ask(&mut self, number: u64) -> io::Result<()>;
    /// An answer that has come, without waiting.
    fn answer(&mut self) -> io::Result<Option<u64>>;
    /// What becomes readable when an answer has come; none when `ask` waits for it.
    fn waits_on(&self) -> Option<BorrowedFd<'_>>;
}

/// How a run goes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Without end when there is none.
    pub(crate) count: Option<u64>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) input: Input,
}

/// What standard input means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Ignored,
    /// The run ends when it closes.
    EndsIt,
}

/// Runs to the count, to an interrupt or to the end of input, then waits for what is still open.
pub(crate) fn run(wire: &mut dyn Wire, plan: &Plan) -> Result<Tally> {
    let mut run = Run {
        wire,
        plan,
        tally: Tally::default(),
        interrupted: interrupts()?,
        asked: 0,
        next: Instant::now(),
        ended: None,
    };
    while let Some(until) = run.until() {
        run.wait(until)?;
        run.hear();
        run.ask_when_due();
        // A wire that waits within its question has the answer already.
        run.hear();
    }
    Ok(run.tally)
}

struct Run<'a> {
    wire: &'a mut dyn Wire,
    plan: &'a Plan,
    tally: Tally,
    interrupted: Arc<AtomicBool>,
    asked: u64,
    next: Instant,
    /// When the last question was asked.
    ended: Option<Instant>,
}

impl Run<'_> {
    /// Until when to wait for an event; `None` at the end.
    fn until(&mut self) -> Option<Instant> {
        let counted = self.plan.count.is_some_and(|count| self.asked >= count);
        if (counted || self.interrupted.load(Ordering::Relaxed)) && self.ended.is_none() {
            self.ended = Some(Instant::now());
        }
        match self.ended {
            None => Some(self.next),
            Some(_) if self.tally.is_complete() => None,
            Some(at) => {
                let until = at + self.plan.timeout;
                (Instant::now() < until).then_some(until)
            }
        }
    }

    fn wait(&mut self, until: Instant) -> Result<()> {
        let stdin = io::stdin();
        let reads_input = self.plan.input == Input::EndsIt && self.ended.is_none();
        let mut waits = Vec::new();
        if reads_input {
            waits.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
        }
        if let Some(fd) = self.wire.waits_on() {
            waits.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now()))?;
        match poll(&mut waits, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err).context("wait for an answer"),
        }
        let input_came = reads_input && waits.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(waits);
        if input_came && stdin.lock().read(&mut [0; 256])? == 0 {
            self.ended = Some(Instant::now());
        }
        Ok(())
    }

    fn hear(&mut self) {
        // Bounded, so that a flood of answers does not hold up the questions.
        for _ in 0..MAX_ANSWERS {
            match self.wire.answer() {
                Ok(Some(number)) => self.answered(number),
                Ok(None) => return,
                Err(err) => return self.tally.failed(&err),
            }
        }
    }

    fn answered(&mut self, number: u64) {
        if self.tally.is_silent() && self.plan.input == Input::EndsIt {
            // Whoever holds our input waits for this: from here on, each loss is a loss.
            self.tally.begin_at(number);
            eprintln!("first answer");
        }
        self.tally.answered(number, Instant::now());
    }

    fn ask_when_due(&mut self) {
        let now = Instant::now();
        if self.ended.is_some() || now < self.next {
            return;
        }
        self.tally.asked(self.asked, now);
        if let Err(err) = self.wire.ask(self.asked) {
            self.tally.unasked(self.asked, &err);
        }
        self.asked += 1;
        // After a stall the pace goes on from here; a burst would measure itself.
        self.next = (self.next + self.plan.interval).max(now);
    }
}

/// Set by SIGINT and SIGTERM.
fn interrupts() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("listen for signals")?;
    }
    Ok(flag)
}

/// A question or answer on the wire: a token that tells our run from others, and the number, big endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    token: u64,
}

impl Mark {
    pub(crate) const LEN: usize = 16;

    /// Of this run: what differs between any two on the same machine.
    pub(crate) fn of_this_run() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = u64::from(since.unwrap_or_default().subsec_nanos());
        Self { token: (u64::from(std::process::id()) << 32) | nanos }
    }

    pub(crate) fn write(self, number: u64) -> [u8; Self::LEN] {
        let both = (u128::from(self.token) << 64) | u128::from(number);
        both.to_be_bytes()
    }

    /// The number, when the octets begin with our token.
    pub(crate) fn read(self, octets: &[u8]) -> Option<u64> {
        let both = u128::from_be_bytes(*octets.first_chunk::<{ Self::LEN }>()?);
        let token = u64::try_from(both >> 64).ok()?;
        (token == self.token)
            .then(|| u64::try_from(both & u128::from(u64::MAX)).unwrap_or_default())
    }
}

const MAX_ANSWERS: usize = 256;
