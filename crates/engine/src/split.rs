//! Cuts what the kernel handed over in one piece into the packets that it stands for.
//!
//! Pure: octets in, octets out. Each piece is written with its own length, number, sequence and checksum, as
//! the kernel would have cut it (`tcp_gso_segment`, `__udp_gso_segment`): FIN and PSH go with the last piece,
//! CWR with the first.

use russet_net::checksum;

use crate::{
    counters::Reason,
    packet::{Inner, TCP, UDP},
    virtio::{CutKind, Header},
};

/// A packet in one piece, and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Where the transport's header begins.
    transport: usize,
    /// Octets of all headers.
    headers: usize,
    /// Payload of each piece but the last.
    payload: usize,
    /// Octets of the whole.
    whole: usize,
    protocol: u8,
    v4: bool,
}

impl Pieces {
    /// Plans the cutting of a packet that `header` asks for, or `None` when it is whole.
    ///
    /// # Errors
    ///
    /// When the header does not fit the packet.
    pub fn of(packet: &[u8], inner: &Inner, header: &Header) -> Result<Option<Self>, Reason> {
        let Some(cut) = header.cut else { return Ok(None) };
        let protocol = match cut.kind {
            CutKind::TcpV4 | CutKind::TcpV6 => TCP,
            CutKind::Udp => UDP,
        };
        let transport = match header.sum {
            Some((start, _)) => usize::from(start),
            None => inner.header,
        };
        let length = match protocol {
            TCP => packet.get(transport + TCP_OFFSET).map(|octet| usize::from(octet >> 4) * 4),
            _ => Some(UDP_HEADER),
        };
        let length = length.ok_or(Reason::Malformed)?;
        let least = if protocol == TCP { TCP_HEADER } else { UDP_HEADER };
        let headers = transport + length;
        let fits = transport >= inner.header && length >= least && headers < packet.len();
        if !fits || cut.payload == 0 {
            return Err(Reason::Malformed);
        }
        Ok(Some(Self {
            transport,
            headers,
            payload: cut.payload.into(),
            whole: packet.len(),
            protocol,
            v4: inner.src.is_ipv4(),
        }))
    }

    pub fn count(&self) -> usize {
        (self.whole - self.headers).div_ceil(self.payload)
    }

    /// Octets of one piece.
    pub fn len(&self, piece: usize) -> usize {
        let before = piece * self.payload;
        self.headers + (self.whole - self.headers).saturating_sub(before).min(self.payload)
    }

    /// Octets of the largest piece.
    pub fn largest(&self) -> usize {
        self.len(0)
    }

    /// Writes one piece to `room`, which has its length.
    pub fn write(&self, piece: usize, packet: &[u8], room: &mut [u8]) {
        let from = self.headers + piece * self.payload;
        let payload = &packet[from..from + room.len() - self.headers];
        room[..self.headers].copy_from_slice(&packet[..self.headers]);
        room[self.headers..].copy_from_slice(payload);
        self.write_network(piece, room);
        match self.protocol {
            TCP => self.write_tcp(piece, room),
            _ => self.write_udp(room),
        }
    }

    fn write_network(&self, piece: usize, room: &mut [u8]) {
        if self.v4 {
            put(room, 2, word(room.len()));
            put(room, 4, get(room, 4).wrapping_add(word(piece)));
            let header = usize::from(room[0] & 0x0f) * 4;
            finish_v4(&mut room[..header]);
        } else {
            put(room, 4, word(room.len() - V6_HEADER));
        }
    }

    fn write_tcp(&self, piece: usize, room: &mut [u8]) {
        let last = piece + 1 == self.count();
        let tcp = &mut room[self.transport..];
        let [a, b, c, d] = [tcp[4], tcp[5], tcp[6], tcp[7]];
        let moved = u32::try_from(piece * self.payload).unwrap_or_default();
        let seq = u32::from_be_bytes([a, b, c, d]).wrapping_add(moved);
        tcp[4..8].copy_from_slice(&seq.to_be_bytes());
        if !last {
            tcp[TCP_FLAGS] &= !(TCP_FIN | TCP_PSH);
        }
        if piece > 0 {
            tcp[TCP_FLAGS] &= !TCP_CWR;
        }
        self.finish(room, TCP_SUM);
    }

    fn write_udp(&self, room: &mut [u8]) {
        let len = word(room.len() - self.transport);
        put(room, self.transport + 4, len);
        self.finish(room, UDP_SUM);
    }

    /// Writes the transport's checksum.
    fn finish(&self, room: &mut [u8], offset: usize) {
        let (src, dst) = if self.v4 { (12..16, 16..20) } else { (8..24, 24..40) };
        let ends = checksum::sum(&room[src]) + checksum::sum(&room[dst]);
        let len = room.len() - self.transport;
        put(room, self.transport + offset, 0);
        let pseudo = ends + u64::from(self.protocol) + u64::from(word(len));
        let sum = checksum::finish(pseudo + checksum::sum(&room[self.transport..]));
        put(room, self.transport + offset, never_zero(self.protocol, sum));
    }
}

