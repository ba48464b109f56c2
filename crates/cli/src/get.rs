//! `russet get`: leases, routes and pods of the agent; `resources::get` has the datastore's objects.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use russet_api::{
    admin::{Answer, Ask, LeaseRow, Page, PodRow, RouteRow},
    calico::Kind,
};
use serde::Serialize;

use crate::{
    client::AgentSocket,
    output::{self, Format, table},
    resources::{
        self,
        get::{SelectArgs, ShowAs},
    },
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
#[command(after_help = "\
Examples:
  russet get leases                        what the agent knows: leases, routes, pods
  russet get ippools -o wide               what the datastore has: Calico's resources
  russet get node node-1 -o yaml
  russet get wep -A -l \"app == 'web'\"
  russet get bgppeers -o yaml --export > peers.yaml
  russet get -f peers.yaml")]
pub struct GetArgs {
    /// What to list: leases, routes or pods of the agent, or a kind of the datastore's objects, in any of
    /// calicoctl's words
    #[arg(value_parser = what_parser(), ignore_case = true, required_unless_present = "files")]
    what: Option<What>,
    #[command(flatten)]
    select: SelectArgs,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: ShowAs,
    #[command(flatten)]
    socket: AgentSocket,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Who has which subnet, and how packets go there from here
    Leases,
    /// The routes that this node should have, and whether the kernel has them
    Routes,
    /// The pods of this node
    Pods,
    /// Objects of the datastore
    Objects(Kind),
}

fn what_parser() -> impl TypedValueParser<Value = What> {
    let of_agent = [
        ("leases", "Who has which subnet, and how packets go there from here"),
        ("routes", "The routes that this node should have, and whether the kernel has them"),
        ("pods", "The pods of this node"),
    ];
    let of_agent = of_agent.map(|(word, help)| PossibleValue::new(word).help(help));
    let words = of_agent.into_iter().chain(resources::kind_words());
    PossibleValuesParser::new(words).try_map(|word| match word.to_lowercase().as_str() {
        "leases" => Ok(What::Leases),
        "routes" => Ok(What::Routes),
        "pods" => Ok(What::Pods),
        word => match Kind::of_word(word) {
            Some(kind) => Ok(What::Objects(kind)),
            None => Err(format!("{word} is nothing that can be listed")),
        },
    })
}

pub fn run(args: &GetArgs) -> Result<ExitCode> {
    if args.select.has_files() {
        ensure!(args.what.is_none(), "what to list, or -f FILE: one of the two is wanted");
        return resources::get::run(None, &args.select, args.output);
    }
    if let Some(What::Objects(kind)) = args.what {
        return resources::get::run(Some(kind), &args.select, args.output);
    }
    let said: Vec<_> = args.select.of_objects().collect();
    ensure!(
        said.is_empty(),
        "leases, routes and pods come whole from the agent; for the datastore's objects alone: {}",
        said.join(", ")
    );
    match args.what {
        Some(What::Leases) => show(args, &all_leases(&args.socket)?, leases)?,
        Some(What::Routes) => {
            let rows = all(&args.socket, |from| Ask::Routes { from }, |a| matching!(a, Routes))?;
            show(args, &rows, routes)?;
        }
        Some(What::Pods) => show(args, &all_pods(&args.socket)?, pods)?,
        Some(What::Objects(_)) | None => bail!("there is nothing to list"),
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
    let format = match args.output {
        ShowAs::Table | ShowAs::Wide => Format::Table,
        ShowAs::Json => Format::Json,
        ShowAs::Yaml => Format::Yaml,
        ShowAs::Name => {
            bail!("leases, routes and pods have no names: table, json and yaml are there")
        }
    };
    output::print(format, rows, human)
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
