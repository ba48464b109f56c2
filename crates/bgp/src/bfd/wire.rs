//! The BFD control packet (RFC 5880 §4.1), checked on its way in as §6.8.6 asks.
//!
//! ```text
//!   0: version (3 bits), diagnostic (5)     1: state (2), P F C A D M
//!   2: detection multiplier                 3: length
//!   4: my discriminator                     8: your discriminator
//!  12: desired min TX   16: required min RX   20: required min echo RX   (microseconds)
//! ```

use std::{
    fmt,
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

/// A control packet that is well formed, without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub diagnostic: Diagnostic,
    pub state: State,
    pub flags: Flags,
    pub multiplier: Detection,
    pub mine: Discriminator,
    /// The receiver's discriminator; `None` while the sender does not know it.
    pub yours: Option<Discriminator>,
    pub desired_min_tx: Interval,
    /// Zero: the sender wants no periodic packets at all.
    pub required_min_rx: Interval,
    pub required_min_echo_rx: Interval,
}

/// A session's state, as it is told to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    AdminDown,
    Down,
    Init,
    Up,
}

/// Why a session is not up (RFC 5880 §4.1). A peer's own codes are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Diagnostic(u8);

/// The bits P, F, C and D.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

/// Which session of a system a packet is of: never zero, and no other session of that system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Discriminator(NonZeroU32);

/// After how many lost packets a peer is held dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Detection(NonZeroU8);

/// A time between packets, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(u32);

/// Why a packet is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("BFD packet of {0} octets, {LENGTH} are wanted")]
    Short(usize),
    #[error("BFD version {0}, 1 is wanted")]
    Version(u8),
    #[error("BFD length field {field} in a datagram of {got} octets")]
    Length { field: u8, got: usize },
    #[error("BFD packet with authentication, and none is agreed")]
    Authenticated,
    #[error("BFD detection multiplier is zero")]
    NoMultiplier,
    #[error("BFD multipoint bit is set")]
    Multipoint,
    #[error("BFD packet without its sender's discriminator")]
    NoDiscriminator,
    #[error("BFD packet in a state that knows us, without our discriminator")]
    Unaddressed,
}

impl Packet {
    /// Reads a datagram's payload.
    ///
    /// # Errors
    ///
    /// When RFC 5880 §6.8.6 says that it must be discarded, whichever session it is for.
    pub fn decode(bytes: &[u8]) -> Result<Self, PacketError> {
        let fixed: &[u8; LENGTH] = bytes.first_chunk().ok_or(PacketError::Short(bytes.len()))?;
        let [first, second, multiplier, length, ..] = *fixed;
        if first >> 5 != VERSION {
            return Err(PacketError::Version(first >> 5));
        }
        if second & AUTHENTICATED != 0 {
            return Err(PacketError::Authenticated);
        }
        if usize::from(length) < LENGTH || usize::from(length) > bytes.len() {
            return Err(PacketError::Length { field: length, got: bytes.len() });
        }
        if second & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        let state = State::from_bits(second >> 6);
        let yours = Discriminator::new(word(fixed, 8));
        if yours.is_none() && matches!(state, State::Init | State::Up) {
            return Err(PacketError::Unaddressed);
        }
        Ok(Self {
            diagnostic: Diagnostic(first & 0x1f),
            state,
            flags: Flags(second & Flags::ALL.0),
            multiplier: Detection::new(multiplier).ok_or(PacketError::NoMultiplier)?,
            mine: Discriminator::new(word(fixed, 4)).ok_or(PacketError::NoDiscriminator)?,
            yours,
            desired_min_tx: Interval(word(fixed, 12)),
            required_min_rx: Interval(word(fixed, 16)),
            required_min_echo_rx: Interval(word(fixed, 20)),
        })
    }

    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION << 5 | self.diagnostic.0;
        bytes[1] = self.state.bits() << 6 | self.flags.0;
        bytes[2] = self.multiplier.get();
        bytes[3] = LENGTH_OCTET;
        let words = [
            self.mine.get(),
            self.yours.map_or(0, Discriminator::get),
            self.desired_min_tx.0,
            self.required_min_rx.0,
            self.required_min_echo_rx.0,
        ];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// The big-endian number at `at`, which is one of the fixed offsets above.
fn word(bytes: &[u8; LENGTH], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

impl State {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::AdminDown => 0,
            Self::Down => 1,
            Self::Init => 2,
            Self::Up => 3,
        }
    }
}

impl Diagnostic {
    pub const NONE: Self = Self(0);
    pub const TIME_EXPIRED: Self = Self(1);
    pub const NEIGHBOR_DOWN: Self = Self(3);
    pub const ADMIN_DOWN: Self = Self(7);

    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("no diagnostic"),
            1 => f.pad("control detection time expired"),
            2 => f.pad("echo function failed"),
            3 => f.pad("neighbor signaled session down"),
            4 => f.pad("forwarding plane reset"),
            5 => f.pad("path down"),
            6 => f.pad("concatenated path down"),
            7 => f.pad("administratively down"),
            8 => f.pad("reverse concatenated path down"),
            other => write!(f, "diagnostic {other}"),
        }
    }
}

