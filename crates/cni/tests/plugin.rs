//! The built plugin against the agent's CNI server, in namespaces of the test's own.

#[path = "plugin/calico.rs"]
mod calico;
mod node;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::IpAddr,
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Instant,
};

use node::{NET, Node, eventually, ip, plugin};
use russet_agent::cni::{Existing, NotReady};
use russet_kernel::netns::Namespace;
use serde_json::{Value, json};

#[test]
fn a_pod_is_added_checked_and_removed() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let result = node.add("c1", &pod);
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(
        result["ips"][0],
        json!({"address": "10.50.7.2/24", "gateway": "10.50.7.1", "interface": 2})
    );
    assert_eq!(result["ips"][1]["address"], "fd00:50::2/64");
    assert_eq!(result["interfaces"][0]["name"], "cni0");
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["interfaces"][2]["mtu"], 1450);
    assert_eq!(result["interfaces"][2]["sandbox"], pod.path().to_str().unwrap());
    assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.50.7.1"}));
    assert!(ip(&pod, "-o addr show eth0").contains("10.50.7.2/24"));
    assert_eq!(node.links(), [result["interfaces"][1]["name"].as_str().unwrap()]);
    assert_eq!(node.recorded()[&addr("10.50.7.2")], "c1\r\neth0");
    let fact = node.core.pods().into_values().next().unwrap();
    assert_eq!((fact.network.as_str(), fact.addresses.len()), (NET, 2));

    let checked = json!({"prevResult": result});
    node.call("CHECK", "c1", Some(&pod.path()), &with(&node.conf(), &checked)).good();
    ip(&pod, "addr del 10.50.7.2/24 dev eth0");
    let (code, msg) =
        node.call("CHECK", "c1", Some(&pod.path()), &with(&node.conf(), &checked)).bad();
    assert_eq!(code, 102);
    assert!(msg.contains("interface eth0 has no address 10.50.7.2/24"), "{msg}");

    node.del("c1");
    eventually("the record is gone", || node.recorded().is_empty());
    assert!(node.links().is_empty(), "the link goes before the record");
    assert_eq!(node.core.forgotten(), [addr("10.50.7.2"), addr("fd00:50::2")]);
    assert!(node.core.pods().is_empty());
    assert!(!ip(&pod, "link").contains("eth0"));
    eventually("the spool is empty", || std::fs::read_dir(node.spool()).unwrap().count() == 0);
    node.del("c1");
    node.del("never-there");
}

#[test]
fn the_same_add_again_answers_the_same_and_another_namespace_is_an_error() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let first = node.add("c1", &pod);
    assert_eq!(node.add("c1", &pod), first);

    let other = Namespace::create().unwrap();
    let (code, msg) = node.call("ADD", "c1", Some(&other.path()), &node.conf()).bad();
    assert_eq!(code, 100, "{msg}");
    assert!(!ip(&other, "link").contains("eth0"));
    assert_eq!(node.add("c1", &pod), first, "the first is untouched");
}

#[test]
fn an_add_right_after_a_del_gets_a_fresh_attachment() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    for _ in 0..3 {
        node.add("c1", &pod);
        node.del("c1");
    }
    let last = node.add("c1", &pod);
    // What is still on its way out must not take the new one along.
    thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(node.recorded().len(), 2);
    assert_eq!(node.links().len(), 1);
    assert_eq!(node.add("c1", &pod), last);
}

#[test]
fn somebody_else_s_interface_is_refused_and_left_alone() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    ip(&pod, "link add eth0 type veth peer name x");
    let before = ip(&pod, "link");
    let (code, msg) = node.call("ADD", "c1", Some(&pod.path()), &node.conf()).bad();
    assert_eq!(code, 100, "{msg}");
    assert_eq!(ip(&pod, "link"), before);
    assert!(node.recorded().is_empty() && node.links().is_empty());
}

