//! One watch stream: many watchers, each pulling the history from where it stands.
//!
//! The stream waits for a request or for a newer revision, then hands on one portion of history at a
//! time, the watcher that is furthest behind first. It waits for its client while it does so, and
//! the store waits for neither.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use prost::Message;
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};
use tonic::{Status, Streaming};

use super::{
    grpc::Api,
    mvcc::{Change, Commit, KeyRange, MvccError, What},
    owner::{PROGRESS_EVERY, stopping},
    txn::to_wire,
};
use crate::{
    contract::Revision,
    proto::{
        etcdserverpb::{
            WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
            watch_request::RequestUnion,
        },
        mvccpb,
    },
};

type Answers = mpsc::Sender<Result<WatchResponse, Status>>;

/// Serves a stream until one of the two ends has gone.
pub(crate) async fn run(api: Api, requests: Streaming<WatchRequest>, answers: Answers) {
    let known = Revision::ZERO;
    let (watchers, ended, progress_wanted) = Default::default();
    let stream = Stream { api, answers, watchers, ended, next_id: 0, known, progress_wanted };
    stream.run(requests).await;
}

struct Stream {
    api: Api,
    answers: Answers,
    watchers: BTreeMap<i64, Watcher>,
    /// Numbers of watchers that compaction ended: etcd keeps them until they are canceled.
    ended: BTreeSet<i64>,
    next_id: i64,
    /// The newest revision of which we were told.
    known: Revision,
    progress_wanted: Progress,
}

/// Whether the client waits to be told how far it is.
#[derive(Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Quiet,
    Wanted,
}

struct Watcher {
    keys: KeyRange,
    /// The revision that it needs next.
    next: Revision,
    options: Options,
}

/// What the client wants to see and how.
struct Options {
    filters: Vec<FilterType>,
    previous: Wish,
    fragment: Wish,
    progress: Wish,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    No,
    Yes,
}

/// The stream is over; the client knows or cannot be told.
struct Over;

