//! What both sides of a session agreed on, as far as octets depend on it.

use super::{Family, FamilySet};

/// Without these, an UPDATE cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub peering: Peering,
    pub as_width: AsWidth,
    /// The families that both sides speak.
    pub families: FamilySet,
    /// Where what we receive has path identifiers (RFC 7911).
    pub add_path_in: FamilySet,
    /// Where what we send has path identifiers.
    pub add_path_out: FamilySet,
    /// Where a next hop may be IPv6 although the family is IPv4 (RFC 8950).
    pub extended_next_hop: FamilySet,
    pub limit: MessageLimit,
}

impl Terms {
    /// What holds when no capability was agreed on: IPv4 unicast and nothing else (RFC 4271).
    pub const fn plain(peering: Peering) -> Self {
        Self {
            peering,
            as_width: AsWidth::Two,
            families: FamilySet::EMPTY.with(Family::Ipv4Unicast),
            add_path_in: FamilySet::EMPTY,
            add_path_out: FamilySet::EMPTY,
            extended_next_hop: FamilySet::EMPTY,
            limit: MessageLimit::Usual,
        }
    }
}

/// Whether the peer is in our AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peering {
    Internal,
    External,
}

/// How wide an AS number is in `AS_PATH` and `AGGREGATOR` (RFC 6793).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AsWidth {
    Two,
    Four,
}

impl AsWidth {
    pub const fn octets(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// How long a message may be, its header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageLimit {
    /// 4,096 octets (RFC 4271 §4.1).
    Usual,
    /// 65,535 octets, for everything but OPEN and KEEPALIVE (RFC 8654).
    Extended,
}

impl MessageLimit {
    pub const fn octets(self) -> usize {
        match self {
            Self::Usual => 4_096,
            Self::Extended => 65_535,
        }
    }
}
