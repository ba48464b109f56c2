//! Removes marked pod links, many at once, on a thread of its own.
//!
//! A removal costs the kernel 16 to 24 ms whether it is of one link or of a dozen, and nothing else happens
//! to links meanwhile. So marks are collected until none has come for a moment, and all go together. Flows
//! are forgotten after that, when the pod can make no new ones; the record goes last, and is the lane's.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use russet_kernel::pod::Lane as Kernel;

use super::{Core, Key, lane::ToLane};

/// A marked attachment on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Going {
    pub(super) key: Key,
    pub(super) addresses: Vec<IpAddr>,
    /// Tells it from an earlier one of the same key.
    pub(super) generation: u64,
}

/// Hands work to the reaping thread, which ends with it.
#[derive(Debug)]
pub(super) struct Reaper {
    going: Sender<Going>,
}

impl Reaper {
    /// Starts the thread. The queue holds marked links only, of which a node has as many as pods.
    pub(super) fn start(
        kernel: Kernel,
        core: Arc<dyn Core>,
        lane: SyncSender<ToLane>,
    ) -> io::Result<Self> {
        let (going, queue) = channel();
        let mut thread = Thread { kernel, core, lane };
        thread::Builder::new().name("cni-reap".into()).spawn(move || thread.run(&queue))?;
        Ok(Self { going })
    }

    pub(super) fn take(&self, going: Going) {
        // A thread that is gone leaves marked links and records, and the next start finds both.
        let _ = self.going.send(going);
    }
}

struct Thread {
    kernel: Kernel,
    core: Arc<dyn Core>,
    lane: SyncSender<ToLane>,
}

impl Thread {
    fn run(&mut self, queue: &Receiver<Going>) {
        while let Ok(first) = queue.recv() {
            let going = collect(first, queue);
            if self.remove() == Removed::No {
                continue;
            }
            for one in &going {
                forget(self.core.as_ref(), &one.addresses);
            }
            if self.lane.send(ToLane::Reaped(going)).is_err() {
                return;
            }
        }
    }

    /// Tries a few times. What cannot be removed stays marked, its record stays, and the next removal, or
    /// the next start, takes it along.
    fn remove(&mut self) -> Removed {
        for attempt in 1..=ATTEMPTS {
            match self.kernel.remove_marked() {
                Ok(()) => return Removed::Yes,
                Err(error) => tracing::warn!(%error, attempt, op = "remove pod links"),
            }
            thread::sleep(BETWEEN_ATTEMPTS);
        }
        Removed::No
    }
}

/// Tells the core, and the log when it did not work.
pub(super) fn forget(core: &dyn Core, addresses: &[IpAddr]) {
    if addresses.is_empty() {
        return;
    }
    if let Err(error) = core.forget_flows(addresses) {
        tracing::warn!(?addresses, error, op = "forget flows");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    Yes,
    No,
}

/// Waits until no more come for a moment, or the first has waited long enough.
fn collect(first: Going, queue: &Receiver<Going>) -> Vec<Going> {
    let until = Instant::now() + LONGEST;
    let mut going = vec![first];
    while Instant::now() < until {
        match queue.recv_timeout(QUIET) {
            Ok(next) => going.push(next),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    going
}

const QUIET: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(250);
const ATTEMPTS: u32 = 5;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);
