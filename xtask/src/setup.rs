//! The programs that the tests hold Russet to, and the Debian packages that bring them.
//!
//! Russet itself needs none of them.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::run::{root, run};

/// A program, the package that has it, and what it is for.
const NEEDED: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "a second opinion on links, routes and neighbours"),
    ("nft", "nftables", "a second opinion on rules and sets"),
    ("iptables-nft", "iptables", "a foreign firewall"),
    ("conntrack", "conntrack", "a second opinion on connections"),
    ("etcd", "etcd-server", "the real datastore"),
    ("etcdctl", "etcd-client", "the real client"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins", "the plugins that ours is held to"),
    ("podman", "podman", "a container runtime"),
    ("crun", "crun", "what runs a container"),
    ("containerd", "containerd", "a container runtime"),
    ("busybox", "busybox-static", "the image of the containers"),
    ("bird", "bird2", "a BGP speaker to talk to; the tests start their own"),
    ("/usr/lib/frr/bgpd", "frr", "another"),
    ("gobgp", "gobgpd", "another, and EVPN routes of every type"),
    ("exabgp", "exabgp", "one that says what it is told, well formed or not"),
    ("ipset", "ipset", "what Calico's Felix needs"),
    ("tcpdump", "tcpdump", "a second opinion on captures"),
    ("setpriv", "util-linux", "running without root"),
    ("python3", "python3", "scripts of the end-to-end tests"),
];

/// What boots another kernel.
const NEEDED_FOR_VM: &[(&str, &str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86", "the machine"),
    ("cpio", "cpio", "its file system"),
    ("strip", "binutils", "smaller programs"),
    ("busybox", "busybox-static", "its commands"),
    ("dash", "dash", "its shell"),
    ("ip", "iproute2", "a second opinion within it"),
    ("nft", "nftables", "a second opinion within it"),
    ("conntrack", "conntrack", "a second opinion within it"),
    ("unshare", "util-linux", "namespaces within it"),
    ("wg", "wireguard-tools", "a second opinion on the kernel's WireGuard"),
];

/// A Python client of etcd's API, and what it forgets to ask for.
const PYTHON_PACKAGES: &[&str] = &["etcd-sdk-python==0.0.7", "protobuf>=6"];

/// Where Calico's programs lie, for the tests that set Russet beside them.
const CALICO: &str = "target/calico";
/// The release whose branch `xtask/calico/go.mod` names a commit of.
const CALICO_VERSION: &str = "v3.28.5";

/// Installs what is missing, or says which packages to install.
pub fn install() -> Result<()> {
    programs(NEEDED)?;
    python_client()?;
    calico()
}

/// The same for `instructions`.
pub fn install_for_instructions() -> Result<()> {
    programs(&[("valgrind", "valgrind", "a counter of instructions")])
}

/// The same for `vm-test`.
pub fn install_for_vm() -> Result<()> {
    programs(NEEDED_FOR_VM)
}

fn programs(needed: &[(&str, &str, &str)]) -> Result<()> {
    let missing: Vec<_> = needed.iter().filter(|(program, ..)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (program, package, why) in &missing {
        eprintln!("missing: {program} (package {package}): {why}");
    }
    let wanted: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
    if !can_install() {
        bail!("install these first: apt-get install {}", wanted.join(" "));
    }
    packages(&wanted)?;
    match needed.iter().find(|(program, ..)| !is_there(program)) {
        Some((program, package, _)) => bail!("{package} is installed, yet there is no {program}"),
        None => Ok(()),
    }
}

/// An environment of its own below `target/`: nothing of the machine's Python is touched.
fn python_client() -> Result<()> {
    let folder = root().join("target/python");
    let python = folder.join("bin/python");
    let works = Command::new(&python).args(["-c", "import pyetcd"]).output();
    if works.is_ok_and(|out| out.status.success()) {
        return Ok(());
    }
    let make = || {
        let mut make = Command::new("python3");
        make.args(["-m", "venv", "--clear"]).arg(&folder);
        run(make).context("make a Python environment (package python3-venv)")
    };
    if let Err(err) = make() {
        // Debian's own Python comes without it.
        if !can_install() {
            return Err(err);
        }
        packages(&["python3-venv"])?;
        make()?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.args(PYTHON_PACKAGES);
    run(install)
}

/// Builds Calico's own programs, of the versions that `xtask/calico` pins, when those have changed.
fn calico() -> Result<()> {
    let (source, folder) = (root().join("xtask/calico"), root().join(CALICO));
    // What a release's own build says; calico-node writes it into the store.
    let said = ["main", "github.com/projectcalico/calico/node/pkg/lifecycle/startup"];
    let said = said.map(|package| format!("-X {package}.VERSION={CALICO_VERSION}")).join(" ");
    let linking = format!("-ldflags=-s -w {said}");
    let read = |name| fs::read_to_string(source.join(name)).with_context(|| format!("read {name}"));
    let pinned = [linking.clone(), read("go.mod")?, read("go.sum")?].join("\n");
    let stamp = folder.join("made-of");
    if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == pinned) {
        return Ok(());
    }
    if !is_there("go") {
        bail!(
            "missing: go, 1.24 or later: it builds Calico's programs, which tests set Russet beside"
        );
    }
    fs::create_dir_all(&folder).context("make the folder of Calico's programs")?;
    let mut build = Command::new(find("go")?);
    build.current_dir(&source).env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "");
    build.args(["build", "-mod=readonly", "-buildvcs=false", &linking, "-o"]);
    build.arg(&folder).arg("tool");
    run(build)?;
    // It is one program, which goes by the name that it is called by.
    let ipam = folder.join("calico-ipam");
    if !ipam.exists() {
        symlink("calico", ipam).context("name Calico's IPAM plugin")?;
    }
    fs::write(stamp, pinned).context("note what Calico's programs are made of")
}

fn packages(names: &[&str]) -> Result<()> {
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], names].concat())
}

fn apt(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(words);
    run(command)
}

/// Returns where a program is: on the path, or in the folders that a user's path may lack.
pub fn find(program: &str) -> Result<PathBuf> {
    if program.starts_with('/') {
        return Ok(program.into());
    }
    let path = env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/local/sbin"]);
    let mut places = folders.map(|folder| Path::new(folder).join(program));
    places.find(|place| place.exists()).with_context(|| format!("there is no program {program}"))
}

fn is_there(program: &str) -> bool {
    find(program).is_ok_and(|place| place.exists())
}

fn can_install() -> bool {
    is_root() && is_there("apt-get")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // Our own folder in /proc belongs to our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
