//! `russet store put|get|del`: one key of a running store, so that a first configuration needs no etcdctl.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use russet_store::{ClientConfig, ClientSettings, EtcdClient, WriteOutcome, config::Secret};

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

/// Which store, and how to speak to it.
#[derive(Args, Debug)]
pub struct StoreAt {
    /// An endpoint, `http://HOST:PORT` or `https://HOST:PORT`; may be given again
    #[arg(
        long = "endpoint",
        value_name = "URL",
        env = "RUSSET_ENDPOINTS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// The authority of the servers' certificates (PEM)
    #[arg(long, value_name = "FILE")]
    ca_file: Option<std::path::PathBuf>,
    /// Our certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<std::path::PathBuf>,
    /// Our certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<std::path::PathBuf>,
    #[arg(long, requires = "password")]
    username: Option<String>,
    #[arg(long, env = "RUSSET_STORE_PASSWORD", hide_env_values = true)]
    password: Option<String>,
}

impl StoreAt {
    fn client(self) -> Result<EtcdClient> {
        let settings = ClientSettings {
            endpoints: self.endpoints,
            ca_file: self.ca_file,
            cert_file: self.cert_file,
            key_file: self.key_file,
            username: self.username,
            password: self.password.map(Secret::new),
            request_timeout: None,
        };
        Ok(EtcdClient::new(&ClientConfig::read(&settings)?))
    }
}

/// Does one thing to one key.
pub fn run(command: KeyCommand) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        match command {
            KeyCommand::Put { store, key, value } => {
                store.client()?.put(key.as_bytes(), value.as_bytes()).await?;
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
        if let WriteOutcome::Done { .. } = client.delete_if(key.as_bytes(), found.modified).await? {
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
