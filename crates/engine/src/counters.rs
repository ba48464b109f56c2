//! What is counted: each packet that is dropped, by its reason, and what passes, by its peer.
//!
//! Counters only grow, and are read by whoever wants to while the packets pass. A thread adds once for a
//! batch, not once for a packet.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Shorter than its header, or than it says.
    Short,
    /// Longer than it says.
    Long,
    /// Its header cannot be.
    Malformed,
    /// From a peer, and its source is not of that peer's prefixes.
    Spoofed,
    /// From a peer, and for a peer: it would go round.
    Looping,
    /// From an address that is no peer's.
    UnknownPeer,
    /// For an address that no peer has.
    NoRoute,
    /// It has gone its last hop.
    Hops,
    /// Larger than the path.
    TooBig,
    /// The socket or the device did not take it.
    Refused,
    /// Not sealed by its peer for us, or no greeting that we take.
    Unsealed,
    /// Sealed, and an old one once more.
    Replayed,
    /// Its peer answers no greeting.
    NoSession,
    /// A greeting among too many: its sender was sent a cookie.
    TooMany,
}

impl Reason {
    pub const ALL: [Self; 14] = [
        Self::Short,
        Self::Long,
        Self::Malformed,
        Self::Spoofed,
        Self::Looping,
        Self::UnknownPeer,
        Self::NoRoute,
        Self::Hops,
        Self::TooBig,
        Self::Refused,
        Self::Unsealed,
        Self::Replayed,
        Self::NoSession,
        Self::TooMany,
    ];

    /// As metrics and `status` call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Malformed => "malformed",
            Self::Spoofed => "spoofed",
            Self::Looping => "looping",
            Self::UnknownPeer => "unknown-peer",
            Self::NoRoute => "no-route",
            Self::Hops => "hops",
            Self::TooBig => "too-big",
            Self::Refused => "refused",
            Self::Unsealed => "unsealed",
            Self::Replayed => "replayed",
            Self::NoSession => "no-session",
            Self::TooMany => "too-many",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What passed in one direction.
#[derive(Debug, Default)]
pub struct Flow {
    packets: AtomicU64,
    octets: AtomicU64,
}

impl Flow {
    pub fn add(&self, packets: u64, octets: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.octets.fetch_add(octets, Relaxed);
    }

    /// Packets and octets.
    pub fn get(&self) -> [u64; 2] {
        [self.packets.load(Relaxed), self.octets.load(Relaxed)]
    }
}

/// Sizes of batches: how often the packets of one call were up to 1, 2, 4, 8, 16, 32, 64, and more.
#[derive(Debug, Default)]
pub struct Sizes([AtomicU64; Self::CLASSES]);

impl Sizes {
    pub const CLASSES: usize = 8;

    pub fn add(&self, packets: usize) {
        let class = packets.max(1).next_power_of_two().trailing_zeros();
        let class = usize::try_from(class).unwrap_or_default().min(Self::CLASSES - 1);
        self.0[class].fetch_add(1, Relaxed);
    }

    pub fn get(&self) -> [u64; Self::CLASSES] {
        self.0.each_ref().map(|count| count.load(Relaxed))
    }
}

/// What the whole engine counts.
#[derive(Debug, Default)]
pub struct Counters {
    losses: [AtomicU64; Reason::ALL.len()],
    /// Packets of one message to the socket.
    pub sent: Sizes,
    /// Packets of one message from the socket.
    pub received: Sizes,
    /// Packets of one write to the device.
    pub written: Sizes,
    /// Answers by ICMP.
    pub answers: AtomicU64,
}

impl Counters {
    pub fn lose(&self, reason: Reason, packets: u64) {
        // A reason's place in `ALL` is its number.
        self.losses[reason as usize].fetch_add(packets, Relaxed);
    }

    pub fn losses(&self) -> [u64; Reason::ALL.len()] {
        self.losses.each_ref().map(|count| count.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_place_that_it_is_counted_in() {
        let counters = Counters::default();
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            counters.lose(reason, u64::try_from(i).unwrap() + 1);
        }
        assert_eq!(counters.losses(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    }

    #[test]
    fn a_batch_is_counted_in_the_class_that_holds_it() {
        let sizes = Sizes::default();
        for packets in [0, 1, 2, 3, 4, 5, 64, 65, 1_000] {
            sizes.add(packets);
        }
        assert_eq!(sizes.get(), [2, 1, 2, 1, 0, 0, 1, 2]);
    }
}
