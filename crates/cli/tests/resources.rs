//! The operator's commands over Calico's resources: the built binary against our store and against a real etcd,
//! with what lies in the store compared octet by octet with what Calico would have written.

#[path = "resources/at.rs"]
mod at;
#[path = "resources/bad.rs"]
mod bad;
#[path = "resources/ipam.rs"]
mod ipam;
#[path = "resources/pools.rs"]
mod pools;
#[path = "store/servers.rs"]
mod servers;
#[path = "resources/theirs.rs"]
mod theirs;

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use servers::{Etcd, Store};
use tempfile::TempDir;

/// One of the two stores, empty.
struct Lab {
    home: TempDir,
    url: String,
    address: String,
    _server: Server,
}

enum Server {
    Ours(#[expect(dead_code, reason = "killed when it goes")] Store),
    Etcd(#[expect(dead_code, reason = "killed when it goes")] Etcd),
}

/// Does the same upon both stores.
fn on_both(test: impl Fn(&Lab)) {
    for etcd in [false, true] {
        let home = TempDir::new().unwrap();
        let data = home.path().join("data");
        let (url, address, server) = if etcd {
            let server = Etcd::start(&data);
            (server.url(), server.address.clone(), Server::Etcd(server))
        } else {
            let server = Store::start(&data, &[]);
            (server.url(), server.address.clone(), Server::Ours(server))
        };
        test(&Lab { home, url, address, _server: server });
    }
}

impl Lab {
    fn run(&self, words: &[&str]) -> Output {
        self.run_with(words, "")
    }

    /// With a text at standard input.
    fn run_with(&self, words: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_russet"))
            .args(words)
            .env("RUSSET_ENDPOINTS", &self.url)
            .current_dir(self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start russet");
        // One that refuses its flags does not read.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("wait for russet")
    }

    /// What it prints; it must work.
    fn says(&self, words: &[&str]) -> String {
        let out = self.run(words);
        assert!(out.status.success(), "{words:?}: {}", errors(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Applies a text, which must work.
    fn apply(&self, manifest: &str) -> String {
        let out = self.run_with(&["apply", "-f", "-"], manifest);
        assert!(out.status.success(), "{}", errors(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What it complains of; it must fail with this code.
    fn refuses(&self, words: &[&str], input: &str, code: i32) -> String {
        let out = self.run_with(words, input);
        assert_eq!(out.status.code(), Some(code), "{words:?}: {}", errors(&out));
        errors(&out)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A value as it lies in the store; etcdctl reads both.
    fn value(&self, key: &str) -> String {
        etcdctl(&self.address, &["get", "--print-value-only", key]).trim_end().to_owned()
    }

    fn put(&self, key: &str, value: &str) {
        let said = etcdctl(&self.address, &["put", key, "--", value]);
        assert!(said.contains("OK"), "{said}");
    }

    /// Puts what real Calico components left (api/tests/calico/etcd.txt).
    fn put_calico(&self) {
        for (key, value) in rows() {
            self.put(key, value);
        }
    }
}

/// Key and value by turns, as Calico writes them.
fn rows() -> Vec<(&'static str, &'static str)> {
    let lines: Vec<_> = include_str!("../../api/tests/calico/etcd.txt").lines().collect();
    lines.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";

/// What our own would have been born with is told apart: the rest must be equal.
fn without_birth(value: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(value).expect(value);
    let meta = value["metadata"].as_object_mut().unwrap();
    let uid = meta.remove("uid").expect("a uid");
    assert_eq!(uid.as_str().unwrap().len(), 36);
    assert!(meta.remove("creationTimestamp").expect("a time").as_str().unwrap().ends_with('Z'));
    value
}

#[test]
fn what_calico_wrote_is_shown_and_applied_again_without_a_change() {
    on_both(|lab| {
        lab.put_calico();
        for words in [
            "ippools",
            "IPPool",
            "ipp",
            "POOLS",
            "nodes",
            "no",
            "bgpp",
            "bgpconfig",
            "bgpfilters",
            "felixconfig",
            "clusterinfo",
            "nodestatus",
            "ipreservation",
            "ipamconfig",
        ] {
            let yaml = lab.says(&["get", words, "-o", "yaml"]);
            assert!(yaml.contains("items:\n- ") && yaml.contains("List\n"), "{words}: {yaml}");
            let said = lab.apply(&yaml);
            assert!(said.contains("unchanged") && !said.contains(": changed"), "{words}: {said}");
            let json = lab.says(&["get", words, "-o", "json"]);
            assert!(lab.apply(&json).contains("unchanged"), "{words}");
        }
        let weps = lab.says(&["get", "wep", "-A", "-o", "yaml"]);
        assert!(
            lab.apply(&weps)
                .contains("WorkloadEndpoint default/node--1-k8s-web--7d4-eth0: unchanged")
        );
        // Nothing that Calico wrote lost an octet.
        for (key, value) in rows() {
            assert_eq!(lab.value(key), value, "{key}");
        }
    });
}

#[test]
fn a_new_object_lies_there_as_calico_would_have_written_it() {
    on_both(|lab| {
        let said = lab.apply(
            "apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata:\n  name: web\n  labels: {tier: front}\nspec:\n  cidr: 10.9.0.0/16\n  vxlanMode: CrossSubnet\n  natOutgoing: true\n",
        );
        assert!(said.ends_with("Successfully applied 1 'IPPool' resource(s)\n"), "{said}");
        let value = lab.value(&format!("{RESOURCES}ippools/web"));
        // Go's order of fields, and Calico's defaults.
        let (head, tail) = value.split_once(",\"uid\":\"").unwrap();
        assert_eq!(
            head,
            r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"web""#
        );
        assert!(tail.ends_with(r#","labels":{"tier":"front"}},"spec":{"cidr":"10.9.0.0/16","vxlanMode":"CrossSubnet","ipipMode":"Never","natOutgoing":true,"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}"#), "{tail}");

        // A change keeps what it was born with.
        lab.apply("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: web}\nspec: {cidr: 10.9.0.0/16, disabled: true}\n");
        let changed = lab.value(&format!("{RESOURCES}ippools/web"));
        let birth = |text: &str| text.split("\"labels\"").next().unwrap()[..150].to_owned();
        assert_eq!(birth(&changed), birth(&value));
        assert!(
            changed.contains(r#""disabled":true"#) && !changed.contains("natOutgoing"),
            "{changed}"
        );
    });
}

#[test]
fn an_export_of_one_cluster_makes_the_same_objects_in_another() {
    on_both(|lab| {
        lab.put_calico();
        let mut exported = String::new();
        for kind in [
            "ippools",
            "ipreservations",
            "nodes",
            "bgpconfigurations",
            "bgppeers",
            "bgpfilters",
            "felixconfigurations",
            "clusterinformations",
            "caliconodestatuses",
        ] {
            exported += &(lab.says(&["get", kind, "-o", "yaml", "--export"]) + "---\n");
        }
        assert!(!exported.contains("resourceVersion") && !exported.contains("uid:"));
        on_both(|other| {
            other.apply(&exported);
            for (key, value) in rows()
                .iter()
                .filter(|(key, _)| key.starts_with(RESOURCES) && !key.contains("workload"))
            {
                assert_eq!(without_birth(&other.value(key)), without_birth(value), "{key}");
            }
        });
    });
}

#[test]
fn objects_are_found_by_name_selector_and_namespace() {
    on_both(|lab| {
        lab.put_calico();
        let name = |words: &[&str]| lab.says(&[&["get"], words, &["-o", "name"]].concat());
        assert_eq!(name(&["nodes", "-l", "has(rack)"]), "node/node-1\n");
        assert_eq!(name(&["nodes", "-l", "rack == 'none'"]), "");
        assert_eq!(name(&["bgppeers", "rack-1"]), "bgppeer/rack-1\n");
        assert_eq!(name(&["wep"]), "workloadendpoint/default/node--1-k8s-web--7d4-eth0\n");
        assert_eq!(name(&["wep", "-n", "prod"]), "");
        assert_eq!(name(&["wep", "-a"]), name(&["wep"]));
        assert_eq!(name(&["ipamblocks", "10.244.3.64/30"]), name(&["ipamblocks"]));
        let wide = lab.says(&["get", "wep", "-o", "wide"]);
        assert!(
            wide.starts_with("NAME") && wide.contains("NATS") && wide.contains("web-7d4"),
            "{wide}"
        );
        assert!(lab.says(&["get", "wep", "-A"]).starts_with("NAMESPACE"));
        let wide = lab.says(&["get", "wep", "-A", "-o", "wide"]);
        assert!(wide.starts_with("NAMESPACE") && wide.contains("NATS"), "{wide}");
        let told = lab.refuses(&["get", "bgppeers", "rack-1", "rack-9"], "", 1);
        assert!(told.contains("BGPPeer rack-9 does not exist"), "{told}");
        lab.refuses(&["get", "nodes", "-l", "rack =="], "", 2);
        lab.refuses(&["get", "bgppears"], "", 2);
        let told = lab.refuses(&["get", "wep", "-A", "-n", "x"], "", 2);
        assert!(told.contains("--all-namespaces"), "{told}");
    });
}

#[test]
fn one_object_that_cannot_be_read_does_not_hide_the_others() {
    on_both(|lab| {
        lab.put_calico();
        lab.put(&format!("{RESOURCES}bgppeers/broken"), "{\"spec\":");
        let out = lab.run(&["get", "bgppeers"]);
        assert_eq!(out.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&out.stdout).contains("rack-1"));
        assert!(errors(&out).contains("bgppeers/broken"), "{}", errors(&out));
        // It can be written over, and deleted.
        lab.apply("apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: broken}\nspec: {peerIP: 192.0.2.1, asNumber: 64512}\n");
        lab.says(&["delete", "bgpp", "broken"]);
    });
}

#[test]
fn what_cannot_be_read_is_not_said_to_be_missing() {
    on_both(|lab| {
        lab.put_calico();
        lab.put(&format!("{RESOURCES}bgppeers/broken"), "{\"spec\":");
        lab.put(&format!("{RESOURCES}ippools/broken"), "{\"spec\":");
        lab.put("/calico/ipam/v2/assignment/ipv4/block/10.9.0.0-26", "{}");
        // Also in the place of a name, of a file's object, of a block and of a pool.
        let peer = |name: &str| {
            format!(
                "---\nkind: BGPPeer\napiVersion: projectcalico.org/v3\nmetadata: {{name: {name}}}\nspec: {{peerIP: 192.0.2.1, asNumber: 1}}\n"
            )
        };
        lab.file("peers.yaml", &(peer("broken") + &peer("rack-1")));
        for words in [["get", "bgpp", "broken", "rack-1"], ["get", "-o", "name", "-fpeers.yaml"]] {
            let out = lab.run(&words);
            assert_eq!(out.status.code(), Some(1), "{words:?}");
            assert!(String::from_utf8_lossy(&out.stdout).contains("rack-1"), "{words:?}");
            let told = errors(&out);
            assert!(told.contains("bgppeers/broken") && !told.contains("not exist"), "{told}");
        }
        for (words, bad) in [
            (&["get", "block", "10.9.0.0/26"][..], "block/10.9.0.0-26"),
            (&["ipam", "split", "--name", "broken", "2"], "ippools/broken"),
        ] {
            let told = lab.refuses(words, "", 1);
            assert!(told.contains("not among what can be read") && told.contains(bad), "{told}");
        }
    });
}

#[test]
fn what_chooses_objects_is_refused_of_what_the_agent_lists() {
    let out = russet(&["get", "pods", "-n", "web", "-l", "app=='x'", "--export"]);
    assert_eq!(out.status.code(), Some(1));
    let told = errors(&out);
    assert!(told.ends_with("alone: --selector, --namespace, --export\n"), "{told}");
    assert!(errors(&russet(&["get", "leases", "-A"])).contains("--all-namespaces"));
    assert!(errors(&russet(&["get", "routes", "10.0.0.0/8"])).contains("NAME"));
}

#[test]
fn create_replace_and_delete_say_what_is_there_and_what_is_not() {
    on_both(|lab| {
        let peer = |name: &str, asn: u32| {
            format!(
                "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{peerIP: 192.0.2.1, asNumber: {asn}}}\n"
            )
        };
        lab.file("a.yaml", &peer("a", 64_512));
        lab.file("ab.yaml", &(peer("a", 64_513) + &peer("b", 64_513)));
        let told = lab.refuses(&["replace", "-f", "a.yaml"], "", 1);
        assert!(told.contains("BGPPeer a: not replaced: it does not exist"), "{told}");
        lab.says(&["create", "-f", "a.yaml"]);
        // What fails does not stop the rest, and both are named.
        let out = lab.run(&["create", "-f", "ab.yaml"]);
        assert_eq!(out.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&out.stdout).contains("BGPPeer b: created"));
        let told = errors(&out);
        assert!(
            told.contains("BGPPeer a: not created: it exists")
                && told.contains("created 1 of 2 resources; not created: BGPPeer a"),
            "{told}"
        );
        assert!(
            lab.says(&["create", "--skip-exists", "-f", "ab.yaml"]).contains("exists, passed over")
        );
        assert!(lab.value(&format!("{RESOURCES}bgppeers/a")).contains("64512"));
        lab.says(&["replace", "-f", "ab.yaml"]);
        assert!(lab.value(&format!("{RESOURCES}bgppeers/a")).contains("64513"));
        let told = lab.refuses(&["delete", "bgppeer", "a", "c", "b"], "", 1);
        assert!(
            told.contains("BGPPeer c: not deleted: it does not exist")
                && told.contains("deleted 2 of 3"),
            "{told}"
        );
        assert!(
            lab.says(&["delete", "-f", "ab.yaml", "--skip-not-exists"]).contains("passed over")
        );
        assert_eq!(lab.says(&["get", "bgppeers", "-o", "name"]), "");
    });
}

#[test]
fn an_old_version_is_a_conflict_and_writes_nothing() {
    on_both(|lab| {
        lab.put_calico();
        let old = lab.says(&["get", "bgppeer", "rack-1", "-o", "yaml"]);
        lab.says(&["patch", "bgppeer", "rack-1", "-p", "{spec: {ttlSecurity: 2}}"]);
        let change = old.replace("asNumber: 64600", "asNumber: 64601");
        for verb in ["apply", "replace"] {
            let told = lab.refuses(&[verb, "-f", "-"], &change, 1);
            assert!(told.contains("conflict: the file has metadata.resourceVersion"), "{told}");
        }
        let value = lab.value(&format!("{RESOURCES}bgppeers/rack-1"));
        assert!(value.contains("64600") && value.contains(r#""ttlSecurity":2"#), "{value}");
        let told = lab.refuses(&["create", "-f", "-"], &change.replace("rack-1", "rack-2"), 1);
        assert!(told.contains("leave it out to create it"), "{told}");
    });
}

#[test]
fn a_patch_changes_its_fields_and_nothing_that_nobody_knows() {
    on_both(|lab| {
        lab.put_calico();
        let key = format!("{RESOURCES}ippools/default-ipv4-ippool");
        let before = lab.value(&key);
        lab.says(&[
            "patch",
            "ippool",
            "default-ipv4-ippool",
            "-p",
            r#"{"spec":{"natOutgoing":null}}"#,
        ]);
        assert_eq!(lab.value(&key), before.replace(r#""natOutgoing":true,"#, ""));
        lab.says(&[
            "patch",
            "ipp",
            "default-ipv4-ippool",
            "-t",
            "json",
            "-p",
            r#"[{"op":"add","path":"/spec/natOutgoing","value":true}]"#,
        ]);
        assert_eq!(lab.value(&key), before);
        let same = lab.says(&[
            "patch",
            "ipp",
            "default-ipv4-ippool",
            "--type",
            "merge",
            "-p",
            "spec: {natOutgoing: true}",
        ]);
        assert!(same.contains("unchanged"), "{same}");
        for (patch, told) in [
            (r#"{"spec":{"blockSize":99}}"#, "spec.blockSize: a block of 99 bits"),
            (r#"{"metadata":{"name":"other"}}"#, "does not change kind, namespace or name"),
            (r#"{"kind":"Node"}"#, "kind: \"Node\" is not IPPool"),
            ("[1]", "the patch is no object"),
            (r#"{"spec":{"$patch":"replace"}}"#, "the patch has $patch, an order"),
            ("{", "the patch, line 1"),
        ] {
            let said = lab.refuses(&["patch", "ipp", "default-ipv4-ippool", "-p", patch], "", 1);
            assert!(said.contains(told), "{told}: {said}");
        }
        let test = r#"[{"op":"test","path":"/spec/cidr","value":"10.0.0.0/8"}]"#;
        lab.refuses(&["patch", "ipp", "default-ipv4-ippool", "--type", "json", "-p", test], "", 1);
        lab.refuses(&["patch", "ipp", "nobody", "-p", "{}"], "", 1);
        assert_eq!(lab.value(&key), before);
    });
}

#[test]
fn files_folders_and_standard_input_are_read() {
    on_both(|lab| {
        let peer = |name: &str| {
            format!(
                "{{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"BGPPeer\",\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{{\"peerIP\":\"192.0.2.1\",\"asNumber\":64512}}}}"
            )
        };
        lab.file("all/b.json", &peer("b"));
        lab.file("all/a.yml", &peer("a"));
        lab.file("all/notes.txt", "no object");
        lab.file("all/deep/c.yaml", &peer("c"));
        lab.says(&["apply", "-f", "all"]);
        assert_eq!(lab.says(&["get", "bgpp", "-o", "name"]), "bgppeer/a\nbgppeer/b\n");
        let out = lab.run_with(&["apply", "-R", "-f", "all", "-f", "-"], &peer("d"));
        assert!(out.status.success(), "{}", errors(&out));
        assert!(lab.says(&["get", "-f", "all/deep/c.yaml", "-o", "name"]).contains("bgppeer/c"));
        assert_eq!(lab.says(&["get", "bgpp", "-o", "name"]).lines().count(), 4);
        lab.file("empty/notes.txt", "");
        assert!(lab.refuses(&["apply", "-f", "empty"], "", 1).contains("has no file that ends in"));
        assert!(
            lab.refuses(&["apply", "-f", "nowhere.yaml"], "", 1)
                .contains("read nowhere.yaml: No such file")
        );
    });
}

#[test]
fn ipam_s_configuration_lies_where_the_allocator_reads_it() {
    on_both(|lab| {
        lab.apply("apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {name: default}\nspec: {strictAffinity: true, autoAllocateBlocks: true}\n");
        assert_eq!(
            lab.value("/calico/ipam/v2/config"),
            r#"{"strict_affinity":true,"auto_allocate_blocks":true}"#
        );
        let shown = lab.says(&["get", "ipamconfig", "default", "-o", "yaml"]);
        assert!(shown.contains("strictAffinity: true"), "{shown}");
        let told = lab.refuses(&["apply", "-f", "-"], "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {name: mine}\nspec: {autoAllocateBlocks: true}\n", 65);
        assert!(told.contains("it is called default"), "{told}");
        lab.says(&["delete", "ipamconfig", "default"]);
        assert_eq!(lab.value("/calico/ipam/v2/config"), "");
    });
}

#[test]
fn a_node_s_check_of_calico_changes_nothing_and_names_what_it_takes() {
    on_both(|lab| {
        lab.put_calico();
        lab.put(&format!("{RESOURCES}networkpolicies/default/deny"), "{}");
        let before = etcdctl(&lab.address, &["get", "--prefix", "/"]);
        let out = lab.run(&["migrate", "check", "calico", "--node", "node-1"]);
        // A policy that nobody may enforce is in the way.
        assert_eq!(out.status.code(), Some(1), "{}", errors(&out));
        let said = String::from_utf8_lossy(&out.stdout);
        for line in [
            "pool default-ipv4-ippool, 10.244.0.0/16 in blocks of /26: VXLAN across subnets",
            "felixconfigurations/default: without effect here: bpfLogLevel",
            "1 objects of kind NetworkPolicy",
            "nothing was changed",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
        assert_eq!(etcdctl(&lab.address, &["get", "--prefix", "/"]), before);
    });
}

#[test]
fn a_node_without_agent_says_so_and_one_with_a_speaker_alone_shows_its_sessions() {
    let home = TempDir::new().unwrap();
    let socket = home.path().join("bgp.sock");
    let config = home.path().join("bgp.toml");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let told = format!(
        "asn = 64512\nrouter-id = '127.0.0.9'\nlisten = ['127.0.0.1:{port}']\nadmin-socket = '{}'\n\
         [[peer]]\naddress = '127.0.0.2'\nasn = 64512\ndescription = 'node-to-node mesh'\n",
        text(&socket)
    );
    fs::write(&config, told).unwrap();
    let status = || {
        Command::new(env!("CARGO_BIN_EXE_russet"))
            .args(["node", "status", "--socket", "/nonexistent/admin.sock"])
            .args(["--bgp-socket", text(&socket)])
            .output()
            .unwrap()
    };
    let nobody = status();
    assert_eq!(nobody.status.code(), Some(69), "{}", errors(&nobody));
    let mut speaker = Command::new(env!("CARGO_BIN_EXE_russet"));
    let speaker = speaker.args(["bgp", "--config", text(&config)]).stderr(Stdio::null());
    let _speaker = Speaker(speaker.spawn().unwrap());
    eventually("the speaker answers", || status().status.success());
    let said = String::from_utf8(status().stdout).unwrap();
    for line in [
        "No agent runs on this node; its BGP speaker does.",
        "127.0.0.2     node-to-node mesh  start",
        "No IPv6 peers found.",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

/// Killed when it goes.
struct Speaker(Child);

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- helpers

fn russet(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_russet")).args(words).output().expect("start russet")
}

fn errors(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn etcdctl(address: &str, words: &[&str]) -> String {
    let out = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={address}"))
        .args(words)
        .output()
        .expect("the program etcdctl (package etcd-client) must be installed");
    String::from_utf8_lossy(&out.stdout).into_owned() + &errors(&out)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come to be within 10 s");
        thread::sleep(Duration::from_millis(50));
    }
}
