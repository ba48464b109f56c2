//! A node in a namespace of its own, with the agent's CNI server in it, and the built plugin to ask it.

use std::{
    collections::BTreeMap,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use russet_agent::{
    cni::{Core, Server, ServerSettings, fake::FakeCore},
    disk::{Disk, Files},
};
use russet_core::model::{PodFact, PodId, PodNetwork, PodSide};
use russet_desired::Flag;
use russet_kernel::netns::Namespace;
use russet_net::{Mtu, Prefix};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a kubelet says of the pod `podname` in `namespace`.
const K8S: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=namespace;K8S_POD_NAME=podname;\
    K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=5d6";

/// The name of the network in every configuration here.
pub(crate) const NET: &str = "lab";

/// A node with the bridge and its gateway addresses, as the agent makes them.
pub(crate) struct Node {
    pub(crate) netns: Namespace,
    pub(crate) core: Arc<FakeCore>,
    pub(crate) folder: TempDir,
    server: Option<Server>,
}

impl Node {
    /// A node whose agent runs.
    pub(crate) fn new() -> Self {
        let mut node = Self::without_agent();
        node.start();
        node
    }

    pub(crate) fn without_agent() -> Self {
        let netns = Namespace::create().unwrap();
        for command in [
            "link set lo up",
            "link add cni0 address 0a:58:0a:32:07:01 type bridge",
            "addr add 10.50.7.1/24 dev cni0",
            "addr add fd00:50::1/64 dev cni0 nodad",
            "link set cni0 up",
        ] {
            ip(&netns, command);
        }
        let core = Arc::new(FakeCore::new(Ok(network())));
        Self { netns, core, folder: TempDir::new().unwrap(), server: None }
    }

    /// Starts the agent, or starts it anew, and returns the pods that it found.
    pub(crate) fn start(&mut self) -> BTreeMap<PodId, PodFact> {
        self.start_in("boot-1")
    }

    pub(crate) fn start_in(&mut self, boot: &str) -> BTreeMap<PodId, PodFact> {
        self.start_on(Arc::new(Files), boot)
    }

    pub(crate) fn start_on(&mut self, disk: Arc<dyn Disk>, boot: &str) -> BTreeMap<PodId, PodFact> {
        self.stop();
        let settings = ServerSettings {
            socket: self.socket(),
            spool: self.spool(),
            records: self.folder.path().join("networks"),
        };
        let core: Arc<dyn Core> = Arc::clone(&self.core) as _;
        let start = || Server::start_on(disk, &settings, boot, core);
        let (server, pods) = self.netns.run(start).unwrap().unwrap();
        self.server = Some(server);
        pods.into_iter().collect()
    }

    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("cni.sock")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.folder.path().join("networks").join(NET)
    }

    /// The addresses on record, and whose they are.
    pub(crate) fn recorded(&self) -> BTreeMap<IpAddr, String> {
        let Ok(entries) = std::fs::read_dir(self.records()) else { return BTreeMap::new() };
        let record = |entry: std::fs::DirEntry| {
            let ip = entry.file_name().to_str()?.parse().ok()?;
            Some((ip, std::fs::read_to_string(entry.path()).ok()?))
        };
        entries.filter_map(|entry| record(entry.unwrap())).collect()
    }

    /// The pods' links on the node.
    pub(crate) fn links(&self) -> Vec<String> {
        let text = ip(&self.netns, "-o link show type veth");
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        names
            .filter_map(|name| name.split('@').next())
            .filter(|n| n.starts_with("rst") || n.starts_with("cali"))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn conf(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": NET, "type": "russet-cni",
            "socket": self.socket(), "spool": self.spool(),
        })
    }

    /// Runs the plugin for a container.
    pub(crate) fn call(
        &self,
        command: &str,
        container: &str,
        netns: Option<&Path>,
        conf: &Value,
    ) -> Answer {
        let mut env = vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/usr/lib/cni".to_owned()),
        ];
        env.extend(netns.map(|path| ("CNI_NETNS", path.display().to_string())));
        let conf = conf.to_string();
        let run = || plugin(env!("CARGO_BIN_EXE_russet-cni"), &env, conf.as_bytes());
        self.netns.run(run).unwrap()
    }

    /// Runs a plugin of any name as Kubernetes would. `what` is the command, and the container and the interface where
    /// they are not the usual ones.
    pub(crate) fn call_named(
        &self,
        name: &Path,
        what: &str,
        netns: Option<&Path>,
        conf: &Value,
    ) -> Answer {
        self.call_with(name, what, K8S, netns, conf)
    }

    /// The same with other `CNI_ARGS`.
    pub(crate) fn call_with(
        &self,
        name: &Path,
        what: &str,
        args: &str,
        netns: Option<&Path>,
        conf: &Value,
    ) -> Answer {
        let mut what = what.split(' ');
        let mut word = |usual: &str| what.next().unwrap_or(usual).to_owned();
        let mut env = vec![
            ("CNI_COMMAND", word("ADD")),
            ("CNI_CONTAINERID", word("c0ffee")),
            ("CNI_IFNAME", word("eth0")),
            ("CNI_PATH", "/usr/lib/cni".to_owned()),
            ("CNI_ARGS", args.to_owned()),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ];
        env.extend(netns.map(|path| ("CNI_NETNS", path.display().to_string())));
        let conf = conf.to_string();
        self.netns.run(|| plugin(name.to_str().unwrap(), &env, conf.as_bytes())).unwrap()
    }

    pub(crate) fn add(&self, container: &str, pod: &Namespace) -> Value {
        self.call("ADD", container, Some(&pod.path()), &self.conf()).good()
    }

    pub(crate) fn del(&self, container: &str) {
        self.call("DEL", container, None, &self.conf()).good();
    }
}

/// What a plugin answered.
#[derive(Debug)]
pub(crate) struct Answer {
    output: Output,
}

impl Answer {
    /// The result of a call that was served; null where it says nothing.
    pub(crate) fn good(self) -> Value {
        assert!(self.output.status.success(), "{:?}", self.output);
        serde_json::from_slice(&self.output.stdout).unwrap_or(Value::Null)
    }

    /// What it said to whoever reads the runtime's log.
    pub(crate) fn told(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The code and message of a call that was not.
    pub(crate) fn bad(self) -> (u64, String) {
        assert!(!self.output.status.success(), "{:?}", self.output);
        let error: Value = serde_json::from_slice(&self.output.stdout).unwrap();
        let details = error["details"].as_str().unwrap_or_default();
        (error["code"].as_u64().unwrap(), format!("{} {details}", error["msg"].as_str().unwrap()))
    }
}

/// Runs a plugin as a runtime does.
pub(crate) fn plugin(path: &str, env: &[(&str, String)], conf: &[u8]) -> Answer {
    let mut child = Command::new(path)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin may refuse before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(conf);
    Answer { output: child.wait_with_output().unwrap() }
}

/// Runs `ip` in a namespace.
pub(crate) fn ip(netns: &Namespace, args: &str) -> String {
    let run = || Command::new("ip").args(args.split(' ')).output().unwrap();
    let output = netns.run(run).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until something is so, for 10 s at most.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < until, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn network() -> PodNetwork {
    let subnets: Vec<Prefix> =
        ["10.50.7.0/24", "fd00:50::/64"].map(|text| text.parse().unwrap()).into();
    PodNetwork {
        side: PodSide::Bridge { bridge: "cni0".parse().unwrap(), hairpin: Flag::On },
        links: "rst",
        mtu: Mtu::try_from(1_450).unwrap(),
        subnets,
    }
}
