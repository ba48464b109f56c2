//! The task that owns the store. Requests come as commands in a bounded queue and are done one after
//! the other, a batch at a time; time comes as the deadline of the next lease.
//!
//! What a batch did goes to the writer's thread with the answers, and the owner goes on with the next
//! one: an answer leaves when everything that it may have seen is on the disk. Without a file, and when
//! nothing is on its way to the disk, it leaves at once.

use std::{
    fmt,
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tonic::Status;

use super::{
    image::Image,
    journal::{FileDisk, Journal, JournalError},
    news::{News, Publisher, Told},
    state::{Disk, State},
    writer::{Ended, Gauges, Job, Order, RESERVE, Room, Writer},
};

/// The running owner.
pub(crate) struct Owner {
    pub(crate) handle: Handle,
    stop: oneshot::Sender<()>,
    /// Ends by itself only when the disk fails.
    pub(crate) task: JoinHandle<Result<(), JournalError>>,
}

/// What a connection holds: the way to ask, and what is new.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    pub(crate) news: watch::Receiver<News>,
    /// Whether the file is being written anew.
    rewriting: watch::Receiver<bool>,
    gauges: Option<Arc<Gauges>>,
}

/// What the status tells of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) keys: usize,
    /// Keys and values in memory, history included.
    pub(crate) bytes: u64,
    /// Of the file; zero without one.
    pub(crate) file_bytes: u64,
    /// Whether puts are refused.
    pub(crate) full: bool,
    pub(crate) leases: usize,
    pub(crate) syncs: u64,
    pub(crate) sync_us: u64,
}

/// What is asked of the owner.
enum Command {
    Work {
        /// Bytes that it may add to the file.
        bytes: u64,
        work: Work,
    },
    Rewrite(oneshot::Sender<Rewritten>),
}

/// How a wish to have the file written anew ended.
#[derive(Debug)]
enum Rewritten {
    Done,
    Failed(String),
    /// It is being done already, from how things were before.
    Busy,
}

/// A request at work; what it returns sends its answer.
type Work = Box<dyn FnOnce(&mut State, Instant) -> Reply + Send>;
pub(crate) type Reply = Box<dyn FnOnce() + Send>;

/// Starts the owner of a store, kept in a file or in memory alone.
pub(crate) fn start(state: State, journal: Option<Journal<FileDisk>>) -> std::io::Result<Owner> {
    let (publisher, news) = Publisher::new(state.revision());
    let outlet = match journal {
        Some(journal) => Outlet::File(Writer::start(journal, publisher)?),
        None => Outlet::Memory(publisher),
    };
    let gauges = outlet.gauges();
    let (commands, queue) = mpsc::channel(COMMANDS_QUEUED);
    let (stop, stopped) = oneshot::channel();
    let (running, rewriting) = watch::channel(false);
    let rewrite = RewriteTimes { running, not_before: None };
    let task = tokio::spawn(Task { state, outlet, rewrite, unsealed: None }.run(queue, stopped));
    Ok(Owner { handle: Handle { commands, news, rewriting, gauges }, stop, task })
}

impl Owner {
    /// Ends the owner when all that was asked is written: requests are refused from now on, streams end.
    pub(crate) async fn stop(self) -> Result<(), JournalError> {
        let _ = self.stop.send(());
        // It ends by itself unless it panicked, and then it has ended as well.
        self.task.await.unwrap_or(Ok(()))
    }
}

