//! A snapshot, then every change in order, whatever breaks in between.
//!
//! ```text
//!            ┌──────────── broken: wait, next endpoint ───────────┐
//!            ▼                                                    │
//!         probe ── no position, or the probe says the history ──▶ snapshot at the probed revision
//!            │     is another one                                 │
//!            └── position holds ──▶ stream from `next` ◀──────────┘
//! ```
//!
//! The *position* is the revision that each prefix needs next. It moves only with events that were
//! handed on, never with a header or a progress notification: etcd before 3.4.25 and 3.5.8 may send
//! one ahead of events that it covers (etcd issue 15220). A quiet prefix may therefore
//! find its position compacted after a break; that costs one snapshot and loses nothing.
//!
//! A connection that died silently is noticed by HTTP/2 pings (see `config.rs`), a member that lost
//! its cluster by `hasleader`, which makes it end the stream.

mod fragments;
mod stream;

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

use self::stream::{Stream, canceled};
use super::{
    EtcdClient,
    backoff::Backoff,
    call::Op,
    kv::{Pace, ServerStatus, status_of},
};
use crate::{
    contract::{
        Delivery, KeyChange, KeyValue, Part, Place, Revision, ServerRef, Snapshot, SnapshotReason,
        WatchEvent, WatchRequest,
    },
    error::{StoreError, one_line},
    proto::{
        etcdserverpb::WatchResponse,
        mvccpb::{self, event::EventType},
    },
    random,
};

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
    task: AbortHandle,
}

