//! What a packet's sender is told when it cannot go on, as flannel tells it and RFC 792 and RFC 4443 have it.
//!
//! Pure. Only packets of our own node are answered; what a peer sends is dropped without a word, so nobody
//! gets more from us than was sent. No answer to an error, to a later fragment, or to a group; for a missing
//! route none to ICMP at all, as flannel has it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use russet_net::checksum;

use crate::{
    packet::{ICMP, ICMP_V6, Inner, V4_HEADER, V6_HEADER},
    split::finish_v4,
};

/// Why a packet cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Hops,
    NoRoute,
    /// The largest packet that can.
    TooBig(u16),
}

/// Writes the answer to a packet, from our own address, and returns its length; `None` when there is to be none.
pub fn answer(
    packet: &[u8],
    inner: &Inner,
    from: IpAddr,
    trouble: Trouble,
    out: &mut [u8; MOST],
) -> Option<usize> {
    may_be_answered(packet, inner, trouble).then_some(())?;
    match (from, inner.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let quote = &packet[..packet.len().min(inner.header + QUOTE_V4)];
            let len = V4_HEADER + HEAD + quote.len();
            let (kind, code, rest) = match trouble {
                Trouble::Hops => (11, 0, 0),
                Trouble::NoRoute => (3, 0, 0),
                Trouble::TooBig(mtu) => (3, 4, u32::from(mtu)),
            };
            write_message(&mut out[V4_HEADER..len], [kind, code], rest, quote);
            let sum = checksum::finish(checksum::sum(&out[V4_HEADER..len]));
            out[V4_HEADER + 2..V4_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
            let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
            let header = &mut out[..V4_HEADER];
            header[..12].copy_from_slice(&[0x45, 0xc0, high, low, 0, 0, 0, 0, TTL, ICMP, 0, 0]);
            header[12..16].copy_from_slice(&from.octets());
            header[16..].copy_from_slice(&to.octets());
            finish_v4(header);
            Some(len)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let quote = &packet[..packet.len().min(MOST - V6_HEADER - HEAD)];
            let len = V6_HEADER + HEAD + quote.len();
            let (kind, code, rest) = match trouble {
                Trouble::Hops => (3, 0, 0),
                Trouble::NoRoute => (1, 0, 0),
                Trouble::TooBig(mtu) => (2, 0, u32::from(mtu)),
            };
            write_message(&mut out[V6_HEADER..len], [kind, code], rest, quote);
            let pseudo = checksum::pseudo(from.into(), to.into(), ICMP_V6, len - V6_HEADER);
            let sum = checksum::finish(pseudo + checksum::sum(&out[V6_HEADER..len]));
            out[V6_HEADER + 2..V6_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
            let [high, low] = u16::try_from(len - V6_HEADER).ok()?.to_be_bytes();
            out[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, ICMP_V6, TTL]);
            out[8..24].copy_from_slice(&from.octets());
            out[24..40].copy_from_slice(&to.octets());
            Some(len)
        }
        _ => None,
    }
}

fn write_message(out: &mut [u8], kind_and_code: [u8; 2], rest: u32, quote: &[u8]) {
    out[..2].copy_from_slice(&kind_and_code);
    out[2..4].fill(0);
    out[4..8].copy_from_slice(&rest.to_be_bytes());
    out[8..].copy_from_slice(quote);
}

fn may_be_answered(packet: &[u8], inner: &Inner, trouble: Trouble) -> bool {
    let kind = packet.get(inner.header).copied();
    let is_question = match (inner.protocol, kind) {
        // Echo and its reply; all else may be an error.
        (ICMP, Some(0 | 8)) => trouble != Trouble::NoRoute,
        (ICMP_V6, Some(kind)) => kind >= 128 && trouble != Trouble::NoRoute,
        (ICMP | ICMP_V6, _) => false,
        _ => true,
    };
    let broadcast = matches!(inner.dst, IpAddr::V4(dst) if dst.is_broadcast());
    is_question
        && !inner.later_fragment
        && !inner.dst.is_multicast()
        && !broadcast
        && !inner.src.is_unspecified()
        && !inner.src.is_multicast()
}

/// How many answers may be given: so many at once, and one more with each [`Budget::EVERY`].
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: u32,
    refilled: Instant,
}

impl Budget {
    /// How many at once.
    pub const BURST: u32 = 50;
    /// How often one more: 100 a second.
    pub const EVERY: Duration = Duration::from_millis(10);

    pub const fn new(now: Instant) -> Self {
        Self { left: Self::BURST, refilled: now }
    }

    /// Whether one may be given now; it is counted then.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).as_millis();
        let more = u32::try_from(passed / Self::EVERY.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(Self::BURST);
            self.refilled = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// Octets of an answer at most: what every IPv6 link carries.
pub const MOST: usize = 1_280;
/// Octets of an ICMP message before its quote.
const HEAD: usize = 8;
/// What is quoted behind the IPv4 header.
const QUOTE_V4: usize = 8;
const TTL: u8 = 64;

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv4, icmpv6};

