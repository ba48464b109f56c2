//! Our speaker against BIRD, FRR, `GoBGP` and `ExaBGP`, live, each in a network namespace of its own.
//!
//! Ours stands in the middle; peer number N is at 10.0.N.2 and `fd00:N::2`, and reaches us at the same with 1.

#[path = "bgp/agent.rs"]
mod agent;
#[path = "bgp/bfd.rs"]
mod bfd;
#[path = "bgp/evpn.rs"]
mod evpn;
#[path = "bgp/hostile.rs"]
mod hostile;
#[path = "bgp/net.rs"]
mod net;
#[path = "bgp/reload.rs"]
mod reload;
#[path = "bgp/resources.rs"]
mod resources;
#[path = "bgp/restart.rs"]
mod restart;
#[path = "bgp/speakers.rs"]
mod speakers;
#[path = "bgp/unnumbered.rs"]
mod unnumbered;

use std::path::PathBuf;

use net::{Space, eventually};
use speakers::{Bird, Frr, GoBgp, Russet, exabgp, exabgp_that_tells};

const V4: &str = "ipv4-unicast";
const V6: &str = "ipv6-unicast";
const EVPN: &str = "l2vpn-evpn";

#[test]
fn bird_and_we_dial_each_other_in_both_directions() {
    for (ours, theirs, direction) in
        [("passive = true", "", "incoming"), ("", "passive on;", "outgoing")]
    {
        let lab = Lab::new(1);
        let bird = lab.bird(
            1,
            &format!("{theirs} local as 65001; neighbor 10.0.1.1 as 65000; {IPV4}"),
            STATIC_V4,
        );
        let russet = lab
            .russet(&format!("[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n{ours}\n{OWN_ROUTE}"));
        assert_eq!(russet.up("10.0.1.2")["direction"], direction);
        let paths = russet.learns(V4, "10.9.1.0/24");
        assert_eq!(
            (&paths[0]["as_path"], &paths[0]["why"]),
            (&"65001".into(), &"it is the best".into())
        );
        bird.shows("show route all 10.8.0.0/16", &["10.0.1.1", "BGP.as_path: 65000"]);
    }
}

#[test]
fn a_signed_session_stands_and_one_with_another_password_does_not() {
    let lab = Lab::new(2);
    let config =
        |n| format!("local as 65001; neighbor 10.0.{n}.1 as 65000; password \"one\"; {IPV4}");
    let _birds = [lab.bird(1, &config(1), STATIC_V4), lab.bird(2, &config(2), STATIC_V4)];
    let russet = lab.russet(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\npassword = 'one'\npassive = true\n\
         [[peer]]\naddress = '10.0.2.2'\nasn = 65001\npassword = 'two'\nconnect-retry = 1\n",
    );
    russet.up("10.0.1.2");
    // The control: it has had as long as the other, and more.
    assert_ne!(russet.peer("10.0.2.2").unwrap()["state"], "Established");
    assert_eq!(russet.peer("10.0.2.2").unwrap()["times_up"], 0);
}

#[test]
fn peers_that_count_hops_on_both_sides_meet() {
    let lab = Lab::new(1);
    let bird = "local as 65001; neighbor 10.0.1.1 as 65000; ttl security on; multihop 1;";
    let _bird = lab.bird(1, &format!("{bird} {IPV4}"), STATIC_V4);
    let russet = lab.russet("[[peer]]\naddress = '10.0.1.2'\nasn = 65001\nttl-security = 1\n");
    russet.up("10.0.1.2");
    russet.learns(V4, "10.9.1.0/24");
}

#[test]
fn a_peer_that_is_further_away_than_it_may_be_is_not_heard() {
    for (hops, meets) in [(2, true), (1, false)] {
        let lab = Lab::new(1);
        let (router, far) = (&lab.peers[0], Space::new());
        router.link(&far, 9);
        router.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        far.ip("route add 10.0.1.0/24 via 10.0.9.1");
        lab.center.ip("route add 10.0.9.0/24 via 10.0.1.2");
        let session = "local as 65001; neighbor 10.0.1.1 as 65000; multihop 2; ttl security on;";
        let config = format!(
            "protocol bgp peer {{ connect delay time 1; connect retry time 1; {session} {IPV4} }}"
        );
        let _bird = Bird::start(&far, lab.folder("far"), "9.9.9.9", &config);
        let russet = lab.russet(&format!(
            "[[peer]]\naddress = '10.0.9.2'\nasn = 65001\nttl-security = {hops}\nconnect-retry = 1\n"
        ));
        if meets {
            russet.up("10.0.9.2");
            continue;
        }
        // What BIRD answers has passed a router too many, and our kernel drops it: SYN after SYN is sent anew.
        eventually("attempts that nobody answers", || {
            let shown = lab.center.run(&["ss", "-tnoH", "dst", "10.0.9.2"]);
            shown.contains("SYN-SENT").then_some(())
        });
        let peer = russet.peer("10.0.9.2").unwrap();
        assert_eq!((&peer["times_up"], &peer["octets_in"]), (&0.into(), &0.into()), "{peer}");
    }
}

