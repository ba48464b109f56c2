//! What the threads of one engine have in common: descriptors, tables, counters, and the word to stop.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use russet_kernel::{
    engine::{EngineEnd, EngineSpec},
    tun::{Offload, Tun},
};
use russet_net::Family;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
};

use crate::{
    clock::Waker, counters::Counters, outbox::Length, passage::Passage, table::Tables,
    tunnel::Vault,
};

/// What an engine holds of the kernel. It outlives the process when it is handed over.
#[derive(Debug)]
pub struct Holdings {
    pub tuns: Vec<Tun>,
    pub v4: Vec<OwnedFd>,
    pub v6: Vec<OwnedFd>,
    /// Keeps the device's carrier. Whoever manages us has a copy, so that the carrier outlives us too.
    pub anchor: Tun,
    pub offload: Offload,
}

/// How many packets are moved at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    #[default]
    Batches,
    /// Without any offload: for comparison.
    OneByOne,
}

/// The directions that are served: while a process takes another's place, each serves one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    Both,
    /// From the peers to the device.
    In,
    /// From the device to the peers.
    Out,
}

/// What every thread sees.
#[derive(Debug)]
pub struct Shared {
    pub holdings: Holdings,
    pub spec: EngineSpec,
    pub pace: Pace,
    pub length: Length,
    pub tables: Arc<Tables>,
    pub counters: Arc<Counters>,
    /// Where packets are sealed.
    pub vault: Option<Arc<Vault>>,
    /// To the engine whose place this one takes: what is sealed for it.
    pub passage: Option<Arc<Passage>>,
    pub waker: Waker,
    pub halt: Halt,
}

impl Shared {
    pub const fn end(&self, family: Family) -> Option<EngineEnd> {
        match family {
            Family::V4 => self.spec.v4,
            Family::V6 => self.spec.v6,
        }
    }

    /// The socket of a family that a thread sends by.
    pub fn socket(&self, family: Family, thread: usize) -> Option<BorrowedFd<'_>> {
        let sockets = match family {
            Family::V4 => &self.holdings.v4,
            Family::V6 => &self.holdings.v6,
        };
        sockets.get(thread).map(OwnedFd::as_fd)
    }

    /// All sockets that a thread sends and receives by.
    pub fn sockets(&self, thread: usize) -> impl Iterator<Item = (Family, BorrowedFd<'_>)> {
        let of = move |family| Some((family, self.socket(family, thread)?));
        Family::BOTH.into_iter().filter_map(of)
    }

    /// Sleeps until a thread has something to read, or it is time to end.
    pub fn wait_for_packets(&self, thread: usize, ways: Ways) -> Life {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let bell = || readable(self.halt.bell());
        // What is not there is the bell once more.
        let mut fds = [bell(), bell(), bell(), bell()];
        let tun = self.holdings.tuns.get(thread).filter(|_| ways != Ways::In).map(Tun::as_fd);
        let sockets = self.sockets(thread).filter(|_| ways != Ways::Out);
        let there = tun.into_iter().chain(sockets.map(|(_, socket)| socket));
        for (place, fd) in fds.iter_mut().zip(there) {
            *place = readable(fd);
        }
        self.halt.sleep(&mut fds)
    }
}

/// The word to stop, and the word that something failed.
#[derive(Debug)]
pub struct Halt {
    stop: AtomicBool,
    bell: OwnedFd,
    failed: AtomicBool,
    alarm: OwnedFd,
}

/// Whether a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Goes,
    Ends,
}

impl Halt {
    /// # Errors
    ///
    /// When no descriptor is to be had.
    pub fn new() -> std::io::Result<Self> {
        let bell = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            stop: AtomicBool::new(false),
            bell: bell()?,
            failed: AtomicBool::new(false),
            alarm: bell()?,
        })
    }

    /// Has every thread end after its present batch.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        ring(&self.bell);
    }

    /// Lets threads begin again, now that those before have ended.
    pub fn renew(&self) {
        self.stop.store(false, Ordering::Release);
        // Nothing to read means that nobody rang.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    pub fn life(&self) -> Life {
        if self.stop.load(Ordering::Acquire) { Life::Ends } else { Life::Goes }
    }

    /// Readable once it is time to end.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Says that the engine cannot go on: its device is gone.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        ring(&self.alarm);
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Readable once something failed.
    pub fn alarm(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }

    /// Sleeps until `fd` is ready or it is time to end. No clock is set, so an idle engine never wakes.
    pub fn wait(&self, fd: BorrowedFd<'_>, flags: PollFlags) -> Life {
        self.sleep(&mut [
            PollFd::from_borrowed_fd(fd, flags),
            PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN),
        ])
    }

    fn sleep(&self, fds: &mut [PollFd<'_>]) -> Life {
        match poll(fds, None) {
            Ok(_) | Err(Errno::INTR) => self.life(),
            Err(error) => {
                tracing::error!(op = "wait for packets", %error, "the engine cannot go on");
                self.fail();
                Life::Ends
            }
        }
    }
}

fn ring(bell: &OwnedFd) {
    // Full means that it rings already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}
