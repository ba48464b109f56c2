//! The attach lane in real namespaces: one is the node, others are pods. `ip` and `bridge` give a second
//! opinion of what was made.

mod spoof;

use std::{collections::BTreeSet, process::Command};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::*;
use crate::netns::Namespace;

#[test]
fn a_pod_is_attached_as_wanted() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let want = want("rst0", "eth0", 9);
    node.lane(|lane| {
        assert!(lane.attach(&mut inside(&pod), &want).unwrap().is_some());
        assert_eq!(lane.check(&mut inside(&pod), &want).unwrap(), Vec::<String>::new());
        assert_eq!(lane.links().unwrap()[&want.host].state, LinkState::InUse);
    });

    let link = ip(&pod, "-o link show eth0");
    assert!(link.contains("mtu 1450") && link.contains(&want.mac.to_string()), "{link}");
    assert!(ip(&pod, "-o link show lo").contains("UP"));
    let addresses = ip(&pod, "-o addr show eth0");
    assert!(
        addresses.contains("10.50.7.9/24") && addresses.contains("fd00:50::9/64"),
        "{addresses}"
    );
    let of_pod = addresses.lines().find(|line| line.contains("fd00:50::9")).unwrap();
    assert!(!of_pod.contains("tentative"), "usable at once: {of_pod}");
    assert!(ip(&pod, "route").contains("default via 10.50.7.1 dev eth0"));
    assert!(ip(&pod, "-6 route").contains("default via fd00:50::1 dev eth0"));
    let port = program(&node.netns, "bridge", "-d link show dev rst0");
    assert!(port.contains("master cni0") && port.contains("hairpin on"), "{port}");
}

#[test]
fn a_routed_pod_has_whole_addresses_and_gateways_that_it_need_not_ask_for() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let want = routed("rst0", 9);
    node.lane(|lane| {
        assert_eq!(lane.attach(&mut inside(&pod), &want).unwrap(), None);
        assert_eq!(lane.check(&mut inside(&pod), &want).unwrap(), Vec::<String>::new());
    });
    let addresses = ip(&pod, "-o addr show eth0");
    assert!(addresses.contains("10.50.7.9/32") && addresses.contains("fd00:50::9/128"));
    let routes = ip(&pod, "route");
    assert!(routes.contains("default via 169.254.1.1 dev eth0"), "{routes}");
    assert!(routes.contains("169.254.1.1 dev eth0 scope link"), "{routes}");
    assert!(ip(&pod, "-6 route").contains("default via fe80::ecee:eeff:feee:eeee dev eth0"));
    let neighbours = ip(&pod, "neigh");
    for gateway in ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"] {
        let known = format!("{gateway} dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT");
        assert!(neighbours.contains(&known), "{neighbours}");
    }
    assert!(!ip(&node.netns, "-o link show rst0").contains("master"));
    ip(&node.netns, "link set rst0 master cni0");
    let faults = node.lane(|lane| lane.check(&mut inside(&pod), &want).unwrap());
    assert_eq!(faults, ["host link rst0 is a port of a bridge"]);
}

#[test]
fn a_routed_pod_reaches_a_node_that_has_no_default_route() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    node.lane(|lane| lane.attach(&mut inside(&pod), &routed("rst0", 9)).unwrap());
    ip(&node.netns, "route add 10.50.7.9 dev rst0");
    ip(&node.netns, "-6 route add fd00:50::9 dev rst0");
    ip(&node.netns, "addr add 192.0.2.1/32 dev lo");
    ip(&node.netns, "addr add 2001:db8::1/128 dev lo");
    for target in ["192.0.2.1:9", "[2001:db8::1]:9"] {
        let target = target.parse().unwrap();
        let patience = std::time::Duration::from_secs(10);
        let done = pod.run(|| std::net::TcpStream::connect_timeout(&target, patience).unwrap_err());
        // Nobody listens: a refusal is an answer.
        assert_eq!(done.unwrap().kind(), std::io::ErrorKind::ConnectionRefused, "{target}");
    }
}