#[test]
fn ipv6_routes_pass_over_an_ipv6_session() {
    let lab = Lab::new(1);
    let ipv6 = "ipv6 { import all; export all; };";
    let bird =
        lab.bird(1, &format!("local as 65001; neighbor fd00:1::1 as 65000; {ipv6}"), STATIC_V6);
    let russet = lab
        .russet("[[peer]]\naddress = 'fd00:1::2'\nasn = 65001\n[[route]]\nprefix = 'fd08::/32'\n");
    russet.up("fd00:1::2");
    let paths = russet.learns(V6, "fd09:1::/48");
    assert!(paths[0]["next_hop"].as_str().unwrap().starts_with("fd00:1::2"), "{paths:?}");
    bird.shows("show route all fd08::/32", &["fd00:1::1"]);
}

#[test]
fn ipv4_routes_lead_over_an_ipv6_next_hop() {
    let lab = Lab::new(1);
    let ipv4 = "ipv4 { import all; export all; extended next hop on; };";
    let bird =
        lab.bird(1, &format!("local as 65001; neighbor fd00:1::1 as 65000; {ipv4}"), STATIC_V4);
    let russet = lab.russet(&format!(
        "[[peer]]\naddress = 'fd00:1::2'\nasn = 65001\nfamilies = ['ipv4-unicast']\nextended-next-hop = true\n{OWN_ROUTE}"
    ));
    russet.up("fd00:1::2");
    let paths = russet.learns(V4, "10.9.1.0/24");
    assert!(paths[0]["next_hop"].as_str().unwrap().starts_with("fd00:1::2"), "{paths:?}");
    bird.shows("show route all 10.8.0.0/16", &["BGP.next_hop: fd00:1::1"]);
}

#[test]
fn a_speaker_of_two_octets_gets_our_four_and_gives_them_back() {
    let lab = Lab::with(2, 4_200_000_000);
    let folder = lab.folder("exabgp");
    let heard = exabgp_that_tells(
        &folder,
        "neighbor 10.0.1.1 { router-id 1.1.1.1; local-address 10.0.1.2; local-as 65001; peer-as 23456;\n\
         capability { asn4 disable; } api { processes [ tell ]; receive { parsed; update; } }\n\
         static { route 10.9.1.0/24 next-hop 10.0.1.2 as-path [ 65001 4200000009 ]; } }\n",
    );
    let _two = exabgp(&lab.peers[0], &folder);
    let _four = lab.bird(
        2,
        &format!("local as 4200000002; neighbor 10.0.2.1 as 4200000000; {IPV4}"),
        "protocol static { ipv4; route 10.9.2.0/24 blackhole; }",
    );
    let russet = lab.russet(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n[[peer]]\naddress = '10.0.2.2'\nasn = 4200000002\n",
    );
    russet.up("10.0.1.2");
    russet.up("10.0.2.2");
    // Without the capability the numbers cannot have come but beside the path.
    assert!(
        !russet.peer("10.0.1.2").unwrap()["capabilities"].to_string().contains("four-octet AS")
    );
    assert_eq!(russet.learns(V4, "10.9.1.0/24")[0]["as_path"], "65001 4200000009");
    eventually("the path in four octets", || {
        let heard = std::fs::read_to_string(&heard).ok()?.replace(' ', "");
        heard.contains("[4200000000,4200000002]").then_some(())
    });
}

