//! The thread that writes the journal.
//!
//! It takes what the owner did, together with the answers that wait for it, and makes one frame of all
//! that has come in meanwhile: one wait for the disk serves everyone. Only then are watchers told and the
//! answers sent, so nobody ever saw what a crash can take back. The owner goes on in the meantime.
//!
//! A write that fails is the end: the state in memory is ahead of the disk, and after a failed sync nobody
//! knows what the disk has. Whoever waits gets no answer, and the store stops with the error. That the
//! disk is full is no such error, because room is made before anything is done ([`Order::MakeRoom`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    image::Image,
    journal::{Disk, Journal, JournalError, Ready, Rewrite},
    news::{Publisher, Told},
    owner::Reply,
    record,
};
use crate::random;

/// What the owner wants of the thread, in order.
pub(crate) enum Order<D: Disk> {
    /// Write this down, then answer.
    Done(Job),
    /// Make sure that so many bytes can be written.
    MakeRoom(u64, oneshot::Sender<Room>),
    /// Begin the file anew with this; answers when the new file has taken the old one's place.
    Rewrite(Box<Image>, oneshot::Sender<Result<(), String>>),
    /// The new file is ready but for what was written since.
    Rewritten(Result<Ready<D>, JournalError>),
    /// Nothing was written for a while.
    Idle,
}

/// A group of commands that were done together.
pub(crate) struct Job {
    pub(crate) payload: Vec<u8>,
    pub(crate) told: Told,
    pub(crate) replies: Vec<Reply>,
    /// Bytes that were counted as under way.
    cost: u64,
}

/// Whether there is room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Made,
    DiskFull,
}

/// What the owner and the status need to know of the file, without asking.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Orders that are not carried out yet.
    pub(crate) waiting: AtomicU64,
    /// Bytes of payload that are on their way.
    pub(crate) under_way: AtomicU64,
    /// Bytes that can be written without making room.
    pub(crate) room: AtomicU64,
    /// Bytes of the file that are in use.
    pub(crate) used: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_us: AtomicU64,
}

/// The running thread, from the owner's side.
pub(crate) struct Writer<D: Disk> {
    pub(crate) gauges: Arc<Gauges>,
    orders: mpsc::Sender<Order<D>>,
    thread: JoinHandle<Result<(), JournalError>>,
}

struct Thread<D: Disk> {
    journal: Journal<D>,
    publisher: Publisher,
    gauges: Arc<Gauges>,
    orders: mpsc::Receiver<Order<D>>,
    /// For the thread that fills a new file. Weak: it does not keep the queue open.
    back: mpsc::WeakSender<Order<D>>,
    rewriting: Option<Rewriting>,
}

/// A new file is being filled.
struct Rewriting {
    /// What was written to the old one since.
    tail: Vec<Vec<u8>>,
    tail_bytes: usize,
    answer: oneshot::Sender<Result<(), String>>,
}

