//! End to end: podman and containerd get working pods from what `russet cni install` writes.
//!
//! Each test brings up a lab of two nodes with the built binaries, and runs the runtime on n1, which has its own
//! mounts and process numbers: whatever a runtime leaves behind, processes, mounts, files, ends with the lab,
//! and that is taken down when the test fails, too.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use russet_net::Prefix;
use serde_json::Value;

#[test]
fn podman_gets_working_pods() {
    let lab = Lab::up(PODMAN);
    podman(&lab, &["load", "--input", IMAGE_ARCHIVE]);
    let run = ["run", "--detach", "--network", "russet", "--name", "web"];
    let container = podman(&lab, &[&run[..], &[IMAGE, "sleep", "1000"]].concat());

    let pod = lab.pod();
    assert_eq!(pod.container, container.trim(), "the container's own number is on record");
    assert!(lab.subnet().contains(pod.address), "{} is of the node's subnet", pod.address);
    check_pod(&lab, &pod, |words| podman(&lab, &[&["exec", "web"], words].concat()));
    let told = podman(&lab, &["inspect", "web"]);
    assert!(told.contains(&format!("\"IPAddress\": \"{}\"", pod.address)), "{told}");

    podman(&lab, &["rm", "--force", "--time", "0", "web"]);
    lab.eventually_gone(&pod);
}

#[test]
fn podman_gets_the_addresses_that_it_asks_for() {
    let lab = Lab::up(PODMAN);
    podman(&lab, &["load", "--input", IMAGE_ARCHIVE]);
    let subnet = lab.subnet();
    let asked = subnet.nth(77).expect("a subnet of 256");
    let (ip, mac) = (asked.to_string(), "02:00:00:00:00:77");
    let run = ["run", "--detach", "--name", "web", "--network", "russet"];
    let own = ["--ip", &ip, "--mac-address", mac, IMAGE, "sleep", "1000"];
    podman(&lab, &[&run[..], &own].concat());

    let pod = lab.pod();
    assert_eq!(pod.address, asked);
    check_pod(&lab, &pod, |words| podman(&lab, &[&["exec", "web"], words].concat()));
    let link = podman(&lab, &["exec", "web", "ip", "link", "show", "eth0"]);
    assert!(link.contains(mac), "{link}");

    // Somebody else cannot have it meanwhile, and the refusal leaves nothing behind.
    let run = ["podman", "run", "--rm", "--network", "russet", "--ip", &ip, IMAGE, "ip", "addr"];
    let refused = lab.run("n1", &run);
    assert!(!refused.status.success() && errors(&refused).contains(&ip), "{}", errors(&refused));
    assert_eq!(lab.pod(), pod, "the only one still");

    podman(&lab, &["rm", "--force", "--time", "0", "web"]);
    lab.eventually_gone(&pod);
}

#[test]
fn podman_publishes_ports_when_the_portmap_plugin_is_there() {
    let portmap = ("/usr/lib/cni/portmap", "containernetworking-plugins");
    let lab = Lab::up(&[PODMAN, &[portmap, ("iptables", "iptables")]].concat());
    lab.ok("n1", &["cp", portmap.0, "/opt/cni/bin"]);
    lab.ok("n1", &["russet", "cni", "install"]);
    podman(&lab, &["load", "--input", IMAGE_ARCHIVE]);
    let run = ["run", "--detach", "--network", "russet", "--name", "web", "--publish", "8080:80"];
    let server = ["busybox", "nc", "-ll", "-p", "80", "-e", "echo", "hello"];
    podman(&lab, &[&run[..], &[IMAGE], &server].concat());

    let pod = lab.pod();
    let ask = ["busybox", "nc", "-w", "3", N1, "8080"];
    lab.eventually("an answer from n1's port", || lab.run("n2", &ask).stdout == b"hello\n");

    podman(&lab, &["rm", "--force", "--time", "0", "web"]);
    lab.eventually_gone(&pod);
    assert!(!lab.run("n2", &ask).status.success(), "the port is closed");
    let rules = lab.ok("n1", &["iptables", "-t", "nat", "-S"]);
    assert!(!rules.contains("8080"), "{rules}");
}

