//! Speakers by Calico's resources: nodes in a mesh and at reflectors, with BIRD, FRR and `GoBGP` as top of rack and as
//! reflector.
//!
//! All nodes are plugged into one switch: node number N is 10.5.0.N, and announces a block of 64 addresses in 10.66.0.0/16.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use russet_api::{
    bgp::{Answer, Ask, Reply, Request},
    frame,
};
use serde_json::{Value, json};

use crate::{
    V4,
    net::{Space, eventually},
    speakers::{Bird, Frr, GoBgp, Russet},
};

#[test]
fn nodes_are_a_mesh_and_tell_each_other_their_blocks() {
    let rack = Rack::new(&[1, 2, 3]);
    rack.write(&[Rack::nodes(&[1, 2, 3]), vec![pool(), shut_pool()]].concat());
    let all: Vec<_> = [1, 2, 3].map(|n| rack.node(n, &["--announce", "10.67.0.0/26"])).into();
    for (n, russet) in [1_u8, 2, 3].into_iter().zip(&all) {
        for other in [1_u8, 2, 3].into_iter().filter(|other| *other != n) {
            let peer = russet.up(&format!("10.5.0.{other}"));
            assert_eq!(peer["kind"], "node-to-node mesh");
            assert_eq!(peer["node"], format!("n{other}"));
            let paths = russet.learns(V4, &block(other));
            assert_eq!(paths[0]["next_hop"], format!("10.5.0.{other}"));
        }
        // Its pool is not for BGP, so there is nobody's but ours.
        let paths = russet.paths(V4, "10.67.0.0/26");
        assert!(paths.iter().all(|path| path["from"] == "here"), "{paths:?}");
    }
}

#[test]
fn from_mesh_to_reflector_and_back_no_route_is_ever_missing() {
    let rack = Rack::new(&[1, 2, 3, 8]);
    let in_mesh = [Rack::nodes(&[1, 2, 3]), vec![pool(), reflector(8)]].concat();
    rack.write(&in_mesh);
    let nodes = [1, 2, 3].map(|n| rack.node(n, &[]));
    let reflector = rack.node(8, &[]);
    for (n, russet) in [1, 2, 3].into_iter().zip(&nodes) {
        for other in [1, 2, 3].into_iter().filter(|other| *other != n) {
            russet.learns(V4, &block(other));
        }
    }
    let watched = |n: usize| Recorder::start(&nodes[n], &block([2, 3, 1][n]));
    let recorders = [0, 1, 2].map(watched);
    let only = |peers: &[&str]| {
        for (n, russet) in [1, 2, 3].into_iter().zip(&nodes) {
            let own = format!("10.5.0.{n}");
            let wanted: Vec<_> = peers.iter().filter(|peer| **peer != own).collect();
            eventually(&format!("{wanted:?} alone at node {n}"), || {
                let status = russet.ask(&["status"])?;
                let rows = status["peers"]["rows"].as_array()?.clone();
                let there = |peer: &&str| {
                    rows.iter().any(|row| row["address"] == *peer && row["state"] == "Established")
                };
                (rows.len() == wanted.len() && wanted.iter().all(|peer| there(peer))).then_some(())
            });
        }
    };

    rack.write(&[in_mesh.clone(), vec![mesh(false), to_reflectors()]].concat());
    // The reflector hears of it last: until then there is nobody to go to.
    for russet in nodes.iter().chain([&reflector]) {
        russet.signal("-HUP");
        thread::sleep(Duration::from_millis(400));
    }
    only(&["10.5.0.8"]);
    let paths = nodes[0].learns(V4, &block(2));
    assert_eq!(
        (&paths[0]["from"], &paths[0]["next_hop"]),
        (&json!("10.5.0.8"), &json!("10.5.0.2"))
    );
    let peer = reflector.up("10.5.0.1");
    assert_eq!((&peer["kind"], &peer["object"]), (&json!("node specific"), &json!("rr")));

    // The reflector becomes a node among nodes.
    rack.write(&[Rack::nodes(&[1, 2, 3, 8]), vec![pool()]].concat());
    for russet in [&reflector].into_iter().chain(&nodes) {
        russet.signal("-HUP");
        thread::sleep(Duration::from_millis(400));
    }
    only(&["10.5.0.1", "10.5.0.2", "10.5.0.3", "10.5.0.8"]);
    assert_eq!(nodes[0].peer("10.5.0.8").unwrap()["kind"], "node-to-node mesh");
    assert_eq!(nodes[0].peer("10.5.0.8").unwrap()["times_up"], 1, "it became another where it is");
    for recorder in recorders {
        let (looks, missing) = recorder.stop();
        assert_eq!(missing, 0, "of {looks}");
        assert!(looks > 500, "only {looks}");
    }

    // The control: a node that is deleted takes its routes with it, at once, and that is seen.
    let recorder = watched(0);
    rack.write(&[Rack::nodes(&[1, 3]), vec![pool(), mesh(true)]].concat());
    nodes[0].signal("-HUP");
    eventually("no route", || nodes[0].paths(V4, &block(2)).is_empty().then_some(()));
    assert!(recorder.stop().1 > 0);
}

