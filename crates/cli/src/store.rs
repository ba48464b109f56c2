//! `russet store`: the embedded datastore, and what is done with a store: single keys (`key`), snapshots of a
//! running one (`snapshot`), and files that nobody uses just now (`file`). `at` says which running store is
//! meant, ours or an etcd.

pub mod at;
mod file;
mod key;
mod snapshot;

use std::{
    fs::DirBuilder, future::Future, net::SocketAddr, os::unix::fs::DirBuilderExt, path::Path,
    path::PathBuf, process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use russet_store::{
    ConfigFaults, StoreError,
    server::{self, Exposure, Keep, Limits, MutualTls, ServerConfig},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{LogFormat, start_logs};

#[derive(Args, Debug)]
#[command(
    long_about = "Runs the embedded datastore: etcd's v3 API on one machine, kept in one file.

What was answered is on the disk: a crash loses nothing of it. Off loopback it wants mutual TLS.

With put, get or del it speaks to a running store instead, to ours or to an etcd, and so does `snapshot`.",
    after_help = EXAMPLES
)]
#[command(args_conflicts_with_subcommands = true)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Option<StoreCommand>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    #[command(flatten)]
    Key(key::KeyCommand),
    /// Saves, shows and restores snapshots, as etcd has them
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    #[command(flatten)]
    File(file::FileCommand),
}

#[derive(Args, Debug)]
struct ServeArgs {
    /// Where to listen
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:2379",
        env = "RUSSET_STORE_LISTEN"
    )]
    listen: SocketAddr,
    /// The file that holds everything; made when there is none
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/russet/store.db",
        env = "RUSSET_STORE_DATA"
    )]
    data: PathBuf,
    /// Keeps everything in memory and no file, whatever --data says: it is gone at the end, and the next one
    /// is another cluster's
    #[arg(long)]
    memory: bool,
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
    #[command(flatten)]
    limits: LimitArgs,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "RUSSET_LOG_FORMAT")]
    log_format: LogFormat,
}

/// What bounds it; the names are etcd's.
#[derive(Args, Debug)]
struct LimitArgs {
    /// Bytes of one request, and so of one value [default: 1572864]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=MAX_REQUEST))]
    max_request_bytes: Option<u32>,
    /// Operations of one transaction [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_OPS))]
    max_txn_ops: Option<u32>,
    /// Bytes of keys and values, history included, beyond which only deletions are taken [default: 536870912]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    quota_backend_bytes: Option<u64>,
}

pub fn run(args: StoreArgs) -> Result<ExitCode> {
    match args.command {
        None => serve(&args.serve),
        Some(StoreCommand::Key(command)) => key::run(command),
        Some(StoreCommand::Snapshot(command)) => snapshot::run(command),
        Some(StoreCommand::File(command)) => file::run(command),
    }
}

fn serve(args: &ServeArgs) -> Result<ExitCode> {
    start_logs(args.log_format);
    let config = ServerConfig {
        exposure: args.exposure()?,
        limits: args.limits.read(),
        keep: args.keep(),
        ..ServerConfig::default()
    };
    raise_descriptor_limit();
    // Two threads: what 100 watchers are told is encoded and written on both cores.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        let stop = until_asked_to_stop()?;
        let listener = server::listen(args.listen);
        let listener = listener.with_context(|| format!("listen on {}", args.listen))?;
        if let Keep::File(file) = &config.keep {
            make_folder_of(file)?;
        }
        server::serve(config, listener, stop).await?;
        anyhow::Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

impl ServeArgs {
    fn keep(&self) -> Keep {
        if self.memory { Keep::Memory } else { Keep::File(self.data.clone()) }
    }

    fn exposure(&self) -> Result<Exposure, ConfigFaults> {
        match (&self.cert, &self.key, &self.client_ca) {
            (Some(cert), Some(key), Some(ca)) => {
                Ok(Exposure::MutualTls(MutualTls::read(cert, key, ca)?))
            }
            (None, None, None) if self.allow_plaintext => Ok(Exposure::AllowPlaintext),
            (None, None, None) => Ok(Exposure::Loopback),
            _ => Err(ConfigFaults(vec!["--cert, --key and --client-ca belong together".into()])),
        }
    }
}

impl LimitArgs {
    fn read(&self) -> Limits {
        let mut limits = Limits::default();
        let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        limits.request_bytes = self.max_request_bytes.map_or(limits.request_bytes, size);
        limits.txn_ops = self.max_txn_ops.map_or(limits.txn_ops, size);
        limits.store_bytes = self.quota_backend_bytes.unwrap_or(limits.store_bytes);
        limits
    }
}

/// Lets as many connections in as the system allows: the soft limit is 1,024 for the sake of `select`, which
/// nobody uses here. Without it there are fewer places, and more connections are refused.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(err) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %err, "raise the limit of open files");
    }
}

/// Makes the folder of a store's file, for its owner alone: the file may hold secrets.
fn make_folder_of(file: &Path) -> Result<()> {
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("make the folder {}", folder.display()))
}

/// An error of a write, which may have been done all the same where no answer came.
pub fn of_a_write(err: StoreError) -> anyhow::Error {
    let unknown = err.is_outcome_unknown();
    let err = anyhow::Error::new(err);
    if unknown { err.context("whether it was written is not known") } else { err }
}

/// Runs something that speaks over the network to its end.
pub fn block_on<R>(work: impl Future<Output = Result<R>>) -> Result<R> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(work)
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

/// 64 MiB: one message beyond that belongs into no datastore of a network.
const MAX_REQUEST: i64 = 64 << 20;
const MAX_OPS: i64 = 100_000;
const EXAMPLES: &str = "\
Examples:
  russet store                                       keeps /var/lib/russet/store.db, listens on 127.0.0.1:2379
  russet store --data /srv/net.db --listen 127.0.0.1:12379
  russet store put /coreos.com/network/config '{\"Network\":\"10.50.0.0/16\",\"Backend\":{\"Type\":\"vxlan\"}}'
  russet store snapshot save net.snap                of a running store, ours or an etcd
  russet store snapshot restore net.snap --data /srv/new.db
  russet store salvage --data /srv/net.db --to /srv/saved.db
  russet store export --data /srv/net.db net.snap    for `etcdctl snapshot restore`";