impl Handle {
    /// Reads the store, after what was asked before.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State, Instant) -> R + Send + 'static,
    ) -> Result<R, Status> {
        self.ask_to_write(0, work).await
    }

    /// Does something with the store that may add about so many bytes, after what was asked before.
    pub(crate) async fn ask_to_write<R: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut State, Instant) -> R + Send + 'static,
    ) -> Result<R, Status> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |state, now| {
            let result = work(state, now);
            // Nobody waits any more when the connection is gone.
            Box::new(move || drop(reply.send(result)))
        });
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let command = Command::Work { bytes, work };
        self.commands.send(command).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Returns all that the store holds.
    pub(crate) async fn image(&self) -> Result<Image, Status> {
        self.ask(|state, _| state.image()).await
    }

    /// Writes the file anew without what is not needed any more, and waits until that is done. When it is
    /// being done already, that comes to its end first: it may have begun with what is not needed now.
    pub(crate) async fn defragment(&self) -> Result<(), Status> {
        let mut rewriting = self.rewriting.clone();
        for _ in 0..REWRITE_TRIES {
            rewriting.wait_for(|running| !running).await.map_err(|_| stopping())?;
            let (reply, answer) = oneshot::channel();
            self.commands.send(Command::Rewrite(reply)).await.map_err(|_| stopping())?;
            match answer.await.map_err(|_| stopping())? {
                Rewritten::Done => return Ok(()),
                Rewritten::Failed(reason) => return Err(Status::unavailable(reason)),
                Rewritten::Busy => {}
            }
        }
        Err(Status::unavailable("the file is being rewritten again and again"))
    }

    pub(crate) async fn facts(&self) -> Result<Facts, Status> {
        let gauges = self.gauges.clone();
        let gauge = |of: fn(&Gauges) -> &std::sync::atomic::AtomicU64| {
            gauges.as_deref().map_or(0, |gauges| of(gauges).load(Ordering::Relaxed))
        };
        let (file_bytes, syncs) = (gauge(|gauges| &gauges.used), gauge(|gauges| &gauges.syncs));
        let sync_us = gauge(|gauges| &gauges.sync_us);
        self.ask(move |state, _| Facts {
            keys: state.keys(),
            bytes: state.bytes(),
            file_bytes,
            full: state.is_full(),
            leases: state.leases().len(),
            syncs,
            sync_us,
        })
        .await
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("news", &*self.news.borrow()).finish_non_exhaustive()
    }
}

/// Where what was done goes.
enum Outlet {
    Memory(Publisher),
    File(Writer<FileDisk>),
}

struct Task {
    state: State,
    outlet: Outlet,
    rewrite: RewriteTimes,
    /// When something was written that is not sealed yet.
    unsealed: Option<Instant>,
}

/// When the file may be rewritten again.
struct RewriteTimes {
    running: watch::Sender<bool>,
    not_before: Option<Instant>,
}

impl Task {
    async fn run(
        mut self,
        mut queue: mpsc::Receiver<Command>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<(), JournalError> {
        let mut batch = Vec::new();
        loop {
            let step = tokio::select! {
                biased;
                _ = &mut stopped => break,
                () = until(self.next_deadline()) => self.expire().await,
                () = until(self.unsealed.map(|at| at + IDLE)) => self.seal().await,
                count = queue.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.batch(&mut batch).await
                }
            };
            if step.is_err() {
                break;
            }
        }
        // Whoever asks from now on hears that the store stops.
        drop(queue);
        match self.outlet {
            Outlet::Memory(_) => Ok(()),
            Outlet::File(writer) => writer.finish().await,
        }
    }

    async fn batch(&mut self, batch: &mut Vec<Command>) -> Result<(), Ended> {
        let needed = batch.iter().map(Command::bytes).fold(0, u64::saturating_add);
        self.make_room(needed).await?;
        let mut replies = Vec::with_capacity(batch.len());
        let mut rewrites = Vec::new();
        for command in batch.drain(..) {
            match command {
                Command::Work { work, .. } => replies.push(work(&mut self.state, Instant::now())),
                Command::Rewrite(answer) => rewrites.push(answer),
            }
        }
        self.state.forget_history();
        self.hand_over(replies).await?;
        for answer in rewrites {
            self.rewrite(answer).await?;
        }
        self.rewrite_if_worth_it().await
    }

    /// Makes sure that the disk takes whatever the batch may add, or has puts refused.
    async fn make_room(&mut self, needed: u64) -> Result<(), Ended> {
        let Outlet::File(writer) = &self.outlet else { return Ok(()) };
        if needed == 0 || writer.room() >= needed.saturating_add(RESERVE) {
            // What the disk said before holds until there is something to write.
            if needed > 0 {
                self.state.set_disk(Disk::Room);
            }
            return Ok(());
        }
        let (answer, made) = oneshot::channel();
        writer.order(Order::MakeRoom(needed.saturating_add(RESERVE), answer)).await?;
        let disk = match made.await.map_err(|_| Ended)? {
            Room::Made => Disk::Room,
            Room::DiskFull if writer.room() >= LAST_RESERVE => Disk::Full,
            Room::DiskFull => Disk::Exhausted,
        };
        if disk != self.state.disk() && disk != Disk::Room {
            tracing::warn!("the disk is full: puts are refused");
        }
        self.state.set_disk(disk);
        Ok(())
    }