#[test]
fn bird_is_the_top_of_a_rack_with_filter_community_and_password() {
    let rack = Rack::new(&[1, 254]);
    let told =
        "protocol static { ipv4; route 10.9.1.0/24 blackhole; route 10.8.1.0/24 blackhole; }";
    let session = "local as 65001; neighbor 10.5.0.1 as 64512; password \"rack 7\";";
    let bird = rack.bird(254, session, told);
    let filter = |reject: &str| {
        object(
            "BGPFilter",
            "rack",
            &json!({"importV4": [
                {"action": "Reject", "matchOperator": "In", "cidr": reject},
            ]}),
        )
    };
    let settings = object(
        "BGPConfiguration",
        "default",
        &json!({
            "prefixAdvertisements": [{"cidr": "10.66.0.0/16", "communities": ["64512:7", "64512:1:2"]}],
        }),
    );
    let peer = object(
        "BGPPeer",
        "rack",
        &json!({
            "peerIP": "10.5.0.254", "asNumber": 65_001, "filters": ["rack"],
            "password": {"secretKeyRef": {"name": "bgp", "key": "rack"}},
        }),
    );
    let all = |filter: Value| {
        [Rack::nodes(&[1]), vec![pool(), settings.clone(), peer.clone(), filter]].concat()
    };
    rack.write(&all(filter("10.8.0.0/16")));
    let russet = rack.node(1, &[]);
    // Nobody opens a session without its password.
    let status = Rack::object_of(&russet, "BGPPeer", "rack");
    assert!(status["reason"].as_str().unwrap().contains("password"), "{status}");
    assert!(russet.peer("10.5.0.254").is_none());

    rack.secret("bgp", "rack", "rack 7");
    russet.signal("-HUP");
    let peer = russet.up("10.5.0.254");
    assert_eq!((&peer["kind"], &peer["object"]), (&json!("global"), &json!("rack")));
    russet.learns(V4, "10.9.1.0/24");
    let route = bird.shows(&format!("show route all {}", block(1)), &["10.5.0.1", "(64512,7)"]);
    assert!(route.contains("(64512, 1, 2)"), "{route}");
    let paths = russet.learns(V4, "10.8.1.0/24");
    assert_eq!(paths[0]["why"], "dropped on import: BGPFilter rack importV4[0]");

    // Another filter moves routes, and no session.
    rack.write(&all(filter("10.9.0.0/16")));
    russet.signal("-HUP");
    eventually("the other route", || {
        let best = |prefix| russet.paths(V4, prefix).first().map(|path| path["best"].clone());
        let now = [best("10.9.1.0/24"), best("10.8.1.0/24")];
        (now == [Some(json!(false)), Some(json!(true))]).then_some(())
    });
    assert_eq!(russet.peer("10.5.0.254").unwrap()["times_up"], 1);
}

