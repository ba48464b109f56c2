//! The speaker as part of a node: the node's subnet goes out, what a rack's router teaches becomes a route of the
//! kernel, and stays one when the agent dies.
//!
//! ```text
//!   node: agent (with its speaker) and store ──── 10.0.1.0/24 ──── router: BIRD, 10.9.1.1
//! ```

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    IPV4, Lab,
    net::{Program, eventually},
};

#[test]
fn a_node_announces_its_subnet_and_routes_what_it_is_taught() {
    let lab = Lab::new(1);
    lab.peers[0].ip("addr add 10.9.1.1/32 dev lo");
    let session = format!("{SESSION} {ELSEWHERE}");
    let bird = lab.bird(1, &session, &teaches(&["10.9.1.0/24", "10.99.0.0/16"]));
    let mut node = Node::new(&lab);
    node.start();
    node.has_route("10.9.1.0/24 via 10.0.1.2 dev to1");
    let subnet = node.subnet();
    bird.shows(&format!("show route all {subnet}"), &["via 10.0.1.1", "BGP.as_path: 65000"]);

    let probe = [env!("CARGO_BIN_EXE_russet"), "probe", "ping", "--to", "10.9.1.1", "--count", "3"];
    lab.center.run(&probe);

    let why = node.why_refused("10.99.0.0/16");
    assert!(why.contains("next hop 10.200.0.9 is not on the underlay's link"), "{why}");
    assert!(!node.routes().contains("10.99.0.0/16"));
}

#[test]
fn a_router_that_is_further_away_is_reached_by_the_rack_s_router() {
    let lab = Lab::new(1);
    let session = format!("{SESSION} {ELSEWHERE}");
    let prefixes = ["10.99.0.0/16", "10.200.0.0/24"];
    let bird = lab.bird(1, &session, &teaches(&prefixes));
    let mut node = Node::new(&lab);
    node.start();
    // What leads to 10.200.0.9 leads to all that is behind it.
    node.has_route("10.200.0.0/24 via 10.0.1.2 dev to1");
    node.has_route("10.99.0.0/16 via 10.0.1.2 dev to1");
    drop(bird);
    eventually("nobody teaches it", || (!node.routes().contains("10.99.0.0/16")).then_some(()));
}

#[test]
fn what_was_taught_outlives_the_agent_and_goes_once_nobody_teaches_it_any_more() {
    let lab = Lab::new(1);
    let bird = lab.bird(1, &format!("{SESSION} {IPV4}"), &teaches(&["10.9.1.0/24", "10.9.2.0/24"]));
    let mut node = Node::new(&lab);
    node.start();
    let [stays, goes] = ["10.9.1.0/24 via 10.0.1.2 dev to1", "10.9.2.0/24 via 10.0.1.2 dev to1"];
    node.has_route(stays);
    node.has_route(goes);

    node.kill();
    assert!(node.routes().contains(stays) && node.routes().contains(goes));
    drop(bird);
    let _bird = lab.bird(1, &format!("{SESSION} {IPV4}"), &teaches(&["10.9.1.0/24"]));
    let watch = lab.center.start(lab.folder.path(), "monitor", &["ip", "monitor", "route"]);
    node.start();
    eventually("the route is swept", || (!node.routes().contains("10.9.2.0/24")).then_some(()));
    assert!(node.routes().contains(stays));
    drop(watch);
    let monitored = fs::read_to_string(lab.folder("monitor.log")).unwrap();
    assert!(monitored.contains("Deleted 10.9.2.0/24"), "{monitored}");
    assert!(!monitored.contains("10.9.1.0/24"), "it was never touched: {monitored}");
}

#[test]
fn an_agent_with_a_speaker_that_is_told_nonsense_does_not_start_and_says_all_of_it() {
    let lab = Lab::new(1);
    let node = Node::new(&lab);
    fs::write(node.folder.join("bgp.toml"), "asn = 65000\n[[peer]]\naddress = '10.0.1.2'\n")
        .unwrap();
    let config = node.folder.join("agent.toml");
    let check = Command::new(env!("CARGO_BIN_EXE_russet"))
        .args(["agent", "--check", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&check.stderr);
    assert!(!check.status.success() && told.contains("bgp.toml"), "{told}");
    assert!(told.contains("router-id") && told.contains("line 2: peer[0]"), "{told}");
}

/// The middle of the lab as a node: a store and an agent.
struct Node<'a> {
    lab: &'a Lab,
    folder: PathBuf,
    _store: Program,
    agent: Option<Program>,
}

