//! The inner packet: what is looked at before it is believed, and the two octets that change on the way.
//!
//! Hostile until [`Inner::parse`] has seen it. The length that a packet says must be the length that it has: a
//! tunnel neither pads nor cuts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use russet_net::{Family, checksum};

use crate::counters::Reason;

/// What the header of an inner packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// The octets of the IP header, options included and extension headers not.
    pub header: usize,
    /// The protocol of what follows the header.
    pub protocol: u8,
    pub hops: u8,
    /// Whether it is a fragment other than the first.
    pub later_fragment: bool,
}

impl Inner {
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(packet: &[u8]) -> Result<Self, Reason> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(packet),
            Some(6) => Self::parse_v6(packet),
            Some(_) => Err(Reason::Malformed),
            None => Err(Reason::Short),
        }
    }

    fn parse_v4(packet: &[u8]) -> Result<Self, Reason> {
        let Some(fixed) = packet.first_chunk::<V4_HEADER>() else { return Err(Reason::Short) };
        let header = usize::from(fixed[0] & 0x0f) * 4;
        let says = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if header < V4_HEADER || says < header {
            return Err(Reason::Malformed);
        }
        fits(packet.len(), says)?;
        let address = |from: usize| {
            let octets: [u8; 4] = fixed[from..from + 4].try_into().unwrap_or_default();
            Ipv4Addr::from(octets)
        };
        Ok(Self {
            src: address(12).into(),
            dst: address(16).into(),
            header,
            protocol: fixed[9],
            hops: fixed[8],
            later_fragment: u16::from_be_bytes([fixed[6], fixed[7]]) & FRAGMENT_OFFSET != 0,
        })
    }

    fn parse_v6(packet: &[u8]) -> Result<Self, Reason> {
        let Some(fixed) = packet.first_chunk::<V6_HEADER>() else { return Err(Reason::Short) };
        fits(packet.len(), V6_HEADER + usize::from(u16::from_be_bytes([fixed[4], fixed[5]])))?;
        let address = |from: usize| {
            let octets: [u8; 16] = fixed[from..from + 16].try_into().unwrap_or_default();
            Ipv6Addr::from(octets)
        };
        Ok(Self {
            src: address(8).into(),
            dst: address(24).into(),
            header: V6_HEADER,
            protocol: fixed[6],
            hops: fixed[7],
            later_fragment: fixed[6] == V6_FRAGMENT,
        })
    }

    pub const fn family(&self) -> Family {
        Family::of(self.dst)
    }
}

const fn fits(has: usize, says: usize) -> Result<(), Reason> {
    if has < says {
        Err(Reason::Short)
    } else if has > says {
        Err(Reason::Long)
    } else {
        Ok(())
    }
}

/// Takes one from the hops that a parsed packet may still go.
///
/// # Errors
///
/// [`Reason::Hops`] when that was the last. The packet is as it was then, for the quote.
pub fn take_hop(packet: &mut [u8], inner: &Inner) -> Result<(), Reason> {
    if inner.hops <= 1 {
        return Err(Reason::Hops);
    }
    match inner.family() {
        Family::V4 => {
            packet[V4_TTL] -= 1;
            // One less in the upper octet of a word is one more in the sum's complement (RFC 1624 §3).
            let sum = u16::from_be_bytes([packet[V4_SUM], packet[V4_SUM + 1]]);
            // Of the two zeros it is the one that a sum from scratch comes to.
            let new = Some(checksum::fold(u64::from(sum) + 0x100)).filter(|new| *new != u16::MAX);
            let new = new.unwrap_or_default();
            packet[V4_SUM..V4_SUM + 2].copy_from_slice(&new.to_be_bytes());
        }
        Family::V6 => packet[V6_HOPS] -= 1,
    }
    Ok(())
}

/// The fixed part of an IPv4 header.
pub const V4_HEADER: usize = 20;
pub const V6_HEADER: usize = 40;
pub const V4_TTL: usize = 8;
pub const V4_SUM: usize = 10;
pub const V6_HOPS: usize = 7;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMP_V6: u8 = 58;
const V6_FRAGMENT: u8 = 44;
const FRAGMENT_OFFSET: u16 = 0x1fff;

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4HeaderSlice, PacketBuilder};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_in_both_families() {
        let inner = Inner::parse(&v4(64, b"x")).unwrap();
        assert_eq!(
            (inner.src.to_string(), inner.hops, inner.protocol),
            ("10.0.1.2".into(), 64, UDP)
        );
        let inner = Inner::parse(&v6(64, b"x")).unwrap();
        assert_eq!((inner.dst.to_string(), inner.header), ("fd00::2".into(), 40));
    }

    #[test]
    fn a_length_that_is_not_that_of_the_packet_is_told_apart() {
        for packet in [v4(64, b"abcd"), v6(64, b"abcd")] {
            let long = [&packet[..], &[0]].concat();
            assert_eq!(Inner::parse(&packet[..packet.len() - 1]), Err(Reason::Short));
            assert_eq!(Inner::parse(&packet[..12]), Err(Reason::Short));
            assert_eq!(Inner::parse(&long), Err(Reason::Long));
        }
        assert_eq!(Inner::parse(&[]), Err(Reason::Short));
        assert_eq!(Inner::parse(&[0x50; 64]), Err(Reason::Malformed));
        assert_eq!(Inner::parse(&[0x41; 64]), Err(Reason::Malformed));
    }

    #[test]
    fn a_hop_is_taken_and_the_sum_stays_right() {
        for hops in 2..=255 {
            let mut packet = v4(hops, b"abc");
            let inner = Inner::parse(&packet).unwrap();
            take_hop(&mut packet, &inner).unwrap();
            let header = Ipv4HeaderSlice::from_slice(&packet).unwrap();
            assert_eq!(header.ttl(), hops - 1);
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        }
        for id in 0..=u16::MAX {
            let mut packet = v4(64, b"abc");
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            let header = Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
            let sum = header.calc_header_checksum();
            packet[V4_SUM..V4_SUM + 2].copy_from_slice(&sum.to_be_bytes());
            let inner = Inner::parse(&packet).unwrap();
            take_hop(&mut packet, &inner).unwrap();
            let header = Ipv4HeaderSlice::from_slice(&packet).unwrap();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        }
        for hops in [0, 1] {
            let mut packet = v6(hops, b"abc");
            let inner = Inner::parse(&packet).unwrap();
            assert_eq!(take_hop(&mut packet, &inner), Err(Reason::Hops));
            assert_eq!(packet, v6(hops, b"abc"));
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(mut octets in proptest::collection::vec(any::<u8>(), 0..80), first in 0x40..0x70_u8) {
            if let Some(at) = octets.first_mut() {
                *at = first;
            }
            if let Ok(inner) = Inner::parse(&octets) {
                let _ = take_hop(&mut octets, &inner);
            }
        }
    }

    fn v4(hops: u8, payload: &[u8]) -> Vec<u8> {
        written(PacketBuilder::ipv4([10, 0, 1, 2], [10, 0, 2, 3], hops).udp(1, 2), payload)
    }

    fn v6(hops: u8, payload: &[u8]) -> Vec<u8> {
        let ends: [Ipv6Addr; 2] = ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()];
        written(PacketBuilder::ipv6(ends[0].octets(), ends[1].octets(), hops).udp(1, 2), payload)
    }

    fn written(
        builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut packet = Vec::new();
        builder.write(&mut packet, payload).unwrap();
        packet
    }
}