    use super::*;
    use crate::samples::Sample;

    const FROM_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 0));

    #[test]
    fn a_route_that_is_missing_is_told_as_flannel_tells_it() {
        let packet = Sample { payload: vec![1; 100], ..Sample::default() }.packet();
        let (answer, len) = told(&packet, FROM_V4, Trouble::NoRoute);
        let answer = &answer[..len.unwrap()];
        assert_eq!(answer.len(), 20 + 8 + 20 + 8);
        assert_eq!(answer[28..], packet[..28]);
        let unreachable = icmpv4::DestUnreachableHeader::Network;
        assert_eq!(kind_v4(answer), Icmpv4Type::DestinationUnreachable(unreachable));
    }

    #[test]
    fn the_next_mtu_is_told_in_both_families() {
        let packet = Sample { payload: vec![1; 1_400], ..Sample::default() }.packet();
        let (answer, len) = told(&packet, FROM_V4, Trouble::TooBig(1_372));
        let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1_372 };
        assert_eq!(kind_v4(&answer[..len.unwrap()]), Icmpv4Type::DestinationUnreachable(needed));

        let packet = Sample { v4: false, payload: vec![1; 1_400], ..Sample::default() }.packet();
        let (answer, len) = told(&packet, "fd00::".parse().unwrap(), Trouble::TooBig(1_352));
        assert_eq!(len, Some(MOST));
        assert_eq!(kind_v6(&answer[..MOST]), Icmpv6Type::PacketTooBig { mtu: 1_352 });
    }

    #[test]
    fn the_last_hop_is_told_in_both_families() {
        let packet = Sample { payload: vec![1; 9], tcp: false, ..Sample::default() }.packet();
        let (answer, len) = told(&packet, FROM_V4, Trouble::Hops);
        let exceeded = icmpv4::TimeExceededCode::TtlExceededInTransit;
        assert_eq!(kind_v4(&answer[..len.unwrap()]), Icmpv4Type::TimeExceeded(exceeded));
        let packet = Sample { v4: false, payload: vec![1; 9], ..Sample::default() }.packet();
        let (answer, len) = told(&packet, "fd00::".parse().unwrap(), Trouble::Hops);
        let exceeded = icmpv6::TimeExceededCode::HopLimitExceeded;
        assert_eq!(kind_v6(&answer[..len.unwrap()]), Icmpv6Type::TimeExceeded(exceeded));
    }

    #[test]
    fn errors_groups_and_later_fragments_are_not_answered() {
        let packet = Sample { payload: vec![1; 100], ..Sample::default() }.packet();
        let (error, len) = told(&packet, FROM_V4, Trouble::Hops);
        let error = &error[..len.unwrap()];
        assert_eq!(told(error, FROM_V4, Trouble::Hops).1, None, "an error");

        let mut group = packet.clone();
        group[16..20].copy_from_slice(&[224, 0, 0, 1]);
        assert_eq!(told(&group, FROM_V4, Trouble::NoRoute).1, None);
        let mut later = packet.clone();
        later[7] = 1;
        assert_eq!(told(&later, FROM_V4, Trouble::NoRoute).1, None);
        let mut echo = packet;
        (echo[9], echo[20]) = (ICMP, 8);
        assert_eq!(told(&echo, FROM_V4, Trouble::NoRoute).1, None, "flannel says nothing to ICMP");
        assert!(told(&echo, FROM_V4, Trouble::Hops).1.is_some());
    }

    #[test]
    fn answers_are_few_however_many_are_asked_for() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!((0..10_000).filter(|_| budget.take(start)).count(), 50);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..10_000).filter(|_| budget.take(later)).count(), 50);
        let later = later + Budget::EVERY * 3;
        assert_eq!((0..10_000).filter(|_| budget.take(later)).count(), 3);
    }

    fn told(packet: &[u8], from: IpAddr, trouble: Trouble) -> ([u8; MOST], Option<usize>) {
        let mut out = [0xee; MOST];
        let inner = Inner::parse(packet).unwrap();
        let len = answer(packet, &inner, from, trouble, &mut out);
        (out, len)
    }

    fn kind_v4(answer: &[u8]) -> Icmpv4Type {
        let sliced = SlicedPacket::from_ip(answer).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("no ICMP") };
        assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
        icmp.icmp_type()
    }

    fn kind_v6(answer: &[u8]) -> Icmpv6Type {
        let sliced = SlicedPacket::from_ip(answer).unwrap();
        let ends = match sliced.net.unwrap() {
            etherparse::NetSlice::Ipv6(v6) => (v6.header().source(), v6.header().destination()),
            other => panic!("{other:?}"),
        };
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("no ICMP") };
        assert!(icmp.is_checksum_valid(ends.0, ends.1));
        icmp.icmp_type()
    }
}
