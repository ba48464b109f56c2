//! What is said to an engine and what it answers, as octets.
//!
//! ```text
//!   0       3         4        5
//!   ┌───────┬─────────┬────────┬──────────────────────┐
//!   │ "RSE" │ version │  kind  │ body, by its kind    │   one datagram of a SOCK_SEQPACKET socket
//!   └───────┴─────────┴────────┴──────────────────────┘
//! ```
//!
//! Numbers are big endian, an address is its family (4, 6) and its octets, a text its length (16 bits) and
//! itself. Lists are of at most [`MOST_ROWS`] rows; more come in more datagrams, of which all but the last say
//! that another follows. Whatever comes in is hostile until it has been read to its last octet.
//!
//! A form never changes within a version. A new kind may come without a new version where the one who asks can do with its
//! being refused, which is what an engine of before does.

mod octets;

use std::net::{IpAddr, SocketAddr};

use russet_desired::{EngineEnd, EnginePeerSpec, EngineSpec};
use russet_net::{Prefix, PublicKey};

use self::octets::{Reader, Writer};

/// What an engine is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Who are you? The answer brings the anchor of the device, once there is one.
    Hello,
    /// Begin. To be said once.
    Start(EngineSpec),
    /// These prefixes are there now, or nowhere.
    Patch(Vec<(Prefix, Option<EnginePeerSpec>)>),
    /// Tell all peers' prefixes.
    Peers,
    /// Tell what was counted.
    Status,
    /// End, and forget.
    Stop,
    /// Hand everything over: the answer brings the descriptors.
    HandOver,
    /// It is taken over; end.
    TakenOver,
    /// Let me take your place: as [`Self::HandOver`], of an engine that seals. One of before does not know it, and
    /// refuses.
    Succeed,
    /// The peers have sessions with the successor; send no more.
    Ready,
}

/// What an engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Hello(Hello),
    Done,
    Refused(String),
    Peers(Vec<(Prefix, EnginePeerSpec)>, More),
    Totals(Totals),
    Counted(Vec<PeerCount>, More),
    HandedOver(HandedOver),
    /// Not yet; ask again.
    Later,
    /// The successor's sessions have numbers from here on; what is sealed for others goes into the descriptor that
    /// comes with it.
    Passage(u32),
    /// The peers that there are sessions with.
    Living(Vec<Living>, More),
}

/// A peer that there is a session with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Living {
    pub key: PublicKey,
    /// Where it was last heard from.
    pub endpoint: SocketAddr,
}

/// Whether another datagram of the same list follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    Follows,
    Nothing,
}

/// Who an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the program.
    pub build: String,
    pub pid: u32,
    /// What it was started with.
    pub spec: Option<EngineSpec>,
}

/// What an engine has counted as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets that were dropped, by reason.
    pub losses: Vec<(String, u64)>,
    /// How often a message had up to 1, 2, 4 … packets: sent, received, and written to the device.
    pub sent: Vec<u64>,
    pub received: Vec<u64>,
    pub written: Vec<u64>,
    /// Answers by ICMP.
    pub answers: u64,
    pub queues: u32,
    /// The offload that the device has.
    pub offload: String,
}

/// What passed between an engine and one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCount {
    pub endpoint: SocketAddr,
    /// Packets and octets.
    pub sent: [u64; 2],
    pub received: [u64; 2],
    /// Seconds since the last handshake, where packets are sealed and there was one.
    pub handshake: Option<u64>,
}

/// What the descriptors that come with it are, in their order: the anchor, so many queues, sockets of each family, and
/// the listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    pub spec: EngineSpec,
    pub queues: u8,
    pub v4: u8,
    pub v6: u8,
    pub offload: u8,
    pub pace: u8,
}

/// Why a datagram was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it is no message of an engine's")]
    NotOurs,
    #[error("version {0} of the engine's protocol is not spoken, only {VERSION}")]
    Version(u8),
    #[error("a message of kind {0} is not of its form")]
    Body(u8),
}