impl Watch {
    pub(crate) fn start(client: EtcdClient, request: WatchRequest) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_QUEUED);
        let watcher = Watcher::new(client, request, sender);
        let task = tokio::spawn(watcher.run()).abort_handle();
        Self { events, task }
    }

    /// Waits for the next event. It may be cancelled without losing one. `None` only when the
    /// runtime is shutting down: whatever the store does, the watch goes on.
    pub async fn recv(&mut self) -> Option<WatchEvent> {
        self.events.recv().await
    }

    /// Returns the next event if there is one.
    pub fn try_recv(&mut self) -> Option<WatchEvent> {
        self.events.try_recv().ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a [`Watch`].
struct Watcher {
    client: EtcdClient,
    request: WatchRequest,
    events: mpsc::Sender<WatchEvent>,
    position: Option<Position>,
    /// Why the next snapshot is taken.
    reason: SnapshotReason,
    health: Health,
    /// Since when the session of now tells changes.
    up_since: Option<Instant>,
}

/// How far the receiver's copy has come, and of what.
#[derive(Debug)]
struct Position {
    /// By prefix, the revision that it needs next.
    next: Vec<Revision>,
    /// The newest revision that we know the store to have had.
    seen: Revision,
    server: ServerRef,
    sentinel: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Starting,
    Up,
    Down,
}

/// Why a session ended.
enum Ended {
    /// Nobody listens any more.
    Unwatched,
    Broken(StoreError),
    /// The position is worth nothing.
    StartOver(SnapshotReason),
}

impl From<StoreError> for Ended {
    fn from(err: StoreError) -> Self {
        Self::Broken(err)
    }
}

impl Watcher {
    fn new(client: EtcdClient, request: WatchRequest, events: mpsc::Sender<WatchEvent>) -> Self {
        let prefixes = without_overlap(request.prefixes);
        let request = WatchRequest { prefixes, ..request };
        let reason = SnapshotReason::First;
        let health = Health::Starting;
        Self { client, request, events, position: None, reason, health, up_since: None }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new();
        let mut reconnections = self.client.reconnections();
        loop {
            self.up_since = None;
            // A session that is left half way has moved the position for what it has handed on, and for no more.
            let ended = tokio::select! {
                Err(ended) = self.session() => ended,
                Ok(()) = reconnections.changed() => continue,
            };
            backoff.worked_for(self.up_since.map(|since| since.elapsed()));
            match ended {
                Ended::Unwatched => return,
                Ended::StartOver(reason) => self.start_over(reason),
                Ended::Broken(StoreError::WatchCompacted { compacted, .. }) => {
                    self.compacted(compacted);
                }
                Ended::Broken(err) => {
                    if self.broken(err).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(backoff.next(random::id64())).await;
        }
    }

    fn compacted(&mut self, compacted: Revision) {
        let seen = self.position.as_ref().map_or(Revision::ZERO, |position| position.seen);
        self.start_over(SnapshotReason::Compacted { seen, compacted });
    }

    fn start_over(&mut self, reason: SnapshotReason) {
        tracing::info!(reason = ?reason, "watch starts over with a snapshot");
        self.reason = reason;
        self.position = None;
    }

    /// Notes a break: forgets what may have caused it, tells once.
    async fn broken(&mut self, err: StoreError) -> Result<(), Ended> {
        if err.is_unauthenticated() {
            self.client.forget_token().await;
        }
        self.client.next_endpoint();
        if self.health == Health::Down {
            tracing::debug!(error = one_line(&err), "datastore still away");
            return Ok(());
        }
        self.health = Health::Down;
        tracing::warn!(error = one_line(&err), "datastore away, will retry");
        self.tell(WatchEvent::Interrupted { cause: err }).await
    }

    /// Runs until something ends it; never returns otherwise.
    async fn session(&mut self) -> Result<std::convert::Infallible, Ended> {
        let (status, sentinel) = self.probe().await?;
        if let Some(position) = &self.position
            && let Some(reason) = position.contradicted_by(status, sentinel.as_ref())
        {
            return Err(Ended::StartOver(reason));
        }
        if self.position.is_none() {
            self.snapshot(status, sentinel).await?;
        }
        let kept = self.history_is_kept(status.revision).await?;
        let mut stream = Stream::open(&self.client, &self.request.prefixes, self.next()).await?;
        if kept {
            self.resumed(status.revision).await?;
        }
        loop {
            let response = stream.next().await?;
            self.take(&mut stream, response).await?;
        }
    }

    /// Asks who answers, at which revision, and what the sentinel is.
    async fn probe(&self) -> Result<(ServerStatus, Option<KeyValue>), StoreError> {
        let (status, value) = self.client.get_with_status(self.probed_key()).await?;
        Ok((status, value.filter(|_| self.request.sentinel.is_some())))
    }

    /// Returns a key that whoever may watch may also read.
    fn probed_key(&self) -> &[u8] {
        let first = self.request.prefixes.iter().find(|prefix| !prefix.is_empty());
        self.request.sentinel.as_ref().or(first).map_or(&[0], Vec::as_slice)
    }

    /// Whether the stream will go on where it stopped. When it will not, it says so itself, with the
    /// revision up to which history is gone; this only keeps us from promising before that.
    async fn history_is_kept(&self, newest: Revision) -> Result<bool, StoreError> {
        let next = self.next().iter().min().copied().unwrap_or_default();
        if self.health != Health::Down || next > newest {
            return Ok(true);
        }
        match self.client.check_readable(self.probed_key(), next).await {
            Err(err) if err.is_compacted() => Ok(false),
            Err(err) => Err(err),
            Ok(()) => Ok(true),
        }
    }

    async fn snapshot(
        &mut self,
        status: ServerStatus,
        sentinel: Option<KeyValue>,
    ) -> Result<(), Ended> {
        let ServerStatus { server, revision } = status;
        let entries = match self.request.delivery {
            Delivery::Whole => self.whole(status).await?,
            Delivery::Parts => self.parts(status).await?,
        };
        let reason = self.reason;
        self.tell(WatchEvent::Snapshot(Snapshot { revision, server, reason, entries })).await?;
        let next = vec![revision.next(); self.request.prefixes.len()];
        self.position = Some(Position { next, seen: revision, server, sentinel });
        // The receiver is in step again, and was told so by the snapshot.
        self.is_up(revision);
        Ok(())
    }

    async fn whole(&self, status: ServerStatus) -> Result<Vec<KeyValue>, Ended> {
        let mut entries = Vec::new();
        for prefix in &self.request.prefixes {
            let listing = self.client.range_prefix(prefix, Some(status.revision)).await?;
            check_cluster(prefix, status.server, listing.server)?;
            entries.extend(listing.entries);
        }
        Ok(entries)
    }

    /// Hands on page by page, and returns what is left. While the receiver works on one the store prepares another.
    async fn parts(&self, status: ServerStatus) -> Result<Vec<KeyValue>, Ended> {
        let (mut place, mut left) = (Place::First, Vec::new());
        let slots = Arc::new(Semaphore::new(PARTS_QUEUED));
        for prefix in &self.request.prefixes {
            let mut pages = self.client.pages(prefix, Some(status.revision), Pace::Bytes);
            while let Some(page) = pages.next().await? {
                let listed = pages.status().map_or(status.server, |listed| listed.server);
                check_cluster(prefix, status.server, listed)?;
                let entries = std::mem::replace(&mut left, page);
                // Nobody closes it.
                let slot = Arc::clone(&slots).acquire_owned().await.ok();
                self.tell(WatchEvent::Part(Part { place, entries, _slot: slot })).await?;
                place = Place::Later;
            }
        }
        Ok(left)
    }

    /// Tells that the stream goes on, if it had been told that it did not.
    async fn resumed(&mut self, revision: Revision) -> Result<(), Ended> {
        if self.health == Health::Down {
            self.tell(WatchEvent::Resumed { revision }).await?;
        }
        self.is_up(revision);
        Ok(())
    }

    fn is_up(&mut self, revision: Revision) {
        if self.health != Health::Up {
            tracing::info!(revision = revision.get(), "datastore watched");
        }
        self.health = Health::Up;
        self.up_since.get_or_insert_with(Instant::now);
    }

    fn next(&self) -> &[Revision] {
        self.position.as_ref().map_or(&[], |position| &position.next)
    }

    /// Hands on the changes of one answer.
    async fn take(&mut self, stream: &mut Stream, response: WatchResponse) -> Result<(), Ended> {
        let Some(position) = &mut self.position else { return Ok(()) };
        let status = status_of(&stream.op, response.header)?;
        if status.server.cluster != position.server.cluster {
            return Err(Ended::StartOver(SnapshotReason::OtherCluster { before: position.server }));
        }
        if response.canceled {
            return Err(canceled(&stream.op, &response).into());
        }
        let Some(which) = stream.index_of(&response) else { return Ok(()) };
        let Some(events) = stream.join(which, response)? else { return Ok(()) };
        let changes = position.changes(which, events);
        let Some(last) = changes.last().map(KeyChange::revision) else { return Ok(()) };
        self.resumed(last).await?;
        self.tell(WatchEvent::Changes { revision: last, changes }).await?;
        if let Some(position) = &mut self.position {
            position.advance(which, last);
        }
        Ok(())
    }

    async fn tell(&self, event: WatchEvent) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended::Unwatched)
    }
}

impl Position {
    /// Whether the store that answers cannot be the one of this position.
    fn contradicted_by(
        &self,
        status: ServerStatus,
        sentinel: Option<&KeyValue>,
    ) -> Option<SnapshotReason> {
        if status.server.cluster != self.server.cluster {
            return Some(SnapshotReason::OtherCluster { before: self.server });
        }
        if status.revision < self.seen {
            return Some(SnapshotReason::RevisionWentBack { seen: self.seen });
        }
        let known = self.sentinel.as_ref()?;
        let same = sentinel.is_some_and(|now| now.created == known.created);
        (!same).then_some(SnapshotReason::OtherHistory { seen: self.seen })
    }

    /// Turns events into changes, without those that were handed on before a break.
    fn changes(&self, which: usize, events: Vec<mvccpb::Event>) -> Vec<KeyChange> {
        let next = self.next.get(which).copied().unwrap_or_default();
        let changes = events.into_iter().filter_map(change_of);
        changes.filter(|change| change.revision() >= next).collect()
    }

    fn advance(&mut self, which: usize, last: Revision) {
        if let Some(next) = self.next.get_mut(which) {
            *next = (*next).max(last.next());
        }
        self.seen = self.seen.max(last);
    }
}

/// Leaves out what another prefix covers, whose changes would be told twice.
fn without_overlap(prefixes: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for prefix in prefixes {
        if !kept.iter().any(|other| prefix.starts_with(other)) {
            kept.retain(|other| !other.starts_with(&prefix));
            kept.push(prefix);
        }
    }
    kept
}

fn change_of(event: mvccpb::Event) -> Option<KeyChange> {
    let deleted = event.r#type() == EventType::Delete;
    let kv = KeyValue::from(event.kv?);
    Some(if deleted {
        KeyChange::Delete { key: kv.key, revision: kv.modified }
    } else {
        KeyChange::Put(kv)
    })
}

fn check_cluster(prefix: &[u8], probed: ServerRef, listed: ServerRef) -> Result<(), StoreError> {
    if probed.cluster == listed.cluster {
        return Ok(());
    }
    Err(Op::read("list", prefix).unexpected("another cluster than a moment ago"))
}

/// Events that wait for the receiver. Behind them the stream's own flow control holds the server.
const EVENTS_QUEUED: usize = 64;
/// Parts of a snapshot that wait, each a few megabytes.
const PARTS_QUEUED: usize = 1;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_within_another_is_left_out_whichever_comes_first() {
        let prefixes = |all: &[&str]| all.iter().map(|one| one.as_bytes().to_vec()).collect();
        let kept = without_overlap(prefixes(&["/a/b", "/c", "/a/", "/a/x", "/c"]));
        assert_eq!(kept, prefixes(&["/c", "/a/"]) as Vec<Vec<u8>>);
    }

    #[test]
    fn a_change_that_was_handed_on_before_a_break_is_not_told_again() {
        let mut position = position();
        let events = |revisions: &[i64]| revisions.iter().map(|at| event(*at)).collect();
        let told = position.changes(0, events(&[9, 10, 11]));
        assert_eq!(told.iter().map(|one| one.revision().get()).collect::<Vec<_>>(), [10, 11]);
        position.advance(0, Revision::new(11));
        assert_eq!(position.changes(0, events(&[10, 11])), []);
        // The other prefix stands where it stood.
        assert_eq!(position.changes(1, events(&[10, 11])).len(), 2);
    }

    #[test]
    fn an_older_store_another_cluster_and_a_new_sentinel_contradict_the_position() {
        let position = position();
        let judge = |cluster, revision, sentinel: Option<&KeyValue>| {
            let server = ServerRef { cluster, member: 2 };
            let status = ServerStatus { server, revision: Revision::new(revision) };
            position.contradicted_by(status, sentinel)
        };
        let seen = Revision::new(9);
        let before = position.server;
        let known = position.sentinel.as_ref();
        assert_eq!(judge(1, 9, known), None);
        assert_eq!(judge(1, 8, known), Some(SnapshotReason::RevisionWentBack { seen }));
        assert_eq!(judge(3, 9, known), Some(SnapshotReason::OtherCluster { before }));
        assert_eq!(judge(1, 9, None), Some(SnapshotReason::OtherHistory { seen }));
    }

    fn position() -> Position {
        let sentinel = change_of(event(3)).map(|change| match change {
            KeyChange::Put(kv) => kv,
            KeyChange::Delete { .. } => unreachable!("the event is a put"),
        });
        let server = ServerRef { cluster: 1, member: 1 };
        Position { next: vec![Revision::new(10); 2], seen: Revision::new(9), server, sentinel }
    }

    fn event(mod_revision: i64) -> mvccpb::Event {
        let kv = mvccpb::KeyValue { create_revision: 3, mod_revision, ..Default::default() };
        mvccpb::Event { kv: Some(kv), ..Default::default() }
    }
}
