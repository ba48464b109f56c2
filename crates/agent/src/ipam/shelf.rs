//! The store as the addresses need it: one key is read, or written if it is as expected.

#[cfg(test)]
pub mod fake;

use std::future::Future;

use russet_core::addressing::blocks::{Key, Outcome, StoreOp, Value, Versioned};
use russet_store::{EtcdClient, Expect, KeyValue, Revision, StoreError, WriteOutcome};

use super::documents::{Document, key_text};
use crate::one_line;

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
pub async fn carry_out(store: impl Shelf, what: StoreOp, at_hand: Option<Document>) -> Carried {
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
    let text_key = key_text(key);
    let at_hand = match (value, expect, at_hand) {
        // The fields that are not ours are in the store only.
        (Some(_), Some(revision), None) => {
            let found = store.get(&text_key).await.map_err(|err| one_line(&err))?;
            match found {
                Some(kv) if kv.modified.get() == revision => Some(Document::read(key, &kv)?),
                other => return present(key, other.as_ref()),
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
    let expect = expect.map_or(Expect::Absent, |revision| Expect::At(Revision::new(revision)));
    let text = next.as_ref().map(Document::text);
    let swapped = store.swap(&text_key, expect, text.as_deref().map(str::as_bytes)).await;
    match swapped.map_err(|err| one_line(&err))? {
        WriteOutcome::Done { revision } => {
            let rev = revision.get();
            Ok((Outcome::Done { rev }, next.map(|document| (rev, document))))
        }
        WriteOutcome::Conflict(found) => present(key, found.as_ref()),
    }
}

fn present(key: &Key, found: Option<&KeyValue>) -> Done {
    let Some(kv) = found else { return Ok((Outcome::Present { at: 0, value: None }, None)) };
    let document = Document::read(key, kv)?;
    let rev = kv.modified.get();
    let value = Some(Versioned { rev, value: document.value() });
    Ok((Outcome::Present { at: rev, value }, Some((rev, document))))
}
