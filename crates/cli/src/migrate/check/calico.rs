//! What an agent that starts on a node of Calico's would take over: the store's objects, and the kernel's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use clap::Args;
use russet_api::calico::{Key, Kind, Resource, StoreKey};
use russet_core::{
    choices::When,
    model::calico::{Affinity, Encapsulation, IpPool, Name, overlaps},
};
use russet_kernel::{
    legacy,
    link::{ALIAS_PREFIX, GROUP},
    nft::{DroppingChain, ForeignFamily, Nft, Why},
    observe::{self, LinkView, NodeView, RouteView},
};
use russet_net::{Family, Prefix};

use super::Report;
use crate::{
    resources::{Datastore, DatastoreArgs, Found, clean, pools_in},
    store::block_on,
};

#[derive(Args, Debug)]
pub struct CalicoArgs {
    /// This node's name in Calico's store [default: the host's name]
    #[arg(long, value_name = "NAME")]
    node: Option<Name>,
    #[command(flatten)]
    store: DatastoreArgs,
}

/// What was found in the store.
#[derive(Debug, Default)]
struct Stored {
    found: Vec<Found>,
    bad: Vec<String>,
    pools: BTreeMap<Name, IpPool>,
    /// Of kinds that no command handles, each with how many there are.
    unhandled: BTreeMap<Kind, usize>,
}

/// What was found on the node.
#[derive(Debug, Default)]
struct OnNode {
    view: NodeView,
    /// Programs of Calico's, with their process ids.
    running: Vec<(String, u32)>,
    /// Felix' chains at the forward hook.
    chains: Vec<DroppingChain>,
    /// By `iptables-legacy`, of which only that can be told.
    legacy: Vec<Family>,
}

