//! Joins packets of one connection that came one after the other into one piece, which the kernel takes in one go.
//!
//! Pure, and in place: the payload of each packet moves down behind the first one's. What is joined is what the
//! kernel would cut into the same packets again (`split`): same headers, contiguous sequence, payloads of one
//! length but the last. A packet whose checksum is wrong is never joined: it goes as it came, for the kernel to
//! judge.
//!
//! ```text
//!   before   [head │ H₀ P₀][H₁ P₁][H₂ P₂]
//!   after    [head │ H₀ P₀ P₁ P₂]            head: a virtio header, over what lay before
//! ```

use russet_net::checksum;

use crate::{
    packet::{Inner, TCP, UDP, V4_HEADER, V4_TTL, V6_HEADER, V6_HOPS, take_hop},
    split::{
        TCP_ACK, TCP_FLAGS, TCP_HEADER, TCP_OFFSET, TCP_PSH, TCP_SUM, UDP_HEADER, UDP_SUM,
        finish_v4,
    },
    virtio::{self, Cut, CutKind, Header},
};

/// Where a packet lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub at: usize,
    pub len: usize,
}

/// Packets that are written as one.
#[derive(Debug)]
pub struct Run {
    inner: Inner,
    at: usize,
    /// Where what was joined so far ends.
    end: usize,
    packets: usize,
    /// What can be joined, when anything can.
    shape: Option<Shape>,
}

/// What all packets of a run have in common.
#[derive(Clone, Copy, Debug)]
struct Shape {
    protocol: u8,
    network: usize,
    headers: usize,
    /// Payload of each packet but the last.
    payload: usize,
    /// Whether another may follow: none does after one that is shorter, or that is pushed.
    open: bool,
}

impl Run {
    /// Begins a run with a packet that has been parsed.
    pub fn new(buffer: &[u8], span: Span, inner: Inner) -> Self {
        let packet = &buffer[span.at..span.at + span.len];
        let shape = Shape::of(packet, &inner);
        Self { inner, at: span.at, end: span.at + span.len, packets: 1, shape }
    }

    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Joins the packet at `span`, which must lie behind the run, or tells that it does not belong to it.
    pub fn take(&mut self, buffer: &mut [u8], span: Span) -> bool {
        let Some(shape) = self.shape.filter(|shape| shape.open) else { return false };
        let (before, behind) = buffer.split_at(span.at);
        let (head, next) = (&before[self.at..self.end], &behind[..span.len]);
        let fits = head.len() + span.len - shape.headers <= MOST_OCTETS
            && self.packets < MOST_PACKETS
            && shape.follows(head, next, self.packets)
            && shape.is_sound(next)
            && (self.packets > 1 || shape.is_sound(head));
        if !fits {
            return false;
        }
        let payload = span.len - shape.headers;
        let pushed = shape.protocol == TCP && next[shape.network + TCP_FLAGS] & TCP_PSH != 0;
        if pushed {
            buffer[self.at + shape.network + TCP_FLAGS] |= TCP_PSH;
        }
        buffer.copy_within(span.at + shape.headers..span.at + span.len, self.end);
        self.end += payload;
        self.packets += 1;
        let open = !pushed && payload == shape.payload;
        self.shape = Some(Shape { open, ..shape });
        true
    }

    /// Takes the hop, writes the header before the run, and returns where both lie.
    pub fn finish(self, buffer: &mut [u8]) -> Span {
        let packet = &mut buffer[self.at..self.end];
        let header = if let Some(shape) = self.shape.filter(|_| self.packets > 1) {
            shape.finish(packet, &self.inner)
        } else {
            // Whoever begins a run has looked whether a hop is left.
            let _ = take_hop(packet, &self.inner);
            Header::default()
        };
        let at = self.at - virtio::LEN;
        if let Some(room) = buffer[at..].first_chunk_mut() {
            header.write(room);
        }
        Span { at, len: self.end - at }
    }
}