#[test]
fn several_paths_pass_with_add_path() {
    let lab = Lab::new(3);
    let same = "protocol static { ipv4; route 10.9.0.0/24 blackhole; }";
    let _birds = [1, 2].map(|n| {
        lab.bird(n, &format!("local as 6500{n}; neighbor 10.0.{n}.1 as 65000; {IPV4}"), same)
    });
    let ipv4 = "ipv4 { import all; export all; add paths on; };";
    let third = lab.bird(3, &format!("local as 65003; neighbor 10.0.3.1 as 65000; {ipv4}"), "");
    let russet = lab.russet(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n[[peer]]\naddress = '10.0.2.2'\nasn = 65002\n\
         [[peer]]\naddress = '10.0.3.2'\nasn = 65003\nadd-path = 'both'\n",
    );
    russet.up("10.0.3.2");
    third.shows("show route all 10.9.0.0/24", &["65000 65001", "65000 65002"]);
    let paths = russet.learns(V4, "10.9.0.0/24");
    assert_eq!(paths.len(), 2);
    let lost: Vec<_> = paths.iter().filter(|path| path["best"] == false).collect();
    assert!(lost[0]["why"].as_str().unwrap().starts_with("another is better by"), "{lost:?}");
}

#[test]
fn a_refresh_of_bird_is_answered_and_nothing_is_lost() {
    let lab = Lab::new(1);
    let bird =
        lab.bird(1, &format!("local as 65001; neighbor 10.0.1.1 as 65000; {IPV4}"), STATIC_V4);
    let russet = lab.russet(&format!("[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n{OWN_ROUTE}"));
    russet.up("10.0.1.2");
    bird.shows("show route 10.8.0.0/16", &["10.8.0.0/16"]);
    bird.ask("reload in peer");
    eventually("a refresh", || russet.peer("10.0.1.2").filter(|peer| peer["refreshes"] == 1));
    // BIRD marks what it had as stale at our begin, and drops what was not told at our end.
    bird.shows("show protocols all peer", &["Enhanced refresh", "Established"]);
    bird.shows("show route 10.8.0.0/16", &["10.8.0.0/16"]);
    assert_eq!(russet.peer("10.0.1.2").unwrap()["times_up"], 1);
}

#[test]
fn routes_are_reflected_between_two_clusters_with_their_marks() {
    let lab = Lab::new(2);
    let client = |n: u8| format!("local as 65000; neighbor 10.0.{n}.1 as 65000; {IPV4}");
    let _one = lab.bird(1, &client(1), STATIC_V4);
    // The second reflector is behind link 2, and its client behind that.
    let (far, far_client) = (&lab.peers[1], Space::new());
    far.link(&far_client, 9);
    let near = lab.russet(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 'internal'\nclient = true\n\
         [[peer]]\naddress = '10.0.2.2'\nasn = 'internal'\n",
    );
    let other = Russet::start(
        far,
        lab.folder("far"),
        65_000,
        "10.255.0.2",
        "[[peer]]\naddress = '10.0.2.1'\nasn = 'internal'\n\
         [[peer]]\naddress = '10.0.9.2'\nasn = 'internal'\nclient = true\n",
    );
    let last = Bird::start(
        &far_client,
        lab.folder("last"),
        "9.9.9.9",
        &format!("protocol bgp peer {{ {} }}", client(9)),
    );
    near.up("10.0.2.2");
    other.up("10.0.9.2");
    last.shows(
        "show route all 10.9.1.0/24",
        &["BGP.originator_id: 1.1.1.1", "BGP.cluster_list: 10.255.0.2 10.255.0.1"],
    );
    let paths = other.learns(V4, "10.9.1.0/24");
    assert_eq!(paths[0]["cluster_list"], serde_json::json!(["10.255.0.1"]));
}

#[test]
fn a_peer_that_restarts_loses_no_route_with_others_and_one_that_stays_away_does() {
    let lab = Lab::new(2);
    let restart = "graceful restart on; graceful restart time 6;";
    let mut one = lab.bird(
        1,
        &format!("{restart} local as 65001; neighbor 10.0.1.1 as 65000; {IPV4}"),
        STATIC_V4,
    );
    let two = lab.bird(2, &format!("local as 65002; neighbor 10.0.2.1 as 65000; {IPV4}"), "");
    let russet = lab.russet(
        "graceful-restart = 60\n[[peer]]\naddress = '10.0.1.2'\nasn = 65001\nconnect-retry = 1\n\
         [[peer]]\naddress = '10.0.2.2'\nasn = 65002\n",
    );
    two.shows("show route 10.9.1.0/24", &["10.9.1.0/24"]);
    let updates = || {
        let text = two.ask("show protocols all peer");
        let line = text.lines().find(|line| line.contains("Import withdraws")).unwrap_or_default();
        line.split_whitespace().find_map(|word| word.parse::<u64>().ok())
    };
    let before = updates();
    one.kill();
    eventually("kept routes", || {
        russet.peer("10.0.1.2").filter(|peer| peer["families"][0]["stale"] == true)
    });
    assert_eq!(russet.learns(V4, "10.9.1.0/24")[0]["stale"], true);
    one.run(&["-R"]);
    russet.up("10.0.1.2");
    eventually("fresh routes", || {
        Some(russet.paths(V4, "10.9.1.0/24"))
            .filter(|paths| paths.first().is_some_and(|p| p["stale"] == false))
    });
    assert_eq!((updates(), before.is_some()), (before, true), "the other was told nothing");

    // The control: without a return the routes go.
    one.kill();
    eventually("no route", || {
        let routes = two.ask("show route");
        (routes.contains("BIRD 2") && !routes.contains("10.9.1.0/24")).then_some(())
    });
}

