//! WireGuard: what is sealed for a peer and opened from it (the protocol is `boringtun`'s `noise`).
//!
//! A [`Vault`] has the node's key, a [`Tunnel`] the sessions with one peer. Sealing and opening of one peer share its
//! sessions, so each tunnel has a lock, which a thread holds for one packet; different peers, and the two directions
//! of different nodes, never meet. A tunnel without a session keeps up to 256 packets until there is one.
//!
//! boringtun knows the time of its last tick only, and the engine's clock ticks for nobody who has no session and makes
//! none. Such a tunnel sleeps; whoever uses it next lets it have the time that it has missed, before anything is dated.

use std::{
    collections::VecDeque,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use boringtun::{
    noise::{
        Packet, Tunn, TunnResult, errors::WireGuardError, handshake::parse_handshake_anon,
        rate_limiter::RateLimiter,
    },
    x25519::{self, StaticSecret},
};
use russet_kernel::engine::WireguardSpec;
use russet_net::PublicKey;

use crate::counters::Reason;

/// The node's own key, and what all its tunnels have in common.
pub struct Vault {
    secret: StaticSecret,
    public: x25519::PublicKey,
    spec: WireguardSpec,
    /// Of greetings.
    limiter: Arc<RateLimiter>,
    /// Of answers: to ours there may be as many at once as there are peers.
    answers: Arc<RateLimiter>,
    next_index: AtomicU32,
}

impl Vault {
    pub fn new(secret: StaticSecret, spec: WireguardSpec) -> Self {
        let public = x25519::PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, MOST_HANDSHAKES));
        let answers = Arc::new(RateLimiter::new(&public, MOST_ANSWERS));
        Self { secret, public, spec, limiter, answers, next_index: AtomicU32::new(1) }
    }

    /// The number of the next tunnel.
    pub fn next_index(&self) -> u32 {
        self.next_index.load(Relaxed)
    }

    /// Numbers tunnels from here on: those before are another engine's.
    pub fn begin_at(&self, index: u32) {
        self.next_index.store(index, Relaxed);
    }

    /// A tunnel to a peer, without a session yet.
    pub fn tunnel(&self, key: PublicKey, endpoint: SocketAddr) -> Tunnel {
        // 24 bits go on the wire; a node has fewer peers in its life.
        let index = self.next_index.fetch_add(1, Relaxed) & 0x00ff_ffff;
        let keepalive = Some(self.spec.keepalive).filter(|seconds| *seconds > 0);
        let tunn = Tunn::new(
            self.secret.clone(),
            x25519::PublicKey::from(key.octets()),
            self.spec.psk.map(|psk| psk.reveal()),
            keepalive,
            index,
            Some(Arc::clone(&self.answers)),
        );
        let inner = Inner {
            tunn,
            endpoint,
            greeted: false,
            asked: None,
            answered: false,
            aside: VecDeque::new(),
            asleep: true,
        };
        Tunnel { index, key, waits: AtomicBool::new(false), inner: Mutex::new(inner) }
    }

    /// Finds out whom a datagram is from, without believing it. A flood of greetings is answered with cookies, which
    /// are shorter than what they answer.
    pub fn sender<'a>(
        &self,
        from: IpAddr,
        datagram: &[u8],
        room: &'a mut [u8; COOKIE],
    ) -> Sender<'a> {
        match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::PacketData(it)) => return Sender::Index(it.receiver_idx >> 8),
            Ok(Packet::HandshakeResponse(it)) => return Sender::Index(it.receiver_idx >> 8),
            Ok(Packet::PacketCookieReply(it)) => return Sender::Index(it.receiver_idx >> 8),
            Ok(Packet::HandshakeInit(_)) => {}
            Err(_) => return Sender::Nobody,
        }
        match self.limiter.verify_packet(Some(from), datagram, room) {
            Ok(Packet::HandshakeInit(init)) => {
                match parse_handshake_anon(&self.secret, &self.public, &init) {
                    Ok(half) => Sender::Key(PublicKey::new(half.peer_static_public)),
                    Err(_) => Sender::Nobody,
                }
            }
            Err(TunnResult::WriteToNetwork(cookie)) => Sender::Cookie(cookie),
            _ => Sender::Nobody,
        }
    }

    /// To be called each second while there are handshakes: load is counted by the second.
    pub fn second(&self) {
        self.limiter.reset_count();
        self.answers.reset_count();
    }
}

/// The index of the tunnel that a packet is sealed for; what shakes hands is none.
pub fn sealed_for(datagram: &[u8]) -> Option<u32> {
    match Tunn::parse_incoming_packet(datagram) {
        Ok(Packet::PacketData(it)) => Some(it.receiver_idx >> 8),
        _ => None,
    }
}

