//! Keeps the kernel's objects of one kind equal to those that are wanted.
//!
//! The calculation sends patches, the newest value wins; events and read-backs say what is there. Where
//! the two differ, the key is *pending*; [`Reconciler::upsert`] and [`Reconciler::remove`] turn what is
//! pending into one batch each. What the kernel refuses stays, with its error, until [`Reconciler::retry`]
//! or a newer wish; it holds back no other. At any time a wanted key is therefore pending, refused, or as
//! it should be, and only the latter can *drift*: that is counted, reported with its author, and repaired.
//! An object that somebody sets back again and again is left alone for a while.
//!
//! `driver` is what a kind has to provide, `all` composes the kinds in their order, `fake` is a kernel in
//! memory.

mod all;
mod driver;
#[cfg(test)]
mod fake;
mod fight;
mod part;
mod rules;
mod sorted;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Instant,
};

use russet_desired::{Kind, Patch, Table};
use russet_net::packed;

pub(crate) use self::driver::refuse_all;
pub use self::{
    all::Reconcilers,
    driver::{Change, Driver, Events, Refused, Seen},
    rules::Rules,
};
use self::{fight::Fights, sorted::Seek};
use crate::KernelError;

/// Owns all objects of one kind in one kernel and makes them match, however far they have drifted.
#[derive(Debug)]
pub struct Reconciler<K: Kind, D: Driver<K>> {
    driver: D,
    desired: Table<K>,
    actual: BTreeMap<K::Key, D::Actual>,
    /// Keys whose desired and actual value may differ.
    pending: BTreeSet<K::Key>,
    refused: BTreeMap<K::Key, KernelError>,
    drifted: BTreeMap<K::Key, Drift>,
    /// Who sent the events that gave a hint of a drift.
    suspects: BTreeMap<K::Key, Arc<str>>,
    fights: Fights<K::Key>,
    sync: Sync,
    /// Every wish was told, and the round that follows from it is not over yet.
    unpacked: bool,
    stale: Option<Path>,
    news: Vec<News<K::Key>>,
}

/// Removing is allowed only when everything that should stay has been named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    Partial,
    Complete,
}

/// How it was noticed that the kernel has not what it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// By our own doing: nothing to report.
    Own,
    /// By a read-back on its deadline, which nothing else had announced.
    Sweep,
    /// By an event.
    Event,
    /// By an event of its link, which took it along.
    Link,
}

/// An object was not any more what we had made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    pub what: DriftKind,
    /// Who did it, where the event tells: `ip (pid 4711)`.
    pub by: Option<Arc<str>>,
    pub path: Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftKind {
    Gone,
    Changed,
}

/// What became of one key.
#[derive(Clone, Debug)]
pub enum News<Key> {
    /// It is refused, and was not before, or for another reason.
    Failed(Key, KernelError),
    /// It was refused, and is no longer: it is as it should be, or not wanted any more.
    Cleared(Key),
    /// It had drifted and is as it should be again.
    Repaired(Key, Drift),
}

impl<K: Kind, D: Driver<K>> Reconciler<K, D> {
    /// A reconciler that knows nothing yet and will read the kernel back first.
    pub fn new(driver: D) -> Self {
        Self {
            driver,
            desired: BTreeMap::new(),
            actual: BTreeMap::new(),
            pending: BTreeSet::new(),
            refused: BTreeMap::new(),
            drifted: BTreeMap::new(),
            suspects: BTreeMap::new(),
            fights: Fights::default(),
            sync: Sync::Partial,
            unpacked: false,
            stale: Some(Path::Own),
            news: Vec::new(),
        }
    }

