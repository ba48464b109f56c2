//! The copying itself: the source's watch applied to the target.
//!
//! A snapshot is applied as the difference to what the target has, so the first copy, a start over after a
//! compaction, and the repair of a lease that the target lost are one and the same. Writes may be sent twice
//! when an answer is lost: they are unconditional, and nobody else writes there.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::{Duration, Instant},
};

use super::{
    MigrateError, Order, Progress, Report, Side,
    leases::{Kept, Leases},
    verify::{self, Compared, Differs},
};
use crate::{
    client::{EtcdClient, Listing, Watch, Write, backoff::Backoff, printable},
    contract::{
        KeyChange, KeyValue, LeaseId, Revision, ServerRef, Snapshot, SnapshotReason, WatchEvent,
        WatchRequest,
    },
    error::{StoreError, one_line},
    random,
};

/// A copy under way.
pub(super) struct Copy<'a> {
    source: EtcdClient,
    target: EtcdClient,
    order: Order,
    tell: &'a mut dyn FnMut(&Progress),
    watch: Watch,
    leases: Leases,
    /// The source as its watch told it, by key the revision of its last write, up to `position`.
    view: Option<BTreeMap<Vec<u8>, Revision>>,
    position: Revision,
    /// Who told it.
    server: Option<ServerRef>,
    away: Option<Away>,
    puts: u64,
    deletes: u64,
    started_over: usize,
}