/// Whom a datagram says that it is from.
#[derive(Debug)]
pub enum Sender<'a> {
    /// The tunnel with this index.
    Index(u32),
    /// Whoever has this key.
    Key(PublicKey),
    /// Somebody, among too many: this is the answer.
    Cookie(&'a [u8]),
    Nobody,
}

/// The sessions with one peer.
pub struct Tunnel {
    pub index: u32,
    pub key: PublicKey,
    /// Whether packets wait for a session. Written under the lock, and looked at without it.
    waits: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    tunn: Tunn,
    /// Where the peer was last heard from.
    endpoint: SocketAddr,
    /// Whether a greeting is out that is neither answered nor given up.
    greeted: bool,
    /// When the last one went out, until it is answered.
    asked: Option<Instant>,
    /// Whether a greeting of the peer's was answered since the last tick, and it is the peer's turn.
    answered: bool,
    /// What waits for that.
    aside: VecDeque<Vec<u8>>,
    /// Whether no time has passed since the last tick.
    asleep: bool,
}

/// What a tick brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// So many octets, in the room, are to be sent there.
    Send(usize, SocketAddr),
    Nothing,
    /// There is no session and none is being made: nothing will be due by time.
    Asleep,
}

/// What an opened datagram was.
#[derive(Debug)]
pub enum Opened {
    /// A packet of this length, in the room.
    Packet(usize),
    /// An answer of this length, in the room, for whoever sent it.
    Answer(usize),
    /// Nothing but a sign of life.
    Alive,
}

impl Tunnel {
    /// Seals a packet into `room`, and returns how long it is and where it goes. Without a session that is a
    /// greeting, or nothing when one is under way, and the packet waits.
    ///
    /// `room` must have [`SEAL`] octets more than the packet.
    ///
    /// # Errors
    ///
    /// When the peer does not answer any more.
    pub fn seal(
        &self,
        packet: &[u8],
        room: &mut [u8],
    ) -> Result<Option<(usize, SocketAddr)>, Reason> {
        let mut inner = self.lock();
        let due = inner.wake(room);
        if inner.answered
            && let Some(kept) = inner.put_aside(packet)
        {
            self.waits.store(true, Relaxed);
            return kept.map(|()| None);
        }
        match inner.tunn.encapsulate(packet, room) {
            TunnResult::WriteToNetwork(sealed) => {
                let (len, is_greeting) = (sealed.len(), sealed.first() == Some(&GREETING));
                if is_greeting {
                    inner.note_greeting();
                    self.waits.store(true, Relaxed);
                }
                Ok(Some((len, inner.endpoint)))
            }
            TunnResult::Done => {
                self.waits.store(true, Relaxed);
                Ok(due.map(|len| (len, inner.endpoint)))
            }
            _ => Err(Reason::NoSession),
        }
    }

    /// Opens a datagram into `room`. A sender that proves to be the peer is where the peer is from now on.
    ///
    /// # Errors
    ///
    /// When it was not sealed by the peer for us, or is an old one once more.
    pub fn open(
        &self,
        from: SocketAddr,
        datagram: &[u8],
        room: &mut [u8],
    ) -> Result<Opened, Reason> {
        let mut inner = self.lock();
        // A greeting that was due of old is sent again by the clock.
        inner.wake(room);
        let opened = opened(inner.tunn.decapsulate(Some(from.ip()), datagram, room))?;
        inner.endpoint = from;
        match datagram.first() {
            Some(&ANSWER) => inner.asked = None,
            Some(&GREETING) => inner.answered = true,
            _ => {}
        }
        Ok(opened)
    }

