//! Waiting with what we say while we start anew (RFC 4724 §4.1).

use std::{collections::BTreeSet, time::Instant};

use super::PeerAddr;

/// Who is waited for, and until when. Off once it has ended.
#[derive(Debug, Default)]
pub(super) struct Deferral(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    awaited: BTreeSet<PeerAddr>,
    until: Instant,
}

impl Deferral {
    pub const fn new(awaited: BTreeSet<PeerAddr>, until: Instant) -> Self {
        Self(Some(Waiting { awaited, until }))
    }

    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub fn until(&self) -> Option<Instant> {
        self.0.as_ref().map(|waiting| waiting.until)
    }

    /// The peer has told everything, or is not to be waited for.
    pub fn heard(&mut self, peer: PeerAddr) {
        if let Some(waiting) = &mut self.0 {
            // It may have been awaited as whoever is on its link.
            let anybody = PeerAddr { link: peer.link, ..PeerAddr::ANYBODY };
            waiting.awaited.retain(|awaited| *awaited != peer && *awaited != anybody);
        }
    }

    /// Waits for nobody any more.
    pub fn give_up(&mut self) {
        if let Some(waiting) = &mut self.0 {
            waiting.awaited.clear();
        }
    }

    /// Ends it when nobody is left to wait for; whether it has ended just now.
    pub fn end_when_done(&mut self) -> bool {
        self.0.take_if(|waiting| waiting.awaited.is_empty()).is_some()
    }
}