/// Since when the source is away, and why.
struct Away {
    since: Instant,
    cause: StoreError,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        source: EtcdClient,
        target: EtcdClient,
        order: Order,
        tell: &'a mut dyn FnMut(&Progress),
    ) -> Self {
        Self {
            watch: watch(&source, &order),
            leases: Leases::new(source.clone(), target.clone()),
            source,
            target,
            order,
            tell,
            view: None,
            position: Revision::ZERO,
            server: None,
            away: None,
            puts: 0,
            deletes: 0,
            started_over: 0,
        }
    }

    pub(super) fn say(&mut self, what: &Progress) {
        (self.tell)(what);
    }

    /// Applies what the watch tells until it has told all that the source is now, which is returned.
    pub(super) async fn catch_up(&mut self) -> Result<Listing, MigrateError> {
        while self.view.is_none() {
            self.step().await?;
        }
        let listing = self.source_listing(None).await?;
        let mut last = Instant::now();
        while !self.has_all_of(&listing) {
            if self.step().await? == Step::Moved {
                last = Instant::now();
            }
            if self.away.is_none() && last.elapsed() > self.order.patience {
                let (revision, within) = (listing.revision, self.order.patience);
                return Err(MigrateError::Stalled { revision, within });
            }
        }
        Ok(listing)
    }

    /// Applies what the watch tells until `stop` is ready, and no longer.
    pub(super) async fn follow(
        &mut self,
        stop: impl Future<Output = ()>,
    ) -> Result<(), MigrateError> {
        self.say(&Progress::Following);
        tokio::pin!(stop);
        loop {
            // What was received is applied whole: only the waiting may be cut short.
            let event = tokio::select! {
                () = &mut stop => break,
                event = self.watch.recv() => event,
                () = tokio::time::sleep(TICK) => None,
            };
            self.take(event).await?;
        }
        Ok(())
    }

    /// Whether the view is the source at the listing's revision, or later.
    fn has_all_of(&self, listing: &Listing) -> bool {
        self.view.is_some() && (self.position >= listing.revision || self.is_seen_as(listing))
    }

    fn is_seen_as(&self, listing: &Listing) -> bool {
        let listed = listing.entries.iter().map(|kv| (&kv.key, &kv.modified));
        self.view.as_ref().is_some_and(|view| view.iter().eq(listed))
    }

    /// Returns the source's keys at the revision that the target is a copy of.
    pub(super) async fn listing_where_we_stand(&mut self) -> Result<Listing, MigrateError> {
        for _ in 0..MAX_STARTS {
            let newest = self.catch_up().await?;
            if self.is_seen_as(&newest) {
                return Ok(newest);
            }
            match self.source_listing(Some(self.position)).await {
                Err(MigrateError::Source(err)) if err.is_compacted() => {}
                listing => return listing,
            }
        }
        Err(MigrateError::StartedOverTooOften { times: MAX_STARTS })
    }

    /// Gives every lease its full time on the target. When that has lost some, the copy starts over.
    pub(super) async fn renew_leases(&mut self) -> Result<Kept, MigrateError> {
        let kept = self.leases.renew_all().await?;
        if kept == Kept::SomeLost {
            self.start_over()?;
        }
        Ok(kept)
    }

    pub(super) async fn target_listing(&mut self) -> Result<Listing, MigrateError> {
        let (target, prefix) = (self.target.clone(), self.order.prefix.clone());
        self.until_target_answers(|| target.range_prefix(&prefix, None)).await
    }

    async fn source_listing(&mut self, at: Option<Revision>) -> Result<Listing, MigrateError> {
        let (source, prefix) = (self.source.clone(), self.order.prefix.clone());
        let read = || source.range_prefix(&prefix, at);
        // Without a revision of our own, one that is compacted under way is read again at a newer.
        let again =
            move |err: &StoreError| err.is_unavailable() || (at.is_none() && err.is_compacted());
        self.retry(Side::Source, read, again).await
    }

    /// Waits a moment for something to happen.
    async fn step(&mut self) -> Result<Step, MigrateError> {
        let event = tokio::time::timeout(TICK, self.watch.recv()).await.ok().flatten();
        self.take(event).await
    }

    async fn take(&mut self, event: Option<WatchEvent>) -> Result<Step, MigrateError> {
        let step = match event {
            // Parts are not asked for.
            None | Some(WatchEvent::Part(_)) => Step::Quiet,
            Some(WatchEvent::Snapshot(snapshot)) => {
                self.is_back();
                self.snapshot(snapshot).await?;
                Step::Moved
            }
            Some(WatchEvent::Changes { revision, changes }) => {
                self.changes(revision, changes).await?;
                Step::Moved
            }
            Some(WatchEvent::Interrupted { cause }) => {
                self.say(&Progress::Away { side: Side::Source, cause: one_line(&cause) });
                self.away = Some(Away { since: Instant::now(), cause });
                Step::Quiet
            }
            Some(WatchEvent::Resumed { .. }) => {
                self.is_back();
                Step::Moved
            }
        };
        self.give_up_on_source()?;
        self.look_after_leases().await?;
        Ok(step)
    }

    fn is_back(&mut self) {
        if self.away.take().is_some() {
            self.say(&Progress::Back { side: Side::Source });
        }
    }

    fn give_up_on_source(&mut self) -> Result<(), MigrateError> {
        let patience = self.order.patience;
        match self.away.take_if(|away| away.since.elapsed() > patience) {
            Some(away) => Err(MigrateError::Source(away.cause)),
            None => Ok(()),
        }
    }

    async fn look_after_leases(&mut self) -> Result<Kept, MigrateError> {
        let kept = match self.leases.look_after(Instant::now()).await {
            // The next tick tries again; what the target is asked to write notices whether it stays away.
            Err(err) if err.is_unavailable() => Kept::All,
            kept => kept?,
        };
        if kept == Kept::SomeLost {
            self.start_over()?;
        }
        Ok(kept)
    }

    /// Reads the source anew: what the target has lost comes back that way.
    fn start_over(&mut self) -> Result<(), MigrateError> {
        self.count_start_over()?;
        self.leases.forget();
        self.view = None;
        self.watch = watch(&self.source, &self.order);
        Ok(())
    }

    fn count_start_over(&mut self) -> Result<(), MigrateError> {
        self.started_over += 1;
        if self.started_over > MAX_STARTS {
            return Err(MigrateError::StartedOverTooOften { times: MAX_STARTS });
        }
        Ok(())
    }

    /// Makes the target what the snapshot is.
    async fn snapshot(&mut self, snapshot: Snapshot) -> Result<(), MigrateError> {
        self.check(&snapshot)?;
        self.make_leases(snapshot.entries.iter()).await?;
        let there = self.target_listing().await?;
        let source = &snapshot.entries;
        let writes = difference(source, &there.entries, &self.leases);
        let deletes = writes.iter().filter(|write| matches!(write, Write::Delete { .. })).count();
        self.say(&Progress::Copying {
            keys: source.len(),
            puts: writes.len() - deletes,
            deletes,
            revision: snapshot.revision,
        });
        if self.write(writes).await? == Written::StartsOver {
            return Ok(());
        }
        self.position = snapshot.revision;
        self.server = Some(snapshot.server);
        let view = snapshot.entries.into_iter().map(|kv| (kv.key, kv.modified));
        self.view = Some(view.collect());
        Ok(())
    }

    /// Refuses a snapshot after which the target would lose what the source once had.
    fn check(&mut self, snapshot: &Snapshot) -> Result<(), MigrateError> {
        match snapshot.reason {
            SnapshotReason::First => {
                if snapshot.entries.is_empty() && self.position == Revision::ZERO {
                    let prefix = printable(&self.order.prefix);
                    return Err(MigrateError::NothingToCopy { prefix });
                }
                if let Some(reason) = self.contradiction(snapshot) {
                    return Err(MigrateError::SourceExchanged { reason });
                }
            }
            reason @ SnapshotReason::Compacted { .. } => {
                self.count_start_over()?;
                self.say(&Progress::StartsOver { reason });
            }
            reason => return Err(MigrateError::SourceExchanged { reason }),
        }
        Ok(())
    }

    /// Whether another store answers than before we started over.
    fn contradiction(&self, snapshot: &Snapshot) -> Option<SnapshotReason> {
        match self.server {
            Some(before) if before.cluster != snapshot.server.cluster => {
                Some(SnapshotReason::OtherCluster { before })
            }
            _ if snapshot.revision < self.position => {
                Some(SnapshotReason::RevisionWentBack { seen: self.position })
            }
            _ => None,
        }
    }

    async fn changes(
        &mut self,
        revision: Revision,
        changes: Vec<KeyChange>,
    ) -> Result<(), MigrateError> {
        let puts = changes.iter().filter_map(|change| match change {
            KeyChange::Put(kv) => Some(kv),
            KeyChange::Delete { .. } => None,
        });
        self.make_leases(puts).await?;
        let last = last_of_each_key(changes);
        let writes = last.iter().map(|change| write_of(change, &self.leases)).collect();
        if self.write(writes).await? == Written::StartsOver {
            return Ok(());
        }
        let view = self.view.get_or_insert_default();
        for change in last {
            match change {
                KeyChange::Put(kv) => drop(view.insert(kv.key, kv.modified)),
                KeyChange::Delete { key, .. } => drop(view.remove(&key)),
            }
        }
        self.position = self.position.max(revision);
        Ok(())
    }

    async fn make_leases(
        &mut self,
        entries: impl Iterator<Item = &KeyValue>,
    ) -> Result<(), MigrateError> {
        let wanted: BTreeSet<LeaseId> = entries.filter_map(|kv| kv.lease).collect();
        let until = Instant::now() + self.order.patience;
        let mut backoff = Backoff::new();
        loop {
            match self.leases.make(&wanted).await {
                Ok(()) => return Ok(()),
                Err(err) if err.is_unavailable() && Instant::now() < until => {
                    tokio::time::sleep(backoff.next(random::id64())).await;
                }
                Err(err) => return Err(err),
            }
        }
    }

    async fn write(&mut self, writes: Vec<Write>) -> Result<Written, MigrateError> {
        let (all, mut done) = (writes.len(), 0);
        for batch in batches(writes) {
            let count = batch.len();
            let deletes =
                batch.iter().filter(|write| matches!(write, Write::Delete { .. })).count();
            let target = self.target.clone();
            match self.until_target_answers(|| target.write_batch(batch.clone())).await {
                Err(MigrateError::Target(err)) if err.is_lease_not_found() => {
                    self.start_over()?;
                    return Ok(Written::StartsOver);
                }
                written => written?,
            };
            self.deletes += count_of(deletes);
            self.puts += count_of(count - deletes);
            done += count;
            if all > TOLD_EACH && done / TOLD_EACH != (done - count) / TOLD_EACH {
                self.say(&Progress::Wrote { done, of: all });
            }
            if self.look_after_leases().await? == Kept::SomeLost {
                return Ok(Written::StartsOver);
            }
        }
        Ok(Written::All)
    }

    async fn until_target_answers<R, F>(&mut self, ask: impl Fn() -> F) -> Result<R, MigrateError>
    where
        F: Future<Output = Result<R, StoreError>>,
    {
        self.retry(Side::Target, ask, StoreError::is_unavailable).await
    }

    /// Asks again, with pauses, until there is an answer or the patience is at its end.
    async fn retry<R, F>(
        &mut self,
        side: Side,
        ask: impl Fn() -> F,
        again: impl Fn(&StoreError) -> bool,
    ) -> Result<R, MigrateError>
    where
        F: Future<Output = Result<R, StoreError>>,
    {
        let until = Instant::now() + self.order.patience;
        let (mut backoff, mut told) = (Backoff::new(), false);
        loop {
            let err = match ask().await {
                Ok(answer) => {
                    if told {
                        self.say(&Progress::Back { side });
                    }
                    return Ok(answer);
                }
                Err(err) => err,
            };
            if !again(&err) || Instant::now() >= until {
                return Err(match side {
                    Side::Source => MigrateError::Source(err),
                    Side::Target => MigrateError::Target(err),
                });
            }
            if !told {
                told = true;
                self.say(&Progress::Away { side, cause: one_line(&err) });
            }
            tokio::time::sleep(backoff.next(random::id64())).await;
        }
    }

    /// Sums up.
    pub(super) fn finish(self, compared: Compared) -> Report {
        let Compared { source, target, mut differences } = compared;
        let differing = differences.len();
        differences.truncate(verify::Difference::MAX_LISTED);
        Report {
            keys: source.entries.len(),
            bytes: source.entries.iter().map(|kv| count_of(kv.value.len())).sum(),
            leases: self.leases.len(),
            source_revision: source.revision,
            target_revision: target.revision,
            puts: self.puts,
            deletes: self.deletes,
            started_over: self.started_over,
            differences,
            differing,
        }
    }
}

