//! The side of the speaker that has the routes: what peers say goes into the RIB, and what each is to be told
//! comes out.
//!
//! ```text
//!   sessions (fsm), sockets                         Speaker
//!     Up, Down ──────────────────────────▶ up, down ───────▶ ┌─────┐
//!     octets of UPDATE and ROUTE-REFRESH ─▶ receive ────────▶ │ RIB │ ──▶ next ──▶ octets, when the
//!     Close ◀─────────────────────────────  poll_output ◀──── └─────┘              socket has room
//! ```
//!
//! A [`Speaker`] has no session machine in it: those live where the sockets are, so that a keepalive never
//! waits for a best path. It does what the sessions' outcomes mean for routes: it keeps those of a peer that
//! restarts (RFC 4724, RFC 8538), sweeps what was not told again (RFC 7313), and asks for a session to be closed
//! that broke a limit or cannot be understood. `speaker/peer` has what is known of each peer.

mod addr;
mod deferral;
mod peer;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_net::Asn;

pub use self::{
    addr::PeerAddr,
    peer::{Counters, PeerSettings, PeerUp, Retained},
};
use self::{
    deferral::Deferral,
    peer::{Peer, Stage},
};
use crate::{
    fsm::{DownReason, Then},
    rib::{LimitAction, Rib, RibConfig, RibEvent, Source},
    update::Piece,
    wire::{
        AfiSafi, AttributeFault, Family, FamilySet, Frame, GracefulRestart, MessageKind,
        Notification, Outcome, Reason, Refresh, RefreshKind, Reset, RouterId, Update,
    },
};

/// All peers with a session, or with routes that outlive one, and the RIB.
#[derive(Debug)]
pub struct Speaker {
    rib: Rib,
    peers: BTreeMap<PeerAddr, Peer>,
    deferral: Deferral,
    outputs: VecDeque<SpeakerOutput>,
}

/// What the sessions' side is to do, or the operator to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpeakerOutput {
    Close {
        peer: PeerAddr,
        notification: Notification,
        then: Then,
    },
    /// An UPDATE was not as it should be; `octets` are its first.
    Faulty {
        peer: PeerAddr,
        fault: AttributeFault,
        octets: Vec<u8>,
    },
    ManyRoutes {
        peer: PeerAddr,
        family: Family,
        routes: u32,
    },
    TooManyRoutes {
        peer: PeerAddr,
        family: Family,
        action: LimitAction,
    },
    /// The peer's routes were kept for its restart, and now are gone or told again.
    RestartOver {
        peer: PeerAddr,
        family: Family,
    },
}

impl Speaker {
    pub fn new(config: RibConfig) -> Self {
        Self {
            rib: Rib::new(config),
            peers: BTreeMap::new(),
            deferral: Deferral::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Tells nobody anything until these peers have told all that they have, or until a time: we start anew, and
    /// our peers keep what we told before until we say that we are done (RFC 4724 §4.1).
    pub fn defer(&mut self, awaited: BTreeSet<PeerAddr>, until: Instant) {
        self.deferral = Deferral::new(awaited, until);
    }

    pub fn rib(&self) -> &Rib {
        &self.rib
    }

    /// For routes of our own; what peers say goes through the speaker.
    pub fn rib_mut(&mut self) -> &mut Rib {
        &mut self.rib
    }

    /// Returns the next thing to do, or `None` when all is done until the next input.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<SpeakerOutput> {
        while let Some(event) = self.rib.poll_event() {
            self.note(event);
        }
        self.outputs.pop_front()
    }

    /// Returns when [`Self::timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let restarts = self.peers.values().filter_map(|peer| peer.retained.until());
        restarts.chain(self.deferral.until()).min()
    }
}

// ---- sessions
impl Speaker {
    /// A session is established: the peer is told everything from now on.
    pub fn up(&mut self, addr: PeerAddr, up: PeerUp, now: Instant) {
        // The shell may be late with the end of the session before.
        if self.peers.get(&addr).is_some_and(Peer::is_up) {
            self.down(addr, &DownReason::ConnectionLost, now);
        }
        let neighbor = up.neighbor(addr);
        let retained = match self.peers.get(&addr) {
            Some(peer) => {
                let (source, retained) = (peer.source, peer.retained.still_valid(&up, now));
                self.rib.resume_peer(source, neighbor);
                for family in peer.retained.families().iter() {
                    if !retained.families().contains(family) {
                        self.rib.clear(source, family);
                    }
                }
                Some((source, retained))
            }
            None => self.rib.add_peer(neighbor).map(|source| (source, Retained::default())),
        };
        let Some((source, retained)) = retained else {
            let notification = Notification::new(Reason::OUT_OF_RESOURCES);
            self.close(addr, notification, Then::RefuseFor(FULL));
            return;
        };
        // Who does not mark the end of its table is not waited for, nor is one that waits for us.
        let marks = up.negotiated.restart.as_ref().is_some_and(|restart| !restart.flags.restarted);
        self.peers.insert(addr, Peer::new(source, up, retained));
        if !self.deferral.is_on() {
            self.tell(addr);
        } else if !marks {
            self.deferral.heard(addr);
            self.tell_all_when_due();
        }
    }

