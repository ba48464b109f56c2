//! Labs for real: namespaces, processes, packets. The host's network is looked at before and after.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use russet_lab::{
    control::{Client, Reply, Request},
    probe::Summary,
    topology::form::CutHow,
};

#[test]
fn nodes_meet_through_the_router_and_the_host_sees_nothing_of_it() {
    let before = host_links();
    let user = User::new("meet");
    user.ok(&["lab", "up", user.file(PLAIN)]);

    let ping =
        ["lab", "exec", "n1", "--", &user.lab, "probe", "ping", "--count", "3", "--interval", "5"];
    user.ok(&[&ping[..], &["--to", "192.168.2.12"]].concat());
    user.ok(&[&ping[..], &["--to", "fd00:2::12"]].concat());
    user.ok(&[
        "lab",
        "exec",
        "n2",
        "--",
        &user.lab,
        "probe",
        "udp",
        "--to",
        "fd00:1::11",
        "--count",
        "1",
    ]);
    user.ok(&[
        "lab",
        "exec",
        "n2",
        "--",
        &user.lab,
        "probe",
        "tcp",
        "--to",
        "192.168.1.11",
        "--count",
        "1",
    ]);
    let stream = ["probe", "stream", "--seconds", "1", "--to", "192.168.1.11"];
    let told = user.ok(&[&["lab", "exec", "n2", "--", &user.lab], &stream[..]].concat());
    assert!(told.contains("Mbit/s"), "{told}");

    assert_eq!(host_links(), before, "the host's links are as they were");
    user.ok(&["lab", "down"]);
    assert_eq!(user.ok(&["lab", "list"]), "");
}

#[test]
fn a_node_has_its_own_folders_name_and_sysctls() {
    let user = User::new("own");
    user.ok(&["lab", "up", user.file(PLAIN)]);
    let sh = |script: &str| user.ok(&["lab", "exec", "n1", "--", "sh", "-c", script]);

    assert_eq!(sh("cat /run/here /etc/hosts"), "a file of n1\nhosts of n1\n");
    assert_eq!(sh("hostname || cat /proc/sys/kernel/hostname").trim(), "n1");
    assert_eq!(sh("ls /etc/cni/net.d").trim(), "10-russet.conflist");
    assert!(sh("cat /etc/russet/agent.toml").contains("node = \"n1\""));
    assert_eq!(
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv4/ip_forward"),
        "1\n"
    );
    let other = user.ok(&[
        "lab",
        "exec",
        "n2",
        "--",
        "sh",
        "-c",
        "ls /run; cat /proc/sys/net/ipv4/ip_forward",
    ]);
    assert!(!other.contains("here") && other.ends_with("0\n"), "{other}");

    let out = user.run(&["lab", "exec", "n1", "--", "sh", "-c", "exit 7"]);
    assert_eq!(out.status.code(), Some(7), "the command's status is ours");
    user.ok(&["lab", "down"]);
    assert!(!Path::new("/run/here").exists(), "the host's /run is untouched");
}

#[test]
fn what_a_cut_link_loses_is_counted_by_number() {
    for how in [CutHow::Carrier, CutHow::Silent] {
        let user = User::new("cut");
        user.ok(&["lab", "up", user.file(PLAIN)]);
        let client = Client::new(&user.dir("plain"));
        let mut prober = user.begin(&[
            "lab",
            "exec",
            "n1",
            "--",
            &user.lab,
            "probe",
            "udp",
            "--to",
            "192.168.2.12",
            "--count",
            "0",
            "--interval",
            "5",
            "--timeout",
            "500",
            "--until-eof",
            "--json",
        ]);
        eventually("the first answer", || user.errors().contains("first answer"));
        let link = "n2".to_owned();
        client.ask(&Request::Cut { link: link.clone(), how }).unwrap();
        let reach = ["lab", "exec", "n1", "--", &user.lab, "probe", "ping", "--to", "192.168.2.12"];
        let once = [&reach[..], &["--count", "1", "--timeout", "300"]].concat();
        eventually("no way", || !user.run(&once).status.success());
        client.ask(&Request::Heal { link: None }).unwrap();
        eventually("the way back", || user.run(&once).status.success());

        drop(prober.stdin.take());
        let mut text = String::new();
        prober.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(prober.wait().unwrap().success());
        let summary: Summary = serde_json::from_str(&text).unwrap();
        assert!(summary.lost > 10, "{how:?}: {summary:?}");
        assert!(
            summary.received > 0 && summary.lost + summary.received == summary.sent,
            "{summary:?}"
        );
        assert!(!summary.lost_numbers.is_empty(), "{summary:?}");
        user.ok(&["lab", "down"]);
    }
}