/// Whether anything came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Moved,
    Quiet,
}

/// How far a number of writes has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    All,
    /// The target has lost a lease that they need.
    StartsOver,
}

fn watch(source: &EtcdClient, order: &Order) -> Watch {
    source.watch(WatchRequest { prefixes: vec![order.prefix.clone()], ..WatchRequest::default() })
}

/// What makes the target's keys those of the source.
fn difference(source: &[KeyValue], target: &[KeyValue], leases: &Leases) -> Vec<Write> {
    let by_key: BTreeMap<_, _> = source.iter().map(|kv| (&kv.key, kv)).collect();
    let differences = verify::differences(source, target);
    let write = |found: verify::Difference| match (found.what, by_key.get(&found.key)) {
        (Differs::Extra, _) | (_, None) => Write::Delete { key: found.key },
        (_, Some(kv)) => put(kv, leases),
    };
    differences.into_iter().map(write).collect()
}

fn write_of(change: &KeyChange, leases: &Leases) -> Write {
    match change {
        KeyChange::Put(kv) => put(kv, leases),
        KeyChange::Delete { key, .. } => Write::Delete { key: key.clone() },
    }
}

/// A key whose lease the source has no more is about to go: it is not made to stay.
fn put(kv: &KeyValue, leases: &Leases) -> Write {
    if kv.lease.is_some_and(|lease| !leases.knows(lease)) {
        return Write::Delete { key: kv.key.clone() };
    }
    Write::Put { key: kv.key.clone(), value: kv.value.clone(), lease: kv.lease }
}

