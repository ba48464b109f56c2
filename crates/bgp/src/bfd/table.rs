//! All BFD sessions of a node, and which of them a datagram is for (RFC 5880 §6.3, 5881 §3, 5883 §3).
//!
//! A datagram with our discriminator goes to the session that has it, if it comes from that session's
//! peer; one without goes to the session of its source address. The hop limit that it arrived with is a
//! fact that the shell reads from the socket: 255 on a shared link, which nobody further away can forge.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Instant,
};

use russet_net::IfIndex;

use super::{
    session::{Input, Output, Role, Session, Timing},
    wire::{Discriminator, Packet, PacketError},
};

/// What tells one session from another, as long as neither side knows the other's discriminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    pub peer: IpAddr,
    /// The link that a single-hop session is on; `None` where there may be routers between.
    pub link: Option<IfIndex>,
}

/// How far away a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// On a shared link: UDP port 3784, hop limit 255 (RFC 5881).
    Single,
    /// Behind routers: UDP port 4784, a hop limit of at least `least` (RFC 5883).
    Multi { least: u8 },
}

/// A datagram as the shell found it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub from: IpAddr,
    pub link: Option<IfIndex>,
    /// The hop limit (TTL) that it arrived with.
    pub hop_limit: u8,
    pub payload: &'a [u8],
}

/// Why a datagram was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("BFD packet with hop limit {got}, at least {least} is wanted")]
    TooFar { got: u8, least: u8 },
    #[error("BFD packet for no session of ours")]
    NoSession,
}

/// There are as many sessions as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BFD session beyond the limit of {MOST_SESSIONS}")]
pub struct TooManySessions;

/// Every session of a node.
#[derive(Debug)]
pub struct Sessions {
    by_path: BTreeMap<Path, Entry>,
    by_discriminator: BTreeMap<Discriminator, Path>,
    /// When each is next due, so that a timeout costs what is due and not what there is.
    due: BTreeSet<(Instant, Path)>,
    outputs: VecDeque<(Path, Output)>,
    seed: u64,
    last_discriminator: u32,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    hops: Hops,
    due: Option<Instant>,
}

impl Sessions {
    /// Creates an empty table. `seed` drives jitter and the choice of discriminators.
    pub fn new(seed: u64) -> Self {
        // A restart should not reuse the discriminators of the run before, which peers still hold.
        let [_, _, _, _, a, b, c, d] = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        Self {
            by_path: BTreeMap::new(),
            by_discriminator: BTreeMap::new(),
            due: BTreeSet::new(),
            outputs: VecDeque::new(),
            seed,
            last_discriminator: u32::from_be_bytes([a, b, c, d]),
        }
    }

    /// Starts a session; one that is there is left as it is.
    ///
    /// # Errors
    ///
    /// When there are too many.
    pub fn add(
        &mut self,
        path: Path,
        hops: Hops,
        role: Role,
        timing: Timing,
        now: Instant,
    ) -> Result<(), TooManySessions> {
        if self.by_path.contains_key(&path) {
            return Ok(());
        }
        if self.by_path.len() >= MOST_SESSIONS {
            return Err(TooManySessions);
        }
        let local = self.next_discriminator();
        let seed = self.seed ^ u64::from(local.get());
        let session = Session::new(timing, role, local, seed);
        self.by_discriminator.insert(local, path);
        self.by_path.insert(path, Entry { session, hops, due: None });
        self.feed(path, Input::Timeout, now);
        Ok(())
    }

    /// Forgets a session. Nothing is said of it any more, to the peer neither: disable it first.
    pub fn remove(&mut self, path: Path) {
        if let Some(entry) = self.by_path.remove(&path) {
            self.by_discriminator.remove(&entry.session.discriminator());
            if let Some(at) = entry.due {
                self.due.remove(&(at, path));
            }
        }
    }

    pub fn get(&self, path: Path) -> Option<&Session> {
        self.by_path.get(&path).map(|entry| &entry.session)
    }

    /// Takes a datagram.
    ///
    /// # Errors
    ///
    /// When it was discarded, and why; a peer's fault changes nothing.
    pub fn receive(&mut self, arrival: Arrival<'_>, now: Instant) -> Result<Path, Refusal> {
        let packet = Packet::decode(arrival.payload)?;
        let (path, hops) = self.find(&packet, &arrival).ok_or(Refusal::NoSession)?;
        let least = hops.least();
        if arrival.hop_limit < least {
            return Err(Refusal::TooFar { got: arrival.hop_limit, least });
        }
        self.feed(path, Input::Packet(packet), now);
        Ok(path)
    }

    /// Feeds one session an input of the operator's; a session that is not there ignores it.
    pub fn handle(&mut self, path: Path, input: Input, now: Instant) {
        self.feed(path, input, now);
    }

    /// Lets every session that is due do what it has to.
    pub fn timeout(&mut self, now: Instant) {
        let due: Vec<_> = self.due.iter().take_while(|(at, _)| *at <= now).copied().collect();
        for (_, path) in due {
            self.feed(path, Input::Timeout, now);
        }
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<(Path, Output)> {
        self.outputs.pop_front()
    }

    /// When [`Self::timeout`] is next due. Changes with every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn find(&self, packet: &Packet, arrival: &Arrival<'_>) -> Option<(Path, Hops)> {
        let on_link = Path { peer: arrival.from, link: arrival.link };
        let path = match packet.yours {
            Some(ours) => *self.by_discriminator.get(&ours)?,
            None if self.by_path.contains_key(&on_link) => on_link,
            None => Path { link: None, ..on_link },
        };
        let here = path.link.is_none_or(|link| arrival.link == Some(link));
        let entry = self.by_path.get(&path)?;
        (path.peer == arrival.from && here).then_some((path, entry.hops))
    }

