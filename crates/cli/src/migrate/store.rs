//! `russet migrate store`: the copy of `russet_store::migrate`, told to a person or to a program.
//!
//! What happens goes to standard error as it happens; the summary goes to standard output. The exit code is 0
//! only when both sides were compared and are the same.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use russet_store::{
    ConfigFaults, EtcdClient,
    migrate::{Existing, Order, Progress, Report, migrate},
};
use serde::Serialize;

use crate::{
    output::{self, Format},
    store::{
        at::{Proof, client},
        block_on, until_asked_to_stop,
    },
};

#[derive(Args, Debug)]
#[command(
    long_about = "Copies a store's keys to another store while both are in use, and checks the copy.

The source, ours or an etcd, is only read. Its leases get the same numbers on the target, so that whoever renews
one goes on there. With --follow every change follows until Ctrl-C: point the agents at the target meanwhile.
At the end both sides are read and compared key by key.",
    after_help = EXAMPLES
)]
pub struct MoveArgs {
    /// An endpoint of the store that is copied; may be given again
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    from: Vec<String>,
    /// An endpoint of the store that gets the copy; may be given again
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    to: Vec<String>,
    /// The folder of keys that is copied; empty for every key
    #[arg(long, value_name = "KEY", default_value = "/coreos.com/network")]
    prefix: String,
    /// Goes on with every change until SIGINT or SIGTERM
    #[arg(long)]
    follow: bool,
    /// Replaces keys that the target has already, and removes those that the source does not have
    #[arg(long)]
    overwrite: bool,
    /// Seconds for which either side may be away
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    #[command(flatten)]
    source: FromProof,
    #[command(flatten)]
    target: ToProof,
    /// How to show the summary
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How we prove who we are to the source.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
struct FromProof {
    /// The authority of the source's certificates (PEM)
    #[arg(long, value_name = "FILE")]
    from_ca_file: Option<PathBuf>,
    /// Our certificate for the source (PEM)
    #[arg(long, value_name = "FILE", requires = "from_key_file")]
    from_cert_file: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "from_cert_file")]
    from_key_file: Option<PathBuf>,
    #[arg(long, value_name = "NAME", requires = "from_password")]
    from_username: Option<String>,
    #[arg(long, value_name = "TEXT", env = "RUSSET_FROM_PASSWORD", hide_env_values = true)]
    from_password: Option<String>,
}

/// How we prove who we are to the target.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
struct ToProof {
    /// The authority of the target's certificates (PEM)
    #[arg(long, value_name = "FILE")]
    to_ca_file: Option<PathBuf>,
    /// Our certificate for the target (PEM)
    #[arg(long, value_name = "FILE", requires = "to_key_file")]
    to_cert_file: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "to_cert_file")]
    to_key_file: Option<PathBuf>,
    #[arg(long, value_name = "NAME", requires = "to_password")]
    to_username: Option<String>,
    #[arg(long, value_name = "TEXT", env = "RUSSET_TO_PASSWORD", hide_env_values = true)]
    to_password: Option<String>,
}

impl From<FromProof> for Proof {
    fn from(args: FromProof) -> Self {
        Self {
            ca_file: args.from_ca_file,
            cert_file: args.from_cert_file,
            key_file: args.from_key_file,
            username: args.from_username,
            password: args.from_password,
        }
    }
}

impl From<ToProof> for Proof {
    fn from(args: ToProof) -> Self {
        Self {
            ca_file: args.to_ca_file,
            cert_file: args.to_cert_file,
            key_file: args.to_key_file,
            username: args.to_username,
            password: args.to_password,
        }
    }
}

