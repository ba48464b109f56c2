//! Removes marked pod links, many at once, on a thread of its own.
//!
//! A removal costs the kernel 16 to 24 ms whether it is of one link or of a dozen, and nothing else happens
//! to links meanwhile. So marks are collected until none has come for a moment, and all go together. Flows
//! are forgotten after that, when the pod can make no new ones; the record goes last, and is the lane's.

use std::{
    io, mem,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use russet_kernel::pod::Lane as Kernel;

use super::{Core, Key, lane::ToLane, one_line};

/// A marked attachment on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Going {
    pub(super) key: Key,
    pub(super) addresses: Vec<IpAddr>,
    /// Tells it from an earlier one of the same key.
    pub(super) generation: u64,
}

/// Hands work to the reaping thread. Dropping it waits until what was handed over is removed.
#[derive(Debug)]
pub(super) struct Reaper {
    going: Option<Sender<Going>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread. The queue holds marked links only, of which a node has as many as pods.
    pub(super) fn start(
        kernel: Kernel,
        core: Arc<dyn Core>,
        lane: SyncSender<ToLane>,
    ) -> io::Result<Self> {
        let (going, queue) = channel();
        let mut worker = Worker { kernel, core, lane };
        let thread = thread::Builder::new().name("cni-reap".into());
        let thread = thread.spawn(move || worker.run(&queue))?;
        Ok(Self { going: Some(going), thread: Some(thread) })
    }

    pub(super) fn take(&self, going: Going) {
        // A thread that is gone leaves marked links and records, and the next start finds both.
        let _ = self.going.as_ref().map(|queue| queue.send(going));
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.going = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Worker {
    kernel: Kernel,
    core: Arc<dyn Core>,
    lane: SyncSender<ToLane>,
}

impl Worker {
    fn run(&mut self, queue: &Receiver<Going>) {
        let mut going = Vec::new();
        let mut queued = Queued::More;
        while queued == Queued::More {
            queued = collect(&mut going, queue);
            if going.is_empty() || self.remove() == Removed::No {
                continue;
            }
            for one in &going {
                forget(self.core.as_ref(), &one.addresses);
            }
            // A lane that is gone has left a note of each in the spool.
            let _ = self.lane.send(ToLane::Reaped(mem::take(&mut going)));
        }
    }

    /// What cannot be removed stays marked, its record stays, and it is tried again.
    fn remove(&mut self) -> Removed {
        match self.kernel.remove_marked() {
            Ok(()) => Removed::Yes,
            Err(err) => {
                tracing::warn!(error = one_line(&err), op = "remove pod links");
                thread::sleep(BETWEEN_ATTEMPTS);
                Removed::No
            }
        }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    More,
    /// There will be no more.
    Nothing,
}

/// Waits for one, and then until no more come for a moment, or the first has waited long enough.
fn collect(going: &mut Vec<Going>, queue: &Receiver<Going>) -> Queued {
    if going.is_empty() {
        match queue.recv() {
            Ok(first) => going.push(first),
            Err(_) => return Queued::Nothing,
        }
    }
    let until = Instant::now() + LONGEST;
    while Instant::now() < until {
        match queue.recv_timeout(QUIET) {
            Ok(next) => going.push(next),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return Queued::Nothing,
        }
    }
    Queued::More
}

const QUIET: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(250);
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);
