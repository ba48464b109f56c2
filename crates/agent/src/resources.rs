//! What Calico's part of the datastore says, decoded once for all who listen.
//!
//! ```text
//!  store ─ WatchEvent ─▶ decode (pure) ─▶ Picture ─ News (16 each) ─▶ owner, ipam, BGP resources
//! ```
//!
//! One task holds the [`Picture`]: each key with its last good value and its present fault. An object that
//! cannot be read is told by its key and stops no other: settings, pools and nodes keep their last good value,
//! and a block is one that exists and has nothing free. Of others' blocks only an outline is kept; handles are
//! not watched at all, there is one for each pod of the cluster.
//!
//! A snapshot is judged as flannel's are (`owner::trust`): one of another cluster, one that is older than what
//! this node has seen, or one without any pool, is told as [`News::Doubted`], and nothing of it counts until it
//! is right again or the operator accepts it.

mod decode;
mod picture;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use russet_api::calico::{Key, Kind, ResourceId};
use russet_core::model::calico::Name;
use russet_store::{
    Delivery, EtcdClient, Expect, Guard, KeyValue, Part, Place, Revision, WatchEvent, WatchRequest,
};
use tokio::sync::mpsc;

pub use self::{
    decode::{Decoded, decode},
    picture::{BlockNews, Known, Object, Picture},
};
pub use crate::owner::trust::{Doubt, Seen};
use crate::{
    one_line,
    owner::trust::{Claimed, is_other_history, judge, looked_at},
};

/// What a listener is told, in order.
#[derive(Clone, Debug)]
pub enum News {
    /// Everything, at a revision: what is not in it is gone. The store is in sync.
    All { revision: u64, history: History, picture: Arc<Picture> },
    /// What changed since.
    Changed { revision: u64, changes: Arc<[Change]> },
    /// The store is not believed: this is what it has, and nothing of it counts.
    Doubted { doubt: Doubt, picture: Arc<Picture> },
    /// What changed in a store that is not believed.
    Aside { changes: Arc<[Change]> },
    /// The store cannot be read at present.
    Away(Arc<str>),
    /// It can again, and nothing was missed.
    Back,
}

/// One key, as it is now.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: Key,
    /// The revision of the change.
    pub revision: u64,
    /// `None`: it is gone.
    pub known: Option<Known>,
    /// What is kept on disk of it, if it is good and of the few of which something is.
    pub text: Option<Arc<[u8]>>,
}

/// Whether revisions of before may be compared with those of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    Same,
    Other,
}

/// Tells the task that the operator accepts the store as it is.
pub type Accept = mpsc::Sender<()>;

/// What a node of this name reads of Calico's keys: everything but handles, workloads and policy, and of claims
/// its own.
pub fn request(node: &Name) -> WatchRequest {
    let kinds = [
        Kind::IpPool,
        Kind::IpReservation,
        Kind::Node,
        Kind::FelixConfiguration,
        Kind::BgpConfiguration,
        Kind::BgpPeer,
        Kind::BgpFilter,
        Kind::ClusterInformation,
    ];
    let resources = kinds.iter().map(|kind| Key::all_of(*kind));
    let ipam = ["config", "assignment/"].map(|rest| format!("{}{rest}", Key::IPAM));
    let claims = format!("{}host/{node}/", Key::IPAM);
    let prefixes = resources.chain(ipam).chain([claims]).map(String::into_bytes).collect();
    let sentinel = cluster().map(|key| key.to_string().into_bytes());
    // Blocks are many and large, and little of them is kept.
    WatchRequest { prefixes, sentinel, delivery: Delivery::Parts }
}

/// The key of what the cluster says of itself.
pub fn cluster() -> Option<Key> {
    let name = "default".parse().ok()?;
    let id = ResourceId { kind: Kind::ClusterInformation, namespace: None, name };
    Some(Key::Resource(id))
}

/// That what the cluster says of itself is as it was read: at this revision, or not there. Another cluster's store is another.
pub fn same_cluster(read_at: Option<u64>) -> Option<Guard> {
    let expect = read_at.map_or(Expect::Absent, |at| Expect::At(Revision::new(at)));
    Some(Guard::Key { key: cluster()?.to_string().into_bytes(), expect })
}

/// A picture of what was kept on disk. What cannot be read any more is left out.
pub fn recalled(node: &Name, texts: &BTreeMap<String, String>) -> Picture {
    let entry = |(key, text): (&String, &String)| KeyValue {
        key: key.clone().into_bytes(),
        value: text.clone().into_bytes(),
        created: Revision::ZERO,
        modified: Revision::ZERO,
        version: 1,
        lease: None,
    };
    let decoded = texts.iter().map(entry).filter_map(|kv| decode(node, kv)).collect();
    Picture::of(decoded, &Picture::default())
}