impl<'a> Node<'a> {
    fn new(lab: &'a Lab) -> Self {
        let folder = lab.folder("node");
        fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let agent = format!(
            "node = 'n1'\ninterface = 'to1'\n[bgp]\nconfig = '{}'\n[http]\nlisten = 'off'\n\
             [paths]\nrun = '{}'\nstate = '{}'\nsubnet-file = '{}'\npods = '{}'\n",
            path("bgp.toml"),
            path("run"),
            path("state"),
            path("subnet.env"),
            path("pods"),
        );
        fs::write(folder.join("agent.toml"), agent).unwrap();
        let bgp = format!(
            "asn = 65000\nrouter-id = '10.255.0.1'\nadmin-socket = '{}'\n\
             [[peer]]\naddress = '10.0.1.2'\nasn = 65001\nconnect-retry = 1\n",
            path("bgp.sock")
        );
        fs::write(folder.join("bgp.toml"), bgp).unwrap();
        let russet = env!("CARGO_BIN_EXE_russet");
        let data = path("store.db");
        let store = lab.center.start(&folder, "store", &[russet, "store", "--data", data.as_str()]);
        let config = r#"{"Network":"10.77.0.0/16","Backend":{"Type":"host-gw"}}"#;
        let put = ["etcdctl", "put", "/coreos.com/network/config", config];
        eventually("the configuration is in the store", || {
            let done = lab.center.command(put[0]).args(&put[1..]).output().unwrap();
            done.status.success().then_some(())
        });
        Self { lab, folder, _store: store, agent: None }
    }

    fn start(&mut self) {
        let config = self.folder.join("agent.toml");
        let words = [env!("CARGO_BIN_EXE_russet"), "agent", "--config", config.to_str().unwrap()];
        self.agent = Some(self.lab.center.start(&self.folder, "agent", &words));
    }

    fn kill(&mut self) {
        self.agent.take().unwrap().kill();
    }

    /// The node's routes by gateways, without the numbers of next hops.
    fn routes(&self) -> String {
        let text = self.lab.center.run(&["ip", "route", "show", "proto", "82"]);
        let line = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            let nhid = words.iter().position(|word| *word == "nhid").unwrap_or(words.len());
            let kept = |(at, _): &(usize, &&str)| *at != nhid && *at != nhid + 1;
            let words: Vec<_> = words.iter().enumerate().filter(kept).map(|(_, w)| *w).collect();
            words.join(" ")
        };
        text.lines().map(|it| line(it) + "\n").collect()
    }

    #[track_caller]
    fn has_route(&self, route: &str) {
        eventually(route, || self.routes().contains(route).then_some(()));
    }

    fn subnet(&self) -> String {
        let text = fs::read_to_string(self.folder.join("subnet.env")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET=")).unwrap();
        let (gateway, len) = line.split_once('/').unwrap();
        format!("{}.0/{len}", gateway.rsplit_once('.').unwrap().0)
    }

    /// Why the status says that a learned prefix is not used.
    #[track_caller]
    fn why_refused(&self, prefix: &str) -> String {
        let socket = self.folder.join("run/admin.sock");
        eventually("a refusal", || {
            let out = Command::new(env!("CARGO_BIN_EXE_russet"))
                .args(["status", "-o", "json", "--socket", socket.to_str().unwrap()])
                .output()
                .unwrap();
            let status: Value = serde_json::from_slice(&out.stdout).ok()?;
            let refused = status["refused"].as_array()?.iter().map(Value::to_string);
            refused.into_iter().find(|line| line.contains(prefix))
        })
    }
}

/// What the router teaches.
fn teaches(prefixes: &[&str]) -> String {
    let route = |prefix: &&str| format!("route {prefix} blackhole; ");
    let routes: Vec<String> = prefixes.iter().map(route).collect();
    format!("protocol static {{ ipv4; {} }}", routes.concat())
}

/// One prefix is said to be behind a router that the node does not share a link with.
const ELSEWHERE: &str = "ipv4 { import all; export filter { \
    if net = 10.99.0.0/16 then bgp_next_hop = 10.200.0.9; accept; }; };";
const SESSION: &str = "local as 65001; neighbor 10.0.1.1 as 65000;";

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default();
            eprintln!("--- agent\n{log}");
        }
    }
}
