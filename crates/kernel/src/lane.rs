//! The reconcile lane: one thread that owns every driver of a network namespace.
//!
//! ```text
//!   patches, complete, resync ──▶ mailbox (merges) ──┐
//!   links, addresses, routes, … ──▶ monitor ─────────┼──▶ lane thread ══▶ kernel
//!   nftables ──────────────────▶ its monitor ────────┤        │
//!   an engine goes ────────────▶ its connection ─────┘        │
//!                                                              └──▶ report
//! ```
//!
//! It sleeps until one of them is readable or a deadline is there (`schedule`). Wishes are fulfilled at
//! once; events are compared with what we hold, so one that does not concern us costs nothing, and are
//! repaired after a moment of quiet. After an overrun everything is read back. Nothing is removed when the
//! lane ends: forwarding does not depend on it.
//!
//! `mailbox` holds the wishes, `report` is what the lane tells, `reap` is the lane that removes pods' links.

mod mailbox;
mod reap;
mod report;
mod schedule;

use std::{
    fmt,
    os::fd::AsFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use russet_desired::Patches;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

pub use self::{
    mailbox::Generation,
    reap::{ReapFull, ReapLane},
    report::{Counters, MAX_REPAIRS, Report},
};
use self::{
    mailbox::{Complete, Mailbox, Resync, Stop},
    schedule::{Due, Lull, Outcome, Schedule},
};
use crate::{
    KernelError,
    engine::EnginePlaces,
    monitor::{Authors, Drained, Monitor},
    netlink::{NetlinkError, ReceiveBuffer},
    nft,
    reconcile::{News, Path, Reconcilers},
};

/// How a lane behaves.
#[derive(Clone, Debug)]
pub struct LaneSettings {
    /// How often everything is read back although no event asks for it.
    pub sweep_every: Duration,
    /// How much the kernel may queue of events.
    pub event_buffer: ReceiveBuffer,
    /// Where engines are; without, none can be kept.
    pub engines: Option<EnginePlaces>,
}

impl Default for LaneSettings {
    fn default() -> Self {
        Self {
            sweep_every: Duration::from_mins(2),
            event_buffer: ReceiveBuffer::default(),
            engines: None,
        }
    }
}

/// A running lane. It ends, without removing anything, when dropped.
#[derive(Debug)]
pub struct ReconcileLane {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl ReconcileLane {
    /// Starts the thread in the caller's network namespace. `report` is called on it after every round.
    ///
    /// # Errors
    ///
    /// When there is no socket or no thread to be had.
    pub fn start(
        settings: LaneSettings,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Result<Self, KernelError> {
        let mailbox = Arc::new(Mailbox::new()?);
        let lane = Lane::open(settings, Arc::clone(&mailbox), Box::new(report))?;
        let thread = thread::Builder::new()
            .name("reconcile".to_owned())
            .spawn(move || lane.run())
            .map_err(NetlinkError::from)?;
        Ok(Self { mailbox, thread: Some(thread) })
    }

    /// Hands over newer wishes. A report tells when this generation is in the kernel.
    pub fn patch(&self, patches: Patches) -> Generation {
        self.mailbox.patch(patches)
    }

    /// Says that every wish has been told, so what is ours and unwished may go. What was patched before is
    /// counted in.
    pub fn complete(&self) {
        self.mailbox.post(|mail| mail.complete = Some(Complete));
    }

    /// Has everything read back.
    pub fn resync(&self) {
        self.mailbox.post(|mail| mail.resync = Some(Resync));
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for ReconcileLane {
    fn drop(&mut self) {
        self.mailbox.post(|mail| mail.stop = Some(Stop));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the reconcile lane panicked");
        }
    }
}

/// What the thread owns.
struct Lane {
    mailbox: Arc<Mailbox>,
    all: Reconcilers,
    monitor: Monitor,
    rules: nft::Monitor,
    authors: Authors,
    schedule: Schedule,
    /// Kernel events wait in their socket until then, and are read together: the last ones were nothing to us.
    listen_at: Option<Instant>,
    lull: Lull,
    generation: Generation,
    counters: Counters,
    report: Box<dyn FnMut(Report) + Send>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Whether the lane goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Goes,
    Ends,
}

impl Lane {
    fn open(
        settings: LaneSettings,
        mailbox: Arc<Mailbox>,
        report: Box<dyn FnMut(Report) + Send>,
    ) -> Result<Self, KernelError> {
        let all = Reconcilers::with_engines(settings.engines)?;
        // Before anything is listed, so that nothing falls between listing and listening.
        let monitor = Monitor::open(all.host().port()?)?;
        monitor.set_receive_buffer(settings.event_buffer);
        let rules = all.rules().monitor()?;
        Ok(Self {
            mailbox,
            all,
            monitor,
            rules,
            authors: Authors::default(),
            schedule: Schedule::new(settings.sweep_every, Instant::now()),
            listen_at: None,
            lull: Lull::new(),
            generation: Generation::default(),
            counters: Counters::default(),
            report,
        })
    }

    fn run(mut self) {
        while self.take_mail() == Life::Goes {
            self.take_events();
            self.act();
            if let Err(errno) = self.sleep() {
                tracing::error!(error = %errno, "the reconcile lane cannot wait for its sockets");
                thread::sleep(POLL_FAILED_PAUSE);
            }
        }
    }

    fn take_mail(&mut self) -> Life {
        let Some(mail) = self.mailbox.take() else { return Life::Goes };
        if mail.stops().is_on() {
            return Life::Ends;
        }
        if !mail.is_empty() || mail.generation != self.generation {
            self.schedule.wish(Instant::now());
        }
        self.generation = mail.generation;
        self.all.update(mail.patches);
        if mail.resync.is_some() {
            self.all.mark_stale(Path::Sweep);
        }
        if mail.complete.is_some() {
            self.all.complete();
        }
        Life::Goes
    }

    fn take_events(&mut self) {
        let now = Instant::now();
        self.authors.forget();
        let before = self.counters.events;
        let Self { monitor, all, authors, counters, .. } = self;
        let drained = monitor.drain(|message| {
            counters.events += 1;
            all.observe(&message, &mut || authors.of(message.port), now);
        });
        match drained {
            Ok(Drained::Empty | Drained::More) => {}
            Ok(Drained::Lost) => {
                self.counters.overruns += 1;
                tracing::info!("kernel events lost; reading everything back");
                self.all.mark_stale(Path::Event);
            }
            Err(error) => {
                tracing::warn!(%error, "kernel events cannot be read; reading everything back");
                self.all.mark_stale(Path::Event);
            }
        }
        match self.rules.drain() {
            Ok(false) => {}
            Ok(true) => {
                let by = self.rules.take_culprit().and_then(|port| self.authors.of(port));
                self.all.blame_for_rules(by);
                self.all.mark_rules_stale(Path::Event);
            }
            Err(error) => {
                tracing::warn!(%error, "nftables events cannot be read; reading the tables back");
                self.all.mark_rules_stale(Path::Event);
            }
        }
        self.all.observe_engines();
        let pending = self.all.is_pending();
        if pending {
            self.schedule.event(now);
        }
        let was_nothing = self.counters.events != before && !pending;
        self.listen_at = self.lull.after(was_nothing.into()).map(|lull| now + lull);
    }

    fn act(&mut self) {
        let now = Instant::now();
        match self.schedule.due(now) {
            Due::Nothing => return,
            Due::Apply => {}
            Due::Retry => self.all.retry(),
            Due::Sweep => {
                self.all.retry();
                self.all.mark_stale(Path::Sweep);
            }
        }
        let result = self.all.apply(now);
        self.counters.last_round = now.elapsed();
        self.close(result.err());
    }

    /// Counts and tells how a round ended, and sets the deadlines anew.
    fn close(&mut self, error: Option<KernelError>) {
        let mut news = self.all.take_news();
        self.count(&news);
        keep_few_repairs(&mut news);
        if let Some(error) = &error {
            tracing::warn!(%error, "the kernel cannot be read back");
        }
        let left = error.is_some() || self.counters.refused > 0;
        let outcome = if left { Outcome::Left } else { Outcome::Clean };
        self.schedule.applied(outcome, Instant::now());
        let (generation, counters) = (self.generation, self.counters);
        let drops = self.all.rules().nft().dropping_chains();
        (self.report)(Report { generation, news, error, drops, counters });
    }

    fn count(&mut self, news: &[News<russet_desired::Key>]) {
        let sent = self.all.host().sent();
        let counters = &mut self.counters;
        counters.rounds += 1;
        counters.messages = sent.messages;
        counters.datagrams = sent.datagrams;
        counters.resyncs = self.all.resyncs();
        counters.refused = self.all.refused();
        for item in news {
            match item {
                News::Repaired(_, drift) => match drift.path {
                    Path::Event | Path::Link => counters.repairs_by_event += 1,
                    Path::Sweep | Path::Own => counters.repairs_by_sweep += 1,
                },
                News::Failed(..) | News::Cleared(_) => {}
            }
        }
    }

    /// Waits until there is mail, an event, or something is due.
    fn sleep(&self) -> Result<(), Errno> {
        let now = Instant::now();
        let listen_in = self.listen_at.map(|at| at.saturating_duration_since(now));
        let idle = self.schedule.idle(now);
        let idle = listen_in.map_or(idle, |lull| lull.min(idle));
        let timeout = Timespec::try_from(idle).map_err(|_| Errno::INVAL)?;
        let mailbox = self.mailbox.as_fd();
        let monitor = self.monitor.as_fd();
        let rules = self.rules.as_fd();
        let engines = self.all.host().engines.watch();
        let mut fds = [mailbox, rules, engines, monitor]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let heard = if listen_in.is_some() { fds.len() - 1 } else { fds.len() };
        match poll(&mut fds[..heard], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// A flush of a large table is thousands of repairs, which a few stand for.
fn keep_few_repairs(news: &mut Vec<News<russet_desired::Key>>) {
    let mut repairs = 0;
    news.retain(|item| {
        repairs += usize::from(matches!(item, News::Repaired(..)));
        !matches!(item, News::Repaired(..)) || repairs <= MAX_REPAIRS
    });
}

const POLL_FAILED_PAUSE: Duration = Duration::from_secs(1);
