//! `russet store snapshot`: copies of a whole store in one file, as etcd has them.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use russet_store::snapshot::{self, SnapshotStatus};
use serde::Serialize;

use super::{at::StoreAt, block_on, file::NOTICED, make_folder_of};
use crate::output::{self, Format};

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Saves a snapshot of a running store, ours or an etcd
    Save {
        #[command(flatten)]
        store: StoreAt,
        /// The file to write; one that is there is replaced when the new one is complete
        out: PathBuf,
    },
    /// Checks a snapshot and says what is in it
    Status {
        file: PathBuf,
        /// How to show it
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Makes a store's file of a snapshot, ours or etcd's
    Restore {
        /// The snapshot
        file: PathBuf,
        /// The store's file to make; one that is there is left alone
        #[arg(long, value_name = "NEW")]
        data: PathBuf,
    },
    /// Lets a store write its file anew, without what was deleted
    Defrag {
        #[command(flatten)]
        store: StoreAt,
        /// A store's file that nobody uses, instead of a running store
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
    },
}

pub fn run(command: SnapshotCommand) -> Result<ExitCode> {
    match command {
        SnapshotCommand::Save { store, out } => {
            save(store, &out)?;
            println!("{}: {}", out.display(), told(&snapshot::status(&out)?));
        }
        SnapshotCommand::Status { file, output } => {
            let status = Status::from(snapshot::status(&file)?);
            output::print(output, &status, Status::table)?;
        }
        SnapshotCommand::Restore { file, data } => {
            make_folder_of(&data)?;
            let revision = snapshot::restore(&file, &data)?;
            println!("{}: restored, at revision {revision}\n{NOTICED}", data.display());
        }
        SnapshotCommand::Defrag { data: Some(file), .. } => {
            let (before, after) = snapshot::defragment(&file)?;
            println!("{}: {after} bytes in use, {before} before", file.display());
        }
        SnapshotCommand::Defrag { store, data: None } => defragment(store)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn defragment(store: StoreAt) -> Result<()> {
    block_on(async {
        let client = store.patient_client()?;
        let before = client.member_status().await?;
        client.defragment().await?;
        let after = client.member_status().await?;
        println!("{} bytes, {} before", after.file_bytes, before.file_bytes);
        Ok(())
    })
}

/// Writes beside, checks, syncs, renames: the name stands for a whole snapshot or for none.
pub fn save(store: StoreAt, out: &Path) -> Result<()> {
    let part = beside(out)?;
    let saved = receive(store, &part).and_then(|()| {
        fs::rename(&part, out).with_context(|| format!("rename to {}", out.display()))?;
        sync_folder_of(out)
    });
    if saved.is_err() {
        // It is ours, and of no use to anybody.
        let _ = fs::remove_file(&part);
    }
    saved
}

fn receive(store: StoreAt, part: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    // A snapshot may hold secrets.
    let file = options.write(true).create_new(true).mode(0o600).open(part);
    let file = file.with_context(|| format!("create {}", part.display()))?;
    block_on(async {
        let client = store.patient_client()?;
        let mut out = tokio::fs::File::from_std(file);
        client.snapshot(&mut out).await?;
        out.sync_all().await.with_context(|| format!("sync {}", part.display()))
    })?;
    // All of it is looked at, so that what is wrong is known now and not when it is needed.
    snapshot::status(part)?;
    Ok(())
}

/// A name in the same folder, of this process alone.
fn beside(out: &Path) -> Result<PathBuf> {
    let Some(name) = out.file_name() else { bail!("{} is no name of a file", out.display()) };
    let part = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
    Ok(out.with_file_name(part))
}

fn sync_folder_of(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("sync {}", folder.display()))
}

/// What is in a snapshot, in a line.
pub fn told(status: &SnapshotStatus) -> String {
    let SnapshotStatus { hash, revision, keys, bytes } = status;
    format!("revision {revision}, {keys} keys, {bytes} bytes, hash {hash:x}")
}

/// The facts and names of `etcdctl snapshot status`.
#[derive(Debug, Serialize)]
struct Status {
    hash: u32,
    revision: u64,
    #[serde(rename = "totalKey")]
    keys: u64,
    #[serde(rename = "totalSize")]
    bytes: u64,
}

impl From<SnapshotStatus> for Status {
    fn from(status: SnapshotStatus) -> Self {
        let SnapshotStatus { hash, revision, keys, bytes } = status;
        Self { hash, revision, keys, bytes }
    }
}

impl Status {
    fn table(&self) -> String {
        let row = [format!("{:x}", self.hash), self.revision.to_string(), self.keys.to_string()];
        let row = row.into_iter().chain([self.bytes.to_string()]).collect();
        output::table(&["hash", "revision", "total keys", "total bytes"], [row])
    }
}
