//! The built plugin under Calico's names: a list of Calico's goes on unchanged.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use russet_core::model::{PodNetwork, PodSide};
use russet_desired::Flag;
use russet_kernel::netns::Namespace;
use serde_json::{Value, json};

use crate::node::{Node, eventually, ip, network};

#[test]
fn a_list_of_calico_s_is_served_and_answered_as_calico_answers() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let calico = named(&node, "calico");
    let added = node.call_named(&calico, "ADD", Some(&pod.path()), &conf(&node));
    assert_eq!(
        added.told().trim(),
        "network k8s-pod-network: without effect under russet: policy.type"
    );
    let result = added.good();
    let link = node.links().concat();
    let wanted = json!({
        "cniVersion": "0.3.1", "interfaces": [{"name": link}], "dns": {},
        "ips": [{"version": "4", "address": "10.50.7.2/24"}, {"version": "6", "address": "fd00:50::2/64"}],
    });
    assert_eq!(result, wanted);

    let mut checked = conf(&node);
    checked["cniVersion"] = "0.4.0".into();
    checked["prevResult"] = result;
    node.call_named(&calico, "CHECK", Some(&pod.path()), &checked).good();
    ip(&pod, "addr del 10.50.7.2/24 dev eth0");
    let (code, _) = node.call_named(&calico, "CHECK", Some(&pod.path()), &checked).bad();
    assert_eq!(code, 102);

    node.call_named(&calico, "DEL", None, &conf(&node)).good();
    eventually("the record is gone", || {
        !node.folder.path().join("networks/k8s-pod-network/10.50.7.2").exists()
    });
}

#[test]
fn a_pod_forwards_only_where_the_list_allows_it() {
    let node = Node::new();
    for (allowed, wanted) in [(false, "0"), (true, "1")] {
        let pod = Namespace::create().unwrap();
        let mut conf = conf(&node);
        conf["container_settings"] = json!({"allow_ip_forwarding": allowed});
        // By our own name too, because of its type.
        let own = PathBuf::from(env!("CARGO_BIN_EXE_russet-cni"));
        node.call_named(&own, "ADD", Some(&pod.path()), &conf).good();
        for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
            let value = pod.run(|| std::fs::read_to_string(path).unwrap()).unwrap();
            assert_eq!(value.trim(), wanted, "{path}");
        }
        node.call_named(&own, "DEL", None, &conf).good();
    }
}

#[test]
fn an_mtu_of_the_underlay_s_is_lowered_to_the_network_s() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let mut conf = conf(&node);
    conf["mtu"] = 1500.into();
    node.call_named(&named(&node, "calico"), "ADD", Some(&pod.path()), &conf).good();
    assert!(ip(&pod, "-o link show eth0").contains("mtu 1450"));
}

#[test]
fn the_oldest_version_is_answered_where_the_list_says_none() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let mut conf = conf(&node);
    conf.as_object_mut().unwrap().remove("cniVersion");
    let calico = named(&node, "calico");
    let result = node.call_named(&calico, "ADD", Some(&pod.path()), &conf).good();
    assert_eq!(result["cniVersion"], "0.2.0");
    assert_eq!(result["ip4"], json!({"ip": "10.50.7.2/24"}));
    let versions = node.call_named(&calico, "VERSION", None, &conf).good();
    assert_eq!(versions["supportedVersions"][0], "0.1.0");
}

#[test]
fn calico_ipam_without_an_interface_is_a_call_of_its_own() {
    let node = Node::new();
    let conf = json!({"cniVersion": "1.0.0", "name": "lab", "type": "ptp", "ipMasq": true,
        "ipam": {"type": "calico-ipam", "socket": node.socket(), "spool": node.spool()}});
    let ipam = named(&node, "calico-ipam");
    let pod = Namespace::create().unwrap();
    for _ in 0..2 {
        let result = node.call_named(&ipam, "ADD", Some(&pod.path()), &conf).good();
        assert_eq!(result["ips"][0]["address"], "10.50.7.2/24", "the same when it is asked again");
    }
    assert_eq!(node.recorded().len(), 2);
    node.call_named(&ipam, "CHECK", Some(&pod.path()), &conf).good();
    node.call_named(&ipam, "DEL", None, &conf).good();
    eventually("the records are gone", || node.recorded().is_empty());
}

#[test]
fn calico_s_preset_names_links_as_calico_does_and_finds_them_after_a_restart() {
    let mut node = routed_node();
    let pod = Namespace::create().unwrap();
    let calico = named(&node, "calico");
    let mut conf = conf(&node);
    conf["args"] =
        json!({"cni": {"cni.projectcalico.org/allowedSourcePrefixes": ["192.0.2.0/24"]}});
    let result = node.call_named(&calico, "ADD", Some(&pod.path()), &conf).good();
    let wanted = json!({
        "cniVersion": "0.3.1", "interfaces": [{"name": "cali82111e10a96"}], "dns": {},
        "ips": [{"version": "4", "address": "10.50.7.2/32"}, {"version": "6", "address": "fd00:50::2/128"}],
    });
    assert_eq!(result, wanted);
    assert_eq!(node.call_named(&calico, "ADD", Some(&pod.path()), &conf).good(), wanted, "again");

    let fact = node.start().into_values().next().unwrap();
    assert_eq!(fact.host_link.as_str(), "cali82111e10a96");
    assert_eq!(fact.allowed_sources, ["192.0.2.0/24".parse().unwrap()]);
    node.call_named(&calico, "DEL", None, &conf).good();
    eventually("the link is gone", || node.links().is_empty());
    let folder = node.folder.path().join("networks/k8s-pod-network");
    eventually("the note is gone", || !has_notes(&folder));
}

