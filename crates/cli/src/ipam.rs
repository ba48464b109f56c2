//! `russet ipam`: what was taken from Calico's pools; whether it adds up; giving back and cutting up.
//!
//! `model` is the one place that knows how a block is made: the rest works on plain facts of `core`'s audit.

mod check;
mod model;
mod release;
mod show;
mod split;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{
    resources::{Datastore, DatastoreArgs},
    store::block_on,
};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  russet ipam show                         each pool, and how much of it is taken
  russet ipam show --show-blocks
  russet ipam show --ip 10.244.3.70        who has it
  russet ipam check -o report.json         what does not add up; exit code 1 if anything does not
  russet ipam release --from-report report.json
  russet ipam split --cidr 10.244.0.0/16 4")]
pub struct IpamArgs {
    #[command(subcommand)]
    command: IpamCommand,
}

#[derive(Debug, Subcommand)]
enum IpamCommand {
    /// Shows how much of each pool is taken, who has an address, or what is borrowed
    Show(show::ShowArgs),
    /// Looks whether blocks, handles, claims, pools, nodes and workloads add up; changes nothing
    Check(check::CheckArgs),
    /// Gives addresses back
    Release(release::ReleaseArgs),
    /// Cuts a pool into equal ones, at once and while it is in use
    Split(split::SplitArgs),
}

/// Which datastore.
#[derive(Args, Debug)]
struct At {
    #[command(flatten)]
    store: DatastoreArgs,
}

impl At {
    fn datastore(&self) -> Result<Datastore> {
        self.store.open()
    }
}

pub fn run(args: IpamArgs) -> Result<ExitCode> {
    block_on(async {
        match args.command {
            IpamCommand::Show(args) => show::run(&args).await,
            IpamCommand::Check(args) => check::run(&args).await,
            IpamCommand::Release(args) => release::run(&args).await,
            IpamCommand::Split(args) => split::run(&args).await,
        }
    })
}