/// Finishes the checksum of a packet that is whole.
///
/// # Errors
///
/// When the header does not fit the packet.
pub fn finish_sum(packet: &mut [u8], inner: &Inner, header: &Header) -> Result<(), Reason> {
    let Some((start, offset)) = header.sum else { return Ok(()) };
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    if start < inner.header || at + 2 > packet.len() {
        return Err(Reason::Malformed);
    }
    // The pseudo header's sum stands there already.
    let sum = checksum::finish(checksum::sum(&packet[start..]));
    put(packet, at, never_zero(inner.protocol, sum));
    Ok(())
}

/// Writes the checksum of an IPv4 header.
pub fn finish_v4(header: &mut [u8]) {
    put(header, V4_SUM, 0);
    let sum = checksum::finish(checksum::sum(header));
    put(header, V4_SUM, sum);
}

/// For UDP zero means that there is none (RFC 768).
const fn never_zero(protocol: u8, sum: u16) -> u16 {
    if protocol == UDP && sum == 0 { 0xffff } else { sum }
}

/// Octets of a packet, which are fewer than 2^16.
fn word(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

fn get(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn put(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

const V6_HEADER: usize = 40;
const V4_SUM: usize = 10;
pub const TCP_HEADER: usize = 20;
pub const UDP_HEADER: usize = 8;
pub const TCP_OFFSET: usize = 12;
pub const TCP_FLAGS: usize = 13;
pub const TCP_SUM: usize = 16;
pub const UDP_SUM: usize = 6;
pub const TCP_FIN: u8 = 0x01;
pub const TCP_PSH: u8 = 0x08;
pub const TCP_ACK: u8 = 0x10;
pub const TCP_CWR: u8 = 0x80;

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{Sample, sample};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn the_pieces_are_what_one_by_one_would_have_been(sample in sample(), payload in 1..3_000_u16) {
            let whole = sample.packet();
            let inner = Inner::parse(&whole).unwrap();
            let header = sample.header(payload);
            let pieces = Pieces::of(&whole, &inner, &header).unwrap();
            let Some(pieces) = pieces.filter(|_| !sample.payload.is_empty()) else { return Ok(()) };
            let chunks: Vec<_> = sample.payload.chunks(payload.into()).collect();
            prop_assert_eq!(pieces.count(), chunks.len());
            for (i, chunk) in chunks.iter().enumerate() {
                let mut room = vec![0; pieces.len(i)];
                pieces.write(i, &whole, &mut room);
                let before = i * usize::from(payload);
                prop_assert_eq!(&room, &sample.piece(i, before, chunk, i + 1 == chunks.len()));
                sums_are_right(&room);
            }
        }

        #[test]
        fn no_octets_make_it_panic(
            mut octets in proptest::collection::vec(any::<u8>(), 20..120),
            first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
            header in any::<[u8; crate::virtio::LEN]>(),
        ) {
            octets[0] = first;
            let len = octets.len();
            if first == 0x45 { put(&mut octets, 2, word(len)) } else { put(&mut octets, 4, word(len.saturating_sub(40))) }
            let (Ok(inner), Some(header)) = (Inner::parse(&octets), Header::parse(&header)) else { return Ok(()) };
            if let Ok(Some(pieces)) = Pieces::of(&octets, &inner, &header) {
                for piece in 0..pieces.count() {
                    let mut room = vec![0; pieces.len(piece)];
                    pieces.write(piece, &octets, &mut room);
                }
            }
            let _ = finish_sum(&mut octets, &inner, &header);
        }
    }

    #[test]
    fn the_sum_that_the_kernel_began_is_finished() {
        for v4 in [true, false] {
            let sample = Sample { v4, tcp: false, payload: b"hello".to_vec(), ..Sample::default() };
            let right = sample.packet();
            let mut begun = right.clone();
            let inner = Inner::parse(&begun).unwrap();
            let at = inner.header + UDP_SUM;
            let pseudo = checksum::pseudo(inner.src, inner.dst, UDP, begun.len() - inner.header);
            put(&mut begun, at, checksum::fold(pseudo));
            finish_sum(
                &mut begun,
                &inner,
                &Header { sum: Some((word(inner.header), 6)), cut: None },
            )
            .unwrap();
            assert_eq!(begun, right);
        }
    }

    fn sums_are_right(packet: &[u8]) {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let net = sliced.net.unwrap();
        let ip = net.ip_payload_ref().unwrap();
        match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                let header = tcp.to_header();
                let right = match &net {
                    etherparse::NetSlice::Ipv4(v4) => {
                        let v4 = v4.header().to_header();
                        assert_eq!(v4.header_checksum, v4.calc_header_checksum());
                        header.calc_checksum_ipv4(&v4, tcp.payload()).unwrap()
                    }
                    etherparse::NetSlice::Ipv6(v6) => {
                        header.calc_checksum_ipv6(&v6.header().to_header(), tcp.payload()).unwrap()
                    }
                    etherparse::NetSlice::Arp(arp) => panic!("{arp:?}"),
                };
                assert_eq!(header.checksum, right);
            }
            TransportSlice::Udp(udp) => assert_eq!(usize::from(udp.length()), ip.payload.len()),
            other => panic!("{other:?}"),
        }
    }
}