    /// Whether there may be [`Self::more`] to send, now that something was opened.
    pub fn has_waiting(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// What waited for a session, one after the other, until there is nothing more.
    ///
    /// Whoever answers a greeting has no session to seal by before the peer has used it. boringtun would greet once more
    /// then, forgetting the greeting that it has out, and two that greet each other at once would greet over and over.
    pub fn more(&self, room: &mut [u8]) -> Option<usize> {
        let mut inner = self.lock();
        inner.tunn.time_since_last_handshake()?;
        if let TunnResult::WriteToNetwork(sealed) = inner.tunn.decapsulate(None, &[], room) {
            return Some(sealed.len());
        }
        let aside = inner.aside.pop_front();
        self.waits.store(aside.is_some(), Relaxed);
        match inner.tunn.encapsulate(&aside?, room) {
            TunnResult::WriteToNetwork(sealed) => Some(sealed.len()),
            _ => None,
        }
    }

    /// Does what is due by time.
    pub fn tick(&self, room: &mut [u8]) -> Tick {
        let mut inner = self.lock();
        inner.asleep = !inner.is_live();
        inner.answered = false;
        if inner.asleep {
            return Tick::Asleep;
        }
        inner.tick(room).map_or(Tick::Nothing, |len| Tick::Send(len, inner.endpoint))
    }

    /// Greets the peer although nothing is to be sent.
    pub fn greet(&self, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.greeting(room, false)
    }

    /// Greets the peer although a greeting is out.
    pub fn greet_again(&self, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.greeting(room, true)
    }

    fn greeting(&self, room: &mut [u8], again: bool) -> Option<(usize, SocketAddr)> {
        let mut inner = self.lock();
        if let Some(len) = inner.wake(room) {
            return Some((len, inner.endpoint));
        }
        match inner.tunn.format_handshake_initiation(room, again) {
            TunnResult::WriteToNetwork(greeting) => {
                let len = greeting.len();
                inner.note_greeting();
                Some((len, inner.endpoint))
            }
            _ => None,
        }
    }

    /// A packet of nothing, where there is a session.
    pub fn keep_alive(&self, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let mut inner = self.lock();
        inner.tunn.time_since_last_handshake()?;
        match inner.tunn.encapsulate(&[], room) {
            TunnResult::WriteToNetwork(sealed) => Some((sealed.len(), inner.endpoint)),
            _ => None,
        }
    }

    /// Where the peer was last heard from.
    pub fn endpoint(&self) -> SocketAddr {
        self.lock().endpoint
    }

    /// Says where the peer was heard from, by one who can know.
    pub fn follow(&self, endpoint: SocketAddr) {
        self.lock().endpoint = endpoint;
    }

    /// Whether a greeting is out that may still be answered.
    pub fn awaits_answer(&self) -> bool {
        self.lock().asked.is_some_and(|at| at.elapsed() < ANSWERED_WITHIN)
    }

    /// How long ago the last handshake was.
    pub fn since_handshake(&self) -> Option<Duration> {
        self.lock().tunn.time_since_last_handshake()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether something may become due by time: there is a session, or one is being made.
    fn is_live(&mut self) -> bool {
        let has_session = self.tunn.time_since_last_handshake().is_some();
        // boringtun says so when nobody answers within `REKEY_ATTEMPT_TIME`.
        self.greeted &= !has_session && !self.tunn.is_expired();
        has_session || self.greeted
    }

    /// Keeps a packet, without a greeting, for the session that the peer is about to begin, while there is room; `None`
    /// when there is one.
    fn put_aside(&mut self, packet: &[u8]) -> Option<Result<(), Reason>> {
        self.answered = self.tunn.time_since_last_handshake().is_none();
        if !self.answered {
            return None;
        }
        if self.aside.len() >= MOST_ASIDE {
            return Some(Err(Reason::NoSession));
        }
        self.aside.push_back(packet.to_vec());
        Some(Ok(()))
    }

    /// Lets a sleeper have the time that it has missed. Without it a new session would be as old as the sleep was long,
    /// and end at the next tick.
    fn wake(&mut self, room: &mut [u8]) -> Option<usize> {
        std::mem::take(&mut self.asleep).then(|| self.tick(room)).flatten()
    }

    fn tick(&mut self, room: &mut [u8]) -> Option<usize> {
        let TunnResult::WriteToNetwork(sealed) = self.tunn.update_timers(room) else { return None };
        let (len, is_greeting) = (sealed.len(), sealed.first() == Some(&GREETING));
        if is_greeting {
            self.note_greeting();
        }
        Some(len)
    }

    fn note_greeting(&mut self) {
        self.greeted = true;
        self.asked = Some(Instant::now());
    }
}

fn opened(result: TunnResult<'_>) -> Result<Opened, Reason> {
    match result {
        TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
            Ok(Opened::Packet(packet.len()))
        }
        TunnResult::WriteToNetwork(answer) => Ok(Opened::Answer(answer.len())),
        TunnResult::Done => Ok(Opened::Alive),
        TunnResult::Err(WireGuardError::DuplicateCounter | WireGuardError::InvalidCounter) => {
            Err(Reason::Replayed)
        }
        TunnResult::Err(_) => Err(Reason::Unsealed),
    }
}

/// Keys are nobody's business.
impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Octets that sealing adds, or that a greeting has at least.
pub const SEAL: usize = 148;
/// Octets of a cookie.
pub const COOKIE: usize = 64;
/// The first octet of a greeting.
const GREETING: u8 = 1;
/// And of its answer.
const ANSWER: u8 = 2;
/// Packets that are kept so (`MAX_QUEUE_DEPTH` of boringtun).
const MOST_ASIDE: usize = 256;
/// Handshakes of a second beyond which a sender has to show that it is where it says.
const MOST_HANDSHAKES: u64 = 100;
/// Answers of a second: a successor greets all peers at once.
const MOST_ANSWERS: u64 = 4_096;
/// Whatever is answered later has gone astray, or its peer is dead.
const ANSWERED_WITHIN: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests;