#[test]
fn without_an_agent_add_waits_and_del_is_kept_and_done_at_its_start() {
    let mut node = Node::new();
    let pod = Namespace::create().unwrap();
    node.add("c1", &pod);
    node.add("c2", &Namespace::create().unwrap());
    node.stop();
    std::fs::remove_file(node.socket()).unwrap();

    let (code, msg) = node.call("ADD", "c3", Some(&pod.path()), &node.conf()).bad();
    assert_eq!(code, 11, "{msg}");
    node.del("c1");
    node.del("c1");
    assert_eq!(std::fs::read_dir(node.spool()).unwrap().count(), 1, "one file for one attachment");
    assert_eq!(node.recorded().len(), 4);

    let found = node.start();
    assert!(found.keys().all(|pod| pod.container != "c1"), "{found:?}");
    eventually("the DEL is done", || {
        node.recorded().values().all(|owner| !owner.starts_with("c1"))
    });
    assert!(!ip(&pod, "link").contains("eth0"));
    eventually("the spool is empty", || std::fs::read_dir(node.spool()).unwrap().count() == 0);
}

#[test]
fn a_del_that_was_kept_is_done_before_the_next_add() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    node.add("c1", &pod);
    // The agent was away only for this plugin.
    let elsewhere = json!({"socket": "/nonexistent/cni.sock"});
    node.call("DEL", "c1", None, &with(&node.conf(), &elsewhere)).good();
    assert_eq!(node.recorded().len(), 2);
    node.add("c1", &pod);
    assert_eq!(node.recorded()[&addr("10.50.7.3")], "c1\r\neth0", "it is not the old attachment");
    eventually("the old record is gone", || node.recorded().len() == 2);
}

#[test]
fn an_agent_that_dies_in_mid_answer_is_as_one_that_is_away() {
    let node = Node::without_agent();
    let pod = Namespace::create().unwrap();
    let listener = UnixListener::bind(node.socket()).unwrap();
    let dying = thread::spawn(move || {
        for answer in [&b""[..], &[0, 0], &[0, 0, 0, 9, b'{']] {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(answer).unwrap();
        }
    });
    let add = |container| node.call("ADD", container, Some(&pod.path()), &node.conf()).bad();
    assert_eq!(add("c1").0, 11);
    assert_eq!(add("c1").0, 11);
    node.del("c1");
    dying.join().unwrap();
    assert_eq!(std::fs::read_dir(node.spool()).unwrap().count(), 1);
}

#[test]
fn status_says_whether_pods_can_be_added() {
    let node = Node::new();
    let status = || node.call("STATUS", "", None, &node.conf());
    status().good();
    for (existing, code) in [(Existing::Fine, 50), (Existing::Limited, 51)] {
        node.core.say(Err(NotReady { reason: "no lease yet".into(), existing }));
        let (got, msg) = status().bad();
        assert_eq!(got, code);
        assert!(msg.contains("no lease yet"), "{msg}");
    }
    let pod = Namespace::create().unwrap();
    let (code, msg) = node.call("ADD", "c1", Some(&pod.path()), &node.conf()).bad();
    assert_eq!(code, 11, "{msg}");
    let away = with(&node.conf(), &json!({"socket": "/nonexistent/cni.sock"}));
    assert_eq!(node.call("STATUS", "", None, &away).bad().0, 50);
}

#[test]
fn gc_removes_what_is_not_named_of_this_network_alone() {
    let node = Node::new();
    let pods: Vec<_> = (0..4).map(|_| Namespace::create().unwrap()).collect();
    for (n, pod) in pods.iter().take(3).enumerate() {
        node.add(&format!("c{n}"), pod);
    }
    let other = with(&node.conf(), &json!({"name": "other"}));
    node.call("ADD", "c9", Some(&pods[3].path()), &other).good();

    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]});
    node.call("GC", "", None, &with(&node.conf(), &valid)).good();
    eventually("two are gone", || node.recorded().len() == 2);
    assert!(node.recorded().values().all(|owner| owner == "c1\r\neth0"));
    assert_eq!(node.links().len(), 2, "c1 and the other network's");
    let (code, msg) = node.call("GC", "", None, &node.conf()).bad();
    assert_eq!(code, 7);
    assert!(msg.contains("cni.dev/valid-attachments"), "{msg}");
}

