//! Two tunnels and the network between them, in simulated time: hours pass in seconds, and the same seed is the same day.
//!
//! ```text
//!   node 0: seal ──▶ network: delays, reorders, loses greetings and answers ──▶ node 1: open
//!           tick every 250 ms while live, as the engine's clock does
//! ```
//!
//! Packets are numbered, so that each is known to have come out at the other side, and how often. What is sealed is never
//! lost by the network: what is missing in the end was lost by the sessions.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    net::SocketAddr,
    time::Duration,
};

use boringtun::x25519::{PublicKey, StaticSecret};
use mock_instant::MockClock;
use russet_engine::tunnel::{Opened, SEAL, Tick, Tunnel, Vault};
use russet_kernel::engine::WireguardSpec;

/// How the day goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    /// Of a hundred greetings and answers, how many are lost.
    pub lost: u64,
    /// Now and then nothing is said for longer than a session lives.
    pub silences: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub sealed: u64,
    /// Packets that never came out at the other side.
    pub missing: Vec<u64>,
    pub doubled: u64,
    /// Packets that were sealed in the last moment of a session. The receiver may have forgotten it when they come, which is
    /// WireGuard's rule (`Reject-After-Time`); they are not looked for.
    pub at_the_end: u64,
    /// Handshakes that came to their end.
    pub handshakes: u64,
    /// Sessions that packets came by, in both directions.
    pub sessions: usize,
}

/// Lets the day pass.
pub fn run(plan: Plan) -> Outcome {
    MockClock::set_time(Duration::ZERO);
    let mut day = Day::new(plan);
    while let Some(Reverse(event)) = day.events.pop() {
        MockClock::set_time(Duration::from_millis(event.at));
        day.now = event.at;
        match event.what {
            What::Tick(side) => day.tick(side),
            What::Say(side) => day.say(side),
            What::Arrive(side, datagram) => day.arrive(side, &datagram),
        }
    }
    let Day { mut outcome, under_way, sessions, .. } = day;
    outcome.missing = under_way.into_iter().collect();
    outcome.sessions = sessions.len();
    outcome
}

struct Day {
    plan: Plan,
    random: Random,
    now: u64,
    vaults: [Vault; 2],
    tunnels: [Tunnel; 2],
    events: BinaryHeap<Reverse<Event>>,
    order: u64,
    /// Nobody says anything before.
    silent_until: u64,
    under_way: BTreeSet<u64>,
    came: BTreeSet<u64>,
    /// Whom it was for, the handshake before it, and the index that it was sealed for.
    sessions: BTreeSet<(usize, u64, u32)>,
    outcome: Outcome,
}

/// In milliseconds of the day; of those at one time the first that was planned is first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: u64,
    order: u64,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Tick(usize),
    Say(usize),
    Arrive(usize, Vec<u8>),
}

impl Day {
    fn new(plan: Plan) -> Self {
        let secrets = [1, 2].map(|n| StaticSecret::from([n; 32]));
        let keys = secrets
            .each_ref()
            .map(|secret| russet_net::PublicKey::new(PublicKey::from(secret).to_bytes()));
        let spec = WireguardSpec { psk: None, keepalive: 0 };
        let vaults = secrets.map(|secret| Vault::new(secret, spec));
        let mut day = Self {
            plan,
            random: Random(plan.seed),
            now: 0,
            tunnels: [0, 1].map(|side| vaults[side].tunnel(keys[1 - side], at(1 - side))),
            vaults,
            events: BinaryHeap::new(),
            order: 0,
            silent_until: 0,
            under_way: BTreeSet::new(),
            came: BTreeSet::new(),
            sessions: BTreeSet::new(),
            outcome: Outcome::default(),
        };
        for side in [0, 1] {
            let (tick, word) = (day.random.below(TICK), day.random.below(2_000));
            day.plan(tick, What::Tick(side));
            day.plan(word, What::Say(side));
        }
        day
    }

    fn plan(&mut self, after: u64, what: What) {
        self.order += 1;
        self.events.push(Reverse(Event { at: self.now + after, order: self.order, what }));
    }

    fn is_over(&self, margin: Duration) -> bool {
        Duration::from_millis(self.now) >= self.plan.length + margin
    }