#[test]
fn containerd_gets_working_pods() {
    let lab = Lab::up(&[("containerd", "containerd"), ("ctr", "containerd"), ("crun", "crun")]);
    let _containerd = lab.begin("n1", CONTAINERD);
    lab.eventually("containerd answers", || lab.run("n1", &["ctr", "version"]).status.success());
    // Any file system will do for the snapshots of this one.
    let native = ["--snapshotter", "native"];
    let import = ["ctr", "image", "import"];
    lab.ok("n1", &[&import[..], &native, &[IMAGE_ARCHIVE]].concat());
    // Not detached: a detached `ctr run` leaves the network to whoever removes the task, and `ctr` does not.
    let run = ["ctr", "run", "--cni", "--rm", "--runc-binary", "/run/runtime/runc"];
    let run = [&run[..], &native, &[IMAGE, "web", "/bin/sleep", "1000"]].concat();
    let mut running = lab.begin("n1", &run);
    lab.eventually("a task that runs", || {
        assert!(running.is_running(), "{}", running.errors());
        lab.ok("n1", &["ctr", "task", "ls"]).contains("RUNNING")
    });

    let pod = lab.pod();
    assert_eq!(pod.container, "default-web", "containerd's namespace and the container's name");
    assert!(lab.subnet().contains(pod.address), "{} is of the node's subnet", pod.address);
    let mut calls = 0;
    check_pod(&lab, &pod, |words| {
        calls += 1;
        let id = format!("call-{calls}");
        lab.ok("n1", &[&["ctr", "task", "exec", "--exec-id", &id, "web"], words].concat())
    });

    lab.ok("n1", &["ctr", "task", "kill", "--signal", "KILL", "web"]);
    lab.eventually("the end of `ctr run`", || !running.is_running());
    assert_eq!(running.errors(), "", "DEL is content");
    lab.eventually_gone(&pod);
}

/// The pod is what its record says, and talks with one on another node, in both directions.
fn check_pod(lab: &Lab, pod: &Pod, mut inside: impl FnMut(&[&str]) -> String) {
    let address = pod.address.to_string();
    let shown = inside(&["ip", "-4", "addr", "show", "eth0"]);
    assert!(shown.contains(&format!("inet {address}/24 ")), "{address} is not in {shown}");
    let routes = inside(&["ip", "route"]);
    let gateway = lab.subnet().nth(1).expect("a first address");
    assert!(routes.contains(&format!("default via {gateway} dev eth0")), "{routes}");

    let record = lab.ok("n1", &["cat", &record(pod.address)]);
    assert_eq!(record, format!("{}\r\neth0", pod.container), "host-local's form");
    assert_eq!(lab.bridge_ports(), [&*pod.host_link]);

    let far = lab.far.to_string();
    let told = inside(&[&["ping"], &PING[..], &[&far]].concat());
    assert!(told.contains("3 packets received"), "{told}");
    let told = lab.ok("far", &[&["busybox", "ping"], &PING[..], &[&address]].concat());
    assert!(told.contains("3 packets received"), "{told}");
}

fn podman(lab: &Lab, words: &[&str]) -> String {
    lab.ok("n1", &[&["podman"], words].concat())
}

fn record(address: IpAddr) -> String {
    format!("/var/lib/cni/networks/russet/{address}")
}

/// A lab of this test's own.
struct Lab {
    home: tempfile::TempDir,
    /// The address of the pod on the other node.
    far: IpAddr,
}

/// What the agent on n1 knows of its only pod.
#[derive(Debug, PartialEq, Eq)]
struct Pod {
    container: String,
    address: IpAddr,
    host_link: String,
}

impl Lab {
    /// Brings the lab up with the plugin installed on n1. `needed` are programs and their packages.
    fn up(needed: &[(&str, &str)]) -> Self {
        for (program, package) in needed.iter().chain(&[("busybox", "busybox-static")]) {
            assert!(find(program).is_some(), "{program} is missing: install the package {package}");
        }
        let plugin = Path::new(env!("CARGO_BIN_EXE_russet")).with_file_name("russet-cni");
        assert!(plugin.is_file(), "{} is missing: cargo build --bins", plugin.display());
        let home = tempfile::Builder::new().prefix("runtimes").tempdir().expect("a folder");
        let mut lab = Self { home, far: Ipv4Addr::UNSPECIFIED.into() };
        let file = folder().join("two-nodes.yaml");
        let up = lab.lab(&["up"]).arg(file).output().expect("start russet");
        assert!(up.status.success(), "{}", errors(&up));
        lab.far = lab.address_of_far();
        let busybox = find("busybox").expect("looked for above").display().to_string();
        let prepare = folder().join("prepare.sh").display().to_string();
        lab.ok("n1", &["sh", &prepare, &busybox]);
        lab.ok("n1", &["russet", "cni", "install"]);
        lab
    }

    fn address_of_far(&self) -> IpAddr {
        let out = self.lab(&["status", "--json"]).output().expect("start russet");
        let status: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let address = status["pods"][0]["addresses"][0].as_str().expect("an address");
        address.parse().expect("an IP address")
    }

    fn lab(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_russet"));
        command.arg("lab").args(words).env("XDG_RUNTIME_DIR", self.home.path());
        command.stdin(Stdio::null());
        command
    }

