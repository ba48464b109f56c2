//! `russet store salvage|export`: what is done with a file that no store uses.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Subcommand;
use russet_store::snapshot;

use super::{
    at::StoreAt,
    make_folder_of,
    snapshot::{save, told},
};

#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// Makes a new store of what is readable before the damage of another
    Salvage {
        /// The damaged file; it is not changed
        #[arg(long, value_name = "FILE")]
        data: PathBuf,
        /// The file to make
        #[arg(long, value_name = "NEW")]
        to: PathBuf,
    },
    /// Writes a snapshot that etcd can be begun with, and says how
    Export {
        /// A store's file that nobody uses, instead of a running store
        #[arg(long, value_name = "FILE", conflicts_with = "endpoints")]
        data: Option<PathBuf>,
        #[command(flatten)]
        store: StoreAt,
        /// The snapshot to write
        out: PathBuf,
    },
}

pub fn run(command: FileCommand) -> Result<ExitCode> {
    match command {
        FileCommand::Salvage { data, to } => {
            make_folder_of(&to)?;
            let kept = snapshot::salvage(&data, &to)?;
            println!("{}: all up to revision {}", to.display(), kept.revision);
            match kept.damage {
                Some(damage) => println!("what follows could not be read: {damage}"),
                None => println!("{} is whole: nothing is missing", data.display()),
            }
            println!("{NOTICED}");
        }
        FileCommand::Export { data, store, out } => {
            match data {
                Some(data) => {
                    snapshot::export(&data, &out)?;
                }
                None => save(store, &out)?,
            }
            println!("{}: {}", out.display(), told(&snapshot::status(&out)?));
            println!("an etcd is begun with it by\n  {}", restore_with_etcdctl(&out));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The command that makes an etcd's folder of the snapshot, as a shell reads it.
fn restore_with_etcdctl(snapshot: &std::path::Path) -> String {
    let name = snapshot.display().to_string().replace('\'', r"'\''");
    format!("ETCDCTL_API=3 etcdctl snapshot restore '{name}' --data-dir default.etcd")
}

/// What the agents make of a store that was made from another.
pub const NOTICED: &str = "\
it is another cluster: agents that it is served to remove nothing, and wait for `russet status --accept-store`";
