//! Changes a node from a real flanneld to Russet and back, twice, under traffic, for each backend.
//!
//! flanneld comes in no package that our tests could install, so whoever has one names it here. The recorded dumps are
//! what the tests hold on to everywhere else (`crates/cli/tests/flannel_dumps`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::run::{Cargo, root, run};

/// One backend: its name, the configuration, whether it has both families, and what the swaps may lose at most.
struct Backend {
    name: &'static str,
    config: &'static str,
    dual: bool,
    lost: Option<u32>,
}

const BACKENDS: [Backend; 6] = [
    Backend { name: "vxlan", config: "{Type: vxlan}", dual: false, lost: Some(0) },
    Backend { name: "vxlan-dual", config: "{Type: vxlan}", dual: true, lost: Some(0) },
    Backend {
        name: "vxlan-direct",
        config: "{Type: vxlan, DirectRouting: true}",
        dual: false,
        lost: Some(0),
    },
    Backend { name: "host-gw", config: "{Type: host-gw}", dual: false, lost: Some(0) },
    Backend { name: "host-gw-dual", config: "{Type: host-gw}", dual: true, lost: Some(0) },
    // Its device ends with flanneld, so the node is cut off from there on until the next program is up.
    Backend { name: "udp", config: "{Type: udp}", dual: false, lost: None },
];

pub fn swap(flanneld: &Path) -> Result<()> {
    let flanneld = flanneld.canonicalize().with_context(|| format!("{}", flanneld.display()))?;
    Cargo::new(["build", "--workspace", "--bins"]).run()?;
    let folder = root().join("target/swap");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    BACKENDS.iter().try_for_each(|backend| play(backend, &folder, &flanneld))
}

fn play(backend: &Backend, folder: &Path, flanneld: &Path) -> Result<()> {
    let file: PathBuf = folder.join(backend.name).with_extension("yaml");
    fs::write(&file, topology(backend, flanneld))
        .with_context(|| format!("write {}", file.display()))?;
    let mut lab = Command::new(root().join("target/debug/russet"));
    lab.args(["lab", "run", "--store", "etcd"]).arg(&file);
    run(lab)
}

fn topology(backend: &Backend, flanneld: &Path) -> String {
    let families =
        if backend.dual { ", EnableIPv6: true, IPv6Network: \"fd00:244::/48\"" } else { "" };
    let config = format!(
        "{{Network: 10.244.0.0/16, EnableNFTables: true{families}, Backend: {}}}",
        backend.config
    );
    let targets = [("10.244.90.1", "ipv4"), ("fd00:244:0:90::1", "ipv6")];
    let of_backend = targets.iter().take(if backend.dual { 2 } else { 1 });
    let lines = of_backend.flat_map(|(target, family)| {
        let reach = format!("reach: {{from: a, to: \"{target}\", family: {family}}}");
        let always = backend.lost.map(|lost| format!("  - always: {{{reach}, lost: {lost}}}\n"));
        [Some(format!("  - eventually: {{{reach}}}\n")), always]
    });
    let expect: String = lines.flatten().collect();
    include_str!("swap/topology.yaml")
        .replace("@name@", backend.name)
        .replace("@flanneld@", &flanneld.display().to_string())
        .replace("@config@", &config)
        .replace("@env6@\n", if backend.dual { ENV6 } else { "" })
        .replace("@expect@\n", &expect)
}

const ENV6: &str =
    "        FLANNEL_IPV6_NETWORK=fd00:244::/48\n        FLANNEL_IPV6_SUBNET=fd00:244:0:90::1/64\n";
