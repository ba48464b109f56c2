//! `russet get leases|routes|pods`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use russet_api::admin::{Answer, Ask, LeaseRow, Page, PodRow, RouteRow};
use serde::Serialize;

use crate::{
    client::AgentSocket,
    output::{self, Format, table},
};

/// The page of one variant of an answer, or `None`.
macro_rules! matching {
    ($answer:ident, $variant:ident) => {
        match $answer {
            Answer::$variant(page) => Some(page),
            _ => None,
        }
    };
}

#[derive(Args, Debug)]
pub struct GetArgs {
    /// What to list
    what: What,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    socket: AgentSocket,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Who has which subnet, and how packets go there from here
    Leases,
    /// The routes that this node should have, and whether the kernel has them
    Routes,
    /// The pods of this node
    Pods,
}

pub fn run(args: &GetArgs) -> Result<ExitCode> {
    match args.what {
        What::Leases => show(args, &all_leases(&args.socket)?, leases)?,
        What::Routes => {
            let rows = all(&args.socket, |from| Ask::Routes { from }, |a| matching!(a, Routes))?;
            show(args, &rows, routes)?;
        }
        What::Pods => show(args, &all_pods(&args.socket)?, pods)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub fn all_leases(socket: &AgentSocket) -> Result<Vec<LeaseRow>> {
    all(socket, |from| Ask::Leases { from }, |a| matching!(a, Leases))
}

pub fn all_pods(socket: &AgentSocket) -> Result<Vec<PodRow>> {
    all(socket, |from| Ask::Pods { from }, |a| matching!(a, Pods))
}

fn show<T: Serialize>(args: &GetArgs, rows: &[T], human: fn(&[T]) -> String) -> Result<()> {
    output::print(args.output, rows, human)
}

/// Asks for page after page. A list that shrinks meanwhile ends early; none is asked for for ever.
fn all<T>(
    socket: &AgentSocket,
    ask: fn(usize) -> Ask,
    take: fn(Answer) -> Option<Page<T>>,
) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    for _ in 0..MAX_PAGES {
        let Some(page) = take(socket.ask(ask(rows.len()))?) else {
            bail!("the agent answered something else than was asked");
        };
        let done = page.rows.is_empty() || rows.len() + page.rows.len() >= page.total;
        rows.extend(page.rows);
        if done {
            break;
        }
    }
    Ok(rows)
}

const MAX_PAGES: usize = 1_000;

pub fn leases(rows: &[LeaseRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.subnets.join(" "),
            row.public_ips.join(" "),
            row.backend.clone(),
            row.transport.clone(),
            row.problem.clone().unwrap_or_default(),
        ]
    });
    table(&["subnet", "node", "backend", "transport", "problem"], cells)
}

fn routes(rows: &[RouteRow]) -> String {
    let cells = rows
        .iter()
        .map(|row| vec![row.dst.clone(), row.via.clone(), row.link.clone(), row.state.clone()]);
    table(&["destination", "via", "link", "state"], cells)
}

fn pods(rows: &[PodRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.container.clone(),
            row.interface.clone(),
            row.addresses.join(" "),
            row.host_link.clone(),
            row.mtu.to_string(),
            row.network.clone(),
        ]
    });
    table(&["container", "interface", "addresses", "host link", "mtu", "network"], cells)
}
