//! EVPN between two FRRs that have real bridges and VXLAN devices: we reflect, and their kernels forward by it.

use std::collections::BTreeSet;

use crate::{
    EVPN, Lab,
    net::{Space, eventually},
    speakers::Frr,
};

#[test]
fn two_frrs_learn_each_other_s_macs_vteps_and_prefixes_through_us() {
    let lab = Lab::new(2);
    let peer = |n| {
        format!(
            "[[peer]]\naddress = '10.0.{n}.2'\nasn = 'internal'\nclient = true\npassive = true\n\
             families = ['l2vpn-evpn']\n"
        )
    };
    let russet = lab.russet(&(peer(1) + &peer(2)));
    lab.peers.iter().zip(1..).for_each(|(space, n)| leaf(space, n));
    let frrs = [1, 2].map(|n: u8| {
        let space = &lab.peers[usize::from(n) - 1];
        Frr::with_zebra(space, lab.folder(&format!("frr{n}")), "vni 200\n", &bgpd(n))
    });
    russet.up("10.0.1.2");
    russet.up("10.0.2.2");
    // A host of the first leaf, by its MAC address.
    lab.peers[0].run(&["bridge", "fdb", "add", MAC, "dev", "host", "master", "static"]);

    // As the first told it, the second holds it: next hop, targets, encapsulation, the router's MAC, the tunnel.
    let told = [
        (format!("[2]:[1.1.1.1:2]:[0]:[{MAC}]"), "rt:65000:100"),
        ("[3]:[1.1.1.1:2]:[0]:[10.0.1.2]".to_owned(), "rt:65000:100"),
        ("[5]:[1.1.1.1:1]:[0]:[10.7.1.0/24]".to_owned(), "rt:65000:200"),
    ];
    for (route, target) in &told {
        let paths = russet.learns(EVPN, route);
        assert_eq!(paths[0]["next_hop"], "10.0.1.2", "{route}");
        let communities = paths[0]["communities"].to_string();
        assert!(communities.contains(target) && communities.contains("encap:vxlan"), "{paths:?}");
    }
    let [first, second] = &frrs;
    for kind in ["2", "3", "5"] {
        let ask = format!("show bgp l2vpn evpn route type {kind}");
        let (ours, theirs) = (first.shows(&ask, &["1.1.1.1:"]), second.shows(&ask, &["1.1.1.1:"]));
        assert_eq!(facts(&theirs), facts(&ours), "type {kind}:\n{ours}\n{theirs}");
    }
    let tunnel = "PMSI Tunnel Type: Ingress Replication, label: 100";
    second.shows("show bgp l2vpn evpn route rd 1.1.1.1:2 type multicast", &["10.0.1.2", tunnel]);

    // The kernel of the second sends to the first by all three.
    let space = &lab.peers[1];
    eventually("a remote MAC address, a flood entry and a route", || {
        let fdb = space.run(&["bridge", "fdb", "show", "dev", "vni100"]);
        let route = space.run(&["ip", "route", "show", "10.7.1.0/24"]);
        let has = |mac: &str| {
            fdb.lines().any(|line| line.starts_with(mac) && line.contains("dst 10.0.1.2"))
        };
        (has(MAC) && has("00:00:00:00:00:00") && route.contains("via 10.0.1.2 dev br200"))
            .then_some(())
    });

    // What goes away at the first goes away at the second.
    lab.peers[0].run(&["bridge", "fdb", "del", MAC, "dev", "host", "master"]);
    eventually("a MAC address that is gone", || {
        let fdb = space.run(&["bridge", "fdb", "show", "dev", "vni100"]);
        (!fdb.contains(MAC)).then_some(())
    });
}

/// What the routes of the first leaf carry, route by route. In which order is nobody's business.
fn facts(shown: &str) -> Vec<BTreeSet<String>> {
    let at = shown.find("Route Distinguisher: 1.1.1.1:").unwrap_or_default();
    let words = ["RT:", "ET:", "Rmac:"];
    let lines = shown[at..].lines().take_while(|line| !line.contains("2.2.2.2:"));
    let lines = lines.filter(|line| words.iter().any(|word| line.contains(word)));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// A bridge with a VXLAN device for hosts, another for routes, and a host.
fn leaf(space: &Space, n: u8) {
    // FRR takes no default route for the way to a next hop.
    space.ip(&format!("route add 10.0.0.0/16 via 10.0.{n}.1"));
    for (vni, mac) in [(100, "02:00:00:00:01"), (200, "02:00:00:00:02")] {
        space.ip(&format!("link add br{vni} address {mac}:0{n} type bridge"));
        space.ip(&format!("link set dev br{vni} up"));
        let vxlan = format!("type vxlan id {vni} dstport 4789 local 10.0.{n}.2 nolearning");
        space.ip(&format!("link add vni{vni} {vxlan}"));
        space.ip(&format!("link set dev vni{vni} master br{vni} up"));
    }
    space.ip("link add host type veth peer name eth0");
    space.ip("link set dev host master br100 up");
    space.ip("link set dev eth0 up");
}

fn bgpd(n: u8) -> String {
    format!(
        "router bgp 65000\n bgp router-id {n}.{n}.{n}.{n}\n no bgp default ipv4-unicast\n \
         no bgp network import-check\n neighbor 10.0.{n}.1 remote-as 65000\n \
         neighbor 10.0.{n}.1 timers connect 2\n \
         address-family ipv4 unicast\n  network 10.7.{n}.0/24\n exit-address-family\n \
         address-family l2vpn evpn\n  neighbor 10.0.{n}.1 activate\n  advertise-all-vni\n  \
         advertise ipv4 unicast\n exit-address-family\n"
    )
}

const MAC: &str = "02:00:00:00:00:0a";
