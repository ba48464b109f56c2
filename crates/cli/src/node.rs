//! `russet node status`: this node and its BGP sessions, as `calicoctl node status` shows them.

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::SystemTime};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use russet_api::{
    admin::{Answer, Ask},
    bgp::PeerRow,
    calico::moment,
};

use crate::{
    bgp,
    client::{AgentSocket, NoAgent, NoSpeaker},
    output::table,
};

#[derive(Args, Debug)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Shows whether the agent runs, and its BGP sessions; exit code 1 when it is not ready
    Status(StatusArgs),
}

#[derive(Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    agent: AgentSocket,
    /// The BGP speaker's admin socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/russet/bgp.sock",
        env = "RUSSET_BGP_SOCKET"
    )]
    bgp_socket: PathBuf,
}

pub fn run(args: NodeArgs) -> Result<ExitCode> {
    let NodeCommand::Status(args) = args.command;
    let peers = match bgp::status_of(args.bgp_socket) {
        Ok(status) => Some(status.peers.rows),
        Err(err) if err.is::<NoSpeaker>() => None,
        Err(err) => return Err(err),
    };
    let ready = match agent(&args.agent) {
        Ok(ready) => ready,
        // A speaker may run alone, as a route reflector does.
        Err(err) if err.is::<NoAgent>() && peers.is_some() => {
            println!("No agent runs on this node; its BGP speaker does.");
            true
        }
        Err(err) => return Err(err),
    };
    match peers {
        Some(peers) => print!("\n{}", human(&peers, now())),
        None => println!("\nNo BGP speaker runs on this node."),
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says how the agent is, and whether it is ready.
fn agent(socket: &AgentSocket) -> Result<bool> {
    let Answer::Status(status) = socket.ask(Ask::Status)? else {
        bail!("the agent answered something else than was asked")
    };
    let how = if status.ready { "ready" } else { "not ready" };
    println!("Russet {} runs on node {}: {how}.", status.version, status.node);
    for why in &status.not_ready {
        println!("  {why}");
    }
    Ok(status.ready)
}

/// Both families' tables.
fn human(peers: &[PeerRow], now: u64) -> String {
    let is_v6 = |peer: &&PeerRow| {
        let addr = peer.address.split('%').next().unwrap_or_default();
        addr.parse::<IpAddr>().is_ok_and(|addr| addr.is_ipv6())
    };
    let (v6, v4): (Vec<_>, Vec<_>) = peers.iter().partition(is_v6);
    [("IPv4", v4), ("IPv6", v6)].map(|(family, peers)| of_family(family, &peers, now)).join("\n")
}

fn of_family(family: &str, peers: &[&PeerRow], now: u64) -> String {
    if peers.is_empty() {
        return format!("{family} BGP status\nNo {family} peers found.\n");
    }
    let rows = peers.iter().map(|peer| row(peer, now));
    let titles = ["peer address", "peer type", "state", "since", "info"];
    format!("{family} BGP status\n{}", table(&titles, rows))
}

/// One that a file says has no kind, and what its description says.
fn row(peer: &PeerRow, now: u64) -> Vec<String> {
    let is_up = peer.up_s.is_some();
    let since = peer.up_s.map(|age| moment(now.saturating_sub(age))).unwrap_or_default();
    let info = match (&peer.last_error, is_up) {
        (Some(why), false) => format!("{}: {why}", peer.state),
        _ => peer.state.clone(),
    };
    let state = if is_up { "up" } else { "start" };
    let kind = peer.kind.clone().or_else(|| peer.description.clone()).unwrap_or_default();
    vec![peer.address.clone(), kind, state.to_owned(), since, info]
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_shown_by_family_as_calicoctl_does_it() {
        let up = PeerRow {
            address: "192.0.2.1".into(),
            description: Some("node-to-node mesh".into()),
            state: "Established".into(),
            up_s: Some(60),
            ..PeerRow::default()
        };
        let down = PeerRow {
            address: "fe80::1%eth0".into(),
            state: "Active".into(),
            last_error: Some("hold timer expired".into()),
            ..PeerRow::default()
        };
        assert_eq!(
            human(&[up, down], 1_772_352_060),
            "\
IPv4 BGP status
PEER ADDRESS  PEER TYPE          STATE  SINCE                 INFO
192.0.2.1     node-to-node mesh  up     2026-03-01T08:00:00Z  Established

IPv6 BGP status
PEER ADDRESS  PEER TYPE  STATE  SINCE  INFO
fe80::1%eth0  -          start  -      Active: hold timer expired
"
        );
        assert!(human(&[], 0).contains("No IPv4 peers found.\n\nIPv6 BGP status\nNo IPv6 peers"));
    }
}