impl<D: Disk + 'static> Writer<D> {
    /// Starts the thread.
    pub(crate) fn start(journal: Journal<D>, publisher: Publisher) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel(ORDERS_QUEUED);
        let gauges = Arc::<Gauges>::default();
        let thread = Thread {
            journal,
            publisher,
            gauges: Arc::clone(&gauges),
            orders: queue,
            back: orders.downgrade(),
            rewriting: None,
        };
        thread.gauge();
        let run = move || thread.run();
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(run)?;
        Ok(Self { gauges, orders, thread })
    }

    /// Hands an order over; an error means that the thread has ended.
    pub(crate) async fn order(&self, mut order: Order<D>) -> Result<(), Ended> {
        if let Order::Done(job) = &mut order {
            job.cost = cost(&job.payload);
            self.gauges.under_way.fetch_add(job.cost, Ordering::AcqRel);
        }
        self.gauges.waiting.fetch_add(1, Ordering::AcqRel);
        self.orders.send(order).await.map_err(|_| Ended)
    }

    /// Whether everything that was handed over is done.
    pub(crate) fn is_idle(&self) -> bool {
        self.gauges.waiting.load(Ordering::Acquire) == 0
    }

    /// Returns the bytes that can still be handed over.
    pub(crate) fn room(&self) -> u64 {
        let gauges = &self.gauges;
        // In this order: what is on its way leaves that account after it left the room.
        let under_way = gauges.under_way.load(Ordering::Acquire);
        gauges.room.load(Ordering::Acquire).saturating_sub(under_way)
    }

    /// Waits until everything is written and the file is closed.
    pub(crate) async fn finish(self) -> Result<(), JournalError> {
        drop(self.orders);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        match joined {
            Ok(Ok(ended)) => ended,
            // It panicked, and said so.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

/// The thread has ended, which it only does on its own when the disk failed.
#[derive(Debug)]
pub(crate) struct Ended;

impl<D: Disk + 'static> Thread<D> {
    fn run(mut self) -> Result<(), JournalError> {
        while let Some(order) = self.orders.blocking_recv() {
            let ended = self.carry_out(order);
            if let Err(err) = ended {
                tracing::error!(error = %crate::error::one_line(&err), "datastore's file");
                return Err(err);
            }
        }
        self.journal.close()
    }

    fn carry_out(&mut self, order: Order<D>) -> Result<(), JournalError> {
        let mut orders = 1;
        match order {
            Order::Done(mut job) => {
                let next = self.gather(&mut job, &mut orders);
                self.write(job)?;
                self.done(orders);
                return next.map_or(Ok(()), |next| self.carry_out(next));
            }
            Order::MakeRoom(bytes, answer) => {
                let room = self.make_room(bytes)?;
                // The owner waits for it, unless it has ended.
                let _ = answer.send(room);
            }
            Order::Rewrite(image, answer) => self.rewrite(*image, answer),
            Order::Rewritten(ready) => {
                orders = 0;
                self.adopt(ready)?;
            }
            Order::Idle => self.journal.seal()?,
        }
        self.done(orders);
        Ok(())
    }

    /// Adds what waits already; returns the first order that is of another kind.
    fn gather(&mut self, job: &mut Job, orders: &mut u64) -> Option<Order<D>> {
        while job.payload.len() < FRAME {
            match self.orders.try_recv() {
                Ok(Order::Done(more)) => job.add(more),
                Ok(other) => return Some(other),
                Err(_) => return None,
            }
            *orders += 1;
        }
        None
    }

    fn write(&mut self, job: Job) -> Result<(), JournalError> {
        if !job.payload.is_empty() {
            let before = Instant::now();
            self.journal.append(&job.payload)?;
            self.note(before.elapsed());
            self.gauge();
            self.gauges.under_way.fetch_sub(job.cost, Ordering::AcqRel);
        }
        // Before the answers: whoever has one finds watchers that know of it.
        self.publisher.tell(job.told);
        for reply in job.replies {
            reply();
        }
        self.keep_for_rewrite(job.payload);
        Ok(())
    }

    fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.gauges.syncs.fetch_add(1, Ordering::Relaxed);
        self.gauges.sync_us.fetch_add(us, Ordering::Relaxed);
        if took >= SLOW {
            tracing::warn!(path = %self.journal.path().display(), ms = us / 1_000, "slow disk");
        }
    }

    fn make_room(&mut self, bytes: u64) -> Result<Room, JournalError> {
        let made = self.journal.make_room(bytes);
        self.gauge();
        match made {
            Ok(()) => Ok(Room::Made),
            Err(err) if err.is_no_space() => Ok(Room::DiskFull),
            Err(err) => Err(err),
        }
    }

    /// Starts to fill a new file, in a thread of its own.
    fn rewrite(&mut self, image: Image, answer: oneshot::Sender<Result<(), String>>) {
        if self.rewriting.is_some() {
            // The owner starts one at a time; nobody is left without an answer all the same.
            let _ = answer.send(Err("the file is being rewritten already".to_owned()));
            return;
        }
        self.rewriting = Some(Rewriting { tail: Vec::new(), tail_bytes: 0, answer });
        let Some(back) = self.back.upgrade() else { return };
        let rewrite = self.journal.rewrite(random::id64());
        let fill = move || {
            let ready = rewrite.and_then(|rewrite| fill(rewrite, &image));
            // Without a queue the store has ended, and nobody wants the new file.
            let _ = back.blocking_send(Order::Rewritten(ready));
        };
        let spawned = thread::Builder::new().name("store-rewrite".to_owned()).spawn(fill);
        if let Err(err) = spawned {
            self.end_rewrite(Err(err.to_string()));
        }
    }

    fn keep_for_rewrite(&mut self, payload: Vec<u8>) {
        let Some(rewriting) = &mut self.rewriting else { return };
        if payload.is_empty() || rewriting.tail_bytes > TAIL {
            return;
        }
        rewriting.tail_bytes += payload.len();
        rewriting.tail.push(payload);
    }

    fn adopt(&mut self, ready: Result<Ready<D>, JournalError>) -> Result<(), JournalError> {
        let Some(rewriting) = &mut self.rewriting else { return Ok(()) };
        let tail = std::mem::take(&mut rewriting.tail);
        let too_much = rewriting.tail_bytes > TAIL;
        let adopted = match ready {
            Ok(_) if too_much => {
                self.journal.abandon();
                Err("more was written meanwhile than the store holds".to_owned())
            }
            Ok(ready) => {
                let room = self.gauges.under_way.load(Ordering::Acquire).saturating_add(RESERVE);
                self.journal.adopt(ready, &tail, room).map_err(|err| crate::error::one_line(&err))
            }
            Err(err) => {
                self.journal.abandon();
                Err(crate::error::one_line(&err))
            }
        };
        self.gauge();
        self.end_rewrite(adopted);
        // A journal that cannot go on says so; one that stayed in its old file does not.
        self.journal.check()
    }

    fn end_rewrite(&mut self, ended: Result<(), String>) {
        match &ended {
            Ok(()) => tracing::info!(bytes = self.journal.used(), "datastore's file rewritten"),
            Err(reason) => tracing::warn!(%reason, "datastore's file not rewritten"),
        }
        if let Some(rewriting) = self.rewriting.take() {
            // Nobody need wait for it.
            let _ = rewriting.answer.send(ended);
        }
    }

    fn gauge(&self) {
        self.gauges.room.store(self.journal.room(), Ordering::Release);
        self.gauges.used.store(self.journal.used(), Ordering::Release);
    }

    fn done(&self, orders: u64) {
        self.gauges.waiting.fetch_sub(orders, Ordering::AcqRel);
    }
}

