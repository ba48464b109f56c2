//! Makes records durable while the kernel is at work: all that wait together, the folder once.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::records::Unsynced;
use crate::disk::Disk;

/// Hands work to the syncing thread. Dropping it waits for the thread's end.
#[derive(Debug)]
pub(super) struct Syncer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    what: Unsynced,
    done: SyncSender<Result<(), String>>,
}

/// What comes of one job.
#[derive(Debug)]
pub(super) struct Pending(Receiver<Result<(), String>>);

impl Syncer {
    /// Starts the thread. The queue is bounded by the lane, which has a batch of ADDs under way at most.
    pub(super) fn start(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = thread::Builder::new().name("cni-sync".into());
        let thread = thread.spawn(move || run(disk.as_ref(), &queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    pub(super) fn begin(&self, what: Unsynced) -> Pending {
        let (done, pending) = sync_channel(1);
        // A thread that is gone answers nothing, and that is told by the wait.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(Job { what, done }));
        Pending(pending)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Pending {
    /// Waits until the records are durable.
    pub(super) fn wait(self) -> Result<(), String> {
        let late = |_| Err("the disk does not answer".to_owned());
        self.0.recv_timeout(PATIENCE).unwrap_or_else(late)
    }
}

fn run(disk: &dyn Disk, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
        let mut folders: BTreeMap<&PathBuf, Result<(), String>> = BTreeMap::new();
        let files = jobs.iter().map(|job| {
            let synced = job.what.files.iter().try_for_each(|file| disk.sync(file));
            synced.map_err(|err| err.to_string())
        });
        let files: Vec<_> = files.collect();
        for job in &jobs {
            folders.entry(&job.what.folder).or_insert_with(|| {
                disk.sync_folder(&job.what.folder).map_err(|err| err.to_string())
            });
        }
        for (job, file) in jobs.iter().zip(files) {
            let folder = folders.get(&job.what.folder).cloned().unwrap_or(Ok(()));
            // Who no longer waits has been told that it took too long.
            let _ = job.done.try_send(file.and(folder));
        }
    }
}

/// A disk that takes longer is out of order.
const PATIENCE: Duration = Duration::from_secs(20);
