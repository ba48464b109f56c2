//! The lab's commands alone, for the lab's own tests: no agent, and Debian's etcd for a store.

use std::{
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    Lab(russet_lab::cli::LabArgs),
    Probe(russet_lab::probe::ProbeArgs),
    Store {
        #[command(subcommand)]
        command: Store,
    },
}

#[derive(Subcommand)]
enum Store {
    Put {
        #[arg(long)]
        endpoint: String,
        key: String,
        value: String,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Commands::Lab(args) => russet_lab::cli::run(args),
        Commands::Probe(args) => russet_lab::probe::run(args),
        Commands::Store { command: Store::Put { endpoint, key, value } } => {
            let mut etcdctl = Command::new("etcdctl");
            etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint, "put", &key, &value]);
            Err(etcdctl.exec().into())
        }
    };
    done.unwrap_or_else(|err| {
        eprintln!("{err:#}");
        ExitCode::FAILURE
    })
}
