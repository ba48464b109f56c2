//! Answers requests for this node's status (`CalicoNodeStatus`), each at its own period.
//!
//! A request is an object that anybody writes; the answer is written into it. What comes back of our own answers changes no
//! schedule: only a request that says something else than before does. What is to be told is asked for when an answer is
//! due, and never else.

use std::{collections::BTreeMap, time::Duration};

use russet_api::calico::{Key, Kind, Layout, Stored, write_report};
use russet_core::model::calico::{CalicoNodeStatus, Name, NodeReport};
use russet_store::{
    EtcdClient, Expect, KeyChange, KeyValue, Revision, WatchEvent, WatchRequest, WriteOutcome,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};

use super::stamp;
use crate::{one_line, until};

/// Asks for what is to be told now.
pub type AskReport = oneshot::Sender<NodeReport>;

/// Answers for ever. `asks` hears when something is to be told; the report's time is set when it is written.
pub async fn answer(
    client: EtcdClient,
    name: Name,
    asks: mpsc::Sender<AskReport>,
    believed: watch::Receiver<bool>,
) {
    let prefix = Key::all_of(Kind::CalicoNodeStatus).into_bytes();
    let mut watch =
        client.watch(WatchRequest { prefixes: vec![prefix], ..WatchRequest::default() });
    let mut requests = Requests::new(name);
    loop {
        tokio::select! {
            event = watch.recv() => match event {
                Some(event) => requests.hear(event, Instant::now()),
                None => return,
            },
            () = until(requests.next()) => {
                if !*believed.borrow() {
                    sleep(LULL).await;
                    continue;
                }
                let due = requests.due(Instant::now());
                let report = NodeReport { updated: stamp::now(), ..ask(&asks).await };
                for key in due {
                    write(&client, &mut requests, &key, &report).await;
                }
            }
        }
    }
}

/// What is to be told; that the node is not ready when nobody says anything.
async fn ask(asks: &mpsc::Sender<AskReport>) -> NodeReport {
    let (tell, told) = oneshot::channel();
    if asks.send(tell).await.is_err() {
        return NodeReport::default();
    }
    told.await.unwrap_or_default()
}

/// A write that fails is made up for at the request's next time.
async fn write(client: &EtcdClient, requests: &mut Requests, key: &[u8], report: &NodeReport) {
    let Some((text, at)) = requests.text_with(key, report) else { return };
    match client.put_if(key, Expect::At(at), text.as_bytes()).await {
        Ok(WriteOutcome::Done { revision }) => requests.wrote(key, revision),
        // The watch brings what is there now.
        Ok(WriteOutcome::Conflict(_)) => requests.again(key),
        Err(error) => {
            tracing::warn!(op = "report status", error = %one_line(&error), "a status was not written");
            requests.again(key);
        }
    }
}

/// The requests to this node.
struct Requests {
    name: Name,
    by_key: BTreeMap<Vec<u8>, Request>,
}

struct Request {
    stored: Stored<CalicoNodeStatus>,
    at: Revision,
    /// `None`: it was answered once, and wants no more.
    due: Option<Instant>,
}

impl Requests {
    const fn new(name: Name) -> Self {
        Self { name, by_key: BTreeMap::new() }
    }

    fn hear(&mut self, event: WatchEvent, now: Instant) {
        match event {
            WatchEvent::Snapshot(snapshot) => {
                let there: Vec<_> = snapshot.entries.iter().map(|kv| kv.key.clone()).collect();
                self.by_key.retain(|key, _| there.contains(key));
                snapshot.entries.into_iter().for_each(|kv| self.put(kv, now));
            }
            WatchEvent::Changes { changes, .. } => {
                for change in changes {
                    match change {
                        KeyChange::Put(kv) => self.put(kv, now),
                        KeyChange::Delete { key, .. } => drop(self.by_key.remove(&key)),
                    }
                }
            }
            // Parts are not asked for.
            WatchEvent::Part(_) | WatchEvent::Interrupted { .. } | WatchEvent::Resumed { .. } => {}
        }
    }

    /// What cannot be read, or is another node's, is no request to us.
    fn put(&mut self, kv: KeyValue, now: Instant) {
        let read = Stored::<CalicoNodeStatus>::read(&kv.value, Layout::Resource);
        let ours = read.ok().filter(|stored| stored.value().node == self.name);
        let Some(stored) = ours else {
            self.by_key.remove(&kv.key);
            return;
        };
        let before = self.by_key.get(&kv.key);
        if before.is_none() && self.by_key.len() >= MOST_REQUESTS {
            tracing::warn!(
                op = "report status",
                "more requests for status than {MOST_REQUESTS} are passed over"
            );
            return;
        }
        let same = before.filter(|before| before.stored.value() == stored.value());
        let due = same.map_or(Some(now), |before| before.due);
        self.by_key.insert(kv.key, Request { stored, at: kv.modified, due });
    }

    fn next(&self) -> Option<Instant> {
        self.by_key.values().filter_map(|request| request.due).min()
    }

    /// The requests that are to be answered now; each gets its next time.
    fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        for (key, request) in &mut self.by_key {
            if request.due.is_some_and(|due| due <= now) {
                let period = request.stored.value().period_seconds;
                request.due = period.map(|s| now + Duration::from_secs(s.get().into()));
                keys.push(key.clone());
            }
        }
        keys
    }

    fn text_with(&mut self, key: &[u8], report: &NodeReport) -> Option<(String, Revision)> {
        let request = self.by_key.get_mut(key)?;
        write_report(&mut request.stored, report);
        Some((request.stored.text(), request.at))
    }

    /// A request that is answered once is answered later when it could not be now.
    fn again(&mut self, key: &[u8]) {
        if let Some(request) = self.by_key.get_mut(key) {
            request.due.get_or_insert_with(|| Instant::now() + AGAIN);
        }
    }

    fn wrote(&mut self, key: &[u8], revision: Revision) {
        if let Some(request) = self.by_key.get_mut(key) {
            request.at = revision;
        }
    }
}

/// How many requests one node answers.
const MOST_REQUESTS: usize = 64;
/// While the store is not believed.
const LULL: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(5);
