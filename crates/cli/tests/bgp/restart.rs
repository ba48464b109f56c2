//! Graceful restart with packets: what is forwarded by the routes that we carry goes on, whoever is killed.
//!
//! ```text
//!   first (10.9.1.1) ──── 10.0.9.0/24 ──── second, which sends
//!        └── BGP ── ours, a reflector ── BGP ──┘
//! ```
//!
//! The packets take the direct link, by the route that the second's kernel has from us. The control is the same
//! without graceful restart, where packets are lost.

use crate::{
    IPV4, Lab,
    net::eventually,
    speakers::{Bird, Russet},
};

#[test]
fn no_packet_is_lost_while_we_are_killed_and_start_anew() {
    for (restart, lost) in [("graceful-restart = 60\n", false), ("", true)] {
        let scene = Scene::new();
        let (_first, second) = (scene.first("aware"), scene.second());
        let mut russet = scene.russet(restart);
        second.shows(ROUTE, &["unicast", "10.0.9.1"]);
        let traffic = scene.traffic();
        russet.kill();
        if lost {
            eventually("no route", || (!second.ask(ROUTE).contains("10.0.9.1")).then_some(()));
        } else {
            second.shows("show protocols all peer", &["Neighbor graceful restart active"]);
        }
        russet.run();
        russet.up("10.0.1.2");
        russet.up("10.0.2.2");
        eventually("the end of the restart", || {
            let text = second.ask("show protocols all peer");
            (text.contains("Established") && !text.contains("graceful restart active"))
                .then_some(())
        });
        second.shows(ROUTE, &["10.0.9.1"]);
        assert_eq!(traffic.lost() > 0, lost, "with {restart:?}");
    }
}

#[test]
fn no_packet_is_lost_while_a_peer_is_killed_and_starts_anew() {
    for (restart, lost) in [("on; graceful restart time 60", false), ("off", true)] {
        let scene = Scene::new();
        let (mut first, second) = (scene.first(restart), scene.second());
        let russet = scene.russet("graceful-restart = 60\n");
        second.shows(ROUTE, &["unicast", "10.0.9.1"]);
        let traffic = scene.traffic();
        first.kill();
        if lost {
            eventually("no route", || (!second.ask(ROUTE).contains("10.0.9.1")).then_some(()));
        } else {
            eventually("kept routes", || {
                russet.peer("10.0.1.2").filter(|peer| peer["families"][0]["stale"] == true)
            });
        }
        first.run(&["-R"]);
        eventually("fresh routes", || {
            let peer = russet.peer("10.0.1.2")?;
            let family = &peer["families"][0];
            (family["stale"] == false && family["end_of_rib"] == true).then_some(())
        });
        second.shows(ROUTE, &["10.0.9.1"]);
        assert_eq!(traffic.lost() > 0, lost, "with {restart:?}");
    }
}

struct Scene(Lab);

impl Scene {
    fn new() -> Self {
        let lab = Lab::new(2);
        lab.peers[0].link(&lab.peers[1], 9);
        lab.peers[0].ip("addr add 10.9.1.1/32 dev lo");
        Self(lab)
    }

    fn russet(&self, restart: &str) -> Russet<'_> {
        let peer = |n| {
            format!(
                "[[peer]]\naddress = '10.0.{n}.2'\nasn = 'internal'\nclient = true\nconnect-retry = 1\n"
            )
        };
        self.0.russet(&format!("{restart}{}{}", peer(1), peer(2)))
    }

    /// Tells its address, behind the direct link.
    fn first(&self, restart: &str) -> Bird<'_> {
        let told = "ipv4 { import all; export filter { bgp_next_hop = 10.0.9.1; accept; }; };";
        let session = format!(
            "local as 65000; neighbor 10.0.1.1 as 65000; connect retry time 1; graceful restart {restart}; {told}"
        );
        self.0.bird(1, &session, "protocol static { ipv4; route 10.9.1.0/24 blackhole; }")
    }

    /// Sends by what it learns, through its kernel.
    fn second(&self) -> Bird<'_> {
        let session = "local as 65000; neighbor 10.0.2.1 as 65000; connect retry time 1;";
        let kernel = "protocol direct { ipv4; }\nprotocol kernel { ipv4 { export where source = RTS_BGP; }; }";
        self.0.bird(2, &format!("{session} {IPV4}"), kernel)
    }

    fn traffic(&self) -> Traffic {
        let space = &self.0.peers[1];
        let path = self.0.folder("ping.log");
        eventually("an answer", || {
            let out = space.command("ping").args(["-c", "1", "-W", "1", "10.9.1.1"]).output();
            out.unwrap().status.success().then_some(())
        });
        let words = ["ping", "-n", "-i", "0.01", "10.9.1.1"];
        let program = space.start(self.0.folder.path(), "ping", &words);
        Traffic { program, path }
    }
}

/// Numbered packets, a hundred a second.
struct Traffic {
    program: crate::net::Program,
    path: std::path::PathBuf,
}

impl Traffic {
    /// Ends it; how many were sent and not answered.
    fn lost(self) -> u64 {
        self.program.signal("-INT");
        let summary = eventually("a summary", || {
            let text = std::fs::read_to_string(&self.path).ok()?;
            text.lines().find(|line| line.contains("packets transmitted")).map(str::to_owned)
        });
        let numbers: Vec<u64> =
            summary.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(numbers[0] > 50, "{summary}");
        // The last may still be on its way when the count ends.
        numbers[0].saturating_sub(numbers[1]).saturating_sub(1)
    }
}

const ROUTE: &str = "show route all 10.9.1.0/24";