impl Shape {
    /// The shape of a run that begins with this packet, if it can have a second.
    fn of(packet: &[u8], inner: &Inner) -> Option<Self> {
        let plain = packet[0] >> 4 != 4
            || (inner.header == V4_HEADER && get(packet, 6) & !DONT_FRAGMENT == 0);
        let network = inner.header;
        let transport = match inner.protocol {
            TCP => {
                let length = usize::from(*packet.get(network + TCP_OFFSET)? >> 4) * 4;
                let flags = packet.get(network + TCP_FLAGS)? & !TCP_CONGESTION;
                // One that is pushed is the last of its run.
                (length >= TCP_HEADER && flags == TCP_ACK).then_some(length)?
            }
            UDP => {
                let whole = usize::from(get(packet.get(network..network + UDP_HEADER)?, 4));
                (whole == packet.len() - network).then_some(UDP_HEADER)?
            }
            _ => return None,
        };
        let headers = network + transport;
        let payload = packet.len().checked_sub(headers).filter(|payload| *payload > 0)?;
        let protocol = inner.protocol;
        plain.then_some(Self { protocol, network, headers, payload, open: true })
    }

    /// Whether `next` is what comes after the packets that were joined to `head`.
    fn follows(&self, head: &[u8], next: &[u8], packets: usize) -> bool {
        let Some(payload) = next.len().checked_sub(self.headers) else { return false };
        if payload == 0 || payload > self.payload {
            return false;
        }
        same_network(head, next, packets)
            && match self.protocol {
                TCP => self.same_tcp(head, next),
                _ => {
                    head[self.network..self.network + 4] == next[self.network..self.network + 4]
                        && usize::from(get(next, self.network + 4)) == next.len() - self.network
                }
            }
    }

    fn same_tcp(&self, head: &[u8], next: &[u8]) -> bool {
        let (head_tcp, next_tcp) = (&head[self.network..], &next[self.network..self.headers]);
        let seq = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let sent = u32::try_from(head.len() - self.headers).unwrap_or_default();
        let flags = |tcp: &[u8]| tcp[TCP_FLAGS] & !TCP_PSH;
        let options = self.headers - self.network;
        head_tcp[..4] == next_tcp[..4]
            && seq(head_tcp).wrapping_add(sent) == seq(next_tcp)
            && head_tcp[8..TCP_FLAGS] == next_tcp[8..TCP_FLAGS]
            && flags(head_tcp) == flags(next_tcp)
            && head_tcp[14..16] == next_tcp[14..16]
            && head_tcp[18..options] == next_tcp[18..options]
    }

    /// Whether every checksum of a packet is right.
    fn is_sound(&self, packet: &[u8]) -> bool {
        let sum = match self.protocol {
            TCP => TCP_SUM,
            _ => UDP_SUM,
        };
        let missing = self.protocol == UDP && get(packet, self.network + sum) == 0;
        let header =
            packet[0] >> 4 != 4 || checksum::fold(checksum::sum(&packet[..self.network])) == 0xffff;
        let body = self.pseudo(packet) + checksum::sum(&packet[self.network..]);
        !missing && header && checksum::fold(body) == 0xffff
    }

    /// The sum of the pseudo header.
    fn pseudo(&self, packet: &[u8]) -> u64 {
        let ends = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
        let len = u64::try_from(packet.len() - self.network).unwrap_or_default();
        checksum::sum(ends) + u64::from(self.protocol) + len
    }

