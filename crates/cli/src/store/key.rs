//! `russet store put|get|del`: one key of a running store, so that a first configuration needs no etcdctl.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use russet_store::{EtcdClient, WriteOutcome};

use super::{at::StoreAt, block_on, of_a_write};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Writes a value
    Put {
        #[command(flatten)]
        store: StoreAt,
        key: String,
        value: String,
    },
    /// Prints a value; exit code 1 when there is none
    Get {
        #[command(flatten)]
        store: StoreAt,
        key: String,
    },
    /// Deletes a key; exit code 1 when there is none
    Del {
        #[command(flatten)]
        store: StoreAt,
        key: String,
    },
}

/// Does one thing to one key.
pub fn run(command: KeyCommand) -> Result<ExitCode> {
    block_on(async {
        match command {
            KeyCommand::Put { store, key, value } => {
                let put = store.client()?.put(key.as_bytes(), value.as_bytes()).await;
                put.map_err(of_a_write)?;
                Ok(ExitCode::SUCCESS)
            }
            KeyCommand::Get { store, key } => get(&store.client()?, &key).await,
            KeyCommand::Del { store, key } => delete(&store.client()?, &key).await,
        }
    })
}

async fn get(client: &EtcdClient, key: &str) -> Result<ExitCode> {
    match client.get(key.as_bytes()).await? {
        Some(found) => {
            println!("{}", String::from_utf8_lossy(&found.value));
            Ok(ExitCode::SUCCESS)
        }
        None => Ok(nothing(key)),
    }
}

/// Deletes what was read: a value that changes in between is read again.
async fn delete(client: &EtcdClient, key: &str) -> Result<ExitCode> {
    for _ in 0..TRIES {
        let Some(found) = client.get(key.as_bytes()).await? else { return Ok(nothing(key)) };
        let deleted = client.delete_if(key.as_bytes(), found.modified).await;
        if let WriteOutcome::Done { .. } = deleted.map_err(of_a_write)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    anyhow::bail!("{key} changes faster than it can be deleted")
}

fn nothing(key: &str) -> ExitCode {
    eprintln!("there is no key {key}");
    ExitCode::FAILURE
}

const TRIES: usize = 8;
