//! Calico's own calicoctl beside ours, upon one store: what they write of one manifest is the same.

use std::process::Command;

use super::{Lab, RESOURCES, etcdctl, on_both};

/// Manifests, each with where it lies. A duration is said as Go says it: ours is kept as it was written.
const OBJECTS: &[(&str, &str)] = &[
    ("ippools/plain", "kind: IPPool\nmetadata: {name: plain}\nspec: {cidr: 10.1.0.0/16}\n"),
    (
        "ippools/vx",
        "kind: IPPool\nmetadata: {name: vx, labels: {b: '2', a: '1'}}\nspec: {cidr: 10.2.0.0/16, vxlanMode: CrossSubnet, \
         natOutgoing: true, blockSize: 27, nodeSelector: \"rack == 'a'\"}\n",
    ),
    ("ippools/six", "kind: IPPool\nmetadata: {name: six}\nspec: {cidr: 'fd00:1::/112'}\n"),
    (
        "ippools/ii",
        "kind: IPPool\nmetadata: {name: ii}\nspec: {cidr: 10.3.0.0/16, ipipMode: Always, disabled: true, disableBGPExport: true, \
         allowedUses: [Workload]}\n",
    ),
    (
        "ipreservations/res",
        "kind: IPReservation\nmetadata: {name: res}\nspec: {reservedCIDRs: [10.1.0.0/28, 10.1.5.5]}\n",
    ),
    (
        "bgpconfigurations/default",
        "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {asNumber: 64513, nodeToNodeMeshEnabled: false, logSeverityScreen: \
         Info, serviceClusterIPs: [{cidr: 10.96.0.0/12}], communities: [{name: c, value: '64512:1'}], prefixAdvertisements: [{cidr: \
         10.1.0.0/26, communities: [c]}]}\n",
    ),
    (
        "bgpfilters/f",
        "kind: BGPFilter\nmetadata: {name: f}\nspec: {exportV4: [{action: Accept, matchOperator: In, cidr: 10.0.0.0/8, source: \
         RemotePeers, interface: 'eth*'}], importV6: [{action: Reject, matchOperator: NotEqual, cidr: 'fd00::/8'}]}\n",
    ),
    (
        "bgppeers/p",
        "kind: BGPPeer\nmetadata: {name: p}\nspec: {peerIP: 192.0.2.1, asNumber: 64514, nodeSelector: has(x), keepOriginalNextHop: \
         true, password: {secretKeyRef: {name: s, key: k}}, filters: [f]}\n",
    ),
    (
        "bgppeers/q",
        "kind: BGPPeer\nmetadata: {name: q}\nspec: {node: n1, peerIP: '[fd00::1]:1179', asNumber: 64514, maxRestartTime: 1m0s, \
         sourceAddress: None, ttlSecurity: 1, numAllowedLocalASNumbers: 2}\n",
    ),
    (
        "nodes/n1",
        "kind: Node\nmetadata: {name: n1, labels: {x: '1'}}\nspec: {bgp: {ipv4Address: 192.168.1.1/24, asNumber: 64512, \
         routeReflectorClusterID: 1.0.0.1, ipv6Address: 'fd00::2/64'}, orchRefs: [{nodeName: n1, orchestrator: k8s}]}\n",
    ),
    (
        "workloadendpoints/default/n1-cni-c1-eth0",
        "kind: WorkloadEndpoint\nmetadata: {name: n1-cni-c1-eth0, namespace: default}\nspec: {orchestrator: cni, node: n1, \
         containerID: c1, endpoint: eth0, ipNetworks: [10.1.0.1/32], profiles: [net], interfaceName: calic1, mac: \
         '02:00:00:00:00:01'}\n",
    ),
];

#[test]
fn what_calicoctl_writes_of_a_manifest_russet_writes_octet_for_octet() {
    on_both(|lab| {
        for (place, manifest) in OBJECTS {
            let manifest = format!("apiVersion: projectcalico.org/v3\n{manifest}");
            lab.file("it.yaml", &manifest);
            let key = format!("{RESOURCES}{place}");
            calicoctl(lab, &["apply", "-f", "it.yaml"]);
            let theirs = lab.value(&key);
            etcdctl(&lab.address, &["del", &key]);
            lab.says(&["apply", "-f", "it.yaml"]);
            assert_eq!(comparable(&lab.value(&key)), comparable(&theirs), "{place}");
            // And each takes what the other wrote for what it asked for.
            calicoctl(lab, &["replace", "-f", "it.yaml"]);
            let said = lab.says(&["apply", "-f", "it.yaml"]);
            assert!(said.contains("Successfully applied 1"), "{said}");
        }
        let shown = calicoctl(lab, &["get", "ippools", "-o", "wide"]);
        assert!(["plain", "vx", "six", "ii"].iter().all(|name| shown.contains(name)), "{shown}");
    });
}

