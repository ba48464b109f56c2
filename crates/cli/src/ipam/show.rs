//! `russet ipam show`.

use std::{fmt::Write, net::IpAddr, process::ExitCode};

use anyhow::Result;
use clap::Args;
use russet_api::calico::{Kind, Resource};
use russet_core::model::calico::{BlockFacts, IpamConfiguration, IpamFacts};
use russet_net::Prefix;

use super::{
    At,
    model::{Seen, borrowed},
};
use crate::{
    output::table,
    resources::{Datastore, clean},
};

#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Says who has this address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Shows the blocks of each pool
    #[arg(long)]
    show_blocks: bool,
    /// Shows addresses that a node has of another's block
    #[arg(long)]
    show_borrowed: bool,
    /// Shows how addresses are given
    #[arg(long)]
    show_configuration: bool,
    #[command(flatten)]
    at: At,
}

pub async fn run(args: &ShowArgs) -> Result<ExitCode> {
    let store = args.at.datastore()?;
    if args.show_configuration {
        print!("{}", configuration(&store).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let Seen { facts, bad, .. } = Seen::look(&store).await?;
    if let Some(ip) = args.ip {
        print!("{}", one(&facts, ip));
    } else if args.show_borrowed {
        print!("{}", all_borrowed(&facts));
    } else {
        print!("{}", pools(&facts, args.show_blocks));
    }
    for told in &bad {
        eprintln!("russet: {}", clean(told));
    }
    Ok(if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn configuration(store: &Datastore) -> Result<String> {
    let listed = store.list(Kind::IpamConfiguration, None).await?;
    let there = listed.found.iter().find_map(|found| match &found.resource {
        Resource::IpamConfiguration(stored) => Some(*stored.value()),
        _ => None,
    });
    let usual = if there.is_none() { " (nothing is configured)" } else { "" };
    let config: IpamConfiguration = there.unwrap_or_default();
    let automatic = matches!(config.claims, russet_core::model::calico::Claims::Automatic { .. });
    let rows = [
        ("StrictAffinity", config.is_strict().to_string()),
        ("AutoAllocateBlocks", automatic.to_string()),
        ("MaxBlocksPerHost", config.max_blocks().to_string()),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value + usual]);
    Ok(table(&["property", "value"], rows))
}

fn pools(facts: &IpamFacts, blocks: bool) -> String {
    let mut rows = Vec::new();
    let mut pools: Vec<_> = facts.pools.values().copied().collect();
    pools.sort_unstable();
    for pool in pools {
        let inside: Vec<_> = facts.blocks.iter().filter(|b| pool.covers(b.cidr)).collect();
        let used = inside.iter().map(|block| block.taken.len()).sum();
        rows.push(row("IP Pool", pool, used));
        if blocks {
            rows.extend(inside.iter().map(|block| of_block(block)));
        }
    }
    let outside = |block: &&BlockFacts| !facts.pools.values().any(|pool| pool.covers(block.cidr));
    let outside = facts.blocks.iter().filter(outside);
    rows.extend(outside.map(|block| row("Block outside pools", block.cidr, block.taken.len())));
    table(&["grouping", "cidr", "ips total", "ips in use", "ips free"], rows)
}

fn of_block(block: &BlockFacts) -> Vec<String> {
    row("Block", block.cidr, block.taken.len())
}

fn row(grouping: &str, cidr: Prefix, used: usize) -> Vec<String> {
    let bits = u32::from(cidr.family().bits() - cidr.len());
    let used = u128::try_from(used).unwrap_or(u128::MAX);
    // All of IPv6 is one more than fits.
    let total = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    let free = total.saturating_sub(used);
    let shown = |n: u128| if n >> 53 == 0 { n.to_string() } else { format!("2^{}", n.ilog2()) };
    let total_shown = if bits > 53 { format!("2^{bits}") } else { total.to_string() };
    let of_hundred = used.saturating_mul(100) / total.max(1);
    vec![
        grouping.to_owned(),
        cidr.to_string(),
        total_shown.clone(),
        format!("{used} ({of_hundred}%)"),
        if bits > 53 {
            format!("nearly {total_shown}")
        } else {
            format!("{} ({}%)", shown(free), 100 - of_hundred)
        },
    ]
}

fn one(facts: &IpamFacts, ip: IpAddr) -> String {
    let around = facts.blocks.iter().find(|block| block.cidr.contains(ip));
    let taken = around.and_then(|block| block.taken.iter().find(|taken| taken.addr == ip));
    let (Some(block), Some(taken)) = (around, taken) else {
        let pool = facts.pools.iter().find(|(_, cidr)| cidr.contains(ip));
        let place = match (around, pool) {
            (Some(block), _) => format!("; it lies in block {}", block.cidr),
            (None, Some((name, _))) => format!("; it lies in pool {name}, and no block is there"),
            (None, None) => "; it lies in no pool".to_owned(),
        };
        return format!("{ip} is not assigned{place}\n");
    };
    let owner = block.affinity.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let mut text = format!("IP {ip} is in use\nBlock: {} of {owner}\n", block.cidr);
    match &taken.handle {
        Some(handle) if facts.handles.contains_key(handle) => {
            let _ = writeln!(text, "Handle: {handle}");
        }
        Some(handle) => {
            let _ = writeln!(text, "Handle: {handle}, which does not exist");
        }
        None => text += "Handle: none\n",
    }
    let _ = writeln!(text, "Sequence: {}", taken.sequence);
    for user in facts.users.get(&ip).into_iter().flatten() {
        let _ = writeln!(text, "Used by: {}", clean(user));
    }
    text += "Attributes:\n";
    for (name, value) in &taken.attributes {
        let _ = writeln!(text, "  {}: {}", clean(name), clean(value));
    }
    text
}

fn all_borrowed(facts: &IpamFacts) -> String {
    let rows = borrowed(facts).map(|(block, taken)| {
        let attribute =
            |name| taken.attributes.get(name).map(|text| clean(text)).unwrap_or_default();
        let owner = block.affinity.as_ref().map(|affinity| affinity.name().to_string());
        let pod = attribute("pod");
        let (kind, user) = if pod.is_empty() {
            (attribute("type"), String::new())
        } else {
            ("pod".to_owned(), format!("{}/{pod}", attribute("namespace")))
        };
        vec![
            taken.addr.to_string(),
            attribute("node"),
            block.cidr.to_string(),
            owner.unwrap_or_default(),
            kind,
            user,
        ]
    });
    table(&["ip", "borrowing-node", "block", "block owner", "type", "allocated-to"], rows)
}