    /// A command inside that ends by itself if it hangs.
    fn command(&self, place: &str, words: &[&str]) -> Command {
        let mut command = self.lab(&["exec", place, "--", "env"]);
        command.args(ENV).args(["timeout", "--kill-after=5", "120"]).args(words);
        command
    }

    fn run(&self, place: &str, words: &[&str]) -> Output {
        self.command(place, words).output().expect("start russet")
    }

    /// Runs a command that must work; its output comes back.
    fn ok(&self, place: &str, words: &[&str]) -> String {
        let out = self.run(place, words);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{words:?}: {}\n{text}\n{}", out.status, errors(&out));
        text.into_owned()
    }

    fn begin(&self, place: &str, words: &[&str]) -> Running {
        let name = words[..2].join("-").replace('/', "-");
        let log = self.home.path().join(format!("{name}.log"));
        let file = fs::File::create(&log).expect("a log");
        let mut command = self.command(place, words);
        let child = command.stdout(Stdio::null()).stderr(file).spawn().expect("start russet");
        Running { child, log }
    }

    /// The subnet of n1, as flannel's file tells it.
    fn subnet(&self) -> Prefix {
        let text = self.ok("n1", &["cat", "/run/flannel/subnet.env"]);
        let subnet = text.lines().find_map(|line| line.strip_prefix("FLANNEL_SUBNET="));
        let (first, len) = subnet.and_then(|subnet| subnet.split_once('/')).expect("a subnet");
        let (first, len) = (first.parse().expect("an address"), len.parse().expect("a length"));
        Prefix::around(first, len).expect("a subnet")
    }

    fn pods(&self) -> Vec<Pod> {
        let told = self.ok("n1", &["russet", "get", "pods", "-o", "json"]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let pod = |pod: &Value| {
            assert_eq!(pod["addresses"].as_array().map(Vec::len), Some(1), "{pod}");
            Pod {
                container: text(&pod["container"]),
                address: text(&pod["addresses"][0]).parse().expect("an address"),
                host_link: text(&pod["host_link"]),
            }
        };
        told.as_array().expect("a list").iter().map(pod).collect()
    }

    /// The only pod.
    fn pod(&self) -> Pod {
        let mut pods = self.pods();
        assert_eq!(pods.len(), 1, "{pods:?}");
        pods.remove(0)
    }

    fn bridge_ports(&self) -> Vec<String> {
        let told = self.ok("n1", &["ip", "-json", "link", "show", "master", "cni0"]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        let name = |link: &Value| Some(link.get("ifname")?.as_str()?.to_owned());
        told.as_array().expect("a list").iter().filter_map(name).collect()
    }

    /// Nothing is left of a pod: no record, no link, not the agent's memory.
    fn eventually_gone(&self, pod: &Pod) {
        self.eventually("no pod", || self.pods().is_empty());
        self.eventually("no link", || {
            !self.run("n1", &["ip", "link", "show", &pod.host_link]).status.success()
        });
        self.eventually("no record", || {
            let folder = self.ok("n1", &["ls", "/var/lib/cni/networks/russet"]);
            !folder.lines().any(|name| name == pod.address.to_string())
        });
        assert_eq!(self.bridge_ports(), [""; 0]);
    }

    fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !holds() {
            let logs = self.home.path().join("russet-lab/runtimes/logs/n1.agent.log");
            let told = || fs::read_to_string(&logs).unwrap_or_default();
            assert!(Instant::now() < until, "not within 10 s: {what}\n{}", told());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.lab(&["down", "--all"]).output();
        if !thread::panicking() {
            let down = down.expect("start russet");
            assert!(down.status.success(), "{}", errors(&down));
        }
    }
}

/// A command that goes on while the test does; the lab ends it when we drop it.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn errors(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtimes")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = env::split_paths(&path).chain(also);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What podman needs, with the packages.
const PODMAN: &[(&str, &str)] = &[("podman", "podman"), ("conmon", "conmon"), ("crun", "crun")];
/// As the lab numbers its nodes.
const N1: &str = "192.168.1.11";
const PING: [&str; 6] = ["-c", "3", "-i", "0.1", "-W", "5"];
const IMAGE: &str = "localhost/busybox:test";
const IMAGE_ARCHIVE: &str = "/run/runtime/image.tar";
/// Storage that needs nothing of the kernel; `containers.conf` cannot say it.
const ENV: [&str; 3] = [
    "CONTAINERS_CONF=/run/runtime/containers.conf",
    "STORAGE_DRIVER=vfs",
    "CONTAINERD_ADDRESS=/run/containerd/containerd.sock",
];
const CONTAINERD: &[&str] = &["containerd", "--config=/run/runtime/containerd.toml"];