#[test]
fn a_whole_scenario_holds_as_root_and_as_nobody() {
    let user = User::new("scenario");
    let told = user.ok(&["lab", "run", user.file(BY_HAND)]);
    assert!(told.contains("all 14 hold"), "{told}");
    assert!(told.contains("always c reaches a by udp, IPv4: 0 of"), "{told}");

    let nobody = User::nobody("scenario-nobody");
    let told = nobody.ok(&["lab", "run", nobody.file(BY_HAND)]);
    assert!(told.contains("all 14 hold"), "{told}");
}

#[test]
fn what_does_not_hold_is_told_with_its_reason_and_the_logs() {
    let user = User::new("fails");
    let text = format!(
        "{PLAIN}expect:
  - eventually: {{within: 300ms, reach: {{from: n1, to: 192.168.2.99}}}}
  - eventually: {{within: 300ms, route: {{node: n1, dst: 10.9.0.0/16}}}}
  - eventually: {{within: 300ms, output: {{on: n2, command: [echo, hello], contains: bye}}}}
  - eventually: {{reach: {{from: n1, to: n2}}}}
"
    );
    let out = user.run(&["lab", "run", user.file(&text)]);
    let told = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{told}");
    for wanted in [
        "FAIL  n1 reaches 192.168.2.99",
        "default via",
        "\"bye\" is not in: hello",
        "--- n1.talker\nI run on n1\n",
        "3 failed, 1 held",
    ] {
        let wanted = wanted.replace("default via", "0.0.0.0/0 via 192.168.1.1 dev eth0");
        assert!(told.contains(&wanted), "{wanted:?} is not in:\n{told}");
    }
}

#[test]
fn packets_of_vxlan_are_shown_with_both_their_headers() {
    let user = User::new("capture");
    let text = BY_HAND.split("steps:").next().unwrap();
    user.ok(&["lab", "up", user.file(text)]);
    let pcap = user.home.path().join("x.pcap");
    let pcap = pcap.to_str().unwrap();
    let capture = ["lab", "capture", "n1/eth0", "--vxlan", "-c", "2", "--pcap", pcap];
    let capture = user.begin(&capture);
    let ping = ["probe", "ping", "--count", "200", "--interval", "10", "--to", "10.244.3.2"];
    let mut pinging = user.begin(&[&["lab", "exec", "a", "--", &user.lab], &ping[..]].concat());
    let out = capture.wait_with_output().unwrap();
    let _ = pinging.kill();
    let _ = pinging.wait();

    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}");
    for wanted in [
        "IPv4      192.168.1.11 → 192.168.2.13  ttl 64",
        "VXLAN     VNI 1  flags 0x08",
        "    IPv4      10.244.1.2 → 10.244.3.2  ttl 63",
        "    ICMP      echo request",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
    let read =
        Command::new("tcpdump").args(["-n", "-r", pcap]).output().expect("tcpdump is installed");
    let read = String::from_utf8_lossy(&read.stdout);
    assert!(read.contains("10.244.1.2 > 10.244.3.2: ICMP echo request"), "{read}");
    user.ok(&["lab", "down"]);
}