pub fn check(args: &CalicoArgs) -> Result<Report> {
    let name = match &args.node {
        Some(name) => name.to_string(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let stored = block_on(async { look(&args.store.open()?).await })?;
    let view = observe::observe().context("read links and routes")?;
    let mut nft = Nft::open().context("open nftables")?;
    nft.resync().context("read nftables")?;
    let mut chains = nft.dropping_chains();
    chains.retain(|chain| chain.why == Why::Felix);
    let legacy = legacy::with_felix().context("read iptables-legacy")?;
    let node = OnNode { view, running: running(Path::new("/proc")), chains, legacy };
    Ok(report(&name, &stored, &node))
}

async fn look(store: &Datastore) -> Result<Stored> {
    let mut stored = Stored::default();
    // Handles are as many as pods, and nothing here asks for them; `russet ipam check` does.
    for kind in Kind::HANDLED.into_iter().filter(|kind| *kind != Kind::IpamHandle) {
        let listed = store.list(kind, None).await?;
        if kind == Kind::IpPool {
            stored.pools = pools_in(&listed);
        }
        stored.found.extend(listed.found);
        stored.bad.extend(listed.bad);
    }
    let all = store.client.range_prefix(Key::RESOURCES.as_bytes(), None).await?;
    for entry in all.entries {
        if let StoreKey::Known(Key::Resource(id)) = Key::read(&entry.key)
            && !id.kind.is_handled()
        {
            *stored.unhandled.entry(id.kind).or_default() += 1;
        }
    }
    Ok(stored)
}

/// Programs of Calico's in our own network namespace.
fn running(proc: &Path) -> Vec<(String, u32)> {
    let ours = fs::read_link(proc.join("self/ns/net")).ok();
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let program = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        let known = PROGRAMS.contains(&comm.trim_end());
        let here = fs::read_link(entry.path().join("ns/net")).ok() == ours;
        (known && here).then(|| (comm.trim_end().to_owned(), pid))
    };
    let mut found: Vec<_> = entries.filter_map(program).collect();
    found.sort_unstable();
    found
}

/// As `/proc/PID/comm` has them, cut to 15 octets.
const PROGRAMS: [&str; 6] =
    ["calico-node", "calico-felix", "bird", "bird6", "confd", "calico-typha"];

fn report(name: &str, stored: &Stored, node: &OnNode) -> Report {
    let mut report = Report::default();
    report.hinders.extend(stored.bad.iter().map(|bad| format!("it cannot be read: {bad}")));
    let overlaps = overlaps(&stored.pools);
    report.hinders.extend(overlaps.iter().map(ToString::to_string));
    if stored.pools.is_empty() {
        report.hinders.push("the store has no pool: is it Calico's?".to_owned());
    }
    for (name, pool) in &stored.pools {
        report.takes.push(pool_line(name, pool));
    }
    of_node(&mut report, name, stored);
    of_bgp(&mut report, stored);
    of_version(&mut report, stored);
    for found in &stored.found {
        of_unused(&mut report, found);
    }
    for (kind, count) in &stored.unhandled {
        let line = format!("{count} objects of kind {kind}");
        if kind.is_policy() {
            report
                .hinders
                .push(format!("{line}: policy is not enforced yet, pods would be open to all"));
        } else {
            report.notes.push(format!("{line} are not looked at"));
        }
    }
    for (program, pid) in &node.running {
        let stop = "stop it when the agent is to start; the pods' packets go on meanwhile";
        report.hinders.push(format!("{program} runs (pid {pid}): {stop}"));
    }
    of_chains(&mut report, node);
    of_links(&mut report, &node.view.links);
    of_routes(&mut report, &node.view.routes, stored);
    for line in report.takes.iter_mut().chain(&mut report.hinders).chain(&mut report.notes) {
        *line = clean(line);
    }
    report
}

fn pool_line(name: &Name, pool: &IpPool) -> String {
    let when = |when| if when == When::Always { "always" } else { "across subnets" };
    let how = match pool.encapsulation() {
        Encapsulation::None => "no encapsulation".to_owned(),
        Encapsulation::Ipip(at) => format!("IPIP {}", when(at)),
        Encapsulation::Vxlan(at) => format!("VXLAN {}", when(at)),
    };
    let disabled = if pool.is_disabled() { ", disabled" } else { "" };
    format!(
        "pool {name}, {} in blocks of /{}: {how}{disabled}",
        pool.cidr(),
        pool.block_len().get()
    )
}

/// This node's object, and the blocks that are its own.
fn of_node(report: &mut Report, name: &str, stored: &Stored) {
    let is_it = |found: &&Found| {
        found.resource.kind() == Kind::Node
            && found.resource.meta().is_some_and(|meta| meta.name.as_str() == name)
    };
    if !stored.found.iter().any(|found| is_it(&found)) {
        let what = "give its name with --node, or it is a new node";
        report.hinders.push(format!("the store has no node {name}: {what}"));
    }
    let own = stored.found.iter().filter_map(|found| match &found.resource {
        Resource::IpamBlock(block) => Some(block.value()),
        _ => None,
    });
    let home = |affinity: &Affinity| affinity.host().is_some_and(|host| host.as_str() == name);
    let own: Vec<_> = own.filter(|block| block.affinity().is_some_and(home)).collect();
    let taken: usize = own.iter().map(|block| block.allocated().count()).sum();
    report.takes.push(format!("{} blocks of node {name}, with {taken} addresses", own.len()));
}

fn of_bgp(report: &mut Report, stored: &Stored) {
    let count = |kind| stored.found.iter().filter(|found| found.resource.kind() == kind).count();
    let (peers, filters) = (count(Kind::BgpPeer), count(Kind::BgpFilter));
    let cluster = stored.found.iter().find_map(|found| match &found.resource {
        Resource::BgpConfiguration(config)
            if config.meta().is_some_and(|meta| meta.name.as_str() == "default") =>
        {
            Some(config.value().clone())
        }
        _ => None,
    });
    let config = cluster.unwrap_or_default();
    let mesh = if config.has_mesh() { "with" } else { "without" };
    let asn = config.asn();
    report.takes.push(format!("BGP of AS {asn} {mesh} a mesh, {peers} peers, {filters} filters"));
}

/// An older Calico would take an address that rests for somebody's.
fn of_version(report: &mut Report, stored: &Stored) {
    let old = stored.found.iter().find_map(|found| match &found.resource {
        Resource::ClusterInformation(cluster) if !cluster.value().knows_rest() => {
            cluster.value().calico_version.clone()
        }
        _ => None,
    });
    if let Some(version) = old {
        report.notes.push(format!(
            "ClusterInformation says Calico {version}: no address rests after its release while it does; when the last node \
             of Calico's is gone, `russet patch clusterinformation default -p '{{spec: {{calicoVersion: \"\"}}}}'`"
        ));
    }
}

/// Settings that have no effect here.
fn of_unused(report: &mut Report, found: &Found) {
    let configures = matches!(
        found.resource.kind(),
        Kind::FelixConfiguration
            | Kind::BgpConfiguration
            | Kind::BgpPeer
            | Kind::BgpFilter
            | Kind::IpPool
    );
    let unused = found.resource.unused();
    if configures && !unused.is_empty() {
        let name = found.resource.id().map(|id| id.to_string()).unwrap_or_default();
        report.notes.push(format!("{name}: without effect here: {}", unused.join(", ")));
    }
}

/// What Felix left in the firewall: it drops what it does not know, so no pod of ours would be reached.
fn of_chains(report: &mut Report, node: &OnNode) {
    let of_iptables = |family: Family, backend: &str| {
        let program = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let kept = "grep -v -e ^:cali- -e cali:";
        format!("{program}-{backend}-save | {kept} | {program}-{backend}-restore")
    };
    let mut commands = BTreeSet::new();
    for chain in &node.chains {
        let family = match chain.family {
            ForeignFamily::Ip | ForeignFamily::Inet => Family::V4,
            ForeignFamily::Ip6 => Family::V6,
        };
        commands.insert(if chain.table == "calico" {
            format!("nft delete table {} calico", chain.family)
        } else {
            of_iptables(family, "nft")
        });
    }
    commands.extend(node.legacy.iter().map(|family| of_iptables(*family, "legacy")));
    if !commands.is_empty() {
        let commands: Vec<_> = commands.iter().map(|one| format!("`{one}`")).collect();
        report.hinders.push(format!(
            "Felix' chains drop what comes from pods that it did not make, and what goes to them; when Calico is stopped \
             and the node drained, {}",
            commands.join(", ")
        ));
    }
}

fn of_links(report: &mut Report, links: &[LinkView]) {
    let is_ours = |link: &&LinkView| {
        link.group == GROUP
            && link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS_PREFIX))
    };
    let pods: Vec<_> = links.iter().filter(|link| link.name.as_str().starts_with("cali")).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_ours);
    if !theirs.is_empty() {
        let what = "their pods do not change over; drain the node first";
        report.hinders.push(format!("{} links of pods that Calico made: {what}", theirs.len()));
    }
    if !ours.is_empty() {
        report.notes.push(format!("{} links of pods are russet's already", ours.len()));
    }
    for name in ["wireguard.cali", "wg-v6.cali"] {
        if links.iter().any(|link| link.name.as_str() == name && !is_ours(&link)) {
            let why = "it has Felix's key, which its peers take for this node's";
            report
                .hinders
                .push(format!("link {name}: {why}; when Felix is stopped, `ip link del {name}`"));
        }
    }
    for (name, kind) in [("vxlan.calico", "vxlan"), ("vxlan-v6.calico", "vxlan")] {
        let Some(link) = links.iter().find(|link| link.name.as_str() == name) else { continue };
        let mac = link.mac.map(|mac| format!(" with MAC {mac}")).unwrap_or_default();
        if is_ours(&link) {
            report.notes.push(format!("link {name} is russet's already"));
        } else if link.kind == kind {
            report.takes.push(format!("link {name}, a {kind}{mac}"));
        } else {
            let is = &link.kind;
            report.hinders.push(format!("link {name} is a {is} and no {kind}: remove it"));
        }
    }
    if let Some(link) = links.iter().find(|link| link.name.as_str() == "tunl0") {
        let addresses: Vec<_> = link.addresses.iter().map(|addr| addr.addr.to_string()).collect();
        report.notes.push(format!(
            "tunl0 is the kernel's: it is configured and marked while a pool wants it (it has {})",
            if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") }
        ));
    }
}