#[test]
fn bird_keeps_what_a_node_told_while_its_speaker_is_killed_and_starts_anew() {
    let rack = Rack::new(&[1, 2, 254]);
    let session = "local as 65001; neighbor 10.5.0.1 as 64512; graceful restart on;";
    let bird = rack.bird(254, session, "");
    let peer = json!({"peerIP": "10.5.0.254", "asNumber": 65_001, "node": "n1"});
    rack.write(
        &[Rack::nodes(&[1, 2, 77]), vec![pool(), object("BGPPeer", "rack", &peer)]].concat(),
    );
    let mut russet = rack.node(1, &[]);
    let other = rack.node(2, &[]);
    // Node 77 is down, and costs a start no more than it must.
    let seen = |n: u8| bird.shows(&format!("show route all {}", block(n)), &["64512"]);
    seen(1);
    seen(2);
    let withdraws = || {
        let text = bird.ask("show protocols all peer");
        text.lines().find(|line| line.contains("Import withdraws")).map(str::to_owned)
    };
    let before = withdraws();
    let recorder = Recorder::start(&other, &block(1));
    russet.kill();
    bird.shows("show protocols all peer", &["Neighbor graceful restart active"]);
    seen(1);
    russet.run();
    assert_eq!(russet.up("10.5.0.254")["kind"], "node specific");
    eventually("the end of the restart", || {
        (!bird.ask("show protocols all peer").contains("graceful restart active")).then_some(())
    });
    seen(1);
    seen(2);
    assert_eq!((withdraws(), before.is_some()), (before, true), "no route was lost");
    let (looks, missing) = recorder.stop();
    assert!(missing == 0 && looks > 50, "{missing} of {looks}");
}

#[test]
fn frr_is_the_reflector_of_a_cluster() {
    let rack = Rack::new(&[1, 2, 8]);
    let neighbor = |n: u8| {
        format!(" neighbor 10.5.0.{n} remote-as 64512\n neighbor 10.5.0.{n} timers connect 1\n")
    };
    let client = |n: u8| format!("  neighbor 10.5.0.{n} route-reflector-client\n");
    let frr = Frr::start(
        rack.space(8),
        rack.folder("frr"),
        &format!(
            "router bgp 64512\n bgp router-id 10.5.0.8\n bgp cluster-id 10.5.0.8\n{}{} \
             address-family ipv4 unicast\n{}{} exit-address-family\n",
            neighbor(1),
            neighbor(2),
            client(1),
            client(2)
        ),
    );
    rack.write(
        &[Rack::nodes(&[1, 2]), vec![pool(), reflector(8), mesh(false), to_reflectors()]].concat(),
    );
    let [one, two] = [1, 2].map(|n| rack.node(n, &[]));
    one.up("10.5.0.8");
    two.up("10.5.0.8");
    let paths = one.learns(V4, &block(2));
    assert_eq!(paths[0]["next_hop"], "10.5.0.2");
    assert_eq!(paths[0]["originator_id"], "10.5.0.2");
    assert_eq!(paths[0]["cluster_list"], json!(["10.5.0.8"]));
    assert!(one.peer("10.5.0.2").is_none(), "the mesh is off");
    frr.shows(&format!("show bgp ipv4 unicast {}", block(1)), &["10.5.0.1"]);
}

#[test]
fn gobgp_is_the_top_of_a_rack() {
    let rack = Rack::new(&[1, 254]);
    let gobgp = GoBgp::start(
        rack.space(254),
        rack.folder("gobgp"),
        "[global.config]\nas = 65001\nrouter-id = '10.5.0.254'\n[[neighbors]]\n[neighbors.config]\n\
         neighbor-address = '10.5.0.1'\npeer-as = 64512\n",
    );
    let peer = json!({"peerIP": "10.5.0.254", "asNumber": 65_001, "nodeSelector": "all()"});
    rack.write(&[Rack::nodes(&[1]), vec![pool(), object("BGPPeer", "rack", &peer)]].concat());
    let russet = rack.node(1, &[]);
    russet.up("10.5.0.254");
    gobgp.does("global rib add 10.9.1.0/24 nexthop 10.5.0.254");
    russet.learns(V4, "10.9.1.0/24");
    gobgp.shows("global rib", &[&block(1), "10.5.0.1"]);
}