impl Job {
    pub(crate) fn new(payload: Vec<u8>, told: Told, replies: Vec<Reply>) -> Self {
        Self { payload, told, replies, cost: 0 }
    }

    fn add(&mut self, more: Self) {
        self.payload.extend(more.payload);
        self.told.revision = more.told.revision;
        self.told.compacted = more.told.compacted;
        self.told.commits.extend(more.told.commits);
        self.replies.extend(more.replies);
        self.cost += more.cost;
    }
}

pub(super) fn fill<D: Disk>(
    mut rewrite: Rewrite<D>,
    image: &Image,
) -> Result<Ready<D>, JournalError> {
    for payload in record::payloads(image) {
        rewrite.add(&payload)?;
    }
    rewrite.finish()
}

/// What a payload takes in the file, at most.
fn cost(payload: &[u8]) -> u64 {
    if payload.is_empty() { 0 } else { len(payload).saturating_add(FRAME_OVERHEAD) }
}

fn len(payload: &[u8]) -> u64 {
    u64::try_from(payload.len()).unwrap_or(u64::MAX)
}

/// Kept free in the file, so that a full store can still delete, compact and let leases expire.
pub(crate) const RESERVE: u64 = 512 << 10;
/// A group is written when it has grown to this; one job may be larger.
const FRAME: usize = 4 << 20;
/// Of what a frame takes beside its payload; one for each job, though a group shares one.
const FRAME_OVERHEAD: u64 = 64;
/// What may be written while a new file is filled; beyond it the old file stays in use.
const TAIL: usize = 64 << 20;
/// A disk that takes longer than this is worth knowing about (as etcd).
const SLOW: Duration = Duration::from_secs(1);
/// Each holds up to a batch of commands; the owner waits when the disk is that far behind.
const ORDERS_QUEUED: usize = 16;

#[cfg(test)]
mod tests;