#[test]
fn a_lab_ends_with_the_one_that_plays_it() {
    let user = User::new("killed");
    let text = format!("{PLAIN}steps: [wait: 60s]\n");
    let mut player = user.begin(&["lab", "run", user.file(&text)]);
    let client = Client::new(&user.dir("plain"));
    eventually("the lab", || client.is_alive());
    let Ok(Reply::Status(_)) = client.ask(&Request::Status) else { panic!("it does not answer") };

    player.kill().unwrap();
    player.wait().unwrap();
    eventually("its end", || !client.is_alive());
    // What it left behind is no obstacle.
    user.ok(&["lab", "up", user.file(PLAIN)]);
    user.ok(&["lab", "down"]);
}

#[test]
fn a_refused_topology_names_every_fault_and_ends_with_64() {
    let user = User::new("refused");
    let text =
        "name: x\nunderlay: {subnets: [{name: lan, ipv4: 10.0.0.1/24}]}\nnodes: [{nam: n1}]\n";
    let out = user.run(&["lab", "up", user.file(text)]);
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(64), "{told}");
    assert!(told.contains("line 2: underlay.subnets[0].ipv4"), "{told}");
    assert!(told.contains("line 3: nodes[0].nam: there is no key `nam` here"), "{told}");
}

#[test]
fn a_need_that_is_not_met_is_named() {
    // Loading eBPF programs is for the real root, and nobody is none.
    let user = User::nobody("needs");
    let out = user.run(&["lab", "up", user.file(&format!("{PLAIN}needs: [vxlan, bpf]\n"))]);
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert!(told.contains("this machine lacks what the topology needs: bpf (only root"), "{told}");
}

#[test]
fn the_store_gets_the_configuration_and_what_steps_apply() {
    let user = User::new("store");
    let out = user.ok(&["lab", "run", user.file(ETCD)]);
    assert!(out.contains("store at 192.168.1.11:2379"), "{out}");
    assert!(out.contains("all 1 hold"), "{out}");
}

#[test]
fn the_schema_in_the_documentation_is_the_present_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lab/topology.schema.json");
    let written = fs::read_to_string(&path).unwrap();
    let now = format!("{:#}\n", russet_lab::topology::Topology::schema());
    assert_eq!(written, now, "renew it: russet lab schema > docs/lab/topology.schema.json");
}

/// Somebody with a home of their own, where their labs are; so tests do not meet.
struct User {
    home: tempfile::TempDir,
    lab: String,
    prefix: Vec<&'static str>,
    file: String,
}

impl User {
    fn new(name: &str) -> Self {
        Self::with(name, Vec::new())
    }

    /// Without root's rights, whoever we are.
    fn nobody(name: &str) -> Self {
        let root = rustix::process::geteuid().is_root();
        let prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        Self::with(name, if root { prefix.to_vec() } else { Vec::new() })
    }

    fn with(name: &str, prefix: Vec<&'static str>) -> Self {
        let home = tempfile::Builder::new().prefix(name).tempdir_in("/tmp").unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // Where everybody can run it.
        let lab = home.path().join("lab");
        // Another program writes it: a descriptor of ours could be inherited by a child that another test
        // starts in that moment, and a file that is open for writing cannot be run.
        let copied = Command::new("cp").arg(example()).arg(&lab).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(&lab, fs::Permissions::from_mode(0o755)).unwrap();
        let file = home.path().join("topology.yaml").display().to_string();
        Self { lab: lab.display().to_string(), home, prefix, file }
    }

    fn file(&self, text: &str) -> &str {
        fs::write(&self.file, text).unwrap();
        &self.file
    }

    fn dir(&self, lab: &str) -> PathBuf {
        self.home.path().join("russet-lab").join(lab)
    }

    fn command(&self, args: &[&str]) -> Command {
        let all: Vec<&str> =
            self.prefix.iter().copied().chain([&*self.lab]).chain(args.iter().copied()).collect();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).env("XDG_RUNTIME_DIR", self.home.path());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let (text, errors) =
            (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{args:?}: {}\n{text}\n{errors}", out.status);
        text.into_owned()
    }