/// Watches for ever, and tells all who listen. `seen` is what this node knew of its store before.
pub async fn serve(
    client: EtcdClient,
    node: Name,
    seen: Seen,
    listeners: Vec<mpsc::Sender<News>>,
    mut accepted: mpsc::Receiver<()>,
) {
    let mut watch = client.watch(request(&node));
    let mut reader = Reader::new(node, seen);
    loop {
        let news = tokio::select! {
            event = watch.recv() => match event {
                Some(event) => reader.take(event),
                None => return,
            },
            Some(()) = accepted.recv() => reader.accept(),
        };
        let Some(news) = news else { continue };
        for listener in &listeners {
            // One that is gone has ended; the others go on.
            let _ = listener.send(news.clone()).await;
        }
    }
}

/// Events in, news out: all that the task knows.
#[derive(Debug)]
pub struct Reader {
    node: Name,
    seen: Seen,
    picture: Arc<Picture>,
    /// What is read of a snapshot that is under way.
    coming: Vec<Decoded>,
    revision: u64,
    looked_at: u64,
    history: History,
    doubt: Option<Doubt>,
}

impl Reader {
    pub fn new(node: Name, seen: Seen) -> Self {
        Self {
            node,
            seen,
            picture: Arc::default(),
            coming: Vec::new(),
            revision: 0,
            looked_at: 0,
            history: History::Same,
            doubt: None,
        }
    }

    /// Takes one event of the watch.
    pub fn take(&mut self, event: WatchEvent) -> Option<News> {
        match event {
            WatchEvent::Part(Part { place, entries, .. }) => {
                if place == Place::First {
                    self.coming.clear();
                }
                self.read(entries);
                None
            }
            WatchEvent::Snapshot(snapshot) => {
                self.revision = snapshot.revision.get();
                self.looked_at =
                    looked_at(self.looked_at, self.doubt.as_ref(), snapshot.reason, self.revision);
                if is_other_history(snapshot.reason) {
                    self.history = History::Other;
                }
                self.read(snapshot.entries);
                let decoded = std::mem::take(&mut self.coming);
                self.picture = Arc::new(Picture::of(decoded, &self.picture));
                Some(self.judged())
            }
            WatchEvent::Changes { revision, changes } => {
                self.revision = revision.get();
                let decoded = changes.into_iter().filter_map(|one| decode::change(&self.node, one));
                // Nobody has the picture any more, as a rule; else it is copied.
                let picture = Arc::make_mut(&mut self.picture);
                let changes: Vec<_> = decoded.map(|one| picture.put(one)).collect();
                if let Some(before) = self.doubt.clone() {
                    // The whole is told once: a store that is written much would have every listener look at it each time.
                    let news = self.judged();
                    return if self.doubt.as_ref() == Some(&before) {
                        (!changes.is_empty()).then(|| News::Aside { changes: changes.into() })
                    } else {
                        Some(news)
                    };
                }
                self.seen.revision = self.revision;
                self.note_cluster();
                let revision = self.revision;
                (!changes.is_empty()).then(|| News::Changed { revision, changes: changes.into() })
            }
            WatchEvent::Interrupted { cause } => Some(News::Away(one_line(&cause).into())),
            WatchEvent::Resumed { .. } => Some(News::Back),
        }
    }

    fn read(&mut self, entries: Vec<KeyValue>) {
        let Self { node, coming, .. } = self;
        coming.extend(entries.into_iter().filter_map(|kv| decode(node, kv)));
    }

    /// Takes the store as it is now for the truth, by the operator's word. Without a pool there is nothing to
    /// take.
    pub fn accept(&mut self) -> Option<News> {
        self.doubt.as_ref()?;
        if !self.claimed().configured {
            return None;
        }
        tracing::info!(op = "accept store", revision = self.revision, "the datastore is believed");
        Some(self.believe())
    }

    fn judged(&mut self) -> News {
        let Some(doubt) = judge(&self.seen, &self.claimed()) else { return self.believe() };
        if self.doubt.as_ref() != Some(&doubt) {
            tracing::error!(op = "snapshot", reason = %doubt, "the datastore is not believed; no address is given");
        }
        self.doubt = Some(doubt.clone());
        News::Doubted { doubt, picture: Arc::clone(&self.picture) }
    }

    fn believe(&mut self) -> News {
        self.doubt = None;
        self.seen.revision = self.revision;
        self.seen.configured = true;
        self.seen.cluster_id = self.picture.cluster_id();
        let history = std::mem::replace(&mut self.history, History::Same);
        News::All { revision: self.revision, history, picture: Arc::clone(&self.picture) }
    }

    /// A store that is believed may be named. That it has lost its name is held against it at the next snapshot.
    fn note_cluster(&mut self) {
        let id = self.picture.cluster_id();
        if id.is_some() {
            self.seen.cluster_id = id;
        }
    }

    fn claimed(&self) -> Claimed {
        Claimed {
            cluster_id: self.picture.cluster_id(),
            revision: self.looked_at,
            configured: self.picture.has_pool(),
        }
    }

    pub const fn seen(&self) -> &Seen {
        &self.seen
    }
}

/// How many news may wait for a listener; the watch waits then.
pub const NEWS: usize = 16;