#[test]
fn a_node_that_is_deleted_takes_its_pods_endpoints_with_it_by_either_tool() {
    on_both(|lab| {
        for node in ["n1", "n2", "n3"] {
            lab.apply(&format!(
                "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: {node}}}\nspec: {{}}\n---\n\
                 apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {{name: {node}-cni-c1-eth0, namespace: default}}\n\
                 spec: {{orchestrator: cni, node: {node}, containerID: c1, endpoint: eth0, ipNetworks: [10.1.0.1/32], interfaceName: calic1}}\n"
            ));
        }
        calicoctl(lab, &["delete", "node", "n1"]);
        lab.says(&["delete", "node", "n2"]);
        let left = lab.says(&["get", "wep", "-o", "name", "--all-namespaces"]);
        assert_eq!(left.lines().count(), 1, "{left}");
        assert!(left.contains("n3-cni-c1-eth0"), "{left}");
        assert!(lab.says(&["get", "nodes", "-o", "name"]).contains("n3"));
    });
}

#[test]
fn a_patch_of_calicoctl_s_does_the_same_by_russet() {
    on_both(|lab| {
        for (kind, place, objects, patch) in PATCHES {
            let key = format!("{RESOURCES}{place}");
            let name = place.rsplit('/').next().unwrap();
            lab.apply(&format!("apiVersion: projectcalico.org/v3\n{objects}"));
            let before = lab.value(&key);
            calicoctl(lab, &["patch", kind, name, "-p", patch]);
            let theirs = lab.value(&key);
            assert_ne!(theirs, before, "{patch}");
            for way in ["strategic", "merge"] {
                lab.put(&key, &before);
                lab.says(&["patch", kind, name, "-t", way, "-p", patch]);
                assert_eq!(comparable(&lab.value(&key)), comparable(&theirs), "{way}: {patch}");
            }
        }
    });
}

/// Kind, place, object and a change of it: fields that are set, are new and go, and lists.
const PATCHES: [(&str, &str, &str, &str); 2] = [
    (
        "ippool",
        "ippools/p",
        "kind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.99.0.0/16, natOutgoing: true}\n",
        r#"{"metadata":{"labels":{"a":"b"}},"spec":{"natOutgoing":null,"disabled":true,"allowedUses":["Tunnel"]}}"#,
    ),
    (
        "bgpconfig",
        "bgpconfigurations/default",
        "kind: BGPConfiguration\nmetadata: {name: default}\nspec: {asNumber: 64512, serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: 10.112.0.0/12}]}\n",
        r#"{"spec":{"serviceClusterIPs":[{"cidr":"10.200.0.0/16"}],"listenPort":1790}}"#,
    ),
];

#[test]
fn both_tools_ask_the_store_of_the_file_and_not_that_of_the_variables() {
    on_both(|lab| {
        lab.apply("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\nspec: {}\n");
        lab.file(
            "c.cfg",
            &format!(
                "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  etcdEndpoints: {}\n",
                lab.url
            ),
        );
        for program in [THEIRS, env!("CARGO_BIN_EXE_russet")] {
            let out = Command::new(program)
                .args(["get", "nodes", "-o", "yaml", "-c", "c.cfg", "--allow-version-mismatch"])
                .env_remove("RUSSET_ENDPOINTS")
                .env("ETCD_ENDPOINTS", "http://127.0.0.1:1")
                .current_dir(lab.home.path())
                .output()
                .unwrap_or_else(|err| panic!("{program}: {err}; cargo xtask setup builds it"));
            let said = String::from_utf8_lossy(&out.stdout);
            assert!(said.contains("name: n1"), "{program}: {said}{}", crate::errors(&out));
        }
    });
}

/// Without what one is born with, and what came after v3.28.
fn comparable(text: &str) -> String {
    let text = text.replace(r#","assignmentMode":"Automatic""#, "");
    let (head, tail) = text.split_once(r#","uid":""#).expect(&text);
    let (_, tail) = tail.split_once("Z\"").expect(tail);
    format!("{head}{tail}")
}

/// What calicoctl prints; it must work.
fn calicoctl(lab: &Lab, words: &[&str]) -> String {
    let out = Command::new(THEIRS)
        .args(words)
        .arg("--allow-version-mismatch")
        .env("DATASTORE_TYPE", "etcdv3")
        .env("ETCD_ENDPOINTS", &lab.url)
        .current_dir(lab.home.path())
        .output()
        .unwrap_or_else(|err| panic!("{THEIRS}: {err}; cargo xtask setup builds it"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{words:?}: {}{said}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8(out.stdout).unwrap()
}

const THEIRS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/calico/calicoctl");
