//! `russet migrate`: from what is there to what shall be, live.

mod check;
mod store;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,
}

#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// Says what an agent that starts here would take over, and what is in its way; changes nothing
    Check(Box<check::CheckArgs>),
    /// Copies a store's keys to another store while both are in use, and checks the copy
    Store(Box<store::MoveArgs>),
}

pub fn run(args: MigrateArgs) -> Result<ExitCode> {
    match args.command {
        MigrateCommand::Check(args) => check::run(&args),
        MigrateCommand::Store(args) => store::run(*args),
    }
}