#[test]
fn what_is_wrong_is_told_at_its_object_and_what_was_in_force_stays() {
    let rack = Rack::new(&[1, 253, 254]);
    let session =
        "local as 65001; neighbor 10.5.0.1 as 64512; connect retry time 2; error wait time 1, 2;";
    let _good = rack.bird(253, session, "protocol static { ipv4; route 10.9.1.0/24 blackhole; }");
    let _wrong = rack.bird(254, session, "");
    let peer = |name: &str, last: u8, asn: u32, filters: &[&str]| {
        let spec = json!({"peerIP": format!("10.5.0.{last}"), "asNumber": asn, "filters": filters});
        object("BGPPeer", name, &spec)
    };
    let empty = object("BGPFilter", "empty", &json!({}));
    let good = [Rack::nodes(&[1]), vec![pool(), empty, peer("wrong", 254, 65_009, &[])]].concat();
    rack.write(&[good.clone(), vec![peer("good", 253, 65_001, &[])]].concat());
    let russet = rack.node(1, &[]);
    russet.learns(V4, "10.9.1.0/24");
    let fault = eventually("the wrong AS at its object", || {
        Rack::objects(&russet)
            .into_iter()
            .find(|row| row["name"] == "wrong" && row["reason"].to_string().contains("bad peer AS"))
    });
    assert_eq!((&fault["kind"], &fault["grade"]), (&json!("BGPPeer"), &json!("fault")));
    let idle = Rack::object_of(&russet, "BGPFilter", "empty");
    assert!(idle.to_string().contains("no rule"), "{idle}");

    // A filter that is not there, an AS that is none, and an address that is none: what was in force stays.
    let nowhere = object("BGPPeer", "good", &json!({"peerIP": "nowhere", "asNumber": 65_001}));
    for bad in [peer("good", 253, 65_001, &["gone"]), peer("good", 252, 0, &[]), nowhere] {
        rack.write(&[good.clone(), vec![bad]].concat());
        russet.signal("-HUP");
        eventually("a fault", || {
            let rows = Rack::objects(&russet);
            rows.into_iter().find(|row| row["name"] == "good" && row["grade"] == "fault")
        });
        let peer = russet.peer("10.5.0.253").unwrap();
        assert_eq!((&peer["state"], &peer["times_up"]), (&json!("Established"), &json!(1)));
        russet.learns(V4, "10.9.1.0/24");
    }
}

#[test]
fn a_check_shows_the_sessions_that_there_would_be() {
    let rack = Rack::new(&[1]);
    let unnamed = object("BGPFilter", "lonely", &json!({"exportV4": [{"action": "Accept"}]}));
    rack.write(&[Rack::nodes(&[1, 2]), vec![reflector(8), to_reflectors(), unnamed]].concat());
    let russet = env!("CARGO_BIN_EXE_russet");
    let folder = rack.folder("resources").display().to_string();
    let told =
        rack.space(1).run(&[russet, "bgp", "--resources", &folder, "--node", "n1", "--check"]);
    for part in [
        "AS 64512, identifier 10.5.0.1",
        "10.5.0.2",
        "node-to-node mesh",
        "10.5.0.8",
        "rr",
        "no BGPPeer names it",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

/// Namespaces at a switch, and a folder of resources.
struct Rack {
    _switch: Space,
    spaces: Vec<(u8, Space)>,
    folder: tempfile::TempDir,
}

impl Rack {
    fn new(numbers: &[u8]) -> Self {
        let switch = Space::new();
        switch.become_switch();
        let space = |n: &u8| {
            let space = Space::new();
            switch.plug(&space, *n);
            (*n, space)
        };
        let spaces = numbers.iter().map(space).collect();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("resources")).unwrap();
        Self { _switch: switch, spaces, folder }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn space(&self, n: u8) -> &Space {
        &self.spaces.iter().find(|(number, _)| *number == n).unwrap().1
    }

    fn nodes(numbers: &[u8]) -> Vec<Value> {
        let node = |n: &u8| {
            let spec = json!({"bgp": {"ipv4Address": format!("10.5.0.{n}/24")}});
            object("Node", &format!("n{n}"), &spec)
        };
        numbers.iter().map(node).collect()
    }

    /// All resources that there are: half as JSON, half as YAML of several documents.
    fn write(&self, resources: &[Value]) {
        let (one, other) = resources.split_at(resources.len() / 2);
        let list = json!({"kind": "List", "apiVersion": "v1", "items": one});
        fs::write(self.folder("resources/a.json"), list.to_string()).unwrap();
        let texts: Vec<_> = other.iter().map(ToString::to_string).collect();
        fs::write(self.folder("resources/b.yaml"), texts.join("\n---\n")).unwrap();
    }

    fn secret(&self, name: &str, key: &str, text: &str) {
        let file = self.folder("secrets").join(name).join(key);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Our speaker as node number `n`, which announces its block.
    fn node(&self, n: u8, more: &[&str]) -> Russet<'_> {
        let (block, secrets) = (block(n), self.folder("secrets").display().to_string());
        let mut words = vec!["--announce", &block, "--secrets", &secrets];
        words.extend(more);
        let (name, resources) = (format!("n{n}"), self.folder("resources"));
        Russet::by_resources(self.space(n), self.folder(&name), &resources, &name, &words)
    }

    fn bird(&self, n: u8, session: &str, more: &str) -> Bird<'_> {
        let ipv4 = "ipv4 { import all; export all; };";
        let config =
            format!("{more}\nprotocol bgp peer {{ connect delay time 1; {session} {ipv4} }}");
        let (folder, id) = (self.folder(&format!("bird{n}")), format!("10.5.0.{n}"));
        Bird::start(self.space(n), folder, &id, &config)
    }

    fn objects(russet: &Russet<'_>) -> Vec<Value> {
        let status = russet.ask(&["status"]).unwrap_or_default();
        status["objects"].as_array().cloned().unwrap_or_default()
    }

    /// What is told of an object.
    #[track_caller]
    fn object_of(russet: &Russet<'_>, kind: &str, name: &str) -> Value {
        eventually(&format!("something of {kind} {name}"), || {
            let mut rows = Self::objects(russet).into_iter();
            rows.find(|row| row["kind"] == kind && row["name"] == name)
        })
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (n, _) in &self.spaces {
            let log = self.folder(&format!("n{n}")).join("russet.log");
            if let Ok(log) = fs::read_to_string(log) {
                eprintln!("--- node {n}\n{log}");
            }
        }
    }
}

/// Looks every millisecond whether a speaker has a way to a destination.
struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, u32)>,
}