    fn feed(&mut self, path: Path, input: Input, now: Instant) {
        let Some(entry) = self.by_path.get_mut(&path) else { return };
        entry.session.handle(input, now);
        while let Some(output) = entry.session.poll_output() {
            self.outputs.push_back((path, output));
        }
        let due = entry.session.poll_timeout();
        let was = std::mem::replace(&mut entry.due, due);
        if was != due {
            if let Some(at) = was {
                self.due.remove(&(at, path));
            }
            self.due.extend(due.map(|at| (at, path)));
        }
    }

    /// A number that no session has. There are far fewer sessions than numbers, so this ends.
    fn next_discriminator(&mut self) -> Discriminator {
        loop {
            self.last_discriminator = self.last_discriminator.wrapping_add(1);
            let free = Discriminator::new(self.last_discriminator)
                .filter(|local| !self.by_discriminator.contains_key(local));
            if let Some(local) = free {
                return local;
            }
        }
    }
}

impl Hops {
    const fn least(self) -> u8 {
        match self {
            Self::Single => u8::MAX,
            Self::Multi { least } => least,
        }
    }
}

/// How many sessions there may be.
pub const MOST_SESSIONS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::{
        super::wire::{Detection, Flags, Interval, State},
        *,
    };

    #[test]
    fn a_packet_that_crossed_a_router_is_no_single_hop_packet() {
        let (mut table, now) = (table(Hops::Single), Instant::now());
        let hello = hello(None);
        let far = Arrival { hop_limit: 254, ..arrival(&hello) };
        assert_eq!(table.receive(far, now), Err(Refusal::TooFar { got: 254, least: 255 }));
        assert_eq!(table.get(PATH).unwrap().state(), State::Down);
        assert_eq!(table.receive(arrival(&hello), now), Ok(PATH));
        assert_eq!(table.get(PATH).unwrap().state(), State::Init);
    }

    #[test]
    fn a_packet_over_several_hops_keeps_its_least_hop_limit() {
        let mut table = table(Hops::Multi { least: 250 });
        let (hello, now) = (hello(None), Instant::now());
        let near = Arrival { hop_limit: 250, ..arrival(&hello) };
        let far = Arrival { hop_limit: 249, ..arrival(&hello) };
        assert_eq!(table.receive(near, now), Ok(PATH));
        assert_eq!(table.receive(far, now), Err(Refusal::TooFar { got: 249, least: 250 }));
    }

    #[test]
    fn our_discriminator_from_another_address_or_link_is_refused() {
        let (mut table, now) = (table(Hops::Single), Instant::now());
        let ours = table.get(PATH).unwrap().discriminator();
        let spoofed = hello(Some(ours));
        let other = Arrival { from: [192, 0, 2, 66].into(), ..arrival(&spoofed) };
        assert_eq!(table.receive(other, now), Err(Refusal::NoSession));
        let elsewhere = Arrival { link: IfIndex::new(9), ..arrival(&spoofed) };
        assert_eq!(table.receive(elsewhere, now), Err(Refusal::NoSession));
        assert_eq!(table.receive(arrival(&spoofed), now), Ok(PATH));
    }

    #[test]
    fn a_discriminator_that_nobody_has_is_refused() {
        let mut table = table(Hops::Single);
        let stranger = hello(Discriminator::new(1));
        assert_ne!(table.get(PATH).unwrap().discriminator().get(), 1);
        let refused = table.receive(arrival(&stranger), Instant::now());
        assert_eq!(refused, Err(Refusal::NoSession));
    }

    #[test]
    fn sessions_have_a_limit_and_discriminators_of_their_own() {
        let mut table = Sessions::new(7);
        let now = Instant::now();
        let path = |n: usize| {
            let n = u32::try_from(n).unwrap();
            Path { peer: IpAddr::V4((0x0a00_0000 + n).into()), link: None }
        };
        for n in 0..MOST_SESSIONS {
            table.add(path(n), Hops::Single, Role::Active, TIMING, now).unwrap();
        }
        let beyond = table.add(path(MOST_SESSIONS), Hops::Single, Role::Active, TIMING, now);
        assert_eq!(beyond, Err(TooManySessions));
        assert_eq!(table.by_discriminator.len(), MOST_SESSIONS);

        table.remove(path(0));
        assert_eq!(table.due.len(), MOST_SESSIONS - 1);
        table.add(path(0), Hops::Single, Role::Active, TIMING, now).unwrap();
    }

    const PATH: Path =
        Path { peer: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), link: IfIndex::new(4) };

    const TIMING: Timing = Timing {
        desired_min_tx: Interval::from_millis(50),
        required_min_rx: Interval::from_millis(50),
        multiplier: Detection::new(3).unwrap(),
    };

    fn table(hops: Hops) -> Sessions {
        let mut table = Sessions::new(1);
        table.add(PATH, hops, Role::Active, TIMING, Instant::now()).unwrap();
        table
    }

    fn arrival(payload: &[u8]) -> Arrival<'_> {
        Arrival { from: PATH.peer, link: PATH.link, hop_limit: 255, payload }
    }

    fn hello(yours: Option<Discriminator>) -> [u8; 24] {
        Packet {
            diagnostic: super::super::Diagnostic::NONE,
            state: State::Down,
            flags: Flags::NONE,
            multiplier: TIMING.multiplier,
            mine: Discriminator::new(77).unwrap(),
            yours,
            desired_min_tx: Interval::SLOW,
            required_min_rx: Interval::SLOW,
            required_min_echo_rx: Interval::ZERO,
        }
        .encode()
    }
}