    /// Passes routes otherwise from now on, while the session stands. Where what the peer told is to be judged anew it
    /// is asked for it (RFC 2918); one that cannot answer that is closed and comes back.
    pub fn set_settings(&mut self, addr: PeerAddr, settings: PeerSettings) {
        let Some(peer) = self.peers.get_mut(&addr) else { return };
        let source = peer.source;
        // One that is away is told when it is back.
        let Stage::Up(up) = &mut peer.stage else { return };
        let judged_anew =
            up.settings.import != settings.import || up.settings.own_as != settings.own_as;
        up.settings = settings;
        self.rib.set_neighbor(source, up.neighbor(addr));
        if !judged_anew {
            return;
        }
        if up.negotiated.refresh.is_yes() {
            for family in up.negotiated.terms.families.iter() {
                peer.waiting.push_back(marker(family.wire(), RefreshKind::Request));
            }
        } else {
            let notification = Notification::new(Reason::CONFIGURATION_CHANGE);
            self.close(addr, notification, Then::Retry);
        }
    }

    fn tell(&mut self, addr: PeerAddr) {
        let Some(peer) = self.peers.get(&addr) else { return };
        let Stage::Up(up) = &peer.stage else { return };
        for family in up.negotiated.terms.families.iter() {
            self.rib.tell(peer.source, family);
        }
    }

    fn tell_all_when_due(&mut self) {
        if self.deferral.end_when_done() {
            let all: Vec<_> = self.peers.keys().copied().collect();
            for addr in all {
                self.tell(addr);
            }
        }
    }

    /// The session has ended. Routes of a peer that restarts are kept as long as it asked for.
    pub fn down(&mut self, addr: PeerAddr, reason: &DownReason, now: Instant) {
        let Some(peer) = self.peers.get_mut(&addr) else { return };
        let Stage::Up(up) = &peer.stage else { return };
        let keep = up.negotiated.kept_after(reason);
        let source = peer.source;
        if keep.is_empty() {
            self.peers.remove(&addr);
            self.rib.remove_peer(source);
            return;
        }
        let time = up.negotiated.restart.as_ref().map_or(Duration::ZERO, GracefulRestart::time);
        peer.retained = Retained::new(keep, now + time);
        peer.stage = Stage::Away;
        peer.waiting.clear();
        self.rib.lose_session(source, keep);
    }

    /// The peer is not configured any more: nothing of it is kept.
    pub fn forget(&mut self, addr: PeerAddr) {
        if let Some(peer) = self.peers.remove(&addr) {
            self.rib.remove_peer(peer.source);
        }
    }

    /// Ends restarts whose time is over, ours included.
    pub fn timeout(&mut self, now: Instant) {
        if self.deferral.until().is_some_and(|until| until <= now) {
            self.deferral.give_up();
            self.tell_all_when_due();
        }
        let due = |peer: &Peer| peer.retained.until().is_some_and(|until| until <= now);
        let late: Vec<_> =
            self.peers.iter().filter(|(_, peer)| due(peer)).map(|(addr, _)| *addr).collect();
        for addr in late {
            self.end_restart(addr);
        }
    }

    fn end_restart(&mut self, addr: PeerAddr) {
        let Some(peer) = self.peers.get_mut(&addr) else { return };
        let (source, families) = (peer.source, peer.retained.families());
        peer.retained = Retained::default();
        if peer.is_up() {
            families.iter().for_each(|family| self.rib.sweep(source, family));
        } else {
            self.peers.remove(&addr);
            self.rib.remove_peer(source);
        }
        for family in families.iter() {
            self.outputs.push_back(SpeakerOutput::RestartOver { peer: addr, family });
        }
    }
}

