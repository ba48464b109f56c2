//! Graceful restart with packets: what is forwarded by the routes that we carry goes on, whoever is killed.
//!
//! ```text
//!   first (10.9.1.1) ──── 10.0.9.0/24 ──── second, which sends
//!        └── BGP ── ours, a reflector ── BGP ──┘
//! ```
//!
//! The packets take the direct link, by the route that the second's kernel has from us. The control is the same
//! without graceful restart, where packets are lost.

use std::path::PathBuf;

use crate::{
    IPV4, Lab,
    net::{Program, eventually},
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
        let packets = traffic.lost();
        assert_eq!(packets > 0, lost, "{packets} packets with {restart:?}");
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
            let fresh = family["stale"] == false && family["received"] == 1;
            (fresh && peer["state"] == "Established").then_some(())
        });
        second.shows(ROUTE, &["10.0.9.1"]);
        let packets = traffic.lost();
        assert_eq!(packets > 0, lost, "{packets} packets with {restart:?}");
    }
}

struct Scene(Lab);

impl Scene {
    fn new() -> Self {
        let lab = Lab::new(2);
        lab.peers[0].link_as(&lab.peers[1], 9, "direct");
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
        let folder = self.0.folder.path();
        let python = |n: usize, name: &str, text: &str| {
            self.0.peers[n].start(folder, name, &["python3", "-u", "-c", text])
        };
        let echo = python(0, "echo", ECHO);
        let sender = python(1, "sender", SENDER);
        let path = folder.join("sender.log");
        let answered = || std::fs::read_to_string(&path).unwrap_or_default().contains("answered");
        eventually("an answer", || answered().then_some(()));
        Traffic { sender, _echo: echo, path }
    }
}

/// Numbered packets, some hundred a second, that are sent back.
struct Traffic {
    sender: Program,
    _echo: Program,
    path: PathBuf,
}

impl Traffic {
    /// Ends it; how many packets after the first answer were not answered.
    fn lost(self) -> usize {
        self.sender.signal("-INT");
        let told = eventually("a count", || {
            let text = std::fs::read_to_string(&self.path).ok()?;
            text.lines().find_map(|line| line.strip_prefix("sent ").map(str::to_owned))
        });
        let numbers: Vec<usize> = told.split(" lost ").map(|n| n.parse().unwrap()).collect();
        numbers[1]
    }
}

const ECHO: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.9.1.1', 7))
while True:
    s.sendto(*s.recvfrom(64))
";

/// Counts from the first answer on; when it is asked to end and has sent enough, it waits for the last ones.
const SENDER: &str = "
import select, signal, socket, time
ended = []
signal.signal(signal.SIGINT, lambda *_: ended.append(1))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
sent, got, told, until = set(), set(), False, None
number = 0
while until is None or time.time() < until:
    if until is None:
        number += 1
        try:
            s.sendto(b'%d' % number, ('10.9.1.1', 7))
        except OSError:
            pass
        if told:
            sent.add(number)
    select.select([s], [], [], 0.003)
    try:
        while True:
            got.add(int(s.recv(64)))
            if not told:
                told = True
                print('answered')
    except OSError:
        pass
    if ended and until is None and len(sent) >= 100:
        until = time.time() + 1
    time.sleep(0.002)
print('sent', len(sent), 'lost', len(sent - got))
";

const ROUTE: &str = "show route all 10.9.1.0/24";
