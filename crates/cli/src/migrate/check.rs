//! `russet migrate check`: what an agent that starts here would take over, and what is in its way. It only looks.
//! Here is flannel's part, and the report; `check/calico` is Calico's.

mod calico;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use russet_api::flannel::SubnetEnv;
use russet_kernel::{
    legacy::{self, LegacyChain},
    link::{ALIAS_PREFIX, GROUP},
    nft::{DroppingChain, Nft},
    observe::{self, LinkView, NodeView, RouteView},
};

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// What runs, or ran, on this node
    system: System,
    /// Where flanneld writes this node's subnet
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    subnet_file: std::path::PathBuf,
    /// The bridge of the pods
    #[arg(long, default_value = "cni0")]
    bridge: String,
    #[command(flatten)]
    calico: calico::CalicoArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum System {
    Flannel,
    Calico,
}

pub fn run(args: &CheckArgs) -> Result<ExitCode> {
    let report = match args.system {
        System::Flannel => Report::of(&Seen::look(args)?, &args.bridge),
        System::Calico => calico::check(&args.calico)?,
    };
    print!("{report}");
    Ok(if report.hinders.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was found on the node.
struct Seen {
    node: NodeView,
    subnet: Option<String>,
    running: Option<(String, u32)>,
    drops: Vec<DroppingChain>,
    has_bridge_filter: bool,
    /// What flannel left by `iptables-legacy`, or why that cannot be told.
    legacy: Result<Vec<LegacyChain>, String>,
}

impl Seen {
    fn look(args: &CheckArgs) -> Result<Self> {
        let mut nft = Nft::open().context("open nftables")?;
        nft.resync().context("read nftables")?;
        let text = fs::read_to_string(&args.subnet_file).ok();
        let env = text.and_then(|text| SubnetEnv::read(&text).ok());
        Ok(Self {
            node: observe::observe().context("read links and routes")?,
            subnet: env.and_then(|env| env.key()).map(|key| key.to_string()),
            running: russet_agent::running_beside(),
            drops: nft.dropping_chains(),
            has_bridge_filter: Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
            legacy: legacy::flannel_chains().map_err(|err| err.to_string()),
        })
    }
}

/// What an operator reads.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    takes: Vec<String>,
    hinders: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    fn of(seen: &Seen, bridge: &str) -> Self {
        let mut report = Self::default();
        report.subnet(seen.subnet.as_deref());
        for link in &seen.node.links {
            report.link(link, bridge);
        }
        report.routes(&seen.node.routes);
        if let Some((program, pid)) = &seen.running {
            let stop = "stop it when the agent is to start; the pods' packets go on meanwhile";
            report.hinders.push(format!("{program} runs (pid {pid}): {stop}"));
        }
        for chain in &seen.drops {
            let why = &chain.why;
            let what = "russet puts an accept into it, unless forward-accept is off";
            report.notes.push(format!("chain {chain} drops what is forwarded ({why}): {what}"));
        }
        report.legacy(&seen.legacy);
        if !seen.has_bridge_filter {
            let what = "services between pods of this node need it: modprobe br_netfilter";
            report.hinders.push(format!("the kernel module br_netfilter is missing: {what}"));
        }
        report
    }

    /// They do no harm beside ours, so they are not in the way.
    fn legacy(&mut self, found: &Result<Vec<LegacyChain>, String>) {
        match found {
            Ok(chains) => self.notes.extend(chains.iter().map(|chain| {
                format!("{chain} stays and does no harm; to be rid of it: {}", chain.removal())
            })),
            Err(why) => self.notes.push(format!(
                "iptables-legacy is in use and cannot be looked at ({why}): flannel's chains in it, if any, stay and \
                 do no harm; docs/flannel.md has the commands that remove them"
            )),
        }
    }

    fn subnet(&mut self, subnet: Option<&str>) {
        match subnet {
            Some(subnet) => self.takes.push(format!("subnet {subnet}, if its lease is still ours")),
            None => self.notes.push(
                "there is no subnet.env: the subnet is the one whose lease bears this node's address, \
                 else a new one"
                    .to_owned(),
            ),
        }
    }

    fn link(&mut self, link: &LinkView, bridge: &str) {
        let name = link.name.as_str();
        let kind = match name {
            _ if name == bridge => "bridge",
            "flannel.ipip" => "ipip",
            "flannel-wg" | "flannel-wg-v6" | "flannel0" => {
                let what = "goes with flanneld and is made anew; WireGuard's key is kept";
                return self.notes.push(format!("link {name} {what}"));
            }
            _ if name.starts_with("flannel.") || name.starts_with("flannel-v6.") => "vxlan",
            _ => return,
        };
        let alias = link.alias.as_deref();
        let mac = link.mac.map(|mac| format!(" with MAC {mac}")).unwrap_or_default();
        if link.group == GROUP && alias.is_some_and(|alias| alias.starts_with(ALIAS_PREFIX)) {
            self.notes.push(format!("link {name} is russet's already"));
        } else if link.kind == kind && link.group == 0 && alias.is_none() {
            self.takes.push(format!("link {name}, a {kind}{mac}"));
        } else {
            let (is, alias) = (&link.kind, alias.unwrap_or("none"));
            self.hinders.push(format!(
                "link {name} is a {is} in group {} with alias {alias}, where an unmarked {kind} can be \
                 taken over: remove it, or its marks",
                link.group
            ));
        }
    }

    fn routes(&mut self, routes: &[RouteView]) {
        let through = |route: &&RouteView| {
            let flannels = |link: russet_net::IfName| link.as_str().starts_with("flannel");
            route.protocol == BOOT
                && route.link.is_some_and(flannels)
                && route.via == Some(route.dst.addr())
        };
        let count = routes.iter().filter(through).count();
        if count > 0 {
            self.takes.push(format!(
                "{count} routes through flannel's devices; those without a lease go"
            ));
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts =
            [("TAKEN OVER", &self.takes), ("IN THE WAY", &self.hinders), ("TO KNOW", &self.notes)];
        for (title, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            writeln!(f, "{title}")?;
            lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        let end = if self.hinders.is_empty() { "nothing is in the way" } else { "not yet" };
        writeln!(f, "{end}; nothing was changed")
    }
}

/// `RTPROT_BOOT`
const BOOT: u8 = 3;