#[test]
fn we_restart_and_the_peer_keeps_what_we_told_it() {
    let lab = Lab::new(2);
    let one = lab.bird(
        1,
        &format!("graceful restart on; local as 65001; neighbor 10.0.1.1 as 65000; {IPV4}"),
        "",
    );
    let _two = lab.bird(
        2,
        &format!("graceful restart on; local as 65002; neighbor 10.0.2.1 as 65000; {IPV4}"),
        STATIC_V4,
    );
    let config = "graceful-restart = 60\n[[peer]]\naddress = '10.0.1.2'\nasn = 65001\nconnect-retry = 1\n\
                  [[peer]]\naddress = '10.0.2.2'\nasn = 65002\nconnect-retry = 1\n";
    let mut russet = lab.russet(config);
    one.shows("show route 10.9.1.0/24", &["10.9.1.0/24"]);
    let withdraws = || {
        let text = one.ask("show protocols all peer");
        text.lines().find(|line| line.contains("Import withdraws")).map(str::to_owned)
    };
    let before = withdraws();
    russet.kill();
    one.shows("show protocols all peer", &["Neighbor graceful restart active"]);
    one.shows("show route 10.9.1.0/24", &["10.9.1.0/24"]);
    russet.run();
    russet.up("10.0.1.2");
    russet.up("10.0.2.2");
    eventually("the end of the restart", || {
        (!one.ask("show protocols all peer").contains("graceful restart active")).then_some(())
    });
    one.shows("show route 10.9.1.0/24", &["10.9.1.0/24"]);
    assert_eq!(withdraws(), before, "no route was lost");
}

#[test]
fn neighbours_of_a_range_come_up_to_its_limit() {
    let lab = Lab::new(3);
    let _birds = [1, 2, 3].map(|n| {
        lab.bird(
            n,
            &format!(
                "connect retry time 2; local as 6500{n}; neighbor 10.0.{n}.1 as 65000; {IPV4}"
            ),
            "",
        )
    });
    let russet = lab.russet("[[range]]\nprefix = '10.0.0.0/16'\nasn = 'external'\nlimit = 2\n");
    let status = eventually("two peers and a stranger", || {
        let status = russet.ask(&["status"])?;
        let rows = status["peers"]["rows"].as_array()?.clone();
        let up = rows.iter().filter(|peer| peer["state"] == "Established").count();
        (up == 2 && status["strangers"].as_u64()? > 0).then_some(status)
    });
    assert_eq!(status["peers"]["total"], 2);
}

#[test]
fn frr_and_we_exchange_routes_of_both_families() {
    let lab = Lab::new(1);
    let frr = Frr::start(
        &lab.peers[0],
        lab.folder("frr"),
        "router bgp 65001\n bgp router-id 1.1.1.1\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         neighbor 10.0.1.1 remote-as 65000\n address-family ipv4 unicast\n  network 10.9.1.0/24\n \
         exit-address-family\n address-family ipv6 unicast\n  neighbor 10.0.1.1 activate\n  \
         network fd09:1::/48\n exit-address-family\n",
    );
    let russet = lab.russet(&format!(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\nfamilies = ['ipv4-unicast', 'ipv6-unicast']\n\
         next-hop-ipv6 = 'fd00:1::1'\n{OWN_ROUTE}"
    ));
    russet.up("10.0.1.2");
    russet.learns(V4, "10.9.1.0/24");
    frr.shows("show bgp ipv4 unicast 10.8.0.0/16", &["65000", "10.0.1.1"]);
    let peer = frr.shows("show bgp neighbors 10.0.1.1", &["Established"]);
    assert!(peer.contains("Enhanced Route Refresh: advertised and received"), "{peer}");
}