// ---- messages
impl Speaker {
    /// Takes whole messages, UPDATE and ROUTE-REFRESH, in the order in which the peer sent them. What it
    /// cannot understand closes the session, and nothing behind it is looked at.
    pub fn receive(&mut self, addr: PeerAddr, mut octets: &[u8]) {
        while !octets.is_empty() {
            let Some(peer) = self.peers.get_mut(&addr) else { return };
            let Stage::Up(up) = &peer.stage else { return };
            let terms = up.negotiated.terms;
            let read = match Frame::read(octets, terms.limit) {
                Ok(Some(frame)) => {
                    octets = octets.get(frame.len..).unwrap_or_default();
                    self.message(addr, &frame)
                }
                // The shell cuts between messages.
                Ok(None) => return,
                Err(reset) => Err(reset),
            };
            if let Err(reset) = read {
                self.close(addr, reset.into(), Then::RefuseFor(BROKEN));
                return;
            }
        }
    }

    fn message(&mut self, addr: PeerAddr, frame: &Frame<'_>) -> Result<(), Reset> {
        match frame.kind {
            MessageKind::Update => self.update(addr, frame.body),
            MessageKind::RouteRefresh => {
                let refresh = Refresh::read(frame.body)?;
                self.refresh(addr, refresh);
                Ok(())
            }
            MessageKind::Open | MessageKind::Notification | MessageKind::Keepalive => Ok(()),
        }
    }

    fn update(&mut self, addr: PeerAddr, body: &[u8]) -> Result<(), Reset> {
        let Some(peer) = self.peers.get_mut(&addr) else { return Ok(()) };
        let Stage::Up(up) = &peer.stage else { return Ok(()) };
        let update = Update::parse(body, up.negotiated.terms)?;
        let source = peer.source;
        peer.counters.updates += 1;
        match update.outcome() {
            Outcome::Good => {}
            Outcome::Discard => peer.counters.discarded += 1,
            Outcome::TreatAsWithdraw => peer.counters.treated_as_withdraw += 1,
        }
        for fault in update.faults() {
            let octets = body.iter().copied().take(SHOWN_OCTETS).collect();
            self.outputs.push_back(SpeakerOutput::Faulty { peer: addr, fault: *fault, octets });
        }
        self.rib.update(source, &update);
        if let Some(family) = update.end_of_rib() {
            self.end_of_rib(addr, family);
        }
        Ok(())
    }

    /// The peer has told a family in full: what it did not tell again since its restart is gone.
    fn end_of_rib(&mut self, addr: PeerAddr, family: Family) {
        let Some(peer) = self.peers.get_mut(&addr) else { return };
        peer.told = peer.told.with(family);
        let has_told_all = peer.has_told_all();
        if peer.retained.take(family) {
            self.rib.sweep(peer.source, family);
            self.outputs.push_back(SpeakerOutput::RestartOver { peer: addr, family });
        }
        if has_told_all && self.deferral.is_on() {
            self.deferral.heard(addr);
            self.tell_all_when_due();
        }
    }

    fn refresh(&mut self, addr: PeerAddr, refresh: Refresh) {
        let Some(peer) = self.peers.get_mut(&addr) else { return };
        let Stage::Up(up) = &peer.stage else { return };
        let family = refresh.afi_safi.family();
        let Some(family) = family.filter(|f| up.negotiated.terms.families.contains(*f)) else {
            return;
        };
        let enhanced = up.negotiated.enhanced_refresh.is_yes();
        match refresh.kind {
            RefreshKind::Request => {
                peer.counters.refreshes += 1;
                if enhanced {
                    peer.waiting.push_back(marker(family.wire(), RefreshKind::Begin));
                }
                self.rib.refresh(peer.source, family);
            }
            RefreshKind::Begin if enhanced => self.rib.make_stale(peer.source, family),
            RefreshKind::End if enhanced => self.rib.sweep(peer.source, family),
            // Without the capability they mean nothing (RFC 7313 §5), and unknown ones never do.
            RefreshKind::Begin | RefreshKind::End | RefreshKind::Unknown(_) => {}
        }
    }
}

// ---- what is told
impl Speaker {
    /// Whether something is to be encoded.
    pub fn has_changed(&self) -> bool {
        self.rib.has_changed()
    }

    /// Encodes what has changed, once for all peers that are told the same.
    pub fn flush(&mut self) {
        self.rib.flush();
    }

    /// The next octets for a peer; `None` when it has been told all. Ask when its socket has room.
    pub fn next(&mut self, addr: PeerAddr) -> Option<Arc<[u8]>> {
        let peer = self.peers.get_mut(&addr)?;
        let Stage::Up(up) = &peer.stage else { return None };
        if let Some(octets) = peer.waiting.pop_front() {
            return Some(octets);
        }
        let enhanced = up.negotiated.enhanced_refresh.is_yes();
        loop {
            match self.rib.next(peer.source)? {
                Piece::Octets(octets) => return Some(octets),
                Piece::Refreshed(family) if enhanced => {
                    return Some(marker(family.wire(), RefreshKind::End));
                }
                Piece::Refreshed(_) => {}
            }
        }
    }

