//! The task that owns the store. Requests come as commands in a bounded queue and are done one after
//! the other, a batch at a time; time comes as the deadline of the next lease; whoever waits for news watches the
//! revision.

use std::{
    fmt,
    future::pending,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tonic::Status;

use super::{Limits, txn::State};
use crate::contract::Revision;

/// The running owner.
pub(crate) struct Owner {
    pub(crate) handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What a connection holds: the way to ask, and the newest revision.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    pub(crate) revision: watch::Receiver<Revision>,
}

/// A request at work; what it returns sends its answer.
type Command = Box<dyn FnOnce(&mut State, Instant) -> Reply + Send>;
type Reply = Box<dyn FnOnce() + Send>;

/// Starts the owner of an empty store.
pub(crate) fn start(limits: Limits) -> Owner {
    let state = State::new(limits);
    let (commands, queue) = mpsc::channel(COMMANDS_QUEUED);
    let (news, revision) = watch::channel(state.revision());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(run(state, queue, news, stopped));
    Owner { handle: Handle { commands, revision }, stop, task }
}

impl Owner {
    /// Ends the owner: requests are refused from now on, streams end.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        // It ends by itself unless it panicked, and then it has ended as well.
        let _ = self.task.await;
    }
}

impl Handle {
    /// Does something with the store, after what was asked before.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State, Instant) -> R + Send + 'static,
    ) -> Result<R, Status> {
        let (reply, answer) = oneshot::channel();
        let command: Command = Box::new(move |state, now| {
            let result = work(state, now);
            // Nobody waits any more when the connection is gone.
            Box::new(move || drop(reply.send(result)))
        });
        self.commands.send(command).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("revision", &*self.revision.borrow()).finish_non_exhaustive()
    }
}

async fn run(
    mut state: State,
    mut queue: mpsc::Receiver<Command>,
    news: watch::Sender<Revision>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut batch = Vec::new();
    loop {
        let mut replies = Vec::new();
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            () = until(state.next_deadline()) => state.expire(Instant::now()),
            count = queue.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                let run = |command: Command| command(&mut state, Instant::now());
                replies.extend(batch.drain(..).map(run));
            }
        }
        // Here a durable store waits for its disk, once for all of them: nobody has an answer yet,
        // and no watcher has heard of the new revisions.
        for reply in replies {
            reply();
        }
        let now = state.revision();
        news.send_if_modified(|known| std::mem::replace(known, now) != now);
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
