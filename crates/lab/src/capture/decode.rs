//! From octets to a value: Ethernet, ARP, IPv4, IPv6, ICMP, UDP, TCP, and VXLAN and IP in IPv4 with what they carry.

use std::{collections::BTreeMap, net::IpAddr};

use etherparse::{
    ArpPacketSlice, Icmpv4Slice, Icmpv6Slice, IpNumber, LaxIpv4Slice, LaxNetSlice, LaxSlicedPacket,
    LinkSlice, TcpSlice, TransportSlice, UdpSlice,
};
use russet_net::{Mac, Vni};

/// One packet, as far as it could be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Of the whole packet, Ethernet header included, in octets.
    pub length: usize,
    pub src: Mac,
    pub dst: Mac,
    pub ether_type: u16,
    pub arp: Option<Arp>,
    pub ip: Option<Ip>,
    pub transport: Option<Transport>,
    /// Why decoding went no further, when it stopped early.
    pub stopped: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers (RFC 826).
    pub operation: u16,
    pub sender: IpAddr,
    pub target: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// The protocol that it carries (IANA protocol numbers).
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Whether more of the same packet comes in others.
    pub fragment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    Icmp(Icmp),
    Udp(Udp),
    Tcp(Tcp),
    /// IPv4 in IPv4 (RFC 2003), which has no header of its own: the packet within begins with its IP header.
    Ip(Box<Frame>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    /// Identifier and sequence number, where it is an echo.
    pub echo: Option<(u16, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    pub src: u16,
    pub dst: u16,
    /// Of the payload, in octets.
    pub length: usize,
    pub vxlan: Option<Vxlan>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub src: u16,
    pub dst: u16,
    pub seq: u32,
    pub ack: u32,
    /// The flags that are set, as tcpdump writes them: `S`, `S.`, `P.`.
    pub flags: String,
    pub length: usize,
}

/// What a VXLAN header says, and the packet behind it (RFC 7348 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// 0x08: the VNI is valid.
    pub flags: u8,
    pub vni: Vni,
    pub inner: Box<Frame>,
}

impl Frame {
    /// Decodes a packet that begins with its Ethernet header. Takes anything, and says where it stopped.
    pub fn decode(octets: &[u8]) -> Self {
        decode(octets, VXLAN_IN_VXLAN)
    }

    /// The packet within, when there is one.
    pub fn inner(&self) -> Option<&Frame> {
        self.vxlan().map(|vxlan| &*vxlan.inner).or_else(|| self.ipip())
    }

    /// The packet that an IPv4 packet carries as it is.
    pub fn ipip(&self) -> Option<&Frame> {
        match &self.transport {
            Some(Transport::Ip(inner)) => Some(inner),
            _ => None,
        }
    }

    pub fn vxlan(&self) -> Option<&Vxlan> {
        match &self.transport {
            Some(Transport::Udp(udp)) => udp.vxlan.as_ref(),
            _ => None,
        }
    }

    /// The name of the carried protocol: `icmp`, `udp`, `tcp`, `arp`, or a number.
    pub fn protocol(&self) -> String {
        match (&self.transport, &self.ip, &self.arp) {
            (Some(Transport::Icmp(_)), ..) => "icmp".to_owned(),
            (Some(Transport::Udp(_)), ..) => "udp".to_owned(),
            (Some(Transport::Tcp(_)), ..) => "tcp".to_owned(),
            (_, Some(ip), _) => ip.protocol.to_string(),
            (_, None, Some(_)) => "arp".to_owned(),
            (_, None, None) => format!("{:#06x}", self.ether_type),
        }
    }