    /// Makes one packet of what was joined; its transport's sum is left to the kernel.
    fn finish(&self, packet: &mut [u8], inner: &Inner) -> Header {
        let whole = packet.len();
        if inner.src.is_ipv4() {
            put(packet, 2, whole);
            packet[V4_TTL] = packet[V4_TTL].saturating_sub(1);
            finish_v4(&mut packet[..V4_HEADER]);
        } else {
            put(packet, 4, whole - V6_HEADER);
            packet[V6_HOPS] = packet[V6_HOPS].saturating_sub(1);
        }
        let (sum, kind) = match (self.protocol, inner.src.is_ipv4()) {
            (TCP, true) => (TCP_SUM, CutKind::TcpV4),
            (TCP, false) => (TCP_SUM, CutKind::TcpV6),
            _ => (UDP_SUM, CutKind::Udp),
        };
        if self.protocol == UDP {
            put(packet, self.network + 4, whole - self.network);
        }
        let pseudo = checksum::fold(self.pseudo(packet));
        put(packet, self.network + sum, pseudo.into());
        let cut = Cut { kind, headers: word(self.headers), payload: word(self.payload) };
        Header { sum: Some((word(self.network), word(sum))), cut: Some(cut) }
    }
}

/// Whether two packets have the same IP header, but for what counts on from one to the next.
fn same_network(head: &[u8], next: &[u8], packets: usize) -> bool {
    let same = |range: std::ops::Range<usize>| head[range.clone()] == next[range];
    if head[0] >> 4 == 4 {
        let number = u16::try_from(packets).unwrap_or_default().wrapping_add(get(head, 4));
        let in_order = get(head, 6) & DONT_FRAGMENT != 0 || get(next, 4) == number;
        return same(0..2)
            && usize::from(get(next, 2)) == next.len()
            && in_order
            && same(6..10)
            && same(12..20);
    }
    same(0..4) && usize::from(get(next, 4)) == next.len() - V6_HEADER && same(6..40)
}