    /// Takes newer wishes. Cheap: the kernel is not touched until [`Self::upsert`].
    pub fn update(&mut self, patch: Patch<K>) {
        let mut wishes = Vec::new();
        let mut dropped = Vec::new();
        let mut seek = Seek::new(&self.desired);
        for (key, wanted) in patch {
            match (seek.get(&key), wanted) {
                (before, wanted) if before == wanted.as_ref() => {}
                (_, Some(value)) => wishes.push((key, value)),
                (_, None) => dropped.push(key),
            }
        }
        for key in &dropped {
            self.desired.remove(key);
        }
        let wished = wishes.iter().map(|(key, _)| key.clone()).collect();
        sorted::extend(&mut self.desired, wishes);
        self.renew(wished);
        self.renew(dropped);
    }

    /// Begins anew with keys whose wish has changed.
    fn renew(&mut self, keys: Vec<K::Key>) {
        for key in &keys {
            self.fights.forget(key);
            self.drifted.remove(key);
        }
        sorted::extend_set(&mut self.pending, keys);
    }

    /// Says that every wish has been told, so what is ours and unwished may go.
    pub fn complete(&mut self) {
        self.sync = Sync::Complete;
        self.unpacked = true;
        let unwished = self.actual.keys().filter(|key| !self.desired.contains_key(key));
        self.pending.extend(unwished.cloned());
    }

    /// Asks for a read-back before the next change.
    pub fn mark_stale(&mut self, path: Path) {
        self.stale = self.stale.max(Some(path));
    }

    pub fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Reads the kernel back if that was asked for.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listed. Nothing has changed then, and it stays asked for.
    pub fn resync(&mut self, cx: &mut D::Context, now: Instant) -> Result<(), KernelError> {
        let Some(path) = self.stale else { return Ok(()) };
        self.actual = self.driver.list_owned(cx, &self.desired)?;
        self.stale = None;
        let keys: BTreeSet<_> = self.desired.keys().chain(self.actual.keys()).cloned().collect();
        let plan = self.diff(cx, &keys);
        let mut suspects = mem::take(&mut self.suspects);
        for change in &plan.upserts {
            let what = match change.before {
                Some(_) => DriftKind::Changed,
                None => DriftKind::Gone,
            };
            let by = suspects.remove(&change.key);
            self.note_drift(&change.key, Drift { what, by, path }, now);
        }
        self.pending.extend(plan.upserts.into_iter().map(|change| change.key));
        self.pending.extend(plan.removals);
        Ok(())
    }

    /// Takes in what an event said. Whoever calls it resolves `by` only when it is asked for.
    pub fn observe(
        &mut self,
        cx: &D::Context,
        seen: Seen<K, D::Actual>,
        by: impl FnOnce() -> Option<Arc<str>>,
        now: Instant,
    ) {
        match seen {
            // What is there will be read back; only who did it would be lost.
            Seen::Ours(key, _) | Seen::Gone(key) if self.is_stale() => {
                if self.desired.contains_key(&key) {
                    self.suspect(key, by);
                }
            }
            Seen::Ours(key, actual) => self.observe_ours(cx, key, actual, by, now),
            Seen::Gone(key) => self.observe_gone(&key, by, now),
            Seen::Foreign(key) if self.refused.contains_key(&key) => {
                self.pending.insert(key);
            }
            // It may have taken the place of ours.
            Seen::Foreign(key) if self.actual.contains_key(&key) => self.mark_stale(Path::Event),
            Seen::Foreign(_) => {}
            Seen::Unclear if self.desired.is_empty() && self.actual.is_empty() => {}
            Seen::Unclear => self.mark_stale(Path::Event),
        }
    }

    fn observe_ours(
        &mut self,
        cx: &D::Context,
        key: K::Key,
        actual: D::Actual,
        by: impl FnOnce() -> Option<Arc<str>>,
        now: Instant,
    ) {
        match self.desired.get(&key) {
            Some(wanted) if self.driver.is_met(cx, &key, wanted, &actual) => {
                if self.refused.contains_key(&key) {
                    self.pending.insert(key.clone());
                }
            }
            Some(_) if D::EVENTS == Events::Hint => return self.suspect(key, by),
            Some(_) => {
                let drift = Drift { what: DriftKind::Changed, by: by(), path: Path::Event };
                self.note_drift(&key, drift, now);
                self.pending.insert(key.clone());
            }
            // Ours and unwished, and perhaps about to be wished. The next read-back sweeps it.
            None => return,
        }
        self.actual.insert(key, actual);
    }