    /// The fields that an expectation can name. `src` and its neighbours are of the whole packet, in a
    /// tunnel `outer.src` are the same, and `inner.src` those of the packet within.
    pub fn fields(&self) -> BTreeMap<&'static str, String> {
        let mut fields = self.own_fields(["src", "dst", "proto"]);
        fields.insert("length", self.length.to_string());
        fields.extend(self.vxlan().map(|vxlan| ("vni", vxlan.vni.to_string())));
        if let Some(inner) = self.inner() {
            fields.extend(self.own_fields(["outer.src", "outer.dst", "outer.proto"]));
            fields.extend(inner.own_fields(["inner.src", "inner.dst", "inner.proto"]));
            if let Some(Transport::Udp(udp)) = &self.transport {
                fields.insert("outer.port", udp.dst.to_string());
            }
        }
        fields
    }

    fn own_fields(&self, [src, dst, proto]: [&'static str; 3]) -> BTreeMap<&'static str, String> {
        let mut fields = BTreeMap::from([(proto, self.protocol())]);
        if let Some(ip) = &self.ip {
            fields.insert(src, ip.src.to_string());
            fields.insert(dst, ip.dst.to_string());
        }
        fields
    }
}

/// `depth` bounds how many tunnels are followed.
fn decode(octets: &[u8], depth: u8) -> Frame {
    let sliced = LaxSlicedPacket::from_ethernet(octets).map_err(|err| err.to_string());
    read(octets, sliced, depth)
}

/// A packet that begins with its IP header.
fn decode_ip(octets: &[u8], depth: u8) -> Frame {
    let sliced = LaxSlicedPacket::from_ip(octets).map_err(|err| err.to_string());
    read(octets, sliced, depth)
}

fn read(octets: &[u8], sliced: Result<LaxSlicedPacket<'_>, String>, depth: u8) -> Frame {
    let mut frame = Frame {
        length: octets.len(),
        src: Mac::ZERO,
        dst: Mac::ZERO,
        ether_type: 0,
        arp: None,
        ip: None,
        transport: None,
        stopped: None,
    };
    let sliced = match sliced {
        Ok(sliced) => sliced,
        Err(err) => {
            frame.stopped = Some(err);
            return frame;
        }
    };
    if let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link {
        frame.src = Mac::new(ethernet.source());
        frame.dst = Mac::new(ethernet.destination());
        frame.ether_type = ethernet.ether_type().0;
    }
    match &sliced.net {
        Some(LaxNetSlice::Arp(slice)) => frame.arp = arp(slice),
        Some(net) => frame.ip = ip(net),
        None => {}
    }
    frame.transport = match (&sliced.transport, &sliced.net) {
        (Some(slice), _) => transport(slice, depth),
        (None, Some(LaxNetSlice::Ipv4(outer))) => ipip(outer, depth),
        _ => None,
    };
    frame.stopped = sliced.stop_err.map(|(err, layer)| format!("{layer}: {err}"));
    frame
}

fn arp(slice: &ArpPacketSlice<'_>) -> Option<Arp> {
    let address = |octets: &[u8]| <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    Some(Arp {
        operation: slice.operation().0,
        sender: address(slice.sender_protocol_addr())?,
        target: address(slice.target_protocol_addr())?,
    })
}

fn ip(net: &LaxNetSlice<'_>) -> Option<Ip> {
    match net {
        LaxNetSlice::Ipv4(slice) => Some(Ip {
            src: slice.header().source_addr().into(),
            dst: slice.header().destination_addr().into(),
            protocol: slice.payload().ip_number.0,
            ttl: slice.header().ttl(),
            fragment: slice.is_payload_fragmented(),
        }),
        LaxNetSlice::Ipv6(slice) => Some(Ip {
            src: slice.header().source_addr().into(),
            dst: slice.header().destination_addr().into(),
            protocol: slice.payload().ip_number.0,
            ttl: slice.header().hop_limit(),
            fragment: slice.is_payload_fragmented(),
        }),
        LaxNetSlice::Arp(_) => None,
    }
}

fn ipip(outer: &LaxIpv4Slice<'_>, depth: u8) -> Option<Transport> {
    let payload = outer.payload();
    let is_ip = payload.ip_number == IpNumber::IPV4 && !payload.fragmented && depth > 0;
    is_ip.then(|| Transport::Ip(Box::new(decode_ip(payload.payload, depth - 1))))
}

fn transport(slice: &TransportSlice<'_>, depth: u8) -> Option<Transport> {
    match slice {
        TransportSlice::Icmpv4(icmp) => Some(Transport::Icmp(icmp4(icmp))),
        TransportSlice::Icmpv6(icmp) => Some(Transport::Icmp(icmp6(icmp))),
        TransportSlice::Udp(udp) => Some(Transport::Udp(decode_udp(udp, depth))),
        TransportSlice::Tcp(tcp) => Some(Transport::Tcp(decode_tcp(tcp))),
        TransportSlice::Igmp(_) => None,
    }
}

fn icmp4(slice: &Icmpv4Slice<'_>) -> Icmp {
    let (kind, code) = (slice.type_u8(), slice.code_u8());
    Icmp { kind, code, echo: matches!(kind, 0 | 8).then(|| echo(slice.bytes5to8())) }
}

fn icmp6(slice: &Icmpv6Slice<'_>) -> Icmp {
    let (kind, code) = (slice.type_u8(), slice.code_u8());
    Icmp { kind, code, echo: matches!(kind, 128 | 129).then(|| echo(slice.bytes5to8())) }
}

/// Identifier and sequence number, each 16 bits, big endian (RFC 792, RFC 4443 §4.1).
fn echo([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

fn decode_udp(slice: &UdpSlice<'_>, depth: u8) -> Udp {
    let (src, dst) = (slice.source_port(), slice.destination_port());
    let carried = VXLAN_PORTS.contains(&dst) && depth > 0;
    let vxlan = if carried { vxlan(slice.payload(), depth - 1) } else { None };
    Udp { src, dst, length: slice.payload().len(), vxlan }
}

/// Flags, three octets reserved, the VNI in three, one reserved, then a packet (RFC 7348 §5).
fn vxlan(payload: &[u8], depth: u8) -> Option<Vxlan> {
    let (header, rest) = payload.split_first_chunk::<8>()?;
    let [flags, _, _, _, a, b, c, _] = *header;
    let vni = Vni::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
    let valid = flags & VNI_VALID != 0;
    valid.then(|| Vxlan { flags, vni, inner: Box::new(decode(rest, depth)) })
}

fn decode_tcp(slice: &TcpSlice<'_>) -> Tcp {
    let set = [
        (slice.syn(), 'S'),
        (slice.fin(), 'F'),
        (slice.rst(), 'R'),
        (slice.psh(), 'P'),
        (slice.ack(), '.'),
    ];
    Tcp {
        src: slice.source_port(),
        dst: slice.destination_port(),
        seq: slice.sequence_number(),
        ack: slice.acknowledgment_number(),
        flags: set.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).collect(),
        length: slice.payload().len(),
    }
}

/// The assigned port (RFC 7348 §8) and Linux' older one.
const VXLAN_PORTS: [u16; 2] = [4_789, 8_472];
const VNI_VALID: u8 = 0x08;
/// A tunnel within a tunnel is still worth showing.
const VXLAN_IN_VXLAN: u8 = 2;

#[cfg(test)]
pub(in crate::capture) mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vxlan_packet_of_flannel_is_read_field_by_field() {
        let frame = Frame::decode(&vxlan_packet());
        let fields = frame.fields();
        for (field, wanted) in [
            ("outer.src", "192.168.1.11"),
            ("outer.dst", "192.168.2.13"),
            ("outer.port", "8472"),
            ("vni", "1"),
            ("inner.src", "10.244.1.2"),
            ("inner.dst", "10.244.3.2"),
            ("inner.proto", "icmp"),
            ("proto", "udp"),
        ] {
            assert_eq!(fields.get(field).map(String::as_str), Some(wanted), "{field}");
        }
        let Some(Transport::Icmp(icmp)) = &frame.inner().unwrap().transport else {
            panic!("{frame:?}")
        };
        assert_eq!(icmp.echo, Some((7, 3)));
    }

    #[test]
    fn a_packet_of_ipip_has_two_headers_and_both_are_read() {
        let inner = PacketBuilder::ipv4([10, 244, 1, 2], [10, 244, 3, 2], 63);
        let mut within = Vec::new();
        inner.icmpv4_echo_request(7, 3).write(&mut within, b"ping").unwrap();
        let outer = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let outer = outer.ipv4([192, 168, 1, 11], [192, 168, 2, 13], 64);
        let mut packet = Vec::new();
        outer.write(&mut packet, IpNumber::IPV4, &within).unwrap();
        let frame = Frame::decode(&packet);
        let fields = frame.fields();
        for (field, wanted) in [
            ("outer.src", "192.168.1.11"),
            ("outer.dst", "192.168.2.13"),
            ("outer.proto", "4"),
            ("inner.src", "10.244.1.2"),
            ("inner.dst", "10.244.3.2"),
            ("inner.proto", "icmp"),
        ] {
            assert_eq!(fields.get(field).map(String::as_str), Some(wanted), "{field}");
        }
        let text = frame.to_string();
        assert!(text.contains("\n    IPv4      10.244.1.2 → 10.244.3.2  ttl 63\n"), "{text}");
        assert!(!text.contains("    Ethernet"), "{text}");
    }

    #[test]
    fn an_arp_request_is_told_as_one() {
        // Octets of `arping` as tcpdump -xx shows them.
        let octets = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x00, 0xc0, 0xa8, 0x01, 0x0b, 0x08, 0x06, 0,
            1, 8, 0, 6, 4, 0, 1, 0x02, 0x00, 0xc0, 0xa8, 0x01, 0x0b, 192, 168, 1, 11, 0, 0, 0, 0,
            0, 0, 192, 168, 1, 12,
        ];
        let arp = Frame::decode(&octets).arp.unwrap();
        assert_eq!(arp.operation, 1);
        assert_eq!(arp.target.to_string(), "192.168.1.12");
    }

    #[test]
    fn a_packet_that_is_cut_off_says_where() {
        let whole = vxlan_packet();
        for len in 0..whole.len() {
            let frame = Frame::decode(&whole[..len]);
            assert_eq!(frame.length, len);
            assert!(len >= 42 || frame.stopped.is_some(), "{len}: {frame:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let frame = Frame::decode(&octets);
            let _ = (frame.to_string(), frame.fields());
        }

        #[test]
        fn no_damage_to_a_vxlan_packet_panics(at in 0..100_usize, octet in any::<u8>(), len in 0..120_usize) {
            let mut packet = vxlan_packet();
            if let Some(place) = packet.get_mut(at) {
                *place = octet;
            }
            packet.truncate(len);
            let frame = Frame::decode(&packet);
            let _ = (frame.to_string(), frame.fields());
        }
    }

    pub(in crate::capture) fn vxlan_packet() -> Vec<u8> {
        let mut inner = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 3])
            .ipv4([10, 244, 1, 2], [10, 244, 3, 2], 63)
            .icmpv4_echo_request(7, 3)
            .write(&mut inner, b"russet")
            .unwrap();
        let payload = [vec![0x08, 0, 0, 0, 0, 0, 1, 0], inner].concat();
        let mut outer = Vec::new();
        PacketBuilder::ethernet2([2, 0, 192, 168, 1, 11], [2, 0, 192, 168, 1, 1])
            .ipv4([192, 168, 1, 11], [192, 168, 2, 13], 64)
            .udp(41_234, 8_472)
            .write(&mut outer, &payload)
            .unwrap();
        outer
    }
}