#[test]
fn a_restarted_agent_finds_its_pods_and_a_reboot_frees_what_died() {
    let mut node = Node::new();
    let pods: Vec<_> = (0..2).map(|_| Namespace::create().unwrap()).collect();
    for (n, pod) in pods.iter().enumerate() {
        node.add(&format!("c{n}"), pod);
    }
    let before = node.core.pods();
    assert_eq!(node.start(), before);

    ip(&pods[0], "link del eth0");
    assert_eq!(node.start().len(), 1, "a pod without a link is none");
    assert_eq!(node.recorded().len(), 4, "but its address is kept until its DEL");
    assert_eq!(node.start_in("boot-2").len(), 1);
    assert_eq!(node.recorded().len(), 2, "or until a reboot");
}

#[test]
fn a_del_under_way_is_finished_by_the_next_agent() {
    let mut node = Node::new();
    let pods: Vec<_> = (0..3).map(|_| Namespace::create().unwrap()).collect();
    for (n, pod) in pods.iter().enumerate() {
        node.add(&format!("c{n}"), pod);
    }
    node.del("c0");
    node.del("c1");
    // The links are marked and the records are there.
    let found = node.start();
    assert_eq!(found.keys().map(|pod| pod.container.as_str()).collect::<Vec<_>>(), ["c2"]);
    eventually("the records are gone", || node.recorded().len() == 2);
    eventually("the links are gone", || node.links().len() == 1);
    eventually("the spool is empty", || std::fs::read_dir(node.spool()).unwrap().count() == 0);
}

#[test]
fn another_plugin_s_attachment_keeps_its_address() {
    let node = Node::new();
    node.add("first", &Namespace::create().unwrap());
    host_local(&node, "ADD", "theirs");
    let pod = Namespace::create().unwrap();
    ip(&pod, "link add eth0 type veth peer name x");
    let before = node.recorded();
    let (code, msg) = node.call("ADD", "theirs", Some(&pod.path()), &node.conf()).bad();
    assert_eq!(code, 100, "{msg}");
    assert_eq!(node.recorded(), before);
}

#[test]
fn a_pod_whose_namespace_is_gone_is_removed_all_the_same() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    node.add("c1", &pod);
    drop(pod);
    node.del("c1");
    eventually("all is gone", || node.recorded().is_empty() && node.links().is_empty());
}

#[test]
fn ipv6_that_is_off_in_the_pod_is_turned_on() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    pod.run(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap())
        .unwrap();
    node.add("c1", &pod);
    assert!(ip(&pod, "-o addr show eth0").contains("fd00:50::"));
    let own = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6").unwrap();
    assert_eq!(own.trim(), "0", "the host's own setting is not touched");
}

#[test]
fn wishes_are_granted_and_those_that_cannot_be_are_refused() {
    let node = Node::new();
    let pods: Vec<_> = (0..4).map(|_| Namespace::create().unwrap()).collect();
    let wish =
        json!({"mtu": 1300, "runtimeConfig": {"ips": ["10.50.7.77"], "mac": "02:00:00:00:00:07"}});
    let add = |n: usize, wish: &Value| {
        node.call("ADD", &format!("c{n}"), Some(&pods[n].path()), &with(&node.conf(), wish))
    };
    let result = add(0, &wish).good();
    assert_eq!(result["ips"][0]["address"], "10.50.7.77/24");
    assert_eq!(result["interfaces"][2]["mac"], "02:00:00:00:00:07");
    assert!(ip(&pods[0], "-o link show eth0").contains("mtu 1300"));
    for (n, wish, code, wanted) in [
        (1, json!({"runtimeConfig": {"ips": ["10.50.7.77"]}}), 101, "is taken"),
        (2, json!({"mtu": 9000}), 7, "above the network's 1450"),
        (3, json!({"mtu": 1000}), 7, "below the 1280 that IPv6 needs"),
    ] {
        let (got, msg) = add(n, &wish).bad();
        assert_eq!(got, code, "{msg}");
        assert!(msg.contains(wanted), "{msg}");
    }
    assert_eq!(node.recorded().len(), 2);
}

