//! WireGuard: what is sealed for a peer and opened from it (the protocol is `boringtun`'s `noise`).
//!
//! A [`Vault`] has the node's key, a [`Tunnel`] the sessions with one peer. Sealing and opening of one peer share its
//! sessions, so each tunnel has a lock, which a thread holds for one packet; different peers, and the two directions
//! of different nodes, never meet. A tunnel without a session keeps up to 256 packets until there is one.
//!
//! boringtun knows the time of its last tick only, and the engine's clock ticks for nobody who has no session and makes
//! none. Such a tunnel sleeps; whoever uses it next lets it have the time that it has missed, before anything is dated.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
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
    limiter: Arc<RateLimiter>,
    next_index: AtomicU32,
}

impl Vault {
    pub fn new(secret: StaticSecret, spec: WireguardSpec) -> Self {
        let public = x25519::PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, MOST_HANDSHAKES));
        Self { secret, public, spec, limiter, next_index: AtomicU32::new(1) }
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
            Some(Arc::clone(&self.limiter)),
        );
        let inner = Inner { tunn, endpoint, greeted: false, asleep: true };
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
        match inner.tunn.encapsulate(packet, room) {
            TunnResult::WriteToNetwork(sealed) => {
                let (len, is_greeting) = (sealed.len(), sealed.first() == Some(&GREETING));
                if is_greeting {
                    inner.greeted = true;
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
        Ok(opened)
    }

    /// Whether there may be [`Self::more`] to send, now that something was opened.
    pub fn has_waiting(&self) -> bool {
        self.waits.load(Relaxed)
    }

    /// What waited for a session, one after the other, until there is nothing more.
    ///
    /// Whoever answers a greeting has no session to seal by before the peer has used it. boringtun would greet once more
    /// then, forgetting the greeting that it has out, and two that greet each other at once would not come to an end.
    pub fn more(&self, room: &mut [u8]) -> Option<usize> {
        let mut inner = self.lock();
        inner.tunn.time_since_last_handshake()?;
        let TunnResult::WriteToNetwork(sealed) = inner.tunn.decapsulate(None, &[], room) else {
            self.waits.store(false, Relaxed);
            return None;
        };
        Some(sealed.len())
    }

    /// Does what is due by time.
    pub fn tick(&self, room: &mut [u8]) -> Tick {
        let mut inner = self.lock();
        inner.asleep = !inner.is_live();
        if inner.asleep {
            return Tick::Asleep;
        }
        inner.tick(room).map_or(Tick::Nothing, |len| Tick::Send(len, inner.endpoint))
    }

    /// Greets the peer although nothing is to be sent.
    pub fn greet(&self, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let mut inner = self.lock();
        if let Some(len) = inner.wake(room) {
            return Some((len, inner.endpoint));
        }
        match inner.tunn.format_handshake_initiation(room, false) {
            TunnResult::WriteToNetwork(greeting) => {
                let len = greeting.len();
                inner.greeted = true;
                Some((len, inner.endpoint))
            }
            _ => None,
        }
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

    /// Lets a sleeper have the time that it has missed. Without it a new session would be as old as the sleep was long,
    /// and end at the next tick.
    fn wake(&mut self, room: &mut [u8]) -> Option<usize> {
        std::mem::take(&mut self.asleep).then(|| self.tick(room)).flatten()
    }

    fn tick(&mut self, room: &mut [u8]) -> Option<usize> {
        let TunnResult::WriteToNetwork(sealed) = self.tunn.update_timers(room) else { return None };
        self.greeted |= sealed.first() == Some(&GREETING);
        Some(sealed.len())
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
/// Handshakes of a second beyond which a sender has to show that it is where it says.
const MOST_HANDSHAKES: u64 = 100;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{key, samples::Sample};

    #[test]
    fn a_packet_waits_for_the_handshake_and_comes_out_as_it_went_in() {
        let pair = Pair::new(None, None);
        let packet = Sample { payload: vec![7; 500], ..Sample::default() }.packet();
        let mut room = [0; 2_000];
        let (len, to) = pair.a.seal(&packet, &mut room).unwrap().unwrap();
        assert_eq!((len, to), (148, at(2)), "a greeting");
        assert!(pair.a.seal(&packet, &mut [0; 2_000]).unwrap().is_none(), "one is enough");

        let mut answer = [0; 2_000];
        let Opened::Answer(len) = pair.b.open(at(1), &room[..len], &mut answer).unwrap() else {
            panic!("no answer")
        };
        assert!(len <= 148, "never more than was received");
        let mut sign = [0; 2_000];
        let Opened::Answer(sign_len) = pair.a.open(at(2), &answer[..len], &mut sign).unwrap()
        else {
            panic!("no sign of life")
        };
        assert!(matches!(pair.b.open(at(1), &sign[..sign_len], &mut room), Ok(Opened::Alive)));
        for _ in 0..2 {
            let mut sealed = [0; 2_000];
            let len = pair.a.more(&mut sealed).unwrap();
            let Opened::Packet(len) = pair.b.open(at(1), &sealed[..len], &mut room).unwrap() else {
                panic!("no packet")
            };
            assert_eq!(room[..len], packet);
        }
        assert!(pair.a.more(&mut room).is_none());
        assert_ne!(pair.a.tick(&mut room), Tick::Asleep);
        assert!(pair.a.since_handshake().is_some());
    }

    #[test]
    fn a_peer_that_moves_is_followed_and_an_old_packet_or_a_liar_is_not() {
        let pair = Pair::new(None, None);
        pair.shake_hands();
        let mut room = [0; 2_000];
        let packet = Sample { payload: vec![7; 50], ..Sample::default() }.packet();
        let (len, _) = pair.a.seal(&packet, &mut room).unwrap().unwrap();
        let sealed = room[..len].to_vec();
        assert!(matches!(pair.b.open(at(9), &sealed, &mut room), Ok(Opened::Packet(_))));
        assert_eq!(pair.b.seal(&packet, &mut room).unwrap().unwrap().1, at(9));

        assert_eq!(pair.b.open(at(7), &sealed, &mut room).unwrap_err(), Reason::Replayed);
        let mut forged = sealed;
        forged[30] ^= 1;
        forged[8] = 200;
        assert_eq!(pair.b.open(at(7), &forged, &mut room).unwrap_err(), Reason::Unsealed);
        assert_eq!(pair.b.seal(&packet, &mut room).unwrap().unwrap().1, at(9), "it stays");
    }

    #[test]
    fn who_does_not_share_the_preshared_key_is_not_let_in() {
        let psk = |n| Some(russet_net::PresharedKey::new([n; 32]));
        Pair::new(psk(1), psk(1)).shake_hands();
        let pair = Pair::new(psk(1), psk(2));
        let (mut greeting, mut answer) = ([0; 200], [0; 200]);
        let (len, _) = pair.a.greet(&mut greeting).unwrap();
        let Ok(Opened::Answer(len)) = pair.b.open(at(1), &greeting[..len], &mut answer) else {
            panic!("a greeting says nothing of the shared key yet")
        };
        assert_eq!(
            pair.a.open(at(2), &answer[..len], &mut greeting).unwrap_err(),
            Reason::Unsealed
        );
    }

    #[test]
    fn a_flood_of_greetings_is_answered_with_cookies_shorter_than_a_greeting() {
        let pair = Pair::new(None, None);
        let (mut greeting, mut room) = ([0; 200], [0; COOKIE]);
        let (len, _) = pair.a.greet(&mut greeting).unwrap();
        let mut cookies = 0;
        for _ in 0..500 {
            match pair.vault_b.sender(at(1).ip(), &greeting[..len], &mut room) {
                Sender::Key(key) => assert_eq!(key, pair.b.key),
                Sender::Cookie(cookie) => {
                    assert!(cookie.len() < len);
                    cookies += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(cookies >= 390, "{cookies}");
        // The load is forgotten a second later.
        let until = Instant::now() + Duration::from_secs(10);
        while !matches!(
            pair.vault_b.sender(at(1).ip(), &greeting[..len], &mut room),
            Sender::Key(_)
        ) {
            assert!(Instant::now() < until, "not within 10 s");
            pair.vault_b.second();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn octets_of_any_kind_are_from_nobody_and_make_nothing_panic() {
        let pair = Pair::new(None, None);
        pair.shake_hands();
        for len in 0..200 {
            for first in 0..6 {
                let mut octets = vec![0x5a; len];
                if len > 3 {
                    octets[..4].copy_from_slice(&[first, 0, 0, 0]);
                }
                let _ = pair.vault_b.sender(at(1).ip(), &octets, &mut [0; COOKIE]);
                assert!(pair.b.open(at(1), &octets, &mut [0; 2_000]).is_err() || len == 0);
            }
        }
    }

    #[test]
    fn nothing_tells_a_key() {
        let psk = russet_net::PresharedKey::new([0xab; 32]);
        let spec = WireguardSpec { psk: Some(psk), keepalive: 0 };
        let vault = Vault::new(StaticSecret::from([0xcd; 32]), spec);
        let told = format!("{vault:?} {:?}", vault.tunnel(PublicKey::new([1; 32]), at(1)));
        assert!(!told.contains("171") && !told.contains("205") && !told.contains("ab"), "{told}");
    }

    struct Pair {
        a: Tunnel,
        b: Tunnel,
        vault_b: Vault,
    }

    impl Pair {
        fn new(a: Option<russet_net::PresharedKey>, b: Option<russet_net::PresharedKey>) -> Self {
            let (one, two) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
            let keys = [key::public_of(&one), key::public_of(&two)];
            let vault = |secret, psk| Vault::new(secret, WireguardSpec { psk, keepalive: 0 });
            let (vault_a, vault_b) = (vault(one, a), vault(two, b));
            let (a, b) = (vault_a.tunnel(keys[1], at(2)), vault_b.tunnel(keys[0], at(1)));
            Self { a, b, vault_b }
        }

        fn shake_hands(&self) {
            let (mut one, mut two) = ([0; 200], [0; 200]);
            let (len, _) = self.a.greet(&mut one).unwrap();
            let Ok(Opened::Answer(len)) = self.b.open(at(1), &one[..len], &mut two) else {
                panic!()
            };
            let Ok(Opened::Answer(len)) = self.a.open(at(2), &two[..len], &mut one) else {
                panic!()
            };
            assert!(matches!(self.b.open(at(1), &one[..len], &mut two), Ok(Opened::Alive)));
        }
    }

    fn at(n: u8) -> SocketAddr {
        ([192, 168, 77, n], 51_820).into()
    }
}