impl Recorder {
    fn start(russet: &Russet<'_>, prefix: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, socket, prefix) = (Arc::clone(&stop), russet.socket(), prefix.to_owned());
        let thread = thread::spawn(move || {
            let (mut looks, mut missing) = (0, 0);
            while !ended.load(Ordering::Relaxed) {
                if let Some(there) = has_route(&socket, &prefix) {
                    looks += 1;
                    missing += u32::from(!there);
                }
                thread::sleep(Duration::from_millis(1));
            }
            (looks, missing)
        });
        Self { stop, thread }
    }

    /// How often it looked, and how often there was no way.
    fn stop(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// `None` when the speaker does not answer.
fn has_route(socket: &Path, prefix: &str) -> Option<bool> {
    let mut stream = UnixStream::connect(socket).ok()?;
    frame::write(&mut stream, &Request::new(Ask::Route { prefix: prefix.to_owned() })).ok()?;
    let reply: Reply = frame::read(&mut stream).ok()?;
    let Answer::Routes(routes) = reply.answer else { return None };
    Some(routes.rows.iter().any(|row| row.paths.iter().any(|path| path.best)))
}

fn block(n: u8) -> String {
    let (high, low) = ((n - 1) / 4, (n - 1) % 4);
    format!("10.66.{high}.{}/26", u32::from(low) * 64)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let version = "projectcalico.org/v3";
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn pool() -> Value {
    object("IPPool", "pods", &json!({"cidr": "10.66.0.0/16"}))
}

fn shut_pool() -> Value {
    object("IPPool", "inside", &json!({"cidr": "10.67.0.0/16", "disableBGPExport": true}))
}

fn mesh(on: bool) -> Value {
    object("BGPConfiguration", "default", &json!({"nodeToNodeMeshEnabled": on}))
}

fn reflector(n: u8) -> Value {
    let address = format!("10.5.0.{n}");
    let bgp = json!({"ipv4Address": format!("{address}/24"), "routeReflectorClusterID": address});
    let mut node = object("Node", &format!("n{n}"), &json!({"bgp": bgp}));
    node["metadata"]["labels"] = json!({"reflector": ""});
    node
}

fn to_reflectors() -> Value {
    let spec = json!({"nodeSelector": "!has(reflector)", "peerSelector": "has(reflector)"});
    object("BGPPeer", "rr", &spec)
}
