//! The store as the addresses need it: one key is read, or written if it is as expected.

#[cfg(test)]
pub mod fake;

use std::{collections::BTreeMap, future::Future};

use russet_core::addressing::blocks::{Key, Outcome, StoreOp, Value, Versioned};
use russet_store::{
    EtcdClient, Expect, Guard, KeyValue, Revision, StoreError, Write, WriteOutcome,
};
use tokio::task::JoinSet;

use super::documents::{Document, key_text};
use crate::one_line;

/// A key that is written, or deleted, if it is as expected.
#[derive(Clone, Debug)]
pub struct Swap {
    pub key: Vec<u8>,
    pub expect: Expect,
    pub value: Option<Vec<u8>>,
}

/// A store with compare and swap.
pub trait Shelf: Clone + Send + Sync + 'static {
    /// Reads one key.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<KeyValue>, StoreError>> + Send;

    /// Writes a key, or deletes it, if it is as expected.
    fn swap(
        &self,
        key: &[u8],
        expect: Expect,
        value: Option<&[u8]>,
    ) -> impl Future<Output = Result<WriteOutcome, StoreError>> + Send;

    /// Writes all of the keys, or deletes them, if every one is as expected: at this revision. `None`: nothing is written.
    fn swap_all(
        &self,
        swaps: Vec<Swap>,
    ) -> impl Future<Output = Result<Option<Revision>, StoreError>> + Send;

    /// Makes all of the keys if none of them is there and the guard holds. Returns whether it did.
    fn create(
        &self,
        guard: Guard,
        keys: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Takes a key for some seconds, or keeps it when it is ours already. Returns whether we have it.
    fn hold(
        &self,
        key: &[u8],
        name: &[u8],
        seconds: u32,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Reads all keys that begin with this, and hands each on: the whole never lies in memory.
    fn visit(
        &self,
        prefix: &[u8],
        each: impl FnMut(KeyValue) + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl Shelf for EtcdClient {
    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        Self::get(self, key).await
    }

    async fn swap(
        &self,
        key: &[u8],
        expect: Expect,
        value: Option<&[u8]>,
    ) -> Result<WriteOutcome, StoreError> {
        match (value, expect) {
            (Some(value), expect) => self.put_if(key, expect, value).await,
            (None, Expect::At(modified)) => self.delete_if(key, modified).await,
            // What does not exist need not be deleted.
            (None, Expect::Absent) => self.get(key).await.map(WriteOutcome::Conflict),
        }
    }

    async fn swap_all(&self, swaps: Vec<Swap>) -> Result<Option<Revision>, StoreError> {
        let (guards, writes): (Vec<_>, Vec<_>) = swaps
            .into_iter()
            .map(|Swap { key, expect, value }| {
                let guard = Guard::Key { key: key.clone(), expect };
                let write = match value {
                    Some(value) => Write::Put { key, value, lease: None },
                    None => Write::Delete { key },
                };
                (guard, write)
            })
            .unzip();
        self.write_guarded(guards, writes).await
    }

    async fn create(
        &self,
        guard: Guard,
        keys: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<bool, StoreError> {
        let absent = |key: &Vec<u8>| Guard::Key { key: key.clone(), expect: Expect::Absent };
        let guards = std::iter::once(guard).chain(keys.iter().map(|(key, _)| absent(key)));
        let guards = guards.collect();
        let put = |(key, value)| Write::Put { key, value, lease: None };
        let written = self.write_guarded(guards, keys.into_iter().map(put).collect()).await?;
        Ok(written.is_some())
    }

    async fn hold(&self, key: &[u8], name: &[u8], seconds: u32) -> Result<bool, StoreError> {
        let expect = match self.get(key).await? {
            None => Expect::Absent,
            Some(kv) if kv.value == name => Expect::At(kv.modified),
            Some(_) => return Ok(false),
        };
        let taken = self.put_if_leased(key, expect, name, seconds).await?;
        Ok(matches!(taken, WriteOutcome::Done { .. }))
    }

    async fn visit(
        &self,
        prefix: &[u8],
        each: impl FnMut(KeyValue) + Send,
    ) -> Result<(), StoreError> {
        self.visit_prefix(prefix, each).await
    }
}

/// How an operation ended, and the document that is at the key now, where that is known.
#[derive(Debug)]
pub struct Carried {
    pub key: Key,
    pub outcome: Outcome,
    pub document: Option<(u64, Document)>,
}

/// Does one operation. `at_hand` is the document of the revision that a write replaces, if there is one.
async fn carry_out(store: impl Shelf, what: StoreOp, at_hand: Option<Document>) -> Carried {
    let key = what.key().clone();
    let done = match what {
        StoreOp::Read(key) => look(&store, &key).await,
        StoreOp::Swap { key, expect, value } => {
            write(&store, &key, expect, value.as_ref(), at_hand).await
        }
    };
    let (outcome, document) = done.unwrap_or_else(|reason| (Outcome::Failed(reason), None));
    Carried { key, outcome, document }
}

type Done = Result<(Outcome, Option<(u64, Document)>), String>;

async fn look(store: &impl Shelf, key: &Key) -> Done {
    let found = store.get(&key_text(key)).await.map_err(|err| one_line(&err))?;
    present(key, found.as_ref())
}

async fn write(
    store: &impl Shelf,
    key: &Key,
    expect: Option<u64>,
    value: Option<&Value>,
    at_hand: Option<Document>,
) -> Done {
    let next = match next(store, key, expect, value, at_hand).await? {
        Next::Is(next) => next,
        Next::Otherwise(found) => return present(key, found.as_ref()),
    };
    let text = next.as_ref().map(Document::text);
    let text = text.as_deref().map(str::as_bytes);
    let swapped = store.swap(&key_text(key), expected(expect), text).await;
    match swapped.map_err(|err| one_line(&err))? {
        WriteOutcome::Done { revision } => {
            let rev = revision.get();
            Ok((Outcome::Done { rev }, next.map(|document| (rev, document))))
        }
        WriteOutcome::Conflict(found) => present(key, found.as_ref()),
    }
}

/// What a key is to have next.
enum Next {
    Is(Option<Document>),
    /// It is not as it is expected to be: this is there.
    Otherwise(Option<KeyValue>),
}

async fn next(
    store: &impl Shelf,
    key: &Key,
    expect: Option<u64>,
    value: Option<&Value>,
    at_hand: Option<Document>,
) -> Result<Next, String> {
    let at_hand = match (value, expect, at_hand) {
        // The fields that are not ours are in the store only.
        (Some(_), Some(revision), None) => {
            let found = store.get(&key_text(key)).await.map_err(|err| one_line(&err))?;
            match found {
                Some(kv) if kv.modified.get() == revision => Some(Document::read(key, &kv)?),
                other => return Ok(Next::Otherwise(other)),
            }
        }
        (_, _, at_hand) => at_hand,
    };
    let next = match (value, expect) {
        (None, _) => None,
        (Some(value), None) => Document::new(value),
        (Some(value), Some(_)) => at_hand.and_then(|document| document.with(value)),
    };
    if value.is_some() != next.is_some() {
        return Err("another kind of object is at the key".to_owned());
    }
    Ok(Next::Is(next))
}

fn expected(revision: Option<u64>) -> Expect {
    revision.map_or(Expect::Absent, |revision| Expect::At(Revision::new(revision)))
}

/// Does one operation, or several as one transaction.
pub async fn carry_out_all(
    store: impl Shelf,
    mut all: Vec<(StoreOp, Option<Document>)>,
) -> Vec<Carried> {
    if all.len() > 1 {
        return carry_out_together(store, all).await;
    }
    match all.pop() {
        Some((what, at_hand)) => vec![carry_out(store, what, at_hand).await],
        None => Vec::new(),
    }
}

/// Does swaps as one transaction, and tells of each in their order. When one of the keys is not as it is expected to
/// be, nothing is written, and what each has is told.
async fn carry_out_together(
    store: impl Shelf,
    all: Vec<(StoreOp, Option<Document>)>,
) -> Vec<Carried> {
    let keys: Vec<Key> = all.iter().map(|(what, _)| what.key().clone()).collect();
    match transact(&store, all).await {
        Ok(Some(done)) => done,
        Ok(None) => {
            let looks = keys.iter().map(|key| StoreOp::Read(key.clone()));
            let looks = looks.map(|read| carry_out(store.clone(), read, None));
            let found = looks.collect::<JoinSet<_>>().join_all().await;
            let mut found: BTreeMap<_, _> =
                found.into_iter().map(|one| (one.key.clone(), one)).collect();
            keys.iter().filter_map(|key| found.remove(key)).collect()
        }
        Err(reason) => {
            let failed = |key| {
                let outcome = Outcome::Failed(reason.clone());
                Carried { key, outcome, document: None }
            };
            keys.into_iter().map(failed).collect()
        }
    }
}

/// `None`: nothing is written.
async fn transact(
    store: &impl Shelf,
    all: Vec<(StoreOp, Option<Document>)>,
) -> Result<Option<Vec<Carried>>, String> {
    let (mut swaps, mut nexts) = (Vec::new(), Vec::new());
    for (what, at_hand) in all {
        let StoreOp::Swap { key, expect, value } = what else {
            return Err("a read is no part of a transaction".to_owned());
        };
        let Next::Is(next) = next(store, &key, expect, value.as_ref(), at_hand).await? else {
            return Ok(None);
        };
        let text = next.as_ref().map(|document| document.text().into_bytes());
        swaps.push(Swap { key: key_text(&key), expect: expected(expect), value: text });
        nexts.push((key, next));
    }
    let Some(revision) = store.swap_all(swaps).await.map_err(|err| one_line(&err))? else {
        return Ok(None);
    };
    let rev = revision.get();
    let carried = |(key, next): (Key, Option<Document>)| {
        let document = next.map(|document| (rev, document));
        Carried { key, outcome: Outcome::Done { rev }, document }
    };
    Ok(Some(nexts.into_iter().map(carried).collect()))
}

fn present(key: &Key, found: Option<&KeyValue>) -> Done {
    let Some(kv) = found else { return Ok((Outcome::Present { at: 0, value: None }, None)) };
    let document = Document::read(key, kv)?;
    let rev = kv.modified.get();
    let value = Some(Versioned { rev, value: document.value() });
    Ok((Outcome::Present { at: rev, value }, Some((rev, document))))
}
