//! `russet-bench`: measures Russet against baselines in the same run, on the same machine.
//!
//! ```text
//!   figures/*  one subject each: what is measured, beside what, what is wanted of it
//!      │ build with          │ measure with         │ tell
//!   net, cluster, calico, etcd, bgp    traffic, cni, process    stats ─▶ report ─▶ table, JSON
//! ```
//!
//! Before anything else the program leaves the machine's network for an empty namespace of its own, and
//! everything it builds hangs on descriptors and children of this process: nothing outlives it, and
//! nothing of the machine is touched. Rounds are interleaved: what is compared is measured in turn, in an
//! order that rotates, and ratios are formed within a round.

#![allow(unreachable_pub, reason = "a program exports nothing: `pub` says that other files use it")]

mod bgp;
mod calico;
mod cluster;
mod cni;
mod etcd;
mod figures;
mod machine;
mod net;
mod process;
mod program;
mod report;
mod stats;
mod table;
mod traffic;

use std::{ffi::OsString, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::{
    figures::{Effort, Name, Setup},
    machine::Machine,
    program::Programs,
    report::Report,
};

#[derive(Debug, Parser)]
#[command(name = "russet-bench", version, args_conflicts_with_subcommands = true)]
#[command(about = "Measures Russet against baselines in the same run")]
struct Cli {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    #[command(flatten)]
    run: Run,
}

#[derive(Args, Debug)]
struct Run {
    /// What to measure; everything when none is named
    #[arg(value_enum, value_name = "FIGURE")]
    figures: Vec<Name>,
    /// Few rounds: to see that it works, not to believe the numbers
    #[arg(long)]
    quick: bool,
    /// Writes the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Shows the tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// Where `russet` and `russet-cni` are; beside this program unless told
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// What the bench starts itself as.
#[derive(Debug, Subcommand)]
enum Hidden {
    /// Moves into a network namespace and becomes a program
    #[command(hide = true)]
    Enter {
        namespace: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Connects a pod to the bridge, and does nothing else
    #[command(hide = true)]
    BareAdd { pod: PathBuf, number: u8 },
    /// Gives a pod a link and a route of its own, and does nothing else
    #[command(hide = true)]
    BareRouted { pod: PathBuf, number: u8 },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.hidden {
        Some(Hidden::Enter { namespace, command }) => {
            program::enter(&namespace, &command).map(|()| ExitCode::SUCCESS)
        }
        Some(Hidden::BareAdd { pod, number }) => {
            figures::be_bare(&pod, number).map(|()| ExitCode::SUCCESS)
        }
        Some(Hidden::BareRouted { pod, number }) => {
            figures::be_bare_routed(&pod, number).map(|()| ExitCode::SUCCESS)
        }
        None => run(cli.run),
    };
    done.unwrap_or_else(|err| {
        eprintln!("russet-bench: {err:#}");
        ExitCode::FAILURE
    })
}

/// Measures, shows, writes. The exit code is 0 when all figures could be measured, whatever they are.
fn run(args: Run) -> Result<ExitCode> {
    net::namespace::leave_network()?;
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let setup = Setup { effort, programs: Programs::find(args.programs)? };
    let mut report = Report { machine: Machine::this(), mode: effort.word(), figures: Vec::new() };
    let mut failed = ExitCode::SUCCESS;
    for name in Name::chosen(&args.figures) {
        eprintln!("measuring {name}");
        match name.measure(&setup) {
            Ok(figure) => report.figures.push(figure),
            Err(err) => {
                eprintln!("russet-bench: {name}: {err:#}");
                failed = ExitCode::FAILURE;
            }
        }
    }
    println!("{}", if args.markdown { table::markdown(&report) } else { table::terminal(&report) });
    for (figure, row, want) in report.missed() {
        eprintln!("{}: {}: {want}", figure.name, row.what);
    }
    if let Some(path) = args.json {
        let text = serde_json::to_string_pretty(&report).context("write the report")?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(failed)
}
