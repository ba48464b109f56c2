//! Real packets through our rules: two namespaces, with this one between them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use russet_desired::Item;
use russet_net::Family;

use super::{
    in_netns, run,
    wishes::{accept, element, fulfil, masquerade, patches},
};
use crate::{
    netns::Namespace,
    nft::{DroppingChain, Nft},
};

/// A pod and a host beyond the node, each in a namespace of its own; the node is the thread's.
struct Path {
    pod: Namespace,
    beyond: Namespace,
}

impl Path {
    fn new() -> Self {
        let path = Self { pod: Namespace::create().unwrap(), beyond: Namespace::create().unwrap() };
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        wire(
            "p0",
            &path.pod,
            ["10.50.7.1/24", "fd00:50:0:7::1/64"],
            ["10.50.7.2/24", "fd00:50:0:7::2/64"],
        );
        wire(
            "b0",
            &path.beyond,
            ["192.0.2.1/24", "2001:db8::1/64"],
            ["192.0.2.9/24", "2001:db8::9/64"],
        );
        path.pod
            .run(|| {
                run("ip route add default via 10.50.7.1");
                run("ip route add default via fd00:50:0:7::1");
            })
            .unwrap();
        for to in BEYOND {
            let arrives = (0..50).any(|_| path.send(to, Duration::from_millis(200)).is_some());
            assert!(arrives, "the path to {to} works before any rule");
        }
        path
    }

    /// Sends one datagram from the pod and returns who the host beyond says it came from.
    fn source_seen_beyond(&self, to: IpAddr) -> Option<IpAddr> {
        self.send(to, Duration::from_secs(1))
    }

    fn send(&self, to: IpAddr, patience: Duration) -> Option<IpAddr> {
        let far = self.beyond.run(|| UdpSocket::bind(SocketAddr::new(to, 0)).unwrap()).unwrap();
        far.set_read_timeout(Some(patience)).unwrap();
        let any = Family::of(to).unspecified();
        let near = self.pod.run(|| UdpSocket::bind(SocketAddr::new(any, 0)).unwrap()).unwrap();
        near.send_to(b"hello", far.local_addr().unwrap()).unwrap();
        far.recv_from(&mut [0; 16]).ok().map(|(_, from)| from.ip())
    }
}

const BEYOND: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)),
];

/// A veth from the thread's namespace into another, addressed at both ends.
fn wire(name: &str, far: &Namespace, here: [&str; 2], there: [&str; 2]) {
    let peer = format!("{name}x");
    run(&format!("ip link add {name} type veth peer name {peer} netns {}", far.path().display()));
    let up = |link: &str, addrs: [&str; 2]| {
        for addr in addrs {
            let nodad = if addr.contains(':') { "nodad" } else { "" };
            run(&format!("ip addr add {addr} dev {link} {nodad}"));
        }
        run(&format!("ip link set {link} up"));
    };
    up(name, here);
    far.run(|| up(&peer, there)).unwrap();
}

fn node() -> Vec<Item> {
    let mut items: Vec<_> = Family::BOTH.into_iter().flat_map(masquerade).collect();
    items.extend([element("networks", "10.50.0.0/16"), element("subnets", "10.50.7.0/24")]);
    items.extend([element("networks", "fd00:50::/48"), element("subnets", "fd00:50:0:7::/64")]);
    items
}

#[test]
fn a_pods_packet_leaves_with_the_nodes_address() {
    in_netns(|| {
        let path = Path::new();
        let [v4, v6] = BEYOND;
        assert_eq!(path.source_seen_beyond(v4), Some("10.50.7.2".parse().unwrap()));
        assert_eq!(path.source_seen_beyond(v6), Some("fd00:50:0:7::2".parse().unwrap()));

        let mut nft = Nft::open().unwrap();
        fulfil(&mut nft, patches(node()));
        assert_eq!(path.source_seen_beyond(v4), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(path.source_seen_beyond(v6), Some("2001:db8::1".parse().unwrap()));

        drop(nft);
        assert_eq!(path.source_seen_beyond(v4), Some("192.0.2.1".parse().unwrap()));
    });
}

#[test]
fn a_pods_packet_passes_a_foreign_chain_that_drops() {
    in_netns(|| {
        let path = Path::new();
        run("iptables-nft -P FORWARD DROP");
        run("ip6tables-nft -P FORWARD DROP");
        let [v4, v6] = BEYOND;
        assert_eq!(path.source_seen_beyond(v4), None);
        assert_eq!(path.source_seen_beyond(v6), None);

        let mut nft = Nft::open().unwrap();
        fulfil(&mut nft, patches([accept("10.50.0.0/16"), accept("fd00:50::/48")]));
        assert_eq!(path.source_seen_beyond(v4), Some("10.50.7.2".parse().unwrap()));
        assert_eq!(path.source_seen_beyond(v6), Some("fd00:50:0:7::2".parse().unwrap()));
        let named: Vec<_> = nft.dropping_chains().iter().map(DroppingChain::to_string).collect();
        assert_eq!(named, ["ip filter FORWARD", "ip6 filter FORWARD"]);
    });
}
