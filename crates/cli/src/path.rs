//! `russet path A B`: every hop between two pods, as this node's kernel would send the packet now.
//!
//! The hops are read from the kernel, not from what the agent wants; the agent is asked only which address
//! is whose. What the other node does with the packet is that node's to tell: run the command there.

use std::{fmt::Write, net::IpAddr, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use russet_api::admin::{Answer, Ask, LeaseRow, PodRow};
use russet_kernel::trace::{self, Hop};
use russet_net::Prefix;
use serde::Serialize;

use crate::{
    client::AgentSocket,
    get,
    output::{self, Format},
};

#[derive(Args, Debug)]
pub struct PathArgs {
    /// The pod that sends, one of this node's: its address, or the beginning of its container id
    from: String,
    /// The pod that receives: its address, or the beginning of its container id when it is one of this node's
    to: String,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    socket: AgentSocket,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Step {
    /// `pod`, `bridge`, `route`, `tunnel`, `underlay`, `node`.
    what: &'static str,
    device: Option<String>,
    mtu: Option<u32>,
    detail: String,
}

pub fn run(args: &PathArgs) -> Result<ExitCode> {
    let pods = get::all_pods(&args.socket)?;
    let leases = get::all_leases(&args.socket)?;
    let from = find(&pods, &args.from).with_context(|| {
        format!("{} is no pod of this node; run the command on the node that has it", args.from)
    })?;
    let to = target(&pods, &args.to)?;
    // The pod's own address of the same family is what the packet bears.
    let src = from
        .addresses
        .iter()
        .filter_map(|a| a.parse().ok())
        .find(|a: &IpAddr| a.is_ipv4() == to.is_ipv4());
    let src: IpAddr =
        src.with_context(|| format!("{} has no address of the family of {to}", args.from))?;

    let bridge = bridge(&args.socket)?;
    let mut steps = leave(from, src, bridge.as_deref());
    match pods.iter().find(|pod| has(pod, to)) {
        Some(local) => steps.push(step(
            "pod",
            Some(&local.host_link),
            Some(local.mtu),
            match &bridge {
                Some(_) => format!("{to} on the same bridge"),
                None => format!("{to} on the same node"),
            },
        )),
        None => cross(to, &leases, &mut steps)?,
    }
    output::print(args.output, &steps, |steps| human(steps))?;
    Ok(ExitCode::SUCCESS)
}

fn leave(from: &PodRow, src: IpAddr, bridge: Option<&str>) -> Vec<Step> {
    let pod = step(
        "pod",
        Some(&from.interface),
        Some(from.mtu),
        format!("{src} in container {}", from.container),
    );
    let (link, mtu) = (&from.host_link, Some(from.mtu));
    let node = match bridge {
        Some(bridge) => step("bridge", Some(bridge), mtu, format!("in by {link}")),
        None => step("node", Some(link), mtu, format!("{src} is behind this link alone")),
    };
    vec![pod, node]
}

fn cross(to: IpAddr, leases: &[LeaseRow], steps: &mut Vec<Step>) -> Result<()> {
    let hops = trace::trace(to).with_context(|| format!("the kernel has no way to {to}"))?;
    for (n, hop) in hops.iter().enumerate() {
        steps.push(routed(hop, if n == 0 { "route" } else { "underlay" }));
        steps.extend(tunnel(hop));
    }
    let lease = leases.iter().find(|lease| covers(lease, to));
    let detail = lease.map_or_else(
        || format!("no lease covers {to}: it is outside the network"),
        |lease| format!("{} holds {}", lease.public_ips.join(" "), lease.subnets.join(" ")),
    );
    steps.push(step("node", None, None, detail));
    Ok(())
}

fn routed(hop: &Hop, what: &'static str) -> Step {
    let mut detail = format!("{}", hop.dst);
    match hop.via {
        Some(via) => _ = write!(detail, " via {via}"),
        None => detail.push_str(" on the link"),
    }
    match hop.mac {
        Some(mac) => _ = write!(detail, " at {mac}"),
        None => detail.push_str(" (MAC not known yet)"),
    }
    step(what, Some(hop.link.name.as_str()), Some(hop.link.mtu), detail)
}

fn tunnel(hop: &Hop) -> Option<Step> {
    let tunnel = hop.tunnel?;
    let end = |ip: Option<IpAddr>| ip.map_or("nowhere (no FDB entry)".into(), |ip| ip.to_string());
    let overhead = if tunnel.remote.is_some_and(|ip| ip.is_ipv6()) { 70 } else { 50 };
    let detail = format!(
        "VXLAN, VNI {}, {} to {} port {}, {overhead} octets more",
        tunnel.vni,
        end(tunnel.local),
        end(tunnel.remote),
        tunnel.port
    );
    Some(step("tunnel", None, None, detail))
}

fn step(what: &'static str, device: Option<&str>, mtu: Option<u32>, detail: String) -> Step {
    Step { what, device: device.map(str::to_owned), mtu, detail }
}

fn bridge(socket: &AgentSocket) -> Result<Option<String>> {
    match socket.ask(Ask::Status)? {
        Answer::Status(status) => Ok(status.network.and_then(|network| network.bridge)),
        _ => bail!("the agent answered something else than was asked"),
    }
}

fn find<'a>(pods: &'a [PodRow], word: &str) -> Option<&'a PodRow> {
    let address = word.parse::<IpAddr>().ok();
    pods.iter().find(|pod| match address {
        Some(ip) => has(pod, ip),
        None => pod.container.starts_with(word),
    })
}

fn target(pods: &[PodRow], word: &str) -> Result<IpAddr> {
    if let Ok(ip) = word.parse() {
        return Ok(ip);
    }
    let pod = find(pods, word);
    let first = pod.and_then(|pod| pod.addresses.first()).and_then(|text| text.parse().ok());
    first.with_context(|| format!("{word} is neither an address nor a pod of this node; give another node's pod by its address"))
}

fn has(pod: &PodRow, ip: IpAddr) -> bool {
    pod.addresses.iter().any(|text| text.parse() == Ok(ip))
}

fn covers(lease: &LeaseRow, ip: IpAddr) -> bool {
    lease.subnets.iter().any(|text| text.parse::<Prefix>().is_ok_and(|subnet| subnet.contains(ip)))
}

fn human(steps: &[Step]) -> String {
    let rows = steps.iter().enumerate().map(|(n, step)| {
        vec![
            (n + 1).to_string(),
            step.what.to_owned(),
            step.device.clone().unwrap_or_default(),
            step.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
            step.detail.clone(),
        ]
    });
    output::table(&["", "what", "device", "mtu", "detail"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(container: &str, address: &str) -> PodRow {
        PodRow {
            container: container.into(),
            interface: "eth0".into(),
            network: "russet".into(),
            addresses: vec![address.into()],
            host_link: "rst1".into(),
            mtu: 1_450,
        }
    }

    #[test]
    fn a_pod_is_found_by_address_and_by_the_beginning_of_its_id() {
        let pods = [pod("abc", "10.50.7.2"), pod("abd", "10.50.7.3")];
        assert_eq!(find(&pods, "10.50.7.3").unwrap().container, "abd");
        assert_eq!(find(&pods, "abc").unwrap().container, "abc");
        assert!(find(&pods, "10.50.7.4").is_none());
        assert!(target(&pods, "nobody").is_err());
    }
}