/// Of several changes of a key only the last matters, and a transaction may write a key once.
fn last_of_each_key(changes: Vec<KeyChange>) -> Vec<KeyChange> {
    let mut seen = BTreeSet::new();
    let mut last: Vec<_> =
        changes.into_iter().rev().filter(|change| seen.insert(change.key().to_vec())).collect();
    last.reverse();
    last
}

/// Cuts writes into requests that any server takes: 128 operations and 1.5 MiB are etcd's limits.
fn batches(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0_usize;
    for write in writes {
        let more = write.bytes();
        bytes = bytes.saturating_add(more);
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_OPS && bytes <= BATCH_BYTES => batch.push(write),
            _ => {
                bytes = more;
                batches.push(vec![write]);
            }
        }
    }
    batches
}

fn count_of(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// How long a wait for news is, at most: leases are looked after in between.
const TICK: Duration = Duration::from_millis(200);
/// How often a copy starts over before it is given up.
const MAX_STARTS: usize = 16;
const BATCH_OPS: usize = 64;
const BATCH_BYTES: usize = 512 << 10;
const TOLD_EACH: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_stays_within_the_limits_of_any_server_and_keeps_the_order() {
        let small: Vec<_> = (0..200).map(|n| write(&format!("k{n:03}"), 10)).collect();
        let cut = batches(small.clone());
        assert!(cut.iter().all(|batch| batch.len() <= BATCH_OPS));
        assert_eq!(cut.len(), 4);
        assert_eq!(cut.concat(), small);

        let large: Vec<_> = (0..5).map(|n| write(&format!("k{n}"), 300 << 10)).collect();
        assert_eq!(batches(large).len(), 5, "two would be above {BATCH_BYTES}");
        assert_eq!(batches(vec![write("huge", 1 << 20)]).len(), 1, "one is always sent");
        assert_eq!(batches(Vec::new()).len(), 0);
    }

    #[test]
    fn of_several_changes_of_a_key_the_last_is_written() {
        let delete =
            |key: &str, at| KeyChange::Delete { key: key.into(), revision: Revision::new(at) };
        let last = last_of_each_key(vec![delete("a", 5), delete("b", 6), delete("a", 7)]);
        assert_eq!(last, [delete("b", 6), delete("a", 7)]);
    }

    fn write(key: &str, bytes: usize) -> Write {
        Write::Put { key: key.into(), value: vec![b'v'; bytes], lease: None }
    }
}