    fn observe_gone(&mut self, key: &K::Key, by: impl FnOnce() -> Option<Arc<str>>, now: Instant) {
        if D::EVENTS == Events::Hint && self.desired.contains_key(key) {
            return self.suspect(key.clone(), by);
        }
        let was_there = self.actual.remove(key).is_some();
        if self.desired.contains_key(key) {
            if was_there {
                let drift = Drift { what: DriftKind::Gone, by: by(), path: Path::Event };
                self.note_drift(key, drift, now);
            }
            self.pending.insert(key.clone());
        }
    }

    /// The event may be older than our own last change, so what is there is read back.
    fn suspect(&mut self, key: K::Key, by: impl FnOnce() -> Option<Arc<str>>) {
        if let Some(by) = by() {
            self.suspects.insert(key, by);
        }
        self.mark_stale(Path::Event);
    }

    /// Only what had been as it should be can drift.
    fn note_drift(&mut self, key: &K::Key, drift: Drift, now: Instant) {
        let settled = !self.pending.contains(key) && !self.refused.contains_key(key);
        if drift.path == Path::Own || !settled {
            return;
        }
        let done_by_somebody = drift.by.is_some() || D::EVENTS != Events::Exact;
        if drift.path != Path::Link && done_by_somebody {
            self.fights.reverted(key, drift.by.as_deref(), now);
        }
        self.drifted.insert(key.clone(), drift);
    }

    /// Tries again what was refused.
    pub fn retry(&mut self) {
        self.pending.extend(self.refused.keys().cloned());
    }

    /// Makes and changes what is pending, as one batch.
    pub fn upsert(&mut self, cx: &mut D::Context, now: Instant) {
        self.fights.prune(now);
        let keys = mem::take(&mut self.pending);
        let mut plan = self.diff(cx, &keys);
        plan.upserts.retain(|change| !self.is_contested(&change.key, now));
        let refused: BTreeMap<_, _> = if plan.upserts.is_empty() {
            BTreeMap::new()
        } else {
            self.driver.upsert(cx, &plan.upserts).into_iter().collect()
        };
        let accepted = plan.upserts.into_iter().filter(|c| !refused.contains_key(&c.key));
        let settled = accepted.filter_map(|change| {
            let actual = self.driver.settled(cx, &change.key, &change.wanted)?;
            Some((change.key, actual))
        });
        sorted::extend(&mut self.actual, settled.collect());
        let removals: BTreeSet<_> = plan.removals.into_iter().collect();
        let unmet = |key: &&K::Key| {
            !refused.contains_key(*key)
                && !removals.contains(*key)
                && !self.fights.is_held(key, now)
        };
        // Where nothing was amiss there is nothing to take back.
        let amiss = !self.refused.is_empty() || !self.drifted.is_empty();
        let done = if amiss { keys.iter().filter(unmet).cloned().collect() } else { Vec::new() };
        self.pending = removals;
        self.close(done, refused);
    }

    /// Removes what is pending and not wanted any more, as one batch.
    pub fn remove(&mut self, cx: &mut D::Context) {
        if self.sync == Sync::Partial {
            return;
        }
        let keys = mem::take(&mut self.pending);
        let plan = self.diff(cx, &keys);
        self.pending.extend(plan.upserts.into_iter().map(|change| change.key));
        if !plan.removals.is_empty() {
            let refused: BTreeMap<_, _> =
                self.driver.remove(cx, &plan.removals).into_iter().collect();
            let mut done = plan.removals;
            done.retain(|key| !refused.contains_key(key));
            for key in &done {
                self.actual.remove(key);
            }
            self.close(done, refused);
        }
        if let Err(error) = self.driver.sweep(cx) {
            tracing::warn!(kind = K::NAME, %error, "objects of ours without a key stay");
        }
        // They came in the order of their keys, and most stay.
        if mem::take(&mut self.unpacked) {
            packed::pack(&mut self.desired);
            packed::pack(&mut self.actual);
        }
    }