    /// Begins a command; its standard error is in [`Self::errors`].
    fn begin(&self, args: &[&str]) -> Child {
        let errors = fs::File::create(self.home.path().join("errors")).unwrap();
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap()
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.home.path().join("errors")).unwrap()
    }
}

impl Drop for User {
    /// A test that failed leaves its lab up.
    fn drop(&mut self) {
        let _ = self.run(&["lab", "down", "--all"]);
    }
}

/// The lab's own program, built beside this test.
fn example() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/lab")
}

fn host_links() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

const PLAIN: &str = "
name: plain
underlay:
  subnets:
    - {name: left, ipv4: 192.168.1.0/24, ipv6: 'fd00:1::/64'}
    - {name: right, ipv4: 192.168.2.0/24, ipv6: 'fd00:2::/64'}
nodes:
  - name: n1
    subnet: left
    files: {/run/here: \"a file of n1\\n\", /etc/hosts: \"hosts of n1\\n\"}
    runs: [{name: talker, command: [sh, -c, 'echo I run on {node}; exec sleep 1000']}]
  - {name: n2, subnet: right}
";

const BY_HAND: &str = "
name: by-hand
needs: [vxlan]
underlay:
  subnets:
    - {name: left, ipv4: 192.168.1.0/24}
    - {name: right, ipv4: 192.168.2.0/24}
nodes:
  - {name: n1, subnet: left, runs: [{name: nap, command: [sleep, '1000']}]}
  - {name: n2, subnet: left}
  - {name: n3, subnet: right}
pods:
  - {name: a, node: n1}
  - {name: b, node: n2}
  - {name: c, node: n3}
wired: {transport: vxlan}
steps:
  - kill: {node: n1, process: nap}
  - start: {node: n1, process: nap}
  - cut: {link: n2, how: silent}
  - expect: {not_reach: {from: a, to: b}}
  - heal: {}
  - delete_route: {node: n2, within: 10.244.1.0/24}
  - expect: {not_reach: {from: a, to: b}}
  - exec: {on: n2, command: [ip, route, add, 10.244.1.0/24, via, 10.244.1.0, dev, flannel.1, onlink]}
  - expect: {reach: {from: a, to: b}}
  - remove_pod: b
  - expect: {not_reach: {from: a, to: 10.244.2.2}}
  - add_pod: b
expect:
  - eventually: {reach: {from: a, to: b}}
  - eventually: {reach: {from: a, to: c, by: tcp}}
  - eventually: {reach: {from: a, to: c, by: udp}}
  - eventually:
      packet:
        on: n1/eth0
        while: {from: a, to: c}
        fields: {vni: 1, outer.src: n1, outer.dst: n3, outer.port: 8472, inner.src: a, inner.dst: c, inner.proto: icmp}
  - eventually: {route: {node: n1, within: 10.244.0.0/16, link: flannel.1, count: 2}}
  - eventually: {counter: {on: n1/flannel.1, name: tx_packets, at_least: 1}}
  - always: {reach: {from: a, to: c}}
  - always: {reach: {from: c, to: a, by: udp}, lost: 0}
";

const ETCD: &str = "
name: etcd
needs: [etcd]
underlay: {subnets: [{name: lan, ipv4: 192.168.1.0/24}]}
nodes:
  - {name: n1, runs: [etcd]}
  - {name: n2}
config: {Network: 10.244.0.0/16, Backend: {Type: vxlan}}
steps:
  - apply: {key: /coreos.com/network/more, value: [1, two]}
  - exec: {on: n2, command: [sh, -c, 'ETCDCTL_API=3 etcdctl --endpoints http://192.168.1.11:2379 get --prefix /coreos.com/network --print-value-only'], contains: '[1,\"two\"]'}
expect:
  - eventually:
      when: after
      output:
        on: n2
        command: [sh, -c, 'ETCDCTL_API=3 etcdctl --endpoints http://192.168.1.11:2379 get /coreos.com/network/config']
        contains: '{\"Backend\":{\"Type\":\"vxlan\"},\"Network\":\"10.244.0.0/16\"}'
";