/// Calico's way: the node answers for the gateway, and only where it has a route to it by another link.
#[test]
fn with_proxy_arp_a_pod_asks_and_the_node_answers_where_it_has_a_default_route() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let want = PodLink { side: NodeSide::Routed { proxy_arp: Flag::On }, ..routed("rst0", 9) };
    node.lane(|lane| lane.attach(&mut inside(&pod), &want).unwrap());
    assert!(!ip(&pod, "neigh").contains("169.254.1.1"));
    ip(&node.netns, "route add 10.50.7.9 dev rst0");
    ip(&node.netns, "addr add 192.0.2.1/32 dev lo");
    let set = |path: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv4/{path}");
        node.netns.run(|| std::fs::write(path, value).unwrap()).unwrap();
    };
    set("conf/rst0/forwarding", "1");
    set("conf/rst0/proxy_arp", "1");
    set("neigh/rst0/proxy_delay", "0");
    let connect = |patience| {
        let target = "192.0.2.1:9".parse().unwrap();
        let patience = std::time::Duration::from_secs(patience);
        pod.run(move || std::net::TcpStream::connect_timeout(&target, patience).unwrap_err().kind())
    };
    assert_ne!(connect(1).unwrap(), std::io::ErrorKind::ConnectionRefused, "nobody answers");
    ip(&node.netns, "route add default dev cni0");
    assert_eq!(connect(10).unwrap(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_pod_reaches_its_gateway() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    node.lane(|lane| lane.attach(&mut inside(&pod), &want("rst0", "eth0", 9)).unwrap());
    let done = pod.run(|| {
        let socket = std::net::TcpStream::connect_timeout(
            &"10.50.7.1:9".parse().unwrap(),
            std::time::Duration::from_secs(10),
        );
        // Nobody listens: a refusal is an answer.
        socket.unwrap_err().kind()
    });
    assert_eq!(done.unwrap(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn an_interface_of_somebody_else_is_an_error_and_stays_as_it_is() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    ip(&pod, "link add eth0 type veth peer name other");
    let before = ip(&pod, "link");
    node.lane(|lane| {
        let err = lane.attach(&mut inside(&pod), &want("rst0", "eth0", 9)).unwrap_err();
        assert_eq!(err, PodError::Exists("eth0".parse().unwrap()));
        assert!(lane.links().unwrap().is_empty());
    });
    assert_eq!(ip(&pod, "link"), before);
}

#[test]
fn a_host_link_that_is_left_over_is_named() {
    let node = Node::new();
    let (first, second) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    node.lane(|lane| {
        lane.attach(&mut inside(&first), &want("rst0", "eth0", 9)).unwrap();
        let err = lane.attach(&mut inside(&second), &want("rst0", "eth0", 9)).unwrap_err();
        assert_eq!(err, PodError::HostExists("rst0".parse().unwrap()));
    });
}

#[test]
fn a_step_that_fails_leaves_nothing() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    pod.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap())
        .unwrap();
    node.lane(|lane| {
        let err = lane.attach(&mut inside(&pod), &want("rst0", "eth0", 9)).unwrap_err();
        assert_eq!(err, PodError::Ipv6Disabled);
        assert!(lane.links().unwrap().is_empty());
    });
    assert!(!ip(&pod, "link").contains("eth0"));
}

#[test]
fn without_a_bridge_nothing_is_made() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let side = NodeSide::Bridge { bridge: "cni9".parse().unwrap(), hairpin: Flag::On };
    let want = PodLink { side, ..want("rst0", "eth0", 9) };
    node.lane(|lane| {
        let err = lane.attach(&mut inside(&pod), &want).unwrap_err();
        assert_eq!(err, PodError::NoBridge("cni9".parse().unwrap()));
    });
}

#[test]
fn marked_links_go_together_and_no_other_does() {
    let node = Node::new();
    let pods: Vec<_> = (0..4).map(|_| Namespace::create().unwrap()).collect();
    ip(&node.netns, "link add foreign type veth peer name foreign2");
    node.lane(|lane| {
        for (n, pod) in (2..).zip(&pods) {
            lane.attach(&mut inside(pod), &want(&format!("rst{n}"), "eth0", n)).unwrap();
        }
        for name in ["rst2", "rst3", "rst4"] {
            assert_eq!(lane.mark(name.parse().unwrap()).unwrap(), Marked::Yes);
        }
        assert_eq!(lane.links().unwrap()[&"rst2".parse().unwrap()].state, LinkState::Marked);
        lane.remove_marked().unwrap();
        assert_eq!(lane.links().unwrap().keys().map(IfName::as_str).collect::<Vec<_>>(), ["rst5"]);

        lane.remove_marked().unwrap();
        assert_eq!(lane.mark("rst2".parse().unwrap()).unwrap(), Marked::Gone);
        assert!(lane.mark("foreign".parse().unwrap()).unwrap_err().is_foreign());
    });
    assert!(!ip(&pods[0], "link").contains("eth0"));
    assert!(ip(&node.netns, "link").contains("foreign2"));
}

