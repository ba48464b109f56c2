//! A configuration that is read again, and what is counted meanwhile.

use crate::{IPV4, Lab, STATIC_V4, V4, net::eventually};

#[test]
fn a_reload_leaves_sessions_alone_that_did_not_change() {
    let lab = Lab::new(2);
    let _birds = [1, 2].map(|n| {
        lab.bird(n, &format!("local as 6500{n}; neighbor 10.0.{n}.1 as 65000; {IPV4}"), "")
    });
    let peers = "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n[[peer]]\naddress = '10.0.2.2'\nasn = 65002\n";
    let russet = lab.russet(peers);
    russet.up("10.0.1.2");
    russet.up("10.0.2.2");
    russet.write(65_000, "10.255.0.1", &format!("{peers}hold-time = 30\n"));
    russet.signal("-HUP");
    eventually("the second session anew", || {
        russet.peer("10.0.2.2").filter(|p| p["hold_time_s"] == 30 && p["state"] == "Established")
    });
    assert_eq!(russet.peer("10.0.1.2").unwrap()["times_up"], 1);

    // A configuration with a fault changes nothing, and says so.
    russet.write(65_000, "10.255.0.1", &format!("{peers}hold-time = 1\n"));
    russet.signal("-HUP");
    let status = eventually("the fault", || {
        russet.ask(&["status"]).filter(|status| !status["refused_configuration"].is_null())
    });
    assert!(status["refused_configuration"].as_str().unwrap().contains("hold-time"), "{status}");
    assert_eq!(russet.peer("10.0.2.2").unwrap()["state"], "Established");
}

#[test]
fn other_policies_take_effect_and_the_session_stands() {
    let lab = Lab::new(2);
    let two = "protocol static { ipv4; route 10.9.1.0/24 blackhole; route 10.9.2.0/24 blackhole; }";
    let _one = lab.bird(1, &format!("local as 65001; neighbor 10.0.1.1 as 65000; {IPV4}"), two);
    let second = lab.bird(2, &format!("local as 65002; neighbor 10.0.2.1 as 65000; {IPV4}"), "");
    let config = |import: &str, export: &str| {
        format!(
            "http = '127.0.0.1:9471'\n[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n{import}\n\
             [[peer]]\naddress = '10.0.2.2'\nasn = 65002\n{export}\n\
             [[policy]]\nname = 'first'\notherwise = 'reject'\n\
             [[policy.rule]]\nthen = 'accept'\nprefixes = ['10.9.1.0/24']\n"
        )
    };
    let russet = lab.russet(&config("", ""));
    let shown = |wanted: [bool; 2]| {
        eventually(&format!("routes like {wanted:?}"), || {
            let text = second.ask("show route");
            let there = ["10.9.1.0/24", "10.9.2.0/24"].map(|prefix| text.contains(prefix));
            (text.contains("BIRD") && there == wanted).then_some(())
        });
    };
    let reload = |import: &str, export: &str| {
        russet.write(65_000, "10.255.0.1", &config(import, export));
        assert_eq!(russet.reload(), None);
    };
    shown([true, true]);
    reload("", "export = 'first'");
    shown([true, false]);
    reload("", "");
    shown([true, true]);
    reload("import = 'first'", "");
    shown([true, false]);
    let paths = russet.learns(V4, "10.9.2.0/24");
    assert!(paths[0]["why"].as_str().unwrap().starts_with("dropped on import"), "{paths:?}");
    reload("", "");
    shown([true, true]);
    for peer in ["10.0.1.2", "10.0.2.2"] {
        assert_eq!(russet.peer(peer).unwrap()["times_up"], 1, "{peer}");
    }

    let page = lab.center.run(&["python3", "-c", FETCH, "http://127.0.0.1:9471/metrics"]);
    for line in [
        "russet_bgp_peer_up{peer=\"10.0.1.2\"} 1",
        "russet_bgp_sessions_total{peer=\"10.0.2.2\"} 1",
        "russet_bgp_peer_routes{peer=\"10.0.1.2\",family=\"ipv4-unicast\"} 2",
        "russet_bgp_destinations{family=\"ipv4-unicast\"} 2",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is missing in\n{page}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_lines() {
    let lab = Lab::new(1);
    let _bird =
        lab.bird(1, &format!("local as 65001; neighbor 10.0.1.1 as 65000; {IPV4}"), STATIC_V4);
    let peer = "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n";
    let russet = lab.russet(peer);
    russet.up("10.0.1.2");
    russet.write(65_000, "10.255.0.1", &format!("{peer}hold-time = 1\n[[route]]\nprefx = ''\n"));
    let told = russet.reload().expect("two faults");
    assert!(
        told.contains("line 7: peer[0].hold-time") && told.contains("line 9: route[0]"),
        "{told}"
    );
    assert_eq!(russet.peer("10.0.1.2").unwrap()["state"], "Established");
}

const FETCH: &str = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())";