impl fmt::Debug for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Flags {
    pub const NONE: Self = Self(0);
    /// The sender wants an answer at once.
    pub const POLL: Self = Self(0x20);
    /// This is that answer.
    pub const FINAL: Self = Self(0x10);
    /// The sender's BFD does not share its fate with its control plane.
    pub const INDEPENDENT: Self = Self(0x08);
    /// The sender wants no periodic packets while both sides are up.
    pub const DEMAND: Self = Self(0x02);
    const ALL: Self = Self(0x3a);

    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    #[must_use]
    pub const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }
}

impl Discriminator {
    pub const fn new(raw: u32) -> Option<Self> {
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Detection {
    pub const fn new(packets: u8) -> Option<Self> {
        match NonZeroU8::new(packets) {
            Some(packets) => Some(Self(packets)),
            None => None,
        }
    }

    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl Interval {
    pub const ZERO: Self = Self(0);
    /// What is kept to while a session is not up (RFC 5880 §6.8.3).
    pub const SLOW: Self = Self(1_000_000);

    pub const fn from_micros(micros: u32) -> Self {
        Self(micros)
    }

    pub const fn from_millis(millis: u16) -> Self {
        Self(millis as u32 * 1_000)
    }

    pub const fn micros(self) -> u32 {
        self.0
    }

    pub const fn duration(self) -> Duration {
        Duration::from_micros(self.0 as u64)
    }
}

/// Octets of a packet without authentication.
pub const LENGTH: usize = 24;
const LENGTH_OCTET: u8 = 24;
const VERSION: u8 = 1;
const AUTHENTICATED: u8 = 0x04;
const MULTIPOINT: u8 = 0x01;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a router sends it that is up, polls, and is independent of its control plane.
    const GOLDEN: [u8; LENGTH] = [
        0x20, 0xe8, 3, 24, 0, 0, 0, 7, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50,
        0, 0, 0, 0,
    ];

    #[test]
    fn a_packet_means_what_its_octets_say() {
        let packet = Packet::decode(&GOLDEN).unwrap();
        assert_eq!(packet.state, State::Up);
        assert!(packet.flags.has(Flags::POLL) && packet.flags.has(Flags::INDEPENDENT));
        assert!(!packet.flags.has(Flags::FINAL) && !packet.flags.has(Flags::DEMAND));
        assert_eq!(packet.multiplier.get(), 3);
        assert_eq!(packet.mine.get(), 7);
        assert_eq!(packet.yours.map(Discriminator::get), Some(0xdead_beef));
        assert_eq!(packet.desired_min_tx, Interval::from_millis(50));
        assert_eq!(packet.encode(), GOLDEN);
    }

    #[test]
    fn each_rule_of_reception_discards() {
        let with = |at: usize, octet: u8| {
            let mut bytes = GOLDEN;
            bytes[at] = octet;
            Packet::decode(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 0x40), PacketError::Version(2));
        assert_eq!(with(1, 0xc4), PacketError::Authenticated);
        assert_eq!(with(1, 0xc1), PacketError::Multipoint);
        assert_eq!(with(2, 0), PacketError::NoMultiplier);
        assert_eq!(with(3, 23), PacketError::Length { field: 23, got: 24 });
        assert_eq!(with(3, 25), PacketError::Length { field: 25, got: 24 });
        assert_eq!(with(7, 0), PacketError::NoDiscriminator);
        assert_eq!(Packet::decode(&GOLDEN[..23]), Err(PacketError::Short(23)));

        let mut unaddressed = GOLDEN;
        unaddressed[8..12].fill(0);
        assert_eq!(Packet::decode(&unaddressed), Err(PacketError::Unaddressed));
        unaddressed[1] = 0x40;
        assert_eq!(Packet::decode(&unaddressed).unwrap().yours, None);
    }

    #[test]
    fn octets_behind_the_length_are_ignored() {
        let mut long = GOLDEN.to_vec();
        long.extend([0xff; 40]);
        assert_eq!(Packet::decode(&long), Packet::decode(&GOLDEN));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_again(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(packet) = Packet::decode(&bytes) {
                let mut canonical = bytes[..LENGTH].to_vec();
                canonical[3] = LENGTH_OCTET;
                prop_assert_eq!(packet.encode().to_vec(), canonical);
            }
        }

        #[test]
        fn a_valid_packet_with_one_octet_changed_never_panics(at in 0..LENGTH, octet: u8) {
            let mut bytes = GOLDEN;
            bytes[at] = octet;
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }
    }
}
