//! nftables as one more kind of the row.
//!
//! Sets, elements, chains and foreign accepts have a reconciler of their own (`nft`), because they travel in
//! transactions. Here it is told what all kinds are told, and its refusals become the same news.

use std::{collections::BTreeMap, mem, sync::Arc, time::Instant};

use russet_desired::{Flag, Key, Patches};

use super::{
    Drift, News, Path,
    part::{Author, Part},
};
use crate::{
    Host, KernelError,
    netlink::Message,
    nft::{Monitor, Nft, Refused},
};

/// The node's rules.
#[derive(Debug)]
pub struct Rules {
    nft: Nft,
    stale: Option<Path>,
    /// Whether something may be to be sent.
    dirty: Flag,
    refused: BTreeMap<Key, KernelError>,
    news: Vec<News<Key>>,
    /// How it was noticed that something is amiss, and who was at it, since the last round.
    noticed: Path,
    by: Option<Arc<str>>,
}

impl Rules {
    pub(super) fn open() -> Result<Self, KernelError> {
        Ok(Self {
            nft: Nft::open()?,
            stale: Some(Path::Own),
            dirty: Flag::Off,
            refused: BTreeMap::new(),
            news: Vec::new(),
            noticed: Path::Own,
            by: None,
        })
    }

    /// A socket that tells when somebody else changed what concerns us.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or subscribed.
    pub fn monitor(&self) -> Result<Monitor, KernelError> {
        Ok(self.nft.monitor()?)
    }

    pub fn nft(&self) -> &Nft {
        &self.nft
    }

    /// Says who changed something last.
    pub(super) fn blame(&mut self, by: Option<Arc<str>>) {
        self.by = by.or(self.by.take());
    }

    fn close(&mut self, refused: Vec<Refused>) {
        let (path, by) = (mem::replace(&mut self.noticed, Path::Own), self.by.take());
        let repaired = self.nft.take_repaired().into_iter();
        let drift = |what| Drift { what, by: by.clone(), path };
        self.news.extend(repaired.map(|(key, what)| News::Repaired(key, drift(what))));
        let before = mem::take(&mut self.refused);
        for Refused { key, error } in refused {
            let Some(key) = key else {
                tracing::warn!(%error, "a stranger in our table stays");
                continue;
            };
            let error = KernelError::from(error);
            if before.get(&key).map(ToString::to_string) != Some(error.to_string()) {
                self.news.push(News::Failed(key.clone(), error.clone()));
            }
            self.refused.insert(key, error);
        }
        let cleared = before.into_keys().filter(|key| !self.refused.contains_key(key));
        self.news.extend(cleared.map(News::Cleared));
    }
}

impl Part for Rules {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn update(&mut self, patches: &mut Patches) {
        let empty = patches.sets.is_empty()
            && patches.elements.is_empty()
            && patches.chains.is_empty()
            && patches.foreign_accepts.is_empty()
            && patches.leftovers.is_empty();
        if !empty {
            self.dirty = Flag::On;
            self.nft.update(patches);
        }
    }

    fn complete(&mut self) {
        self.dirty = Flag::On;
        self.nft.complete();
    }

    fn mark_stale(&mut self, path: Path) {
        self.stale = self.stale.max(Some(path));
    }

    fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    fn resync(&mut self, _: &mut Host, _: Instant) -> Result<(), KernelError> {
        self.nft.resync()?;
        self.noticed = self.noticed.max(self.stale.take().unwrap_or(Path::Own));
        self.dirty = Flag::On;
        Ok(())
    }

    /// Its events come by another socket.
    fn observe(&mut self, _: &Host, _: &Message<'_>, _: Author<'_>, _: Instant) {}

    fn retry(&mut self) {
        if !self.refused.is_empty() {
            self.dirty = Flag::On;
        }
    }

    fn upsert(&mut self, _: &mut Host, _: Instant) {
        if !self.dirty.is_on() {
            return;
        }
        match self.nft.apply() {
            Ok(refused) => {
                self.dirty = Flag::Off;
                self.close(refused);
            }
            Err(error) => {
                tracing::warn!(%error, "nftables not applied");
                self.mark_stale(Path::Sweep);
            }
        }
    }

    /// Its removals are part of its transactions.
    fn remove(&mut self, _: &mut Host) {}

    fn is_pending(&self) -> bool {
        self.dirty.is_on()
    }

    fn refused(&self) -> usize {
        self.refused.len()
    }

    fn wanted(&self) -> usize {
        0
    }

    fn take_news(&mut self, into: &mut Vec<News<Key>>) {
        into.append(&mut self.news);
    }
}