    fn tick(&mut self, side: usize) {
        let mut room = [0; SEAL];
        self.vaults[side].second();
        if let Tick::Send(len, _) = self.tunnels[side].tick(&mut room) {
            self.send(side, &room[..len]);
        }
        // What is still on its way in the end may wait for hands to be shaken.
        if !self.is_over(MARGIN) {
            self.plan(TICK, What::Tick(side));
        }
    }

    fn say(&mut self, side: usize) {
        if self.is_over(Duration::ZERO) {
            return;
        }
        if self.now >= self.silent_until {
            self.seal(side);
        }
        if self.plan.silences && self.random.below(300) == 0 {
            self.silent_until = self.now + 100_000 + self.random.below(900_000);
        }
        let pause = self.random.below(2_000);
        self.plan(pause, What::Say(side));
    }

    fn seal(&mut self, side: usize) {
        let number = self.outcome.sealed;
        self.outcome.sealed += 1;
        let age = self.tunnels[side].since_handshake();
        if age.is_none_or(|age| age + LONGEST_WAY < REJECTED) {
            self.under_way.insert(number);
        } else {
            self.outcome.at_the_end += 1;
        }
        let mut room = [0; PACKET + SEAL];
        let sealed = self.tunnels[side].seal(&packet(number), &mut room).expect("it is taken");
        if let Some((len, _)) = sealed {
            self.send(side, &room[..len]);
        }
    }

    fn send(&mut self, from: usize, datagram: &[u8]) {
        let shakes_hands = matches!(datagram[0], GREETING | ANSWER);
        if shakes_hands && self.random.below(100) < self.plan.lost {
            return;
        }
        // Mostly in order; one in ten is overtaken by others.
        let late = if self.random.below(10) == 0 { 400 } else { 20 };
        let delay = 5 + self.random.below(late);
        self.plan(delay, What::Arrive(1 - from, datagram.to_vec()));
    }

    fn arrive(&mut self, side: usize, datagram: &[u8]) {
        let mut room = [0; PACKET + SEAL];
        match self.tunnels[side].open(at(1 - side), datagram, &mut room) {
            Ok(Opened::Packet(len)) => self.came(side, datagram, &room[..len]),
            Ok(Opened::Answer(len)) => {
                self.outcome.handshakes += u64::from(datagram[0] == ANSWER);
                self.send(side, &room[..len]);
            }
            // An answer that comes twice, or a greeting that was overtaken, is nobody's loss.
            Ok(Opened::Alive) | Err(_) => {}
        }
        while self.tunnels[side].has_waiting()
            && let Some(len) = self.tunnels[side].more(&mut room)
        {
            self.send(side, &room[..len]);
        }
    }

    fn came(&mut self, side: usize, datagram: &[u8], packet: &[u8]) {
        let number = packet.last_chunk().copied().map(u64::from_be_bytes).expect("a number");
        self.outcome.doubled += u64::from(!self.came.insert(number));
        self.under_way.remove(&number);
        let index = datagram[4..].first_chunk().copied().map(u32::from_le_bytes).expect("an index");
        // An index comes again after 256 handshakes.
        self.sessions.insert((side, self.outcome.handshakes / 128, index));
    }
}

/// The smallest IPv4 packet that bears a number.
fn packet(number: u64) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&28_u16.to_be_bytes());
    packet[PACKET - 8..].copy_from_slice(&number.to_be_bytes());
    packet
}

fn at(side: usize) -> SocketAddr {
    let last = if side == 0 { 1 } else { 2 };
    ([192, 168, 77, last], 51_820).into()
}

/// Numbers that a seed gives (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// An IPv4 header and a number.
const PACKET: usize = 28;
/// The age at which a session is forgotten, and what a packet may take to the other side, the ticks of both included.
const REJECTED: Duration = Duration::from_mins(3);
const LONGEST_WAY: Duration = Duration::from_secs(1);
/// First octets of the messages that shake hands.
const GREETING: u8 = 1;
const ANSWER: u8 = 2;
/// The step of the engine's clock, in milliseconds.
const TICK: u64 = 250;
/// Time enough for what waits for a handshake.
const MARGIN: Duration = Duration::from_mins(2);