    /// Whether a peer has told all that it has. One that is named by its link is whoever is there.
    pub fn has_told_all(&self, addr: PeerAddr) -> bool {
        let anybody = PeerAddr { link: addr.link, ..PeerAddr::ANYBODY };
        if addr.link.is_some() && addr == anybody {
            let mut there = self.peers.iter().filter(|(other, _)| other.link == addr.link);
            return there.any(|(_, peer)| peer.has_told_all());
        }
        self.peers.get(&addr).is_some_and(Peer::has_told_all)
    }

    /// To how many destinations the way is lost when a peer goes, and these others with it.
    pub fn lost_without(&self, addr: PeerAddr, others: &[PeerAddr]) -> usize {
        let Some(source) = self.source_of(addr) else { return 0 };
        let others: Vec<_> = others.iter().filter_map(|addr| self.source_of(*addr)).collect();
        self.rib.lost_without(source, &others)
    }

    /// Tells that something that was waited for at the start is there, which is no peer: see [`Self::defer`].
    pub fn heard(&mut self, addr: PeerAddr) {
        if self.deferral.is_on() {
            self.deferral.heard(addr);
            self.tell_all_when_due();
        }
    }

    /// The peers with a session.
    pub fn peers_up(&self) -> impl Iterator<Item = PeerAddr> {
        self.peers.iter().filter(|(_, peer)| peer.is_up()).map(|(addr, _)| *addr)
    }

    pub fn source_of(&self, addr: PeerAddr) -> Option<Source> {
        self.peers.get(&addr).map(|peer| peer.source)
    }

    pub fn addr_of(&self, source: Source) -> Option<PeerAddr> {
        self.peers.iter().find(|(_, peer)| peer.source == source).map(|(addr, _)| *addr)
    }

    /// The number, address, AS and identifier of each peer with a session.
    pub fn neighbors(&self) -> Vec<(Source, IpAddr, Asn, RouterId)> {
        let facts = |(addr, peer): (&PeerAddr, &Peer)| match &peer.stage {
            Stage::Up(up) => {
                Some((peer.source, addr.ip, up.negotiated.peer_asn, up.negotiated.peer_id))
            }
            Stage::Away => None,
        };
        self.peers.iter().filter_map(facts).collect()
    }

    pub fn counters(&self, addr: PeerAddr) -> Option<Counters> {
        self.peers.get(&addr).map(|peer| peer.counters)
    }

    /// The families that a peer has told in full.
    pub fn told_by(&self, addr: PeerAddr) -> FamilySet {
        self.peers.get(&addr).map_or(FamilySet::EMPTY, |peer| peer.told)
    }

    /// The families whose routes are kept for a peer's restart.
    pub fn retained(&self, addr: PeerAddr) -> FamilySet {
        self.peers.get(&addr).map_or(FamilySet::EMPTY, |peer| peer.retained.families())
    }

    fn note(&mut self, event: RibEvent) {
        let addr = |speaker: &Self, source| speaker.addr_of(source);
        match event {
            RibEvent::ManyRoutes { peer, family, routes } => {
                let Some(peer) = addr(self, peer) else { return };
                self.outputs.push_back(SpeakerOutput::ManyRoutes { peer, family, routes });
            }
            RibEvent::TooManyRoutes { peer, family, action } => {
                let Some(peer) = addr(self, peer) else { return };
                self.outputs.push_back(SpeakerOutput::TooManyRoutes { peer, family, action });
                if action == LimitAction::Close {
                    let notification = Notification::new(Reason::MOST_PREFIXES);
                    self.close(peer, notification, Then::RefuseFor(FULL));
                }
            }
            RibEvent::TooSlow { peer, .. } => {
                let Some(peer) = addr(self, peer) else { return };
                self.close(peer, Notification::new(Reason::OUT_OF_RESOURCES), Then::Retry);
            }
        }
    }

    fn close(&mut self, peer: PeerAddr, notification: Notification, then: Then) {
        self.outputs.push_back(SpeakerOutput::Close { peer, notification, then });
    }
}

/// A request for a refresh, or where the answer to one begins or ends.
fn marker(afi_safi: AfiSafi, kind: RefreshKind) -> Arc<[u8]> {
    let mut out = Vec::new();
    Refresh { afi_safi, kind }.write(&mut out);
    out.into()
}

/// A peer that broke a limit is refused for this long.
const FULL: Duration = Duration::from_mins(5);
/// A peer that sent what cannot be understood.
const BROKEN: Duration = Duration::from_secs(5);
/// How much of a faulty message is shown.
const SHOWN_OCTETS: usize = 64;