#[test]
fn evpn_routes_of_every_type_pass_from_one_gobgp_to_another() {
    let lab = Lab::new(2);
    let config = |n: u8| {
        format!(
            "[global.config]\nas = 65000\nrouter-id = '{n}.{n}.{n}.{n}'\n[[neighbors]]\n[neighbors.config]\n\
             neighbor-address = '10.0.{n}.1'\npeer-as = 65000\n[[neighbors.afi-safis]]\n\
             [neighbors.afi-safis.config]\nafi-safi-name = 'l2vpn-evpn'\n"
        )
    };
    let one = GoBgp::start(&lab.peers[0], lab.folder("one"), &config(1));
    let two = GoBgp::start(&lab.peers[1], lab.folder("two"), &config(2));
    let peer = |n| {
        format!(
            "[[peer]]\naddress = '10.0.{n}.2'\nasn = 'internal'\nclient = true\nfamilies = ['l2vpn-evpn']\n"
        )
    };
    let russet = lab.russet(&(peer(1) + &peer(2)));
    russet.up("10.0.1.2");
    russet.up("10.0.2.2");
    let common = "rd 1.1.1.1:100 rt 65000:100 encap vxlan";
    for route in [
        format!("a-d esi single-homed etag 5 label 100 {common}"),
        format!("macadv 02:00:00:00:00:01 10.7.0.1 etag 0 label 100 {common}"),
        format!("multicast 1.1.1.1 etag 0 {common}"),
        "esi 1.1.1.1 esi LACP 02:00:00:00:00:09 7 rd 1.1.1.1:100 rt 65000:100".to_owned(),
        format!("prefix 10.7.0.0/24 gw 10.0.1.2 etag 0 label 100 {common}"),
    ] {
        one.does(&format!("global rib add -a evpn {route}"));
    }
    let kinds = ["[type:A-D]", "[type:macadv]", "[type:multicast]", "[type:esi]", "[type:Prefix]"];
    let told = two.shows("global rib -a evpn", &kinds);
    assert!(told.contains("02:00:00:00:00:01") && told.contains("10.7.0.0/24"), "{told}");
    let paths = russet.learns(EVPN, "[2]:[1.1.1.1:100]:[0]:[02:00:00:00:00:01]:[10.7.0.1]");
    let communities = paths[0]["communities"].to_string();
    assert!(
        communities.contains("rt:65000:100") && communities.contains("encap:vxlan"),
        "{communities}"
    );
}

#[test]
fn a_bad_attribute_of_exabgp_withdraws_its_route_and_the_session_stays() {
    let lab = Lab::new(1);
    let folder = lab.folder("exabgp");
    let config = "neighbor 10.0.1.1 { router-id 1.1.1.1; local-address 10.0.1.2; local-as 65001; peer-as 65000;\n\
                  static {\n route 10.9.1.0/24 next-hop 10.0.1.2;\n \
                  route 10.9.2.0/24 next-hop 10.0.1.2 attribute [0x20 0xc0 0x000000];\n \
                  route 10.9.3.0/24 next-hop 10.0.1.2 attribute [0xfd 0xc0 0x0102];\n } }\n";
    exabgp_that_tells(&folder, config);
    let _exabgp = exabgp(&lab.peers[0], &folder);
    let russet = lab.russet("[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n");
    russet.up("10.0.1.2");
    russet.learns(V4, "10.9.1.0/24");
    russet.learns(V4, "10.9.3.0/24");
    let peer = eventually("the fault", || {
        russet.peer("10.0.1.2").filter(|peer| peer["treated_as_withdraw"] == 1)
    });
    assert_eq!((&peer["state"], &peer["times_up"]), (&"Established".into(), &1.into()));
    assert!(russet.paths(V4, "10.9.2.0/24").is_empty());
}

