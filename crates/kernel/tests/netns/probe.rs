//! What is asked of a path, asked of a real one.

use std::{fs, net::IpAddr, time::Duration};

use russet_kernel::{
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