#[test]
fn check_names_each_difference() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let want = want("rst0", "eth0", 9);
    node.lane(|lane| lane.attach(&mut inside(&pod), &want).unwrap());
    let table: &[(&Namespace, &str, &[&str])] = &[
        (&pod, "route del default", &["the pod has no default route via 10.50.7.1"]),
        (&pod, "addr del 10.50.7.9/24 dev eth0", &["interface eth0 has no address 10.50.7.9/24"]),
        (&node.netns, "link set rst0 nomaster", &["host link rst0 is no port of cni0"]),
        (&node.netns, "link set rst0 down", &["host link rst0 is down"]),
        (&node.netns, "link set rst0 group 7", &["host link rst0 is not ours"]),
        (&node.netns, "link del rst0", &["host link rst0 is gone", "interface eth0 is gone"]),
    ];
    let mut before = BTreeSet::new();
    for (netns, command, wanted) in table {
        ip(netns, command);
        let faults = node.lane(|lane| lane.check(&mut inside(&pod), &want).unwrap());
        for fault in *wanted {
            assert!(faults.iter().any(|f| f == fault), "after {command}: {faults:?}");
            assert!(!before.contains(*fault), "{fault} was told before {command}");
        }
        before.extend(faults);
    }
}

/// A node with a bridge that has the gateway's addresses.
struct Node {
    netns: Namespace,
}

impl Node {
    fn new() -> Self {
        let netns = Namespace::create().unwrap();
        ip(&netns, "link add cni0 type bridge");
        ip(&netns, "addr add 10.50.7.1/24 dev cni0");
        ip(&netns, "link set cni0 up");
        ip(&netns, "link set lo up");
        Self { netns }
    }

    fn lane<T: Send>(&self, work: impl FnOnce(&mut Lane) -> T + Send) -> T {
        self.netns.run(|| work(&mut Lane::open().unwrap())).unwrap()
    }
}

/// What the plugin hands over.
fn inside(pod: &Namespace) -> Inside {
    let open = || socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
    let netlink = pod.run(open).unwrap().unwrap();
    Inside::new(pod.as_fd().try_clone_to_owned().unwrap(), netlink).unwrap()
}

fn want(host: &str, name: &str, n: u8) -> PodLink {
    let address = |text: &str, len, gateway: &str| PodAddress {
        addr: format!("{text}{n}").parse().unwrap(),
        len,
        gateway: gateway.parse().unwrap(),
    };
    PodLink {
        host: host.parse().unwrap(),
        host_mac: Mac::local([1, 0, 0, 0, 0, n]),
        name: name.parse().unwrap(),
        mac: Mac::local([2, 0, 0, 0, 0, n]),
        mtu: Mtu::try_from(1_450).unwrap(),
        side: NodeSide::Bridge { bridge: "cni0".parse().unwrap(), hairpin: Flag::On },
        addresses: vec![
            address("10.50.7.", 24, "10.50.7.1"),
            address("fd00:50::", 64, "fd00:50::1"),
        ],
    }
}

fn routed(host: &str, n: u8) -> PodLink {
    let address = |text: &str, len, gateway: &str| PodAddress {
        addr: format!("{text}{n}").parse().unwrap(),
        len,
        gateway: gateway.parse().unwrap(),
    };
    PodLink {
        host_mac: "ee:ee:ee:ee:ee:ee".parse().unwrap(),
        side: NodeSide::Routed { proxy_arp: Flag::Off },
        addresses: vec![
            address("10.50.7.", 32, "169.254.1.1"),
            address("fd00:50::", 128, "fe80::ecee:eeff:feee:eeee"),
        ],
        ..want(host, "eth0", n)
    }
}

fn ip(netns: &Namespace, args: &str) -> String {
    program(netns, "ip", args)
}

fn program(netns: &Namespace, name: &str, args: &str) -> String {
    let run = || Command::new(name).args(args.split(' ')).output().unwrap();
    let output = netns.run(run).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
