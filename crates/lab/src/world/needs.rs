//! Whether the machine has what the topology cannot do without.
//!
//! Asked by trying: a link of the kind is made in a namespace that is thrown away. What `/proc` or a kernel
//! version would say is not what counts inside a user namespace.

use std::{
    fs::OpenOptions,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use rustix::thread::UnshareFlags;

use crate::{
    rtnl::Rtnl,
    space,
    topology::{Need, Topology},
};

/// # Errors
///
/// With every need that is not met, and why.
pub(crate) fn check(topology: &Topology) -> Result<()> {
    let missing: Vec<_> = topology
        .needs
        .iter()
        .filter_map(|need| met(*need).err().map(|err| format!("{} ({err:#})", name(*need))))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this machine lacks what the topology needs: {}", missing.join("; "))
}

fn met(need: Need) -> Result<()> {
    match need {
        Need::Vxlan => link("vxlan"),
        Need::Ipip => link("ipip"),
        Need::Wireguard => link("wireguard"),
        Need::Tun => open("/dev/net/tun"),
        Need::Bpf => bpf(),
        Need::Etcd => program("etcd").and_then(|()| program("etcdctl")),
        Need::Ping => program("ping"),
        Need::Iperf3 => program("iperf3"),
        Need::Calico => CALICO.into_iter().try_for_each(program),
    }
}

const CALICO: [&str; 4] = ["calico-node", "calicoctl", "calico-ipam", "ipset"];

fn link(kind: &'static str) -> Result<()> {
    let try_it = move || -> Result<()> {
        space::unshare(UnshareFlags::NEWNET)?;
        let mut rtnl = Rtnl::open()?;
        if kind == "vxlan" {
            // The kernel wants a VNI; the loopback is there, down as it is.
            let lo = rtnl.index_of("lo".parse()?)?;
            return Ok(rtnl.add_vxlan("try".parse()?, 1, (lo, [127, 0, 0, 1].into()))?);
        }
        match rtnl.add_link("try".parse()?, kind) {
            // The kernel's own tunl0 has taken the place of one without addresses.
            Err(err) if kind == "ipip" && err.is_already_exists() => Ok(()),
            made => Ok(made?),
        }
    };
    std::thread::spawn(try_it).join().unwrap_or_else(|_| bail!("the attempt panicked"))
}

fn open(path: &str) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let _: OwnedFd = file.map_err(|err| anyhow::anyhow!("open {path}: {err}"))?.into();
    Ok(())
}

/// Only the root of the first user namespace may load programs: its map covers every id.
fn bpf() -> Result<()> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    match map.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["0", "0", "4294967295"] => Ok(()),
        _ => bail!("only root outside of a user namespace may load eBPF programs"),
    }
}

fn program(name: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    if folders.into_iter().any(|folder| Path::new(&folder).join(name).is_file()) {
        return Ok(());
    }
    bail!("there is no program {name}")
}

fn name(need: Need) -> &'static str {
    match need {
        Need::Vxlan => "vxlan",
        Need::Tun => "tun",
        Need::Ipip => "ipip",
        Need::Wireguard => "wireguard",
        Need::Bpf => "bpf",
        Need::Etcd => "etcd",
        Need::Ping => "ping",
        Need::Iperf3 => "iperf3",
        Need::Calico => "calico",
    }
}