/// Every length here is that of a packet or of a part of one.
fn word(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn get(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn put(octets: &mut [u8], at: usize, value: usize) {
    octets[at..at + 2].copy_from_slice(&word(value).to_be_bytes());
}

/// What an IP packet can be.
const MOST_OCTETS: usize = 65_535;
/// The kernel cuts UDP into no more (`UDP_MAX_SEGMENTS` of older kernels).
const MOST_PACKETS: usize = 64;
const DONT_FRAGMENT: u16 = 0x4000;
/// ECE: set on every packet until the sender has slowed down.
const TCP_CONGESTION: u8 = 0x40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        samples::{PSH, Sample, sample},
        split::Pieces,
    };

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn what_was_cut_is_joined_and_cut_again_the_same(sample in sample(), payload in 200..1_400_u16) {
            let sample = Sample { flags: 0, ..sample };
            let pieces = cut(&sample, payload);
            let mut buffer = laid_out(&pieces);
            let written = join_all(&mut buffer, &spans(&pieces));

            let again: Vec<Vec<u8>> = written.iter().flat_map(|octets| recut(octets)).collect();
            let one_less: Vec<Vec<u8>> = pieces.into_iter().map(hop_less).collect();
            prop_assert_eq!(again, one_less);
            prop_assert_eq!(written.len(), sample.payload.len().div_ceil(usize::from(payload)).div_ceil(MOST_PACKETS));
        }

        #[test]
        fn one_flipped_bit_is_never_hidden(sample in sample(), bit in 0..1_000_usize, which in 0..5_usize) {
            let sample = Sample { flags: 0, ..sample };
            let mut pieces = cut(&sample, 500);
            let which = which % pieces.len();
            let bits = pieces[which].len() * 8;
            // Not in the version, the lengths and the hops: they are looked at before.
            let bit = 80 + bit % (bits - 80);
            pieces[which][bit / 8] ^= 1 << (bit % 8);
            let bad = hop_less(pieces[which].clone());
            let mut buffer = laid_out(&pieces);
            let written = join_all(&mut buffer, &spans(&pieces));
            let alone = written.iter().any(|octets| octets[virtio::LEN..] == bad);
            prop_assert!(alone, "it was joined to another");
        }

        #[test]
        fn no_octets_make_it_panic(
            octets in proptest::collection::vec(any::<u8>(), 41..120),
            mirror in any::<bool>(),
            first in prop_oneof![Just(0x45_u8), Just(0x60)],
            protocol in prop_oneof![Just(TCP), Just(UDP), any::<u8>()],
        ) {
            let mut one = octets;
            one[0] = first;
            let len = one.len();
            if first == 0x45 { put(&mut one, 2, len); one[9] = protocol } else { put(&mut one, 4, len - 40); one[6] = protocol }
            let two = if mirror { one.clone() } else { one[..60.min(len)].to_vec() };
            let pieces = [one, two];
            let mut buffer = laid_out(&pieces);
            join_all(&mut buffer, &spans(&pieces));
        }
    }

    #[test]
    fn another_connection_ends_the_run() {
        let ours = cut(&Sample { payload: vec![1; 1_000], ..Sample::default() }, 500);
        let other = Sample { seq: 9, v4: false, payload: vec![2; 500], ..Sample::default() };
        let all = [ours[0].clone(), ours[1].clone(), other.packet(), ours[1].clone()];
        let mut buffer = laid_out(&all);
        assert_eq!(join_all(&mut buffer, &spans(&all)).len(), 3);
    }

    #[test]
    fn a_pushed_packet_is_the_last_of_its_run() {
        let sample = Sample { flags: PSH, payload: vec![1; 1_500], ..Sample::default() };
        let mut all = cut(&sample, 500);
        let after = Sample { seq: sample.seq + 1_500, id: 10, payload: vec![3; 500], ..sample };
        all.push(Sample { flags: 0, ..after }.packet());
        let mut buffer = laid_out(&all);
        let written = join_all(&mut buffer, &spans(&all));
        assert_eq!(written.len(), 2);
        assert_eq!(written[0][virtio::LEN + 20 + TCP_FLAGS], TCP_ACK | TCP_PSH);
    }

    fn cut(sample: &Sample, payload: u16) -> Vec<Vec<u8>> {
        let chunks: Vec<_> = sample.payload.chunks(payload.into()).collect();
        let piece = |(i, chunk): (usize, &&[u8])| {
            sample.piece(i, i * usize::from(payload), chunk, i + 1 == chunks.len())
        };
        chunks.iter().enumerate().map(piece).collect()
    }

    fn laid_out(pieces: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; virtio::LEN], pieces.concat()].concat()
    }

    fn spans(pieces: &[Vec<u8>]) -> Vec<Span> {
        let mut at = virtio::LEN;
        let span = |piece: &Vec<u8>| {
            at += piece.len();
            Span { at: at - piece.len(), len: piece.len() }
        };
        pieces.iter().map(span).collect()
    }

    /// As the inbound thread does it, without admission.
    fn join_all(buffer: &mut [u8], spans: &[Span]) -> Vec<Vec<u8>> {
        let mut written = Vec::new();
        let mut rest = spans;
        while let [first, more @ ..] = rest {
            rest = more;
            let Ok(inner) = Inner::parse(&buffer[first.at..first.at + first.len]) else { continue };
            let mut run = Run::new(buffer, *first, inner);
            while let [next, more @ ..] = rest
                && run.take(buffer, *next)
            {
                rest = more;
            }
            let span = run.finish(buffer);
            written.push(buffer[span.at..span.at + span.len].to_vec());
        }
        written
    }

    /// Cuts what was written as the kernel would.
    fn recut(octets: &[u8]) -> Vec<Vec<u8>> {
        let header = Header::parse(octets.first_chunk().unwrap()).unwrap();
        let packet = &octets[virtio::LEN..];
        let inner = Inner::parse(packet).unwrap();
        match Pieces::of(packet, &inner, &header).unwrap() {
            None => vec![packet.to_vec()],
            Some(pieces) => (0..pieces.count())
                .map(|i| {
                    let mut room = vec![0; pieces.len(i)];
                    pieces.write(i, packet, &mut room);
                    room
                })
                .collect(),
        }
    }

    fn hop_less(mut packet: Vec<u8>) -> Vec<u8> {
        if let Ok(inner) = Inner::parse(&packet) {
            let _ = take_hop(&mut packet, &inner);
        }
        packet
    }
}