#[test]
fn a_dump_holds_the_table_and_a_wrong_as_is_told_in_words() {
    let lab = Lab::new(2);
    let _bird =
        lab.bird(1, &format!("local as 65001; neighbor 10.0.1.1 as 65000; {IPV4}"), STATIC_V4);
    let _wrong = lab.bird(2, &format!("local as 65009; neighbor 10.0.2.1 as 65000; {IPV4}"), "");
    let russet = lab.russet(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n[[peer]]\naddress = '10.0.2.2'\nasn = 65002\n",
    );
    russet.learns(V4, "10.9.1.0/24");
    let file = lab.folder("dump").with_extension("mrt");
    russet.ask(&["dump", file.to_str().unwrap()]);
    let octets = std::fs::read(&file).unwrap();
    // The header of the index of peers, and a route to 10.9.1.0/24.
    assert_eq!(octets[4..8], [0, 13, 0, 1]);
    assert!(octets.windows(4).any(|four| four == [24, 10, 9, 1]));
    eventually("the reason", || {
        let peer = russet.peer("10.0.2.2")?;
        peer["last_error"].as_str()?.contains("open: bad peer AS [2/2]").then_some(())
    });
}

#[test]
fn a_peer_that_floods_us_with_connections_and_garbage_disturbs_no_other() {
    let lab = Lab::new(3);
    // A hold time of three seconds ends when keepalives are late.
    let bird = "hold time 3; local as 65001; neighbor 10.0.1.1 as 65000;";
    let bird = lab.bird(1, &format!("{bird} {IPV4}"), STATIC_V4);
    let russet = lab.russet(&format!(
        "[[peer]]\naddress = '10.0.1.2'\nasn = 65001\n[[peer]]\naddress = '10.0.2.2'\nasn = 65002\n{OWN_ROUTE}"
    ));
    russet.up("10.0.1.2");
    bird.shows("show route 10.8.0.0/16", &["10.8.0.0/16"]);
    // One that is configured, and a stranger.
    for n in [2, 3] {
        let script = lab.folder(&format!("flood{n}.py"));
        std::fs::write(&script, FLOOD).unwrap();
        let mut python = lab.peers[n - 1].command("python3");
        let out = python.arg(&script).arg(format!("10.0.{n}.1")).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("opened 500"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    }
    let peer = russet.peer("10.0.1.2").unwrap();
    assert_eq!((&peer["state"], &peer["times_up"]), (&"Established".into(), &1.into()), "{peer}");
    assert_eq!(russet.peer("10.0.2.2").unwrap()["times_up"], 0);
    bird.shows("show route 10.8.0.0/16", &["10.8.0.0/16"]);
}

/// Opens many connections one after the other, says garbage, half a header or nothing on them, and holds those
/// that stay open for longer than the other peer's hold time.
const FLOOD: &str = "
import socket, sys, time
held, opened = [], 0
for n in range(500):
    s = socket.create_connection((sys.argv[1], 179), 10)
    opened += 1
    try:
        s.send([b'GET / HTTP/1.1\\r\\n', b'\\xff' * 16 + b'\\x00', b'\\xff' * 18 + b'\\x04', b'\\xff'][n % 4])
    except OSError:
        pass
    held.append(s)
end = time.time() + 5
while time.time() < end:
    for s in held[::50]:
        try:
            s.send(b'\\xff')
        except OSError:
            pass
    time.sleep(1)
print('opened', opened)
";

/// Namespaces around ours, and a folder.
struct Lab {
    center: Space,
    peers: Vec<Space>,
    folder: tempfile::TempDir,
    asn: u32,
}

impl Lab {
    fn new(peers: u8) -> Self {
        Self::with(peers, 65_000)
    }

    fn with(peers: u8, asn: u32) -> Self {
        let center = Space::new();
        let peers = (1..=peers)
            .map(|n| {
                let peer = Space::new();
                center.link(&peer, n);
                peer
            })
            .collect();
        Self { center, peers, folder: tempfile::tempdir().unwrap(), asn }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn russet(&self, config: &str) -> Russet<'_> {
        Russet::start(&self.center, self.folder("russet"), self.asn, "10.255.0.1", config)
    }

    /// BIRD as peer number `n`, with one session `peer` and more.
    fn bird(&self, n: u8, session: &str, more: &str) -> Bird<'_> {
        let config = format!("{more}\nprotocol bgp peer {{ connect delay time 1; {session} }}");
        let id = format!("{n}.{n}.{n}.{n}");
        Bird::start(&self.peers[usize::from(n) - 1], self.folder(&format!("bird{n}")), &id, &config)
    }
}

const IPV4: &str = "ipv4 { import all; export all; };";
const STATIC_V4: &str = "protocol static { ipv4; route 10.9.1.0/24 blackhole; }";
const STATIC_V6: &str = "protocol static { ipv6; route fd09:1::/48 blackhole; }";
const OWN_ROUTE: &str = "[[route]]\nprefix = '10.8.0.0/16'\n";
