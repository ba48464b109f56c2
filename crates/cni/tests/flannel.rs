//! The built plugin under flannel's name, upon Debian's `bridge` and `host-local`.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use russet_kernel::netns::Namespace;
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn a_pod_of_a_flannel_list_is_added_checked_and_removed_by_debian_s_plugins() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let result = node.good("ADD", "c1", Some(&pod), &node.conf());
    assert_eq!(result["ips"][0]["address"], "10.244.1.2/24");
    assert_eq!(result["ips"][0]["gateway"], "10.244.1.1");
    assert!(ip(&pod, "-o addr show eth0").contains("10.244.1.2/24"));
    assert!(ip(&pod, "route").contains("10.244.0.0/16 via 10.244.1.1"), "{}", ip(&pod, "route"));
    assert!(ip(&pod, "-o link show eth0").contains("mtu 1450"));
    let kept = node.data().join("c1");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
    assert_eq!((&kept["type"], &kept["isGateway"]), (&json!("bridge"), &json!(true)));

    let mut conf = node.conf();
    conf["prevResult"] = result;
    node.good("CHECK", "c1", Some(&pod), &conf);
    let unknown = node.call("CHECK", "c2", Some(&pod), &conf, PLUGINS);
    assert!(error(&unknown).contains("nothing was added for the container c2"), "{unknown:?}");
    node.good("DEL", "c1", Some(&pod), &node.conf());
    assert!(!ip(&pod, "link").contains("eth0"));
    assert!(!node.data().join("c1").exists() && node.leased().is_empty());
    node.good("DEL", "c1", Some(&pod), &node.conf());
    node.good("DEL", "never-there", None, &node.conf());
}

/// flannel's plugin removes its file first, and the address leaks for ever.
#[test]
fn a_del_whose_delegate_fails_is_found_by_the_next_one() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    node.good("ADD", "c1", Some(&pod), &node.conf());
    let before = fs::read(node.data().join("c1")).unwrap();

    let out = node.call("DEL", "c1", Some(&pod), &node.conf(), "/nonexistent");
    assert!(!out.status.success());
    assert!(error(&out).contains("no plugin \"bridge\""), "{out:?}");
    assert_eq!(fs::read(node.data().join("c1")).unwrap(), before);
    assert_eq!(node.leased(), ["10.244.1.2"]);

    node.good("DEL", "c1", Some(&pod), &node.conf());
    assert!(node.leased().is_empty() && !ip(&pod, "link").contains("eth0"));
}

/// What flannel's own plugin kept, byte for byte, is enough for ours.
#[test]
fn what_flannel_s_plugin_has_added_is_removed_by_ours() {
    let node = Node::new();
    let pod = Namespace::create().unwrap();
    let handed = json!({
        "cniVersion": "0.3.1", "hairpinMode": true, "ipMasq": false, "isDefaultGateway": true,
        "isGateway": true, "mtu": 1450, "name": "cbr0", "type": "bridge",
        "ipam": {
            "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "10.244.0.0/16"}],
            "type": "host-local", "dataDir": node.folder.path().join("networks"),
        },
    });
    node.run(Path::new("/usr/lib/cni/bridge"), "ADD", "c9", Some(&pod), &handed, PLUGINS);
    assert_eq!(node.leased(), ["10.244.1.2"]);
    fs::create_dir_all(node.data()).unwrap();
    fs::write(node.data().join("c9"), handed.to_string()).unwrap();

    node.good("DEL", "c9", Some(&pod), &node.conf());

    assert!(node.leased().is_empty() && !ip(&pod, "link").contains("eth0"));
}

#[test]
fn without_subnet_env_the_runtime_is_told_to_try_again() {
    let node = Node::new();
    fs::remove_file(node.folder.path().join("subnet.env")).unwrap();
    let pod = Namespace::create().unwrap();
    let out = node.call("ADD", "c1", Some(&pod), &node.conf(), PLUGINS);
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((out.status.success(), &told["code"]), (false, &json!(11)), "{told}");
    assert!(!node.data().join("c1").exists(), "nothing was begun");
}

#[test]
fn a_damaged_file_and_a_type_that_leads_elsewhere_are_refused() {
    let node = Node::new();
    fs::create_dir_all(node.data()).unwrap();
    for (kept, told) in [("{", "is damaged"), (r#"{"type":"../../bin/sh"}"#, "is no plugin")] {
        fs::write(node.data().join("c1"), kept).unwrap();
        let out = node.call("DEL", "c1", None, &node.conf(), PLUGINS);
        assert!(!out.status.success() && error(&out).contains(told), "{out:?}");
        assert!(node.data().join("c1").exists());
    }
}

#[test]
fn versions_are_those_of_our_own_plugin() {
    let node = Node::new();
    let told = node.good("VERSION", "c1", None, &json!({"cniVersion": "1.0.0"}));
    assert_eq!(told["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

/// A node with what flannel, or our agent, has written.
struct Node {
    netns: Namespace,
    folder: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { netns: Namespace::create().unwrap(), folder: TempDir::new().unwrap() };
        ip(&node.netns, "link set lo up");
        let env = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n\
                   FLANNEL_IPMASQ=true\n";
        fs::write(node.folder.path().join("subnet.env"), env).unwrap();
        symlink(env!("CARGO_BIN_EXE_russet-cni"), node.plugin()).unwrap();
        node
    }

    fn plugin(&self) -> PathBuf {
        self.folder.path().join("flannel")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn conf(&self) -> Value {
        json!({
            "name": "cbr0", "cniVersion": "0.4.0", "type": "flannel",
            "subnetFile": self.folder.path().join("subnet.env"), "dataDir": self.data(),
            "ipam": {"dataDir": self.folder.path().join("networks")},
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        })
    }

    /// The addresses that host-local has given.
    fn leased(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("networks/cbr0")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }

    fn good(&self, command: &str, container: &str, pod: Option<&Namespace>, conf: &Value) -> Value {
        let out = self.call(command, container, pod, conf, PLUGINS);
        assert!(out.status.success(), "{command}: {out:?}");
        serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
    }

    fn call(
        &self,
        command: &str,
        container: &str,
        pod: Option<&Namespace>,
        conf: &Value,
        search: &str,
    ) -> Output {
        self.run(&self.plugin(), command, container, pod, conf, search)
    }

    #[expect(clippy::too_many_arguments, reason = "a call of a plugin is that much")]
    fn run(
        &self,
        plugin: &Path,
        command: &str,
        container: &str,
        pod: Option<&Namespace>,
        conf: &Value,
        search: &str,
    ) -> Output {
        let mut call = Command::new(plugin);
        call.env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", search)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(pod) = pod {
            call.env("CNI_NETNS", pod.path());
        }
        let conf = conf.to_string();
        let run = move || {
            let mut child = call.spawn().expect("start the plugin");
            child.stdin.take().unwrap().write_all(conf.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        };
        self.netns.run(run).unwrap()
    }
}

fn error(out: &Output) -> String {
    let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    told["msg"].as_str().unwrap_or_default().to_owned()
}

/// What `ip` says in a namespace.
fn ip(netns: &Namespace, words: &str) -> String {
    let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
    let run = move || Command::new("ip").args(words).output().expect("start ip");
    let out = netns.run(run).unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

const PLUGINS: &str = "/usr/lib/cni";