    /// Gives what was done, and those who wait for it, to where it goes.
    async fn hand_over(&mut self, replies: Vec<Reply>) -> Result<(), Ended> {
        let done = self.state.take_done();
        let told = Told {
            revision: self.state.revision(),
            compacted: self.state.compacted(),
            commits: done.commits,
        };
        match &mut self.outlet {
            Outlet::File(writer) if !done.payload.is_empty() || !writer.is_idle() => {
                self.unsealed = Some(Instant::now());
                let payload = done.payload;
                return writer.order(Order::Done(Job::new(payload, told, replies))).await;
            }
            Outlet::File(_) => {}
            Outlet::Memory(publisher) => publisher.tell(told),
        }
        for reply in replies {
            reply();
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let due = self.state.next_deadline()?;
        // What cannot be written down cannot expire; it is tried again.
        let wait = self.state.disk() == Disk::Exhausted;
        Some(if wait { due.max(Instant::now() + RETRY) } else { due })
    }

    async fn expire(&mut self) -> Result<(), Ended> {
        self.state.expire(Instant::now());
        self.state.forget_history();
        self.hand_over(Vec::new()).await
    }

    async fn seal(&mut self) -> Result<(), Ended> {
        self.unsealed = None;
        match &self.outlet {
            Outlet::File(writer) => writer.order(Order::Idle).await,
            Outlet::Memory(_) => Ok(()),
        }
    }

    /// Writes the file anew when less than half of it is needed.
    async fn rewrite_if_worth_it(&mut self) -> Result<(), Ended> {
        let Outlet::File(writer) = &self.outlet else { return Ok(()) };
        let used = writer.gauges.used.load(Ordering::Relaxed);
        let now = Instant::now();
        let wait =
            self.rewrite.not_before.is_some_and(|at| now < at) || *self.rewrite.running.borrow();
        if wait || used < SMALL_FILE || used / 2 < self.state.bytes() {
            return Ok(());
        }
        self.rewrite.not_before = Some(now + REWRITE_PAUSE);
        let (answer, _) = oneshot::channel();
        self.rewrite(answer).await
    }

    async fn rewrite(&mut self, answer: oneshot::Sender<Rewritten>) -> Result<(), Ended> {
        let Outlet::File(writer) = &self.outlet else {
            // In memory there is nothing to write.
            let _ = answer.send(Rewritten::Done);
            return Ok(());
        };
        if self.rewrite.running.send_replace(true) {
            let _ = answer.send(Rewritten::Busy);
            return Ok(());
        }
        let (done, result) = oneshot::channel();
        let running = self.rewrite.running.clone();
        tokio::spawn(async move {
            let result = result.await.unwrap_or_else(|_| Err("the store stops".to_owned()));
            running.send_replace(false);
            // Nobody need wait for it.
            let _ = answer.send(result.map_or_else(Rewritten::Failed, |()| Rewritten::Done));
        });
        // Everything that was done is in the image, and was handed over before it.
        writer.order(Order::Rewrite(Box::new(self.state.image()), done)).await
    }
}

impl Command {
    /// Returns what it may add to the file, in the few more words that a record takes than a request.
    fn bytes(&self) -> u64 {
        match self {
            Self::Work { bytes: 0, .. } | Self::Rewrite(_) => 0,
            Self::Work { bytes, .. } => bytes.saturating_mul(2).saturating_add(MARGIN),
        }
    }
}

impl Outlet {
    fn gauges(&self) -> Option<Arc<Gauges>> {
        match self {
            Self::Memory(_) => None,
            Self::File(writer) => Some(Arc::clone(&writer.gauges)),
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// As etcd says it while it stops (etcd API: `ErrStopped`).
pub(crate) fn stopping() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

/// Requests that are done before the first of them is answered.
const BATCH: usize = 64;
/// Requests that wait; more wait in their connections.
const COMMANDS_QUEUED: usize = 1_024;
/// Kept for streams that send something now and then.
pub(crate) const STREAM_QUEUED: usize = 16;
/// How often a watcher that asked for it is told that nothing happened (as etcd).
pub(crate) const PROGRESS_EVERY: Duration = Duration::from_mins(10);
/// Bytes beside those of the request that its record may take.
const MARGIN: u64 = 1_024;
/// With less than this nothing is written any more, not even a deletion.
const LAST_RESERVE: u64 = RESERVE / 8;
const RETRY: Duration = Duration::from_secs(1);
/// After so long without a write the file is sealed.
const IDLE: Duration = Duration::from_secs(1);
/// A file smaller than this is not worth rewriting.
const SMALL_FILE: u64 = 8 << 20;
/// For one who wants it rewritten while others do.
const REWRITE_TRIES: usize = 10;
const REWRITE_PAUSE: Duration = Duration::from_secs(10);
