//! What is asked of a path, asked of a real one.

use std::{
    fs,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use russet_kernel::{
    netns::Namespace,
    probe::{Checksum, Echo, Echoed, closed_port},
    sys::ethtool,
};

use crate::support::*;

const PATIENCE: Duration = Duration::from_millis(500);

#[test]
fn a_host_refuses_datagrams_with_either_checksum_in_both_families() {
    on_a_node(|| {
        ip("link set lo up");
        // So that no refusal is held back for having been asked often.
        fs::write("/proc/sys/net/ipv4/icmp_ratemask", "0").unwrap();
        fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").unwrap();
        for addr in ["127.0.0.1", "::1"] {
            let addr: IpAddr = addr.parse().unwrap();
            for checksum in [Checksum::Offloaded, Checksum::Ours] {
                let refused = closed_port(addr, addr, checksum, PATIENCE).unwrap();
                assert!(refused, "{addr} {checksum:?}");
            }
        }
    });
}

#[test]
fn an_echo_is_answered_up_to_what_the_link_takes() {
    on_a_node(|| {
        ip("link set lo up mtu 1400");
        for addr in ["127.0.0.1", "::1"] {
            let mut echo = Echo::open(addr.parse().unwrap()).unwrap();
            for octets in [1_280, 1_399, 1_400] {
                assert_eq!(echo.ask(octets, PATIENCE).unwrap(), Echoed::Yes, "{addr} {octets}");
            }
            assert_eq!(echo.ask(1_401, PATIENCE).unwrap(), Echoed::TooLarge, "{addr}");
        }
    });
}

/// One that keeps silent is `black-hole.yaml`.
#[test]
fn a_router_that_says_what_it_carries_is_believed_in_both_families() {
    on_a_node(|| {
        let (router, far) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        wire(&router, &far);
        for target in ["10.99.2.2", "fd99:2::2"] {
            let mut echo = Echo::open(target.parse().unwrap()).unwrap();
            eventually("the way is there", || echo.ask(600, PATIENCE).unwrap() == Echoed::Yes);
            assert_eq!(echo.ask(1_500, PATIENCE).unwrap(), Echoed::No, "{target}");
            assert_eq!(echo.told(), Some(1_400), "{target}");
            assert_eq!(echo.ask(1_400, PATIENCE).unwrap(), Echoed::Yes, "{target}");
        }
    });
}

/// The node, a router, and a host behind a link that carries 1,400 octets.
fn wire(router: &Namespace, far: &Namespace) {
    let of = |netns: &Namespace| {
        format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
    };
    ip("link add near0 type veth peer name near1");
    ip("link add far0 mtu 1400 type veth peer name far1 mtu 1400");
    ip(&format!("link set near1 netns {}", of(router)));
    ip(&format!("link set far0 netns {}", of(router)));
    ip(&format!("link set far1 netns {}", of(far)));
    ip("addr add 10.99.1.1/24 dev near0");
    ip("addr add fd99:1::1/64 dev near0 nodad");
    ip("link set near0 up");
    router
        .run(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            for (link, n) in [("near1", 1), ("far0", 2)] {
                ip(&format!("addr add 10.99.{n}.9/24 dev {link}"));
                ip(&format!("addr add fd99:{n}::9/64 dev {link} nodad"));
                ip(&format!("link set {link} up"));
            }
        })
        .unwrap();
    far.run(|| {
        ip("addr add 10.99.2.2/24 dev far1");
        ip("addr add fd99:2::2/64 dev far1 nodad");
        ip("link set far1 up");
        ip("route add default via 10.99.2.9");
        ip("-6 route add default via fd99:2::9");
    })
    .unwrap();
    ip("route add 10.99.2.0/24 via 10.99.1.9");
    ip("-6 route add fd99:2::/64 via fd99:1::9");
}

#[test]
fn nobody_answers_for_an_address_that_is_not_there() {
    on_a_node(|| {
        let mut echo = Echo::open("192.168.77.200".parse().unwrap()).unwrap();
        assert_eq!(echo.ask(100, PATIENCE).unwrap(), Echoed::No);
    });
}

#[test]
fn what_a_link_leaves_to_the_hardware_is_set_and_read() {
    on_a_node(|| {
        ip("link add vx0 type vxlan id 7 dstport 4789");
        assert!(ethtool::tx_checksum(name("vx0")).unwrap());
        ethtool::set_tx_checksum(name("vx0"), false).unwrap();
        assert!(!ethtool::tx_checksum(name("vx0")).unwrap());
        assert!(ethtool::tx_checksum(name("none0")).is_err());
    });
}