    /// Writes down how a batch ended.
    fn close(&mut self, done: Vec<K::Key>, refused: BTreeMap<K::Key, KernelError>) {
        for key in done {
            if self.refused.remove(&key).is_some() {
                self.news.push(News::Cleared(key.clone()));
            }
            if let Some(drift) = self.drifted.remove(&key) {
                self.news.push(News::Repaired(key, drift));
            }
        }
        for (key, err) in refused {
            if err.is_socket_failure() {
                self.mark_stale(Path::Sweep);
            }
            self.refuse(key, err);
        }
    }

    fn refuse(&mut self, key: K::Key, err: KernelError) {
        let before = self.refused.get(&key).map(ToString::to_string);
        if before != Some(err.to_string()) {
            self.news.push(News::Failed(key.clone(), err.clone()));
        }
        self.refused.insert(key, err);
    }

    /// Whether somebody keeps setting the key back; it is refused for that then.
    fn is_contested(&mut self, key: &K::Key, now: Instant) -> bool {
        let Some(err) = self.fights.error(key, now) else { return false };
        self.refuse(key.clone(), err);
        true
    }

    fn diff(&self, cx: &D::Context, keys: &BTreeSet<K::Key>) -> Plan<K, D::Actual> {
        let is_met = |key: &K::Key, wanted: &K::Value, actual: &D::Actual| {
            self.driver.is_met(cx, key, wanted, actual)
        };
        diff(&self.desired, &self.actual, keys, is_met)
    }

    /// What was noticed since the last call.
    pub fn take_news(&mut self) -> Vec<News<K::Key>> {
        mem::take(&mut self.news)
    }

    /// What is refused, and why.
    pub fn refused(&self) -> &BTreeMap<K::Key, KernelError> {
        &self.refused
    }

    pub fn desired(&self) -> &Table<K> {
        &self.desired
    }

    pub fn actual(&self) -> &BTreeMap<K::Key, D::Actual> {
        &self.actual
    }

    pub fn driver(&self) -> &D {
        &self.driver
    }

    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Whether something waits for [`Self::upsert`] or [`Self::remove`].
    pub fn is_pending(&self) -> bool {
        let idle = match self.sync {
            Sync::Complete => self.pending.is_empty(),
            Sync::Partial => !self.pending.iter().any(|key| self.desired.contains_key(key)),
        };
        !idle
    }
}

/// What has to be done to the kernel.
#[derive(Debug)]
pub struct Plan<K: Kind, A> {
    pub upserts: Vec<Change<K, A>>,
    pub removals: Vec<K::Key>,
}

/// The smallest plan that makes `actual` meet `desired` at the given keys. Pure.
#[must_use]
pub fn diff<K: Kind, A: Clone>(
    desired: &Table<K>,
    actual: &BTreeMap<K::Key, A>,
    keys: &BTreeSet<K::Key>,
    is_met: impl Fn(&K::Key, &K::Value, &A) -> bool,
) -> Plan<K, A> {
    let mut plan = Plan { upserts: Vec::new(), removals: Vec::new() };
    let (mut desired, mut actual) = (Seek::new(desired), Seek::new(actual));
    for key in keys {
        match (desired.get(key), actual.get(key)) {
            (Some(wanted), Some(there)) if is_met(key, wanted, there) => {}
            (Some(wanted), there) => plan.upserts.push(Change {
                key: key.clone(),
                wanted: wanted.clone(),
                before: there.cloned(),
            }),
            (None, Some(_)) => plan.removals.push(key.clone()),
            (None, None) => {}
        }
    }
    plan
}

#[cfg(test)]
mod tests;
