//! The thread that lets time pass for WireGuard: handshakes again, keys anew, packets that keep a way open.
//!
//! It runs only while some session lives or is being made. When the last is over it sleeps without a clock until
//! somebody seals or greets again, so an idle engine never wakes.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use russet_kernel::sys::datagram::{self, Outgoing};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::{
    shared::{Life, Shared},
    table::family_of,
    tunnel::{SEAL, Tick, Vault},
};

/// Wakes the thread.
#[derive(Debug)]
pub struct Waker {
    awake: AtomicBool,
    bell: OwnedFd,
}

impl Waker {
    /// # Errors
    ///
    /// When no descriptor is to be had.
    pub fn new() -> std::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { awake: AtomicBool::new(false), bell })
    }

    /// Says that there is something that time matters to. Costs nothing when the thread knows.
    pub fn wake(&self) {
        if !self.awake.load(Ordering::Relaxed) && !self.awake.swap(true, Ordering::AcqRel) {
            // Full means that it rings already.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn slept(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}

/// The thread.
#[derive(Debug)]
pub struct Clock {
    shared: Arc<Shared>,
    vault: Arc<Vault>,
}

impl Clock {
    pub fn new(shared: Arc<Shared>, vault: Arc<Vault>) -> Self {
        Self { shared, vault }
    }

    /// Works until it is told to end.
    pub fn run(self) {
        let mut second = Instant::now();
        while self.shared.halt.life() == Life::Goes {
            // What is woken for from here on is seen in the next round.
            self.shared.waker.awake.store(false, Ordering::Release);
            if self.tick() {
                self.shared.waker.awake.store(true, Ordering::Release);
            }
            if second.elapsed() >= SECOND {
                second = Instant::now();
                self.vault.second();
            }
            self.sleep();
        }
    }

    /// Does what is due for every peer, and tells whether anything may become due later.
    fn tick(&self) -> bool {
        let mut room = [0; SEAL];
        let mut live = false;
        for peer in self.shared.tables.newest().peers() {
            let tick = peer.tunnel.as_ref().map_or(Tick::Asleep, |tunnel| tunnel.tick(&mut room));
            live |= tick != Tick::Asleep;
            if let Tick::Send(len, to) = tick {
                let socket = self.shared.socket(family_of(to), 0);
                let message = Outgoing { to, octets: &room[..len], segment: None };
                // What is lost is sent again.
                let _ = socket.map(|socket| datagram::send(socket, &[message]));
            }
        }
        live
    }

    fn sleep(&self) {
        let awake = self.shared.waker.awake.load(Ordering::Acquire);
        let mut fds = [
            PollFd::from_borrowed_fd(self.shared.waker.bell.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.shared.halt.bell(), PollFlags::IN),
        ];
        // Awake, the bell only tells what is known; its next ring is taken off all the same.
        let _ = poll(&mut fds, awake.then_some(&STEP));
        self.shared.waker.slept();
    }
}

const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
const SECOND: Duration = Duration::from_secs(1);
