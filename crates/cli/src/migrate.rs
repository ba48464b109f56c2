//! `russet migrate`: from what is there to what shall be, live.

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
    /// Copies a store's keys to another store while both are in use, and checks the copy
    Store(Box<store::MoveArgs>),
}

pub fn run(args: MigrateArgs) -> Result<ExitCode> {
    match args.command {
        MigrateCommand::Store(args) => store::run(*args),
    }
}
