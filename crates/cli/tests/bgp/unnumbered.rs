//! A peer on a link without addresses: found by router advertisements, with IPv4 routes over link-local next hops.

use crate::{
    Lab, OWN_ROUTE, V4, V6,
    net::{Space, eventually},
    speakers::Frr,
};

#[test]
fn frr_and_we_find_each_other_on_a_link_without_addresses() {
    let lab = Lab::new(0);
    let far = Space::new();
    lab.center.bare_link(&far, 1);
    let russet = lab.russet(&format!(
        "[[peer]]\ninterface = 'to1'\nasn = 'external'\nbfd = true\nbfd-interval = 100\n\
         [[peer]]\ninterface = 'to9'\nasn = 'external'\n{OWN_ROUTE}[[route]]\nprefix = 'fd08::/32'\n"
    ));
    // Nobody is there, and one link is not there either.
    let status = eventually("two links", || {
        russet.ask(&["status"]).filter(|status| status["peers"]["total"] == 2)
    });
    assert!(status.to_string().contains("no router was heard on the link"), "{status}");

    let frr = Frr::with_bfd(
        &far,
        lab.folder("frr"),
        "router bgp 65001\n bgp router-id 1.1.1.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         neighbor up interface remote-as external\n neighbor up bfd 3 100 100\n \
         address-family ipv4 unicast\n  network 10.9.1.0/24\n exit-address-family\n \
         address-family ipv6 unicast\n  neighbor up activate\n  network fd09:1::/48\n exit-address-family\n",
    );
    let peer = russet.up("to1");
    let address = peer["address"].as_str().unwrap();
    assert!(address.starts_with("fe80::") && address.ends_with("%to1"), "{peer}");
    assert!(peer["capabilities"].to_string().contains("extended next hop"), "{peer}");
    let (router, _) = address.split_once('%').unwrap();
    for (family, prefix) in [(V4, "10.9.1.0/24"), (V6, "fd09:1::/48")] {
        let paths = russet.learns(family, prefix);
        assert!(paths[0]["next_hop"].as_str().unwrap().contains(router), "{paths:?}");
        assert_eq!(paths[0]["from"], address);
    }
    // FRR takes our routes, and so does its kernel.
    frr.shows("show bgp ipv4 unicast 10.8.0.0/16", &["65000", "fe80::"]);
    eventually("routes of ours in FRR's kernel", || {
        let v4 = far.run(&["ip", "route", "show", "10.8.0.0/16"]);
        let v6 = far.run(&["ip", "-6", "route", "show", "fd08::/32"]);
        let there = |routes: &str| routes.contains("fe80::") && routes.contains("dev up");
        (there(&v4) && there(&v6)).then_some(())
    });
    eventually("BFD over link-local addresses", || {
        russet.peer("to1").filter(|peer| peer["bfd"]["state"] == "Up")
    });
    far.go_deaf();
    let peer = eventually("an end by BFD", || {
        russet.peer("to1").filter(|peer| peer["state"] != "Established")
    });
    assert!(peer["last_error"].as_str().unwrap().contains("BFD"), "{peer}");
}
