//! One side is flannel's `udp`, as its peers see it: a plain socket, a packet in a datagram.
//!
//! The peer and its subnet are those of a lease that flanneld v0.20.2 wrote (key `…/subnets/10.50.31.0-24`, value
//! `{"PublicIP":"192.168.77.2","PublicIPv6":null}`), and the wire is the reference's: the payload is the bare inner packet, from port to port, one hop taken at each end.

mod tools;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use etherparse::{Ipv4HeaderSlice, PacketBuilder, SlicedPacket, TransportSlice};
use russet_engine::{
    engine::{Engine, Kept, Setup},
    shared::{Holdings, Pace},
};
use russet_kernel::{
    engine::{EngineEnd, EnginePeerSpec, EngineSpec, EngineWire},
    netns::Namespace,
    sys::datagram::{self, Outgoing},
    tun::Tun,
};
use russet_net::{IfName, Prefix};
use tools::ip;

#[test]
fn what_leaves_is_the_bare_packet_with_a_hop_less_whether_it_was_one_piece_or_many() {
    let node = Node::new();
    let pod = node.namespace.run(|| UdpSocket::bind((POD, 4_000)).unwrap()).unwrap();
    let far = SocketAddr::from((FAR_POD, 5_000));
    for len in [0, 1, 1_000, 1_372] {
        let payload: Vec<u8> = (0..len).map(|n: usize| n.to_le_bytes()[0]).collect();
        pod.send_to(&payload, far).unwrap();
        let datagram = node.hear();
        let packet = SlicedPacket::from_ip(&datagram).unwrap();
        let header = Ipv4HeaderSlice::from_slice(&datagram).unwrap().to_header();
        assert_eq!(header.time_to_live, 63, "one hop of 64 is taken");
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), datagram.len(), "nothing before or behind it");
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
        assert_eq!(udp.payload(), payload);
        let sum = udp.to_header().calc_checksum_ipv4(&header, &payload).unwrap();
        assert_eq!(udp.checksum(), sum);
    }
}

#[test]
fn a_piece_of_64_kb_leaves_as_packets_that_flannel_can_forward() {
    let node = Node::new();
    let pod = node.namespace.run(|| UdpSocket::bind((POD, 4_000)).unwrap()).unwrap();
    datagram::send(
        pod.as_fd(),
        &[Outgoing {
            to: SocketAddr::from((FAR_POD, 5_000)),
            octets: &vec![0x5a; 40 * 1_000],
            segment: Some(1_000),
        }],
    )
    .unwrap();
    let mut ids = Vec::new();
    for _ in 0..40 {
        let datagram = node.hear();
        let header = Ipv4HeaderSlice::from_slice(&datagram).unwrap().to_header();
        assert_eq!((datagram.len(), header.time_to_live), (1_028, 63));
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        ids.push(header.identification);
    }
    ids.dedup();
    assert_eq!(ids.len(), 40, "each packet has a number of its own");
}

#[test]
fn what_flannel_sends_arrives_and_is_answered() {
    let node = Node::new();
    let pod = node.namespace.run(|| UdpSocket::bind((POD, 5_000)).unwrap()).unwrap();
    pod.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut packet = Vec::new();
    // flannel has taken a hop of 64.
    let builder = PacketBuilder::ipv4(FAR_POD.octets(), POD.octets(), 63).udp(6_000, 5_000);
    builder.write(&mut packet, b"from flannel").unwrap();
    node.flannel.send_to(&packet, (NODE, PORT)).unwrap();
    let mut room = [0; 64];
    let (len, from) = pod.recv_from(&mut room).unwrap();
    assert_eq!((&room[..len], from), (&b"from flannel"[..], (FAR_POD, 6_000).into()));
    pod.send_to(b"to flannel", from).unwrap();
    let answer = node.hear();
    let packet = SlicedPacket::from_ip(&answer).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
    assert_eq!((udp.destination_port(), udp.payload()), (6_000, &b"to flannel"[..]));
}

/// One of our nodes, and a socket in the place of flannel's process on another.
struct Node {
    namespace: Namespace,
    flannel: UdpSocket,
    _engine: Engine,
}

impl Node {
    fn new() -> Self {
        let subnet: Prefix = "10.50.31.0/24".parse().unwrap();
        let namespace = Namespace::create().unwrap();
        let link: IfName = "flannel0".parse().unwrap();
        let end = EngineEnd { listen: (NODE, PORT).into(), inner: POD.into() };
        let spec = EngineSpec { wire: EngineWire::Udp, v4: Some(end), v6: None };
        let setup = Setup { link, spec, pace: Pace::Batches };
        let (holdings, flannel) = namespace
            .run(|| {
                Tun::create(link).unwrap().persist().unwrap();
                for line in [
                    "link set lo up".to_owned(),
                    format!("addr add {NODE}/32 dev lo"),
                    format!("addr add {FLANNEL}/32 dev lo"),
                    format!("link set {link} mtu 1472 up"),
                    format!("addr add {POD}/32 dev {link}"),
                    format!("route add {subnet} dev {link}"),
                ] {
                    ip(&line);
                }
                (Holdings::open(&setup).unwrap(), UdpSocket::bind((FLANNEL, PORT)).unwrap())
            })
            .unwrap();
        let mut engine = Engine::start(setup, holdings, Kept::default()).unwrap();
        let endpoint = (FLANNEL, PORT).into();
        engine.patch([(subnet, Some(EnginePeerSpec { endpoint, key: None }))]);
        let node = Self { namespace, flannel, _engine: engine };
        node.wait_for_the_device();
        node
    }

    /// The kernel lets packets into a device some time after its carrier is there, up to a second.
    fn wait_for_the_device(&self) {
        let pod = self.namespace.run(|| UdpSocket::bind((POD, 0)).unwrap()).unwrap();
        self.flannel.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let until = Instant::now() + PATIENCE;
        while pod.send_to(b"", (FAR_POD, 9)).is_err() || self.flannel.recv(&mut [0; 64]).is_err() {
            assert!(Instant::now() < until, "no packet passes");
        }
        // Those that were sent meanwhile.
        while self.flannel.recv(&mut [0; 64]).is_ok() {}
        self.flannel.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// The next datagram that flannel's process reads.
    fn hear(&self) -> Vec<u8> {
        let mut room = vec![0; 65_536];
        let (len, from) = self.flannel.recv_from(&mut room).unwrap();
        assert_eq!(from, (NODE, PORT).into(), "from port to port");
        room.truncate(len);
        room
    }
}

const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The recorded lease's node.
const FLANNEL: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const FAR_POD: Ipv4Addr = Ipv4Addr::new(10, 50, 31, 2);
const POD: Ipv4Addr = Ipv4Addr::new(10, 50, 58, 0);
const PORT: u16 = 8_285;
const PATIENCE: Duration = Duration::from_secs(10);