pub fn run(args: MoveArgs) -> Result<ExitCode> {
    let order = Order {
        prefix: folder(&args.prefix),
        existing: if args.overwrite { Existing::Overwrite } else { Existing::Refuse },
        patience: Duration::from_secs(args.patience),
    };
    let (follow, format) = (Follow::from(args.follow), args.output);
    let report = block_on(async {
        let (source, target) = clients(args)?;
        copy(&source, &target, &order, follow).await
    })?;
    output::print(format, &Summary::of(&report), Summary::text)?;
    Ok(if report.is_true_copy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Both clients, or all that is wrong with either's settings.
fn clients(args: MoveArgs) -> Result<(EtcdClient, EtcdClient), ConfigFaults> {
    let mut faults = Vec::new();
    let bare = |url: &String| url.trim().trim_end_matches('/').to_owned();
    let from: BTreeSet<_> = args.from.iter().map(bare).collect();
    if let Some(both) = args.to.iter().map(bare).find(|url| from.contains(url)) {
        faults.push(format!("{both} is an endpoint of both --from and --to"));
    }
    let mut make = |name: &str, endpoints, proof| {
        let client = client(endpoints, proof, None);
        client
            .map_err(|err| faults.extend(err.0.iter().map(|fault| format!("{name}: {fault}"))))
            .ok()
    };
    let source = make("--from", args.from, args.source.into());
    let target = make("--to", args.to, args.target.into());
    match (source, target) {
        (Some(source), Some(target)) if faults.is_empty() => Ok((source, target)),
        _ => Err(ConfigFaults(faults)),
    }
}

/// When a copy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    UntilCaughtUp,
    UntilStopped,
}

impl From<bool> for Follow {
    fn from(follow: bool) -> Self {
        if follow { Self::UntilStopped } else { Self::UntilCaughtUp }
    }
}

async fn copy(
    source: &EtcdClient,
    target: &EtcdClient,
    order: &Order,
    follow: Follow,
) -> Result<Report> {
    let mut tell = |progress: &Progress| eprintln!("{progress}");
    if follow == Follow::UntilCaughtUp {
        let end = None::<std::future::Ready<()>>;
        return Ok(migrate(source, target, order, end, &mut tell).await?);
    }
    // The first signal ends the following, another one the copy.
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let first = until_asked_to_stop()?;
    let stop = async {
        first.await;
        let _ = asked.send(());
    };
    tokio::select! {
        report = migrate(source, target, order, Some(stop), &mut tell) => Ok(report?),
        stopped = stopped_twice(was_asked) => stopped,
    }
}

/// Waits for a signal after the first.
async fn stopped_twice(first: tokio::sync::oneshot::Receiver<()>) -> Result<Report> {
    if first.await.is_err() {
        // Nothing was asked, and nothing will be: the copy ends by itself.
        std::future::pending::<()>().await;
    }
    until_asked_to_stop()?.await;
    bail!("stopped before both sides were compared")
}

/// Keys below a folder; every key when there is none.
fn folder(prefix: &str) -> Vec<u8> {
    match prefix.trim_end_matches('/') {
        "" => Vec::new(),
        folder => format!("{folder}/").into_bytes(),
    }
}

/// The outcome, for a program.
#[derive(Debug, Serialize)]
struct Summary {
    same: bool,
    keys: usize,
    bytes: u64,
    leases: usize,
    source_revision: u64,
    target_revision: u64,
    written: u64,
    removed: u64,
    started_over: usize,
    differing: usize,
    /// At most a thousand.
    differences: Vec<String>,
}

impl Summary {
    fn of(report: &Report) -> Self {
        Self {
            same: report.is_true_copy(),
            keys: report.keys,
            bytes: report.bytes,
            leases: report.leases,
            source_revision: report.source_revision.get(),
            target_revision: report.target_revision.get(),
            written: report.puts,
            removed: report.deletes,
            started_over: report.started_over,
            differing: report.differing,
            differences: report.differences.iter().map(ToString::to_string).collect(),
        }
    }

    fn text(&self) -> String {
        let copied = format!(
            "{} keys ({} bytes) and {} leases, as the source had them at revision {}; {} written, {} removed",
            self.keys, self.bytes, self.leases, self.source_revision, self.written, self.removed
        );
        if self.same {
            return format!("{copied}\nboth sides are the same");
        }
        let listed: Vec<_> =
            self.differences.iter().take(SHOWN).map(|one| format!("  {one}")).collect();
        let more = self.differing.saturating_sub(listed.len());
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        format!("{copied}\n{} keys DIFFER:\n{}{more}", self.differing, listed.join("\n"))
    }
}

/// Differences that a person is shown; a program gets more.
const SHOWN: usize = 20;
const EXAMPLES: &str = "\
Examples:
  russet migrate store --from http://127.0.0.1:2379 --to http://10.0.0.1:2379
                                      once, and checked
  russet migrate store --from http://127.0.0.1:2379 --to https://etcd-1:2379 --to-ca-file ca.pem --follow
                                      until Ctrl-C, while the agents are pointed at the new one";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_folder_with_or_without_its_slash() {
        assert_eq!(folder("/coreos.com/network"), b"/coreos.com/network/");
        assert_eq!(folder("/coreos.com/network//"), b"/coreos.com/network/");
        assert_eq!(folder("/"), b"");
        assert_eq!(folder(""), b"");
    }
}
