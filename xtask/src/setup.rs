//! The programs that the tests hold Russet to, and the Debian packages that bring them.
//!
//! Russet itself needs none of them.

use std::{env, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::run::run;

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
    ("setpriv", "util-linux", "running without root"),
    ("python3", "python3", "scripts of the end-to-end tests"),
];

/// Installs what is missing, or says which packages to install.
pub fn install() -> Result<()> {
    let missing: Vec<_> = NEEDED.iter().filter(|(program, ..)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (program, package, why) in &missing {
        eprintln!("missing: {program} (package {package}): {why}");
    }
    let packages: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
    if !is_root() || !is_there("apt-get") {
        bail!("install these first: apt-get install {}", packages.join(" "));
    }
    apt(&["update", "-qq"])?;
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(packages);
    apt(&words)?;
    match NEEDED.iter().find(|(program, ..)| !is_there(program)) {
        Some((program, package, _)) => bail!("{package} is installed, yet there is no {program}"),
        None => Ok(()),
    }
}

fn apt(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(words);
    run(command)
}

/// Whether the program is on the path, or in the folders that a user's path may lack.
fn is_there(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/local/sbin"]);
    folders.map(Path::new).any(|folder| folder.join(program).exists())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // Our own folder in /proc belongs to our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