impl Ask {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello => Writer::new(1),
            Self::Start(spec) => Writer::new(2).spec(*spec),
            Self::Patch(rows) => Writer::new(3).rows(rows, |out, (prefix, peer)| {
                let out = out.prefix(*prefix);
                out.option(*peer, Writer::peer)
            }),
            Self::Peers => Writer::new(4),
            Self::Status => Writer::new(5),
            Self::Stop => Writer::new(6),
            Self::HandOver => Writer::new(7),
            Self::TakenOver => Writer::new(8),
            Self::Succeed => Writer::new(9),
            Self::Ready => Writer::new(10),
        }
        .finish()
    }

    /// # Errors
    ///
    /// When it is not understood.
    pub fn decode(octets: &[u8]) -> Result<Self, WireError> {
        let (kind, mut body) = Reader::open(octets)?;
        let ask = match kind {
            1 => Some(Self::Hello),
            2 => body.spec().map(Self::Start),
            3 => body.rows(patch_row).map(Self::Patch),
            4 => Some(Self::Peers),
            5 => Some(Self::Status),
            6 => Some(Self::Stop),
            7 => Some(Self::HandOver),
            8 => Some(Self::TakenOver),
            9 => Some(Self::Succeed),
            10 => Some(Self::Ready),
            _ => None,
        };
        ask.filter(|_| body.is_empty()).ok_or(WireError::Body(kind))
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => {
                Writer::new(101).text(&hello.build).u32(hello.pid).option(hello.spec, Writer::spec)
            }
            Self::Done => Writer::new(102),
            Self::Refused(why) => Writer::new(103).text(why),
            Self::Peers(rows, more) => Writer::new(104)
                .u8(more.wire())
                .rows(rows, |out, row| out.prefix(row.0).peer(row.1)),
            Self::Totals(totals) => totals.write(Writer::new(105)),
            Self::Counted(rows, more) => {
                Writer::new(106).u8(more.wire()).rows(rows, |out, row| row.write(out))
            }
            Self::HandedOver(over) => Writer::new(107)
                .spec(over.spec)
                .u8(over.queues)
                .u8(over.v4)
                .u8(over.v6)
                .u8(over.offload)
                .u8(over.pace),
            Self::Later => Writer::new(108),
            Self::Passage(first) => Writer::new(109).u32(*first),
            Self::Living(rows, more) => Writer::new(110)
                .u8(more.wire())
                .rows(rows, |out, row| out.bytes(&row.key.octets()).socket(row.endpoint)),
        }
        .finish()
    }

    /// # Errors
    ///
    /// When it is not understood.
    pub fn decode(octets: &[u8]) -> Result<Self, WireError> {
        let (kind, mut body) = Reader::open(octets)?;
        let answer = match kind {
            101 => hello(&mut body).map(Self::Hello),
            102 => Some(Self::Done),
            103 => body.text().map(Self::Refused),
            104 => peers(&mut body),
            105 => Totals::read(&mut body).map(Self::Totals),
            106 => counted(&mut body),
            107 => handed_over(&mut body).map(Self::HandedOver),
            108 => Some(Self::Later),
            109 => body.u32().map(Self::Passage),
            110 => living(&mut body),
            _ => None,
        };
        answer.filter(|_| body.is_empty()).ok_or(WireError::Body(kind))
    }
}

fn patch_row(body: &mut Reader<'_>) -> Option<(Prefix, Option<EnginePeerSpec>)> {
    let prefix = body.prefix()?;
    let peer = body.option(Reader::peer)?;
    Some((prefix, peer))
}

fn hello(body: &mut Reader<'_>) -> Option<Hello> {
    Some(Hello { build: body.text()?, pid: body.u32()?, spec: body.option(Reader::spec)? })
}

fn peers(body: &mut Reader<'_>) -> Option<Answer> {
    let more = More::of(body.u8()?)?;
    let row = |body: &mut Reader<'_>| Some((body.prefix()?, body.peer()?));
    Some(Answer::Peers(body.rows(row)?, more))
}

fn counted(body: &mut Reader<'_>) -> Option<Answer> {
    let more = More::of(body.u8()?)?;
    Some(Answer::Counted(body.rows(PeerCount::read)?, more))
}

fn living(body: &mut Reader<'_>) -> Option<Answer> {
    let more = More::of(body.u8()?)?;
    let row = |body: &mut Reader<'_>| {
        let key = body.array().map(PublicKey::new)?;
        Some(Living { key, endpoint: body.socket()? })
    };
    Some(Answer::Living(body.rows(row)?, more))
}

fn handed_over(body: &mut Reader<'_>) -> Option<HandedOver> {
    Some(HandedOver {
        spec: body.spec()?,
        queues: body.u8()?,
        v4: body.u8()?,
        v6: body.u8()?,
        offload: body.u8()?,
        pace: body.u8()?,
    })
}

impl More {
    const fn wire(self) -> u8 {
        match self {
            Self::Follows => 1,
            Self::Nothing => 0,
        }
    }

    const fn of(octet: u8) -> Option<Self> {
        match octet {
            0 => Some(Self::Nothing),
            1 => Some(Self::Follows),
            _ => None,
        }
    }
}

impl Totals {
    fn write(&self, out: Writer) -> Writer {
        out.rows(&self.losses, |out, (name, count)| out.text(name).u64(*count))
            .rows(&self.sent, |out, count| out.u64(*count))
            .rows(&self.received, |out, count| out.u64(*count))
            .rows(&self.written, |out, count| out.u64(*count))
            .u64(self.answers)
            .u32(self.queues)
            .text(&self.offload)
    }

    fn read(body: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            losses: body.rows(|body| Some((body.text()?, body.u64()?)))?,
            sent: body.rows(Reader::u64)?,
            received: body.rows(Reader::u64)?,
            written: body.rows(Reader::u64)?,
            answers: body.u64()?,
            queues: body.u32()?,
            offload: body.text()?,
        })
    }
}

