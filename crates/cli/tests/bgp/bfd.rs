//! BFD with FRR and with BIRD: a way that fails without a word is found long before the hold time.
//!
//! The hold time is BGP's usual one, longer than a test waits: without BFD none of these would end.

use crate::{
    IPV4, Lab, STATIC_V4, V4,
    net::eventually,
    speakers::{Frr, Russet},
};

#[test]
fn frr_and_we_find_each_other_dead_in_either_direction() {
    let lab = Lab::new(1);
    let frr = Frr::with_bfd(&lab.peers[0], lab.folder("frr"), FRR);
    let russet = lab.russet(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\nconnect-retry = 2\nbfd = true\nbfd-interval = 100\n",
    );
    watched(&russet);
    frr.shows("show bfd peers", &["Status: up"]);

    // We hear nothing any more: the peer is silent, and is told so.
    lab.center.go_deaf();
    failed(&russet, &[OURS, THEIRS_TOO], 1);
    frr.shows("show bgp neighbors 10.0.1.1", &["BFD down"]);
    lab.center.hear_again();
    watched(&russet);

    // FRR hears nothing any more, and says so.
    lab.peers[0].go_deaf();
    failed(&russet, &[OURS, THEIRS, THEIRS_TOO], 2);
    lab.peers[0].hear_again();
    watched(&russet);
    assert!(!russet.learns(V4, "10.9.1.0/24").is_empty());
}

#[test]
fn bird_and_we_find_each_other_dead_over_one_hop_and_over_several() {
    for (session, ours) in [
        ("local as 65001; neighbor 10.0.1.1 as 65000;", "asn = 65001"),
        ("local 10.0.1.2 as 65000; neighbor 10.0.1.1 as 65000; multihop;", "asn = 'internal'"),
    ] {
        let lab = Lab::new(1);
        let bird = lab.bird(
            1,
            &format!("{session} bfd on; connect retry time 2; error wait time 1, 2; {IPV4}"),
            &format!("protocol bfd {{ {BIRD} }}\n{STATIC_V4}"),
        );
        let russet = lab.russet(&format!(
            "[[peer]]\naddress = '10.0.1.2'\n{ours}\nconnect-retry = 2\nbfd = true\nbfd-interval = 100\n"
        ));
        watched(&russet);
        bird.shows("show bfd sessions", &["10.0.1.1", "Up"]);
        lab.center.go_deaf();
        failed(&russet, &[OURS], 1);
        lab.center.hear_again();
        watched(&russet);
        lab.peers[0].go_deaf();
        failed(&russet, &[OURS, THEIRS], 2);
        lab.peers[0].hear_again();
        watched(&russet);
    }
}

#[test]
fn a_peer_whose_operator_stops_watching_keeps_its_session() {
    let lab = Lab::new(1);
    let frr = Frr::with_bfd(&lab.peers[0], lab.folder("frr"), FRR);
    let russet =
        lab.russet("[[peer]]\naddress = '10.0.1.2'\nasn = 65001\nbfd = true\nbfd-interval = 100\n");
    watched(&russet);
    frr.ask_all(&["configure terminal", "bfd", "peer 10.0.1.1", "shutdown"]);
    let peer = eventually("a session out of use", || {
        russet.peer("10.0.1.2").filter(|peer| peer["bfd"]["state"] == "Down")
    });
    assert_eq!(peer["bfd"]["last_error"], "the peer took it out of use", "{peer}");
    assert_eq!((&peer["state"], &peer["times_up"]), (&"Established".into(), &1.into()), "{peer}");
}

fn watched(russet: &Russet<'_>) {
    eventually("BFD with the session", || {
        russet.peer("10.0.1.2").filter(|peer| peer["bfd"]["state"] == "Up")
    });
}

/// Waits until the session has ended so many times, with one of these reasons.
fn failed(russet: &Russet<'_>, reasons: &[&str], times: u64) {
    let peer = eventually("an end by BFD", || {
        russet.peer("10.0.1.2").filter(|peer| peer["state"] != "Established")
    });
    let error = peer["last_error"].as_str().unwrap();
    assert!(reasons.contains(&error), "{peer}");
    assert_eq!(peer["times_up"], times, "{peer}");
}

const OURS: &str = "sent cease: BFD down [6/10]";
/// Where the peer finds it first, its word over TCP may be faster than that of its BFD.
const THEIRS: &str = "received cease [6/0]";
/// Told of it by BFD, FRR ends the session too, and its word may cross ours.
const THEIRS_TOO: &str = "received cease: BFD down [6/10]";
const FRR: &str = "router bgp 65001\n bgp router-id 1.1.1.1\n no bgp ebgp-requires-policy\n \
                   no bgp network import-check\n neighbor 10.0.1.1 remote-as 65000\n \
                   neighbor 10.0.1.1 bfd 3 100 100\n neighbor 10.0.1.1 timers connect 2\n \
                   address-family ipv4 unicast\n  network 10.9.1.0/24\n exit-address-family\n";
const BIRD: &str = "interface \"*\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; \
                    multihop { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; };";