impl Stream {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let mut news = self.api.owner.news.clone();
        let mut progress = progress_timer();
        self.known = news.borrow_and_update().revision;
        loop {
            let step = tokio::select! {
                biased;
                request = requests.message() => match request {
                    Ok(Some(request)) => self.request(request).await,
                    Ok(None) | Err(_) => return,
                },
                () = std::future::ready(()), if self.has_work() => self.portion().await,
                changed = news.changed() => match changed {
                    Ok(()) => { self.known = news.borrow_and_update().revision; Ok(()) }
                    Err(_) => self.fail(stopping()).await,
                },
                _ = progress.tick() => self.tell_progress().await,
            };
            if step.is_err() {
                return;
            }
        }
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), Over> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                // What the client had answered before it asked is not left out.
                self.known = self.api.owner.news.borrow().revision;
                self.progress_wanted = Progress::Wanted;
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Over> {
        let Ok(now) = self.api.owner.ask(|state, _| state.revision()).await else {
            return self.fail(stopping()).await;
        };
        let created = WatchResponse {
            header: Some(self.api.header(now)),
            created: true,
            ..WatchResponse::default()
        };
        let id = match self.admit(&create, now) {
            Ok(id) => id,
            Err(reason) => {
                let cancel_reason = reason.to_owned();
                let refused =
                    WatchResponse { watch_id: -1, canceled: true, cancel_reason, ..created };
                return self.send(refused).await;
            }
        };
        self.send(WatchResponse { watch_id: id, ..created }).await
    }

    /// Takes a watcher in, or says why not.
    fn admit(&mut self, create: &WatchCreateRequest, now: Revision) -> Result<i64, &'static str> {
        if self.watchers.len() + self.ended.len() >= self.api.limits.watchers_per_stream {
            return Err("etcdserver: too many watchers on the stream");
        }
        let watcher = Watcher::new(create, now);
        if watcher.keys.is_empty() {
            return Err("mvcc: watcher range is empty");
        }
        if self.is_taken(create.watch_id) && create.watch_id != 0 {
            return Err("mvcc: duplicate watch ID provided on the WatchStream");
        }
        let id = if create.watch_id == 0 { self.free_id() } else { create.watch_id };
        self.watchers.insert(id, watcher);
        Ok(id)
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.ended.contains(&id)
    }

    /// Numbers watchers from zero, past those that the client numbered (as etcd).
    fn free_id(&mut self) -> i64 {
        while self.is_taken(self.next_id) {
            self.next_id = self.next_id.saturating_add(1);
        }
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        id
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Over> {
        if self.watchers.remove(&id).is_none() && !self.ended.remove(&id) {
            return Ok(());
        }
        let header = Some(self.api.header(self.known));
        self.send(WatchResponse {
            header,
            watch_id: id,
            canceled: true,
            ..WatchResponse::default()
        })
        .await
    }

    fn has_work(&self) -> bool {
        self.progress_wanted == Progress::Wanted || self.furthest_behind().is_some()
    }

    fn furthest_behind(&self) -> Option<Revision> {
        self.watchers.values().map(|watcher| watcher.next).min().filter(|next| *next <= self.known)
    }

    /// Hands on one portion of history, or says how far it is when there is none left.
    async fn portion(&mut self) -> Result<(), Over> {
        let Some(from) = self.furthest_behind() else {
            self.progress_wanted = Progress::Quiet;
            return self.send(self.progress_of(ALL_WATCHERS)).await;
        };
        // One that keeps up finds what it needs in the news; only what is older has to be asked for.
        let recent = self.api.owner.news.borrow().since(from).map(<[_]>::to_vec);
        if let Some(commits) = recent {
            return self.deliver(&commits).await;
        }
        match self.api.owner.ask(move |state, _| state.since(from, COMMITS_AT_ONCE)).await {
            Err(status) => self.fail(status).await,
            Ok(Ok((commits, newest))) if commits.is_empty() => {
                // Only deletions, at the compacted revision: there is nothing to tell of them.
                self.pass(newest);
                Ok(())
            }
            Ok(Ok((commits, _))) => self.deliver(&commits).await,
            Ok(Err(MvccError::Compacted(compacted))) => self.drop_compacted(compacted).await,
            Ok(Err(MvccError::Future)) => Ok(()),
        }
    }

    /// Has nobody wait for what is not told.
    fn pass(&mut self, newest: Revision) {
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.next <= newest) {
            watcher.next = newest.next();
        }
    }

    async fn deliver(&mut self, commits: &[Arc<Commit>]) -> Result<(), Over> {
        let Some(commits) = portion_of(commits) else { return Ok(()) };
        let Some(last) = commits.last().map(|commit| commit.revision) else { return Ok(()) };
        let header = self.api.header(last);
        let limit = self.api.limits.request_bytes;
        let mut answers = Vec::new();
        for (id, watcher) in &mut self.watchers {
            let events = watcher.take(commits, last);
            let empty = WatchResponse { header: Some(header), watch_id: *id, ..no_events() };
            answers.extend(split(events, &empty, watcher.options.fragment, limit));
        }
        for answer in answers {
            self.send(answer).await?;
        }
        Ok(())
    }

    /// Ends the watchers whose history is gone, as etcd does: with the revision that is still there, and no
    /// words.
    async fn drop_compacted(&mut self, compacted: Revision) -> Result<(), Over> {
        let behind = self.watchers.iter().filter(|(_, watcher)| watcher.next < compacted);
        let ids: Vec<i64> = behind.map(|(id, _)| *id).collect();
        for id in ids {
            self.watchers.remove(&id);
            self.ended.insert(id);
            self.send(WatchResponse {
                header: Some(self.api.header(self.known)),
                watch_id: id,
                canceled: true,
                compact_revision: compacted.to_wire(),
                ..WatchResponse::default()
            })
            .await?;
        }
        Ok(())
    }

    /// Tells the watchers that asked for it, and are not behind, that nothing was left out.
    async fn tell_progress(&mut self) -> Result<(), Over> {
        if self.furthest_behind().is_some() {
            return Ok(());
        }
        let wanted = self.watchers.iter().filter(|(_, one)| one.options.progress == Wish::Yes);
        let ids: Vec<i64> = wanted.map(|(id, _)| *id).collect();
        for id in ids {
            self.send(self.progress_of(id)).await?;
        }
        Ok(())
    }

    fn progress_of(&self, id: i64) -> WatchResponse {
        WatchResponse { header: Some(self.api.header(self.known)), watch_id: id, ..no_events() }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Over> {
        self.answers.send(Ok(answer)).await.map_err(|_| Over)
    }

    async fn fail(&self, status: Status) -> Result<(), Over> {
        // The client may have gone before us.
        let _ = self.answers.send(Err(status)).await;
        Err(Over)
    }
}