impl PeerCount {
    fn write(&self, out: Writer) -> Writer {
        let [sent, sent_octets] = self.sent;
        let [received, received_octets] = self.received;
        out.socket(self.endpoint)
            .u64(sent)
            .u64(sent_octets)
            .u64(received)
            .u64(received_octets)
            .option(self.handshake, Writer::u64)
    }

    fn read(body: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            endpoint: body.socket()?,
            sent: [body.u64()?, body.u64()?],
            received: [body.u64()?, body.u64()?],
            handshake: body.option(Reader::u64)?,
        })
    }
}

/// An end as octets: where it listens, and its inner address.
fn end(body: &mut Reader<'_>) -> Option<EngineEnd> {
    let listen = body.socket()?;
    let inner: IpAddr = body.addr()?;
    Some(EngineEnd { listen, inner })
}

/// The version of the protocol.
pub const VERSION: u8 = 1;
/// Rows of one datagram at most; the largest row has 70 octets.
pub const MOST_ROWS: usize = 500;
/// Octets of a datagram at most.
pub const MOST_OCTETS: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use russet_desired::{EngineWire, WireguardSpec};
    use russet_net::PresharedKey;

    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let peer = EnginePeerSpec {
            endpoint: "192.168.77.2:8285".parse().unwrap(),
            key: Some(PublicKey::new([7; 32])),
        };
        let prefix: Prefix = "10.50.2.0/24".parse().unwrap();
        for ask in [
            Ask::Hello,
            Ask::Start(spec()),
            Ask::Patch(vec![(prefix, Some(peer)), ("fd00:50::/64".parse().unwrap(), None)]),
            Ask::Peers,
            Ask::Status,
            Ask::Stop,
            Ask::HandOver,
            Ask::TakenOver,
            Ask::Succeed,
            Ask::Ready,
        ] {
            assert_eq!(Ask::decode(&ask.encode()), Ok(ask));
        }
        let hello = Hello { build: "1.2.3".into(), pid: 4_711, spec: Some(spec()) };
        let totals = Totals {
            losses: vec![("spoofed".into(), 3), ("short".into(), u64::MAX)],
            sent: vec![1, 2, 3],
            offload: "tcp".into(),
            queues: 2,
            ..Totals::default()
        };
        let count = PeerCount {
            endpoint: peer.endpoint,
            sent: [1, 2],
            received: [u64::MAX, 4],
            handshake: Some(9),
        };
        let living = Living { key: PublicKey::new([8; 32]), endpoint: peer.endpoint };
        let over = HandedOver { spec: spec(), queues: 2, v4: 2, v6: 0, offload: 3, pace: 0 };
        for answer in [
            Answer::Hello(hello),
            Answer::Done,
            Answer::Refused("no".into()),
            Answer::Peers(vec![(prefix, peer)], More::Follows),
            Answer::Totals(totals),
            Answer::Counted(vec![count], More::Nothing),
            Answer::HandedOver(over),
            Answer::Later,
            Answer::Passage(0x00ff_fffe),
            Answer::Living(vec![living], More::Nothing),
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn the_longest_list_fits_into_a_datagram() {
        let endpoint: SocketAddr = "[fd77::2]:8285".parse().unwrap();
        let row = PeerCount { endpoint, sent: [0; 2], received: [0; 2], handshake: Some(9) };
        let rows = Answer::Counted(vec![row; MOST_ROWS], More::Nothing).encode();
        assert!(rows.len() <= MOST_OCTETS, "{}", rows.len());
    }

    #[test]
    fn another_version_is_named_before_anything_else_is_looked_at() {
        let mut octets = Ask::Hello.encode();
        octets[3] = 9;
        octets.extend([0; 9]);
        assert_eq!(Ask::decode(&octets), Err(WireError::Version(9)));
        assert_eq!(Ask::decode(b"GET / HTTP"), Err(WireError::NotOurs));
        assert_eq!(Ask::decode(b""), Err(WireError::NotOurs));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic_or_grow(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let octets = [&b"RSE"[..], &[VERSION, kind], &body].concat();
            let _ = Ask::decode(&octets);
            let _ = Answer::decode(&octets);
        }
    }

    fn spec() -> EngineSpec {
        let end = |listen: &str, inner: &str| EngineEnd {
            listen: listen.parse().unwrap(),
            inner: inner.parse().unwrap(),
        };
        let wireguard = WireguardSpec { psk: Some(PresharedKey::new([9; 32])), keepalive: 25 };
        EngineSpec {
            wire: EngineWire::Wireguard(wireguard),
            v4: Some(end("192.168.77.1:8285", "10.50.1.0")),
            v6: Some(end("[fd77::1]:8285", "fd00:50::")),
        }
    }
}
