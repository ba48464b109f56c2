//! Packets for the tests of cutting and joining, written by another hand than ours (`etherparse`).

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader};
use proptest::prelude::*;

use crate::virtio::{Cut, CutKind, Header};

/// A packet in one piece.
#[derive(Clone, Debug)]
pub struct Sample {
    pub v4: bool,
    pub tcp: bool,
    pub id: u16,
    pub seq: u32,
    /// TCP's flags besides ACK.
    pub flags: u8,
    /// TCP's timestamps: the option that nearly every connection has.
    pub stamps: bool,
    pub hops: u8,
    pub payload: Vec<u8>,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            v4: true,
            tcp: true,
            id: 7,
            seq: 1_000,
            flags: 0,
            stamps: true,
            hops: 64,
            payload: vec![],
        }
    }
}

pub fn sample() -> impl Strategy<Value = Sample> {
    let payload = proptest::collection::vec(any::<u8>(), 1..9_000);
    let flags = (0..8_u8)
        .prop_map(|n| [0, FIN, PSH, FIN | PSH, CWR, CWR | FIN, CWR | PSH, ALL][usize::from(n)]);
    (any::<[bool; 3]>(), flags, any::<u16>(), any::<u32>(), 2..=255_u8, payload).prop_map(
        |([v4, tcp, stamps], flags, id, seq, hops, payload)| Sample {
            v4,
            tcp,
            id,
            seq,
            flags,
            stamps,
            hops,
            payload,
        },
    )
}

pub const FIN: u8 = 0x01;
pub const PSH: u8 = 0x08;
pub const CWR: u8 = 0x80;
const ALL: u8 = FIN | PSH | CWR;

impl Sample {
    /// The whole packet, its sums finished.
    pub fn packet(&self) -> Vec<u8> {
        self.written(self.id, self.seq, self.flags, &self.payload)
    }

    /// One piece of it: the octets from `before` on.
    pub fn piece(&self, i: usize, before: usize, chunk: &[u8], last: bool) -> Vec<u8> {
        let id = self.id.wrapping_add(u16::try_from(i).unwrap());
        let seq = self.seq.wrapping_add(u32::try_from(before).unwrap());
        let gone = if last { 0 } else { FIN | PSH } | if i == 0 { 0 } else { CWR };
        self.written(id, seq, self.flags & !gone, chunk)
    }

    /// What the kernel says with it.
    pub fn header(&self, payload: u16) -> Header {
        let (network, kind) = match (self.v4, self.tcp) {
            (true, true) => (20, CutKind::TcpV4),
            (false, true) => (40, CutKind::TcpV6),
            (v4, false) => (if v4 { 20 } else { 40 }, CutKind::Udp),
        };
        let offset = if self.tcp { 16 } else { 6 };
        let cut = Cut { kind, headers: network + self.transport(), payload };
        Header { sum: Some((network, offset)), cut: Some(cut) }
    }

    fn transport(&self) -> u16 {
        match (self.tcp, self.stamps) {
            (false, _) => 8,
            (true, false) => 20,
            (true, true) => 32,
        }
    }

    fn written(&self, id: u16, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = usize::from(self.transport()) + payload.len();
        let (ip, number) = (self.network(id, len), if self.tcp { 6 } else { 17 });
        let mut out = Vec::new();
        ip.write(&mut out).unwrap();
        debug_assert_eq!(number, if self.v4 { out[9] } else { out[6] });
        if self.tcp {
            let mut tcp = TcpHeader::new(4_000, 5_201, seq, 512);
            tcp.ack = true;
            (tcp.psh, tcp.fin, tcp.cwr) = (flags & PSH != 0, flags & FIN != 0, flags & CWR != 0);
            tcp.acknowledgment_number = 99;
            if self.stamps {
                let stamps = etherparse::TcpOptionElement::Timestamp(17, 18);
                let pad = etherparse::TcpOptionElement::Noop;
                tcp.set_options(&[pad.clone(), pad, stamps]).unwrap();
            }
            tcp.checksum = match &ip {
                IpHeaders::Ipv4(v4, _) => tcp.calc_checksum_ipv4(v4, payload).unwrap(),
                IpHeaders::Ipv6(v6, _) => tcp.calc_checksum_ipv6(v6, payload).unwrap(),
            };
            tcp.write(&mut out).unwrap();
        } else {
            let udp = match &ip {
                IpHeaders::Ipv4(v4, _) => UdpHeader::with_ipv4_checksum(4_000, 53, v4, payload),
                IpHeaders::Ipv6(v6, _) => UdpHeader::with_ipv6_checksum(4_000, 53, v6, payload),
            };
            udp.unwrap().write(&mut out).unwrap();
        }
        out.extend_from_slice(payload);
        out
    }

    fn network(&self, id: u16, len: usize) -> IpHeaders {
        let number = if self.tcp { IpNumber::TCP } else { IpNumber::UDP };
        let len = u16::try_from(len).unwrap();
        if self.v4 {
            let mut v4 =
                Ipv4Header::new(len, self.hops, number, [10, 0, 1, 2], [10, 0, 2, 3]).unwrap();
            v4.identification = id;
            v4.dont_fragment = true;
            v4.header_checksum = v4.calc_header_checksum();
            return IpHeaders::Ipv4(v4, etherparse::Ipv4Extensions::default());
        }
        let v6 = Ipv6Header {
            payload_length: len,
            next_header: number,
            hop_limit: self.hops,
            source: [0xfd; 16],
            destination: [0xfc; 16],
            ..Ipv6Header::default()
        };
        IpHeaders::Ipv6(v6, etherparse::Ipv6Extensions::default())
    }
}