impl Watcher {
    /// Starts at the revision that is asked for, or with what comes after now.
    fn new(create: &WatchCreateRequest, now: Revision) -> Self {
        let next = match create.start_revision {
            ..=0 => now.next(),
            start => Revision::from_wire(start),
        };
        // No key at all is the smallest one (as etcd).
        let key = if create.key.is_empty() { vec![0] } else { create.key.clone() };
        let keys = KeyRange::from_wire(key, create.range_end.clone());
        let options = Options {
            filters: create.filters().collect(),
            previous: create.prev_kv.into(),
            fragment: create.fragment.into(),
            progress: create.progress_notify.into(),
        };
        Self { keys, next, options }
    }

    /// Returns what it wants of a portion, and stands behind it.
    fn take(&mut self, commits: &[Arc<Commit>], last: Revision) -> Vec<mvccpb::Event> {
        let fresh = commits.iter().filter(|commit| commit.revision >= self.next);
        let events = fresh.flat_map(|commit| {
            let seen = commit.changes.iter().filter(|change| self.wants(change));
            seen.map(|change| self.event(change, commit.revision))
        });
        let events = events.collect();
        self.next = self.next.max(last.next());
        events
    }

    fn wants(&self, change: &Change) -> bool {
        let filter = match change.what {
            What::Put(_) => FilterType::Noput,
            What::Delete(_) => FilterType::Nodelete,
        };
        self.keys.contains(change.key()) && !self.options.filters.contains(&filter)
    }

    fn event(&self, change: &Change, revision: Revision) -> mvccpb::Event {
        use mvccpb::event::EventType;
        let (what, kv) = match &change.what {
            What::Put(kv) => (EventType::Put, to_wire(kv)),
            What::Delete(key) => (EventType::Delete, tombstone(key, revision)),
        };
        // A key that is created was nothing, even when its transaction deleted it before (as etcd).
        let created = change.what.kv().is_some_and(|kv| kv.created == kv.modified);
        let told = self.options.previous == Wish::Yes && !created;
        let prev = change.prev.as_ref().filter(|_| told);
        mvccpb::Event { r#type: what.into(), kv: Some(kv), prev_kv: prev.map(|kv| to_wire(kv)) }
    }
}

impl From<bool> for Wish {
    fn from(wanted: bool) -> Self {
        if wanted { Self::Yes } else { Self::No }
    }
}

/// Returns as many of the commits as make one portion, at least one.
fn portion_of(commits: &[Arc<Commit>]) -> Option<&[Arc<Commit>]> {
    let mut bytes = 0;
    let fits = commits.iter().take_while(|commit| {
        let before = bytes;
        bytes += commit.bytes();
        before < BYTES_AT_ONCE
    });
    commits.get(..fits.count())
}

/// Makes one answer of the events, or several parts when it would be too large and the client can
/// join them.
fn split(
    events: Vec<mvccpb::Event>,
    empty: &WatchResponse,
    fragment: Wish,
    limit: usize,
) -> Vec<WatchResponse> {
    if events.is_empty() {
        return Vec::new();
    }
    let mut parts = vec![empty.clone()];
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        if fragment == Wish::Yes && bytes > 0 && bytes + size > limit {
            parts.push(empty.clone());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.events.push(event);
        }
    }
    let last = parts.len().saturating_sub(1);
    for part in parts.iter_mut().take(last) {
        part.fragment = true;
    }
    parts
}

fn tombstone(key: &[u8], revision: Revision) -> mvccpb::KeyValue {
    let mod_revision = revision.to_wire();
    mvccpb::KeyValue { key: key.to_vec(), mod_revision, ..mvccpb::KeyValue::default() }
}

fn no_events() -> WatchResponse {
    WatchResponse::default()
}

fn progress_timer() -> Interval {
    let mut timer = interval(PROGRESS_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer.reset();
    timer
}

/// The number in an answer to a progress request: it is about the whole stream (as etcd).
const ALL_WATCHERS: i64 = -1;
const COMMITS_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 1 << 20;
