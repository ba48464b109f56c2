//! One thread: both directions of one queue of the device, in turns.
//!
//! Whoever waits for an answer waits for two engines, twice each. With a thread for each direction four would have to
//! be woken, or stay awake, for one question; with one for both it is two.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    inbound::Inbound,
    lull::{LONGEST, Lull, Then},
    outbound::Outbound,
    shared::{Life, Pace, Shared, Ways},
};

/// The thread of one queue.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: usize,
    ways: Ways,
    outbound: Option<Outbound>,
    inbound: Vec<Inbound>,
}

/// Whether there was a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Moved,
    Nothing,
}

impl Worker {
    pub fn new(shared: &Arc<Shared>, thread: usize, ways: Ways) -> Self {
        let sockets = shared.sockets(thread).filter(|_| ways != Ways::Out);
        let inbound = sockets.map(|(family, _)| Inbound::new(Arc::clone(shared), family, thread));
        let inbound = inbound.collect();
        let outbound = (ways != Ways::In).then(|| Outbound::new(Arc::clone(shared), thread));
        Self { shared: Arc::clone(shared), thread, ways, outbound, inbound }
    }

    /// Works until it is told to end, or the device is gone.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut lull = Lull::new(match shared.pace {
            Pace::Batches => LONGEST,
            Pace::OneByOne => Duration::ZERO,
        });
        while shared.halt.life() == Life::Goes {
            if self.turn() == Turn::Moved {
                lull.over();
                continue;
            }
            let now = Instant::now();
            match lull.then(now) {
                Then::LookAgain => thread::yield_now(),
                Then::Sleep => {
                    if shared.wait_for_packets(self.thread, self.ways) == Life::Ends {
                        return;
                    }
                    lull.woken(now..Instant::now());
                }
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let mut turn = self.outbound.as_mut().map_or(Turn::Nothing, Outbound::turn);
        for inbound in &mut self.inbound {
            if inbound.turn() == Turn::Moved {
                turn = Turn::Moved;
            }
        }
        turn
    }
}
