//! What a driver of one kind of kernel object has to do.

use std::{collections::BTreeMap, fmt};

use russet_desired::{Kind, Table};

use crate::{KernelError, netlink::Message};

/// The kernel's objects of one kind, as far as the reconciler needs them.
///
/// A driver compares nothing and remembers nothing of what is wanted: it lists, and it does as it is told.
pub trait Driver<K: Kind> {
    /// What the drivers share: sockets, the links' numbers.
    type Context;
    /// What the kernel says of one object; more than can be wished for, where that matters (a link that
    /// is down).
    type Actual: Clone + fmt::Debug;
    /// How much an event of this kind is worth.
    const EVENTS: Events;

    /// Lists what is ours by its mark. `desired` is for kinds that nobody owns, where there is nothing to
    /// look for but what is wanted (a sysctl).
    fn list_owned(
        &mut self,
        cx: &mut Self::Context,
        desired: &Table<K>,
    ) -> Result<BTreeMap<K::Key, Self::Actual>, KernelError>;

    /// Whether the object is as it should be.
    fn is_met(
        &self,
        cx: &Self::Context,
        key: &K::Key,
        wanted: &K::Value,
        actual: &Self::Actual,
    ) -> bool;

    /// Makes or changes every object, and tells which were refused. A foreign object at a key is left
    /// alone and is an error.
    fn upsert(
        &mut self,
        cx: &mut Self::Context,
        changes: &[Change<K, Self::Actual>],
    ) -> Vec<Refused<K>>;

    /// Removes every object, and tells which were refused. What is gone already is a success.
    fn remove(&mut self, cx: &mut Self::Context, keys: &[K::Key]) -> Vec<Refused<K>>;

    /// What the kernel has after an accepted upsert.
    fn settled(&self, cx: &Self::Context, key: &K::Key, wanted: &K::Value) -> Option<Self::Actual>;

    /// Removes what is ours and has no key of its own. Called last, and only when everything has been told.
    fn sweep(&mut self, _cx: &mut Self::Context) -> Result<(), KernelError> {
        Ok(())
    }

    /// Reads an event, or `None` when it says nothing of this kind.
    fn decode(&self, cx: &Self::Context, message: &Message<'_>) -> Option<Seen<K, Self::Actual>>;
}

/// How much an event is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// It tells what is there now and whose request made it so; no author means that the kernel did it by
    /// itself.
    Exact,
    /// It tells what is there now, but never who did it.
    Anonymous,
    /// It may have been overtaken by our own change: it is a reason to read back, and no more.
    Hint,
}

/// One object to make or to change.
#[derive(Debug)]
pub struct Change<K: Kind, A> {
    pub key: K::Key,
    pub wanted: K::Value,
    /// What is there of ours, if anything.
    pub before: Option<A>,
}

impl<K: Kind, A: Clone> Clone for Change<K, A> {
    fn clone(&self) -> Self {
        let Self { key, wanted, before } = self;
        Self { key: key.clone(), wanted: wanted.clone(), before: before.clone() }
    }
}

/// A key, and why it was refused.
pub type Refused<K> = (<K as Kind>::Key, KernelError);

/// What an event says of one key.
#[derive(Debug)]
pub enum Seen<K: Kind, A> {
    /// It is there and ours.
    Ours(K::Key, A),
    /// Ours is no more.
    Gone(K::Key),
    /// Something of somebody else's happened at this key.
    Foreign(K::Key),
    /// More may have happened to objects of this kind than the event says: read them back.
    Unclear,
}

/// Refuses every key for the same reason.
pub(crate) fn refuse_all<K: Kind>(
    keys: impl IntoIterator<Item = K::Key>,
    err: &KernelError,
) -> Vec<Refused<K>> {
    keys.into_iter().map(|key| (key, err.clone())).collect()
}