#[test]
fn a_pod_s_new_sandbox_takes_the_link_and_the_old_one_s_late_del_leaves_it() {
    let node = routed_node();
    let (old, new) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    let calico = named(&node, "calico");
    node.call_named(&calico, "ADD old", Some(&old.path()), &conf(&node)).good();
    node.call_named(&calico, "ADD new", Some(&new.path()), &conf(&node)).good();
    assert!(!ip(&old, "link").contains("eth0"), "as Calico removes it");
    node.call_named(&calico, "DEL old", None, &conf(&node)).good();
    let folder = node.folder.path().join("networks/k8s-pod-network");
    eventually("the old address is given back", || !folder.join("10.50.7.2").exists());
    assert!(ip(&new, "-o addr show eth0").contains("10.50.7.3/32"));
    assert_eq!(node.links(), ["cali82111e10a96"]);
    assert_eq!(node.core.pods().len(), 1);

    // A second interface of the same pod is another link.
    node.call_named(&calico, "ADD new net1", Some(&new.path()), &conf(&node)).good();
    assert_eq!(node.links().len(), 2);
    node.call_named(&calico, "DEL new", None, &conf(&node)).good();
    eventually("the first is gone", || node.links().len() == 1);
    assert!(ip(&new, "link").contains("net1"));
}

/// Debian's plugins read the result as Calico's: `bandwidth` and `portmap` fail without what they look for in it.
#[test]
fn plugins_that_chain_behind_calico_s_chain_behind_ours() {
    let node = routed_node();
    let pod = Namespace::create().unwrap();
    let mut result =
        node.call_named(&named(&node, "calico"), "ADD", Some(&pod.path()), &conf(&node)).good();
    for (name, own) in [
        ("tuning", json!({"sysctl": {"net.ipv4.conf.eth0.rp_filter": "0"}})),
        (
            "portmap",
            json!({"runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}),
        ),
        ("bandwidth", json!({"ingressRate": 1_000_000, "ingressBurst": 1_000_000})),
    ] {
        let mut conf = json!({"cniVersion": "0.3.1", "name": "k8s-pod-network", "type": name,
            "prevResult": result});
        conf.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let plugin = Path::new("/usr/lib/cni").join(name);
        assert!(plugin.is_file(), "{name} is missing: install containernetworking-plugins");
        result = node.call_named(&plugin, "ADD", Some(&pod.path()), &conf).good();
        assert_eq!(result["ips"][0]["address"], "10.50.7.2/32", "{name}");
    }
    let rules = ip_tables(&node);
    assert!(rules.contains("10.50.7.2:80"), "{rules}");
    let queues = tc(&node);
    assert!(queues.contains("tbf") || queues.contains("htb"), "{queues}");
}

fn ip_tables(node: &Node) -> String {
    said(node, "iptables", &["-t", "nat", "-S"])
}

fn tc(node: &Node) -> String {
    said(node, "tc", &["qdisc", "show", "dev", "cali82111e10a96"])
}

fn said(node: &Node, program: &str, args: &[&str]) -> String {
    let run = || std::process::Command::new(program).args(args).output().unwrap();
    String::from_utf8_lossy(&node.netns.run(run).unwrap().stdout).into_owned()
}

/// A node whose pods are routed, with Calico's names.
fn routed_node() -> Node {
    let node = Node::new();
    let side = PodSide::Routed { proxy_arp: Flag::Off };
    node.core.say(Ok(PodNetwork { side, links: "cali", ..network() }));
    node
}

fn has_notes(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with(".russet-pod-"))
}

/// The configuration of Calico's manifest, and where this test's agent is.
fn conf(node: &Node) -> Value {
    json!({
        "name": "k8s-pod-network", "cniVersion": "0.3.1", "type": "calico", "log_level": "info",
        "log_file_path": "/var/log/calico/cni/cni.log", "datastore_type": "etcdv3",
        "etcd_endpoints": "http://192.0.2.1:2379", "nodename": "n1", "mtu": 0,
        "ipam": {"type": "calico-ipam", "assign_ipv6": "true"}, "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        "socket": node.socket(), "spool": node.spool(),
    })
}

fn named(node: &Node, name: &str) -> PathBuf {
    let path = node.folder.path().join(name);
    symlink(env!("CARGO_BIN_EXE_russet-cni"), &path).unwrap();
    path
}
