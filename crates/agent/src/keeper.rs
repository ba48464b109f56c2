//! The keeper: a thread that writes what must survive the process, so that a slow disk holds up nobody.
//!
//! It is told the whole of what to keep, the newest wins. What changes all the time (the store's revision) is
//! written at most every [`LULL`]; a change of the lease, the configuration or the subnet is written at once.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    disk::{Disk, checkpoint::Checkpoint, replace},
    one_line,
};

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub checkpoint: Option<Checkpoint>,
    /// What other CNI plugins read of the network: the text of flannel's `subnet.env`, or the MTU in Calico's file. `None`
    /// leaves the file as it is.
    pub subnet_env: Option<String>,
}

impl Files {
    /// Whether nothing but the store's revision differs.
    fn is_near(&self, other: &Self) -> bool {
        let without_revision = |files: &Self| {
            files.checkpoint.clone().map(|checkpoint| Checkpoint {
                revision: 0,
                digest: None,
                ..checkpoint
            })
        };
        self.subnet_env == other.subnet_env && without_revision(self) == without_revision(other)
    }
}

/// The way to the keeper. Dropping it writes what is still to be written and ends the thread.
#[derive(Debug)]
pub struct Keeper {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What is wanted of the keeper, and the bell.
#[derive(Debug, Default)]
struct Desk {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    files: Files,
    ended: bool,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When there can be no thread.
    pub fn start(
        disk: Arc<dyn Disk>,
        checkpoint: PathBuf,
        subnet_env: PathBuf,
    ) -> std::io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let writer =
            Writer { disk, checkpoint, subnet_env, written: Files::default(), failed: false };
        let shared = Arc::clone(&desk);
        let thread =
            thread::Builder::new().name("keeper".into()).spawn(move || writer.run(&shared))?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Says what is to be kept from now on.
    pub fn keep(&self, files: Files) {
        let mut wanted = self.desk.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.files != files {
            wanted.files = files;
            self.desk.changed.notify_one();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.desk.wanted.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.desk.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    disk: Arc<dyn Disk>,
    checkpoint: PathBuf,
    subnet_env: PathBuf,
    written: Files,
    failed: bool,
}

impl Writer {
    fn run(mut self, desk: &Desk) {
        let mut last = Instant::now().checked_sub(LULL).unwrap_or_else(Instant::now);
        loop {
            let (files, ended) = self.next(desk, last);
            if files != self.written {
                last = Instant::now();
                self.write(files);
            }
            if ended {
                return;
            }
        }
    }

    /// Waits until there is something to write and it is time to.
    fn next(&self, desk: &Desk, last: Instant) -> (Files, bool) {
        let mut wanted = desk.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let due = last + LULL;
            let late = wanted.files.is_near(&self.written) && !self.failed;
            let wait = match (wanted.files == self.written, late || self.failed) {
                (true, _) => None,
                (false, true) => Some(due.saturating_duration_since(Instant::now())),
                (false, false) => Some(Duration::ZERO),
            };
            if wanted.ended || wait == Some(Duration::ZERO) {
                return (wanted.files.clone(), wanted.ended);
            }
            wanted = match wait {
                None => desk.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    desk.changed
                        .wait_timeout(wanted, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    fn write(&mut self, files: Files) {
        let result = self.try_write(&files);
        if let Err(error) = &result {
            tracing::error!(op = "keep", %error, "a file could not be written; it is tried again");
        }
        self.failed = result.is_err();
        if result.is_ok() {
            self.written = files;
        }
    }

    /// One file that cannot be written does not stop the other.
    fn try_write(&self, files: &Files) -> Result<(), String> {
        let checkpoint = self.write_checkpoint(files);
        let subnet_env = self.write_subnet_env(files);
        checkpoint.and(subnet_env)
    }

    fn write_checkpoint(&self, files: &Files) -> Result<(), String> {
        match &files.checkpoint {
            Some(checkpoint) if files.checkpoint != self.written.checkpoint => {
                let saved = checkpoint.save(self.disk.as_ref(), &self.checkpoint);
                saved.map_err(|err| one_line(&err))
            }
            _ => Ok(()),
        }
    }

    fn write_subnet_env(&self, files: &Files) -> Result<(), String> {
        match &files.subnet_env {
            Some(text) if files.subnet_env != self.written.subnet_env => {
                let replaced = self.replace_subnet_env(text);
                replaced.map_err(|err| format!("write {}: {err}", self.subnet_env.display()))
            }
            _ => Ok(()),
        }
    }

    fn replace_subnet_env(&self, text: &str) -> std::io::Result<()> {
        if let Some(folder) = self.subnet_env.parent() {
            self.disk.make_folder(folder)?;
        }
        replace(self.disk.as_ref(), &self.subnet_env, text.as_bytes())
    }
}

/// The least time between two writes that only move the revision on.
const LULL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Files as RealDisk;

    fn checkpoint(revision: u64, cluster: &str) -> Files {
        let cluster_id = Some(cluster.to_owned());
        let checkpoint = Some(Checkpoint { cluster_id, revision, ..Checkpoint::default() });
        Files { checkpoint, subnet_env: Some("FLANNEL_MTU=1450\n".into()) }
    }

    #[test]
    fn the_newest_is_on_disk_when_the_keeper_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (file, env) =
            (folder.path().join("state/checkpoint"), folder.path().join("run/subnet.env"));
        let keeper = Keeper::start(Arc::new(RealDisk), file.clone(), env.clone()).unwrap();
        for revision in 1..=100 {
            keeper.keep(checkpoint(revision, "a"));
        }
        drop(keeper);
        let kept = Checkpoint::load(&RealDisk, &file).unwrap().unwrap();
        assert_eq!(kept.revision, 100);
        assert_eq!(std::fs::read_to_string(env).unwrap(), "FLANNEL_MTU=1450\n");
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_does_not_stop_the_subnet_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("full"), "").unwrap();
        let (file, env) = (folder.path().join("full/checkpoint"), folder.path().join("subnet.env"));
        let keeper = Keeper::start(Arc::new(RealDisk), file, env.clone()).unwrap();
        keeper.keep(checkpoint(1, "a"));
        drop(keeper);
        assert_eq!(std::fs::read_to_string(env).unwrap(), "FLANNEL_MTU=1450\n");
    }

    #[test]
    fn a_new_revision_alone_is_no_haste_and_anything_else_is() {
        assert!(checkpoint(1, "a").is_near(&checkpoint(2, "a")));
        assert!(!checkpoint(1, "a").is_near(&checkpoint(1, "b")));
        let moved = Files { subnet_env: None, ..checkpoint(1, "a") };
        assert!(!checkpoint(1, "a").is_near(&moved));
    }
}