#[test]
fn an_earlier_plugin_s_result_is_merged_with_ours() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let earlier = json!({"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "first"}],
        "ips": [{"address": "192.0.2.1/24", "interface": 0}], "routes": [{"dst": "198.51.100.0/24"}]}});
    let result = node.call("ADD", "c1", Some(&pod.path()), &with(&node.conf(), &earlier)).good();
    assert_eq!(result["interfaces"][0]["name"], "first");
    assert_eq!(result["ips"][1]["interface"], 3);
    assert_eq!(result["routes"][0]["dst"], "198.51.100.0/24");
}

#[test]
fn twenty_at_once_each_get_an_address_of_their_own() {
    let node = Node::new();
    let pods: Vec<_> = (0..20).map(|_| Namespace::create().unwrap()).collect();
    let node = &node;
    let began = Instant::now();
    let results: Vec<Value> = thread::scope(|scope| {
        let add = |(n, pod)| scope.spawn(move || node.add(&format!("c{n}"), pod));
        let threads: Vec<_> = pods.iter().enumerate().map(add).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("20 ADDs at once: {:?}", began.elapsed());
    let addresses: BTreeSet<_> =
        results.iter().map(|r| r["ips"][0]["address"].to_string()).collect();
    assert_eq!(addresses.len(), 20);
    assert_eq!((node.links().len(), node.recorded().len()), (20, 40));
    for n in 0..20 {
        node.del(&format!("c{n}"));
    }
    eventually("all is gone", || node.recorded().is_empty() && node.links().is_empty());
}

#[test]
fn fifty_come_and_go_one_after_the_other() {
    let node = Node::new();
    let pods: Vec<_> = (0..50).map(|_| Namespace::create().unwrap()).collect();
    let timed = |work: &dyn Fn(usize)| {
        let mut times: Vec<_> = (0..pods.len())
            .map(|n| {
                let began = Instant::now();
                work(n);
                began.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    let add = timed(&|n| drop(node.add(&format!("c{n}"), &pods[n])));
    let del = timed(&|n| node.del(&format!("c{n}")));
    println!("median of {}: ADD {add:?}, DEL {del:?}", pods.len());
    eventually("all is gone", || node.recorded().is_empty() && node.links().is_empty());
}

#[test]
fn host_local_and_we_release_what_the_other_took() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    node.add("ours", &pod);

    host_local(&node, "ADD", "theirs");
    assert_eq!(node.recorded()[&addr("10.50.7.3")].trim_end(), "theirs\r\neth0", "it skips ours");
    node.del("theirs");
    assert!(!node.recorded().contains_key(&addr("10.50.7.3")));

    host_local(&node, "DEL", "ours");
    assert!(!node.recorded().contains_key(&addr("10.50.7.2")));
    let second = Namespace::create().unwrap();
    let result = node.add("second", &second);
    assert_eq!(
        result["ips"][0]["address"], "10.50.7.4/24",
        "the turn goes on from host-local's last"
    );
    host_local(&node, "ADD", "again");
    assert!(node.recorded().contains_key(&addr("10.50.7.5")));
}

#[test]
fn bad_input_is_told_with_its_place_and_touches_nothing() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let path = pod.path().display().to_string();
    let good = node.conf().to_string();
    let env = |command: &str, id: &str, netns: &str, ifname: &str| {
        [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", ifname),
        ]
        .map(|(name, value)| (name, value.to_owned()))
    };
    let change = |change: Value| with(&node.conf(), &change).to_string();
    let own = "/proc/self/ns/net";
    let table = [
        (env("ADD", "c1", &path, "eth0"), "{".to_owned(), 6, "it is no JSON"),
        (env("ADD", "c1", &path, "eth0"), String::new(), 6, "it is no JSON"),
        (env("ADD", "", &path, "eth0"), good.clone(), 4, "CNI_CONTAINERID: is not set"),
        (env("ADD", "a/b", &path, "a/b"), good.clone(), 4, "2 faults"),
        (env("ADD", "c1", "", "eth0"), good.clone(), 4, "CNI_NETNS: is not set"),
        (env("ADD", "c1", "/nonexistent", "eth0"), good.clone(), 4, "/nonexistent: No such file"),
        (env("ADD", "c1", "/dev/null", "eth0"), good.clone(), 4, "not a network namespace"),
        (env("ADD", "c1", own, "eth0"), good.clone(), 4, "the host's own namespace"),
        (env("ADD", "c1", &path, "lo"), good.clone(), 100, "lo"),
        (env("NOPE", "c1", &path, "eth0"), good.clone(), 4, "none of ADD"),
        (env("ADD", "c1", &path, "eth0"), change(json!({"cniVersion": "9.0.0"})), 1, "9.0.0"),
        (env("ADD", "c1", &path, "eth0"), change(json!({"ipam": {}})), 2, "ipam"),
        (env("ADD", "", &path, "eth0"), change(json!({"mtu": 1})), 4, "mtu: MTU 1"),
        (env("CHECK", "c1", &path, "eth0"), good.clone(), 7, "prevResult: is missing"),
        (env("CHECK", "c1", &path, "eth0"), change(json!({"cniVersion": "0.3.1"})), 1, "no CHECK"),
        (env("STATUS", "", "", ""), change(json!({"cniVersion": "1.0.0"})), 1, "no STATUS"),
    ];
    for (env, conf, code, wanted) in table {
        let (got, msg) = plugin(env!("CARGO_BIN_EXE_russet-cni"), &env, conf.as_bytes()).bad();
        assert_eq!(got, code, "{msg}");
        assert!(msg.contains(wanted), "{msg}");
    }
    assert!(node.recorded().is_empty() && node.links().is_empty());
    let version =
        plugin(env!("CARGO_BIN_EXE_russet-cni"), &env("VERSION", "", "", ""), good.as_bytes());
    assert_eq!(version.good()["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

#[test]
fn peers_that_speak_nonsense_or_nothing_disturb_nobody() {
    let node = Node::new();
    let _silent: Vec<_> = (0..3).map(|_| UnixStream::connect(node.socket()).unwrap()).collect();
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4], &[0, 0, 0, 2, b'{', b'}'], &[0]] {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.write_all(nonsense).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // A peer that leaves unread octets behind may be reset.
        let _ = stream.read_to_end(&mut answer);
        if !answer.is_empty() {
            assert!(String::from_utf8_lossy(&answer).contains("error"), "{answer:?}");
        }
    }
    // An ADD without descriptors.
    let body = json!({"version": 1, "call": {"add": {"pod": {"network": NET, "container": "c", "ifname": "eth0"},
        "mtu": null, "ips": [], "mac": null}}})
    .to_string();
    let mut stream = UnixStream::connect(node.socket()).unwrap();
    stream.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_default();
    assert!(answer.contains("descriptors are wanted"), "{answer}");

    node.add("c1", &Namespace::create().unwrap());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(node.socket()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

/// Debian's host-local on the same folder.
fn host_local(node: &Node, command: &str, container: &str) {
    let conf = json!({"cniVersion": "1.0.0", "name": NET, "ipam": {
        "type": "host-local", "dataDir": node.folder.path().join("networks"),
        "ranges": [[{"subnet": "10.50.7.0/24"}], [{"subnet": "fd00:50::/64"}]],
    }});
    let env = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", container),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/dev/null"),
        ("CNI_PATH", "/usr/lib/cni"),
    ];
    let env = env.map(|(name, value)| (name, value.to_owned()));
    plugin("/usr/lib/cni/host-local", &env, conf.to_string().as_bytes()).good();
}

fn with(conf: &Value, change: &Value) -> Value {
    let mut conf = conf.clone();
    conf.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    conf
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}
