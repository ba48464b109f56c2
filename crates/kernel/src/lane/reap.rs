//! The reap lane: removes links without anybody waiting for it.
//!
//! The kernel needs 16 to 24 ms for a link, most of it waiting, and a hundred in one message take hardly
//! longer than one. So what is to go is marked (moved into a link group of its own) and the group removed.
//! Whoever marks a link itself only wakes the lane.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use russet_desired::Flag;
use russet_net::IfName;

use crate::{KernelError, netlink::NetlinkError, pod};

/// A thread that removes links. It ends, after what it was told, when dropped.
#[derive(Debug)]
pub struct ReapLane {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    bell: Condvar,
}

#[derive(Debug)]
struct Work {
    names: Vec<IfName>,
    wake: Flag,
    stop: Flag,
}

impl Default for Work {
    /// The first round removes what a predecessor marked.
    fn default() -> Self {
        Self { names: Vec::new(), wake: Flag::On, stop: Flag::Off }
    }
}

/// There are as many links waiting to be removed as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WAITING} links wait to be removed")]
pub struct ReapFull;

impl ReapLane {
    /// Starts the thread in the caller's network namespace. Links that a predecessor marked go at once.
    ///
    /// # Errors
    ///
    /// When there is no socket or no thread to be had.
    pub fn start() -> Result<Self, KernelError> {
        let lane = pod::Lane::open()?;
        let shared = Arc::new(Shared::default());
        let inside = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("reap".to_owned())
            .spawn(move || run(lane, &inside))
            .map_err(NetlinkError::from)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Removes a pod's link some time soon.
    ///
    /// # Errors
    ///
    /// When too many wait already.
    pub fn remove(&self, name: IfName) -> Result<(), ReapFull> {
        let mut work = self.shared.lock();
        if work.names.len() >= MAX_WAITING {
            return Err(ReapFull);
        }
        work.names.push(name);
        self.shared.bell.notify_one();
        Ok(())
    }

    /// Removes what somebody marked.
    pub fn wake(&self) {
        self.shared.lock().wake = Flag::On;
        self.shared.bell.notify_one();
    }
}

impl Drop for ReapLane {
    fn drop(&mut self) {
        self.shared.lock().stop = Flag::On;
        self.shared.bell.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the reap lane panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work; `None` when there is none left and none to come.
    fn next(&self) -> Option<Vec<IfName>> {
        let mut work = self.lock();
        loop {
            if !work.names.is_empty() || work.wake.is_on() {
                work.wake = Flag::Off;
                return Some(mem::take(&mut work.names));
            }
            if work.stop.is_on() {
                return None;
            }
            work = self.bell.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run(mut lane: pod::Lane, shared: &Shared) {
    while let Some(names) = shared.next() {
        for name in names {
            if let Err(error) = lane.mark(name) {
                tracing::warn!(ifname = %name, %error, "link not marked for removal");
            }
        }
        if let Err(error) = lane.remove_marked() {
            tracing::warn!(%error, "marked links not removed");
        }
    }
}

const MAX_WAITING: usize = 4_096;