/// Calico's routes: of its own protocol anywhere, of boot through its links, of BIRD within a pool. What is advised removes
/// these and no others: BIRD may have taught the way out of the node as well.
fn of_routes(report: &mut Report, routes: &[RouteView], stored: &Stored) {
    let pool_of =
        |dst: Prefix| stored.pools.values().map(IpPool::cidr).find(|cidr| cidr.covers(dst));
    let mut found: BTreeMap<&str, (usize, BTreeSet<String>)> = BTreeMap::new();
    let mut taken = 0;
    for route in routes {
        let link = route.link.map(|link| link.as_str().to_owned()).unwrap_or_default();
        let pool = pool_of(route.dst);
        let (what, which) = match (route.protocol, pool) {
            (FELIX, _) => ("of Felix's own protocol", Some("proto 80".to_owned())),
            (BOOT, _) if link.starts_with("cali") => ("to pods that Calico made", None),
            // The agent takes them with their link: they say where they lead by their own base.
            (BOOT, _) if link.ends_with(".calico") && route.via == Some(route.dst.addr()) => {
                taken += 1;
                continue;
            }
            (BOOT, _) if link.ends_with(".calico") || link == "tunl0" => {
                ("through Calico's tunnels", Some(format!("proto boot dev {link}")))
            }
            (BIRD, Some(pool)) => {
                ("of BIRD's within the pools", Some(format!("root {pool} proto bird")))
            }
            _ => continue,
        };
        let ip = match route.dst.family() {
            Family::V4 => "ip",
            Family::V6 => "ip -6",
        };
        let (count, commands) = found.entry(what).or_default();
        *count += 1;
        commands.extend(which.map(|which| format!("`{ip} route flush {which}`")));
    }
    if taken > 0 {
        let what = "routes through Calico's VXLAN devices; those that no block stands for go";
        report.takes.push(format!("{taken} {what}"));
    }
    for (what, (count, commands)) in found {
        let commands: Vec<_> = commands.into_iter().collect();
        let how = match commands.as_slice() {
            [] => "they go with the pods when the node is drained".to_owned(),
            _ => format!("ours wait for them; when Calico is stopped, {}", commands.join(", ")),
        };
        report.hinders.push(format!("{count} routes {what}: {how}"));
    }
}

const FELIX: u8 = 80;
/// `RTPROT_BOOT`
const BOOT: u8 = 3;
/// `RTPROT_BIRD`
const BIRD: u8 = 12;

#[cfg(test)]
mod tests;
