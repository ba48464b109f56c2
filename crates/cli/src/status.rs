//! `russet status`: how this node is, the bad news first.

use std::{fmt::Write, process::ExitCode};

use anyhow::{Result, bail};
use clap::Args;
use russet_api::admin::{Answer, Ask, Status};

use crate::{
    client::AgentSocket,
    get,
    output::{self, Format, table},
};

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Takes the store as it is now for the truth, although it is empty, of another cluster or older than
    /// what this node has seen. What it does not have is then removed from this node
    #[arg(long)]
    accept_store: bool,
    #[command(flatten)]
    socket: AgentSocket,
}

/// Exits with 0 when the node is ready, else with 1, so that a script can ask.
pub fn run(args: &StatusArgs) -> Result<ExitCode> {
    if args.accept_store {
        match args.socket.ask(Ask::AcceptStore)? {
            Answer::Done => println!("the store's present state is accepted"),
            _ => bail!("the agent answered something else than was asked"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Answer::Status(status) = args.socket.ask(Ask::Status)? else {
        bail!("the agent answered something else than was asked");
    };
    output::print(args.output, &*status, human)?;
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole picture as text. Parts with nothing to say are left out.
fn human(status: &Status) -> String {
    let mut text = String::new();
    head(status, &mut text);
    section(&mut text, "NODES", &nodes(status), status.peers.is_empty());
    let rows = status.refused.iter().map(|r| vec![r.fact.clone(), r.reason.clone()]);
    section(&mut text, "LEFT OUT", &table(&["what", "because"], rows), status.refused.is_empty());
    let rows = status
        .pending
        .iter()
        .map(|p| vec![p.object.clone(), p.reason.clone(), p.cause.clone().unwrap_or_default()]);
    section(
        &mut text,
        "PENDING",
        &table(&["object", "reason", "wanted by"], rows),
        status.pending.is_empty(),
    );
    section(&mut text, "REPAIRED", &repaired(status), status.repaired.is_empty());
    let rows = status.paths.iter().map(|row| vec![row.path.clone(), row.problem.clone()]);
    section(&mut text, "PATHS", &table(&["path", "problem"], rows), status.paths.is_empty());
    let rows = status.forward_drops.iter().map(|d| {
        let accepted = if d.accepted {
            "our accept stands before it"
        } else {
            "pods cannot be reached through it"
        };
        vec![d.chain.clone(), d.why.clone(), accepted.into()]
    });
    section(
        &mut text,
        "FORWARD CHAINS THAT DROP",
        &table(&["chain", "why", "so"], rows),
        status.forward_drops.is_empty(),
    );
    let rows = status.leftovers.iter().map(|left| vec![left.what.clone(), left.removal.clone()]);
    section(
        &mut text,
        "LEFT BY FLANNEL",
        &table(&["what", "to be rid of it"], rows),
        status.leftovers.is_empty(),
    );
    text
}

fn nodes(status: &Status) -> String {
    let mut text = get::leases(&status.peers);
    if status.peers_total > status.peers.len() {
        let more = status.peers_total - status.peers.len();
        let _ = writeln!(text, "and {more} more: russet get leases");
    }
    text
}

fn head(status: &Status, text: &mut String) {
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("node", &format!("{} (russet {}, preset {})", status.node, status.version, status.preset));
    line("state", if status.ready { "ready" } else { "NOT READY" });
    status.not_ready.iter().for_each(|why| line("", &format!("- {why}")));
    line("store", &store(status));
    if let Some(doubt) = &status.store.doubt {
        line("", &format!("NOT BELIEVED: {doubt}"));
        line("", "nothing is removed; when this is right: russet status --accept-store");
    }
    match &status.network {
        Some(net) => {
            line("network", &format!("{} by {}", net.networks.join(" "), net.transport));
            let expiry = net
                .lease_expires_in_s
                .map_or(String::new(), |s| format!(", lease for {}", duration(s)));
            line(
                "subnet",
                &format!(
                    "{} {}, pod MTU {}{expiry}",
                    net.subnets.join(" "),
                    match &net.bridge {
                        Some(bridge) => format!("on {bridge}"),
                        None => "routed".into(),
                    },
                    net.pod_mtu
                ),
            );
        }
        None => line("network", "no configuration yet"),
    }
    if let Some(up) = &status.uplink {
        line("uplink", &format!("{} {} MTU {}", up.link, up.addresses.join(" "), up.mtu));
    }
    if let Some(problem) = &status.node_object {
        line("node object", problem);
    }
    line("pods", &status.pods.to_string());
}

fn store(status: &Status) -> String {
    let store = &status.store;
    let state = match (store.connected, store.in_sync) {
        (true, true) => "in sync".to_owned(),
        (true, false) => "connected, not in sync".to_owned(),
        (false, _) => {
            format!("NOT REACHED ({})", store.error.as_deref().unwrap_or("no answer yet"))
        }
    };
    format!("{} {state}, revision {}", store.endpoints.join(","), store.revision)
}

fn repaired(status: &Status) -> String {
    let rows = status.repaired.iter().map(|r| {
        vec![
            r.object.clone(),
            r.what.clone(),
            r.by.clone().unwrap_or_default(),
            r.times.to_string(),
            r.found_by.clone(),
            format!("{} ago", duration(r.seconds_ago)),
        ]
    });
    table(&["object", "what happened", "by", "times", "found by", "when"], rows)
}

fn section(text: &mut String, title: &str, body: &str, is_empty: bool) {
    if !is_empty {
        let _ = write!(text, "\n{title}\n{body}");
    }
}

/// `3 h 20 min`, `45 s`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use russet_api::admin::{NetworkStatus, Pending, StoreStatus};

    use super::*;

    #[test]
    fn the_reason_stands_beside_the_fault() {
        let text = human(&Status {
            node: "a".into(),
            not_ready: vec!["the store is not in sync".into()],
            store: StoreStatus {
                error: Some("connection refused".into()),
                ..StoreStatus::default()
            },
            network: Some(NetworkStatus {
                transport: "vxlan".into(),
                networks: vec!["10.50.0.0/16".into()],
                subnets: vec!["10.50.7.0/24".into()],
                pod_mtu: 1_450,
                bridge: Some("cni0".into()),
                lease_expires_in_s: Some(80_000),
            }),
            node_object: Some("address 192.0.2.1 is also b's; not written".into()),
            pending: vec![Pending {
                object: "route 10.50.9.0/24".into(),
                reason: "held by protocol bird".into(),
                cause: Some("lease 10.50.9.0-24".into()),
            }],
            ..Status::default()
        });
        for wanted in [
            "NOT READY",
            "- the store is not in sync",
            "connection refused",
            "held by protocol bird",
            "22 h 13 min",
            "node object address 192.0.2.1 is also b's; not written",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
        }
        assert!(!text.contains("REPAIRED"));
    }
}
