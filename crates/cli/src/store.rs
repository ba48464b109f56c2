//! `russet store`: the embedded datastore, and, in `key`, single keys of any store.

mod key;

use std::{future::Future, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use russet_store::server::{self, Exposure, MutualTls, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{LogFormat, start_logs};

#[derive(Args, Debug)]
#[command(long_about = "Runs the embedded datastore: etcd's v3 API on one machine, in memory.

What it holds is gone when it ends; nodes notice that (the cluster's id is another) and remove nothing.
Off loopback it wants mutual TLS.

With put, get or del it speaks to a running store instead, to ours or to an etcd.")]
#[command(args_conflicts_with_subcommands = true)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Option<key::KeyCommand>,
    /// Where to listen
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:2379",
        env = "RUSSET_STORE_LISTEN"
    )]
    listen: SocketAddr,
    /// Serves plain text off loopback: whoever reaches the port reads and writes the whole network's
    /// configuration. For namespaces that nobody else can reach
    #[arg(long, conflicts_with_all = ["cert", "key", "client_ca"])]
    allow_plaintext: bool,
    /// The server's certificate (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["key", "client_ca"])]
    cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The authority that signs the clients' certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    client_ca: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "RUSSET_LOG_FORMAT")]
    log_format: LogFormat,
}

pub fn run(args: StoreArgs) -> Result<ExitCode> {
    if let Some(command) = args.command {
        return key::run(command);
    }
    start_logs(args.log_format);
    let config = ServerConfig { exposure: args.exposure()?, ..ServerConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let stop = until_asked_to_stop()?;
        let listener = tokio::net::TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("listen on {}", args.listen))?;
        server::serve(config, listener, stop).await.context("serve the datastore")
    })?;
    Ok(ExitCode::SUCCESS)
}

impl StoreArgs {
    fn exposure(&self) -> Result<Exposure> {
        match (&self.cert, &self.key, &self.client_ca) {
            (Some(cert), Some(key), Some(ca)) => {
                Ok(Exposure::MutualTls(MutualTls::read(cert, key, ca)?))
            }
            (None, None, None) if self.allow_plaintext => Ok(Exposure::AllowPlaintext),
            (None, None, None) => Ok(Exposure::Loopback),
            _ => bail!("--cert, --key and --client-ca belong together"),
        }
    }
}

/// Is ready when the process is asked to stop, by SIGTERM or SIGINT.
pub fn until_asked_to_stop() -> Result<impl Future<Output = ()> + Send> {
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
