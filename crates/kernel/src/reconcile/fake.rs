//! A kernel in memory that holds objects of one kind and can be told to refuse some.

use std::collections::BTreeSet;

use russet_desired::{Kind, Table};

use super::{Change, Driver, Events, Refused, Seen};
use crate::{
    KernelError,
    netlink::{Message, NetlinkError, Refusal},
};

/// The fake of every driver.
#[derive(Debug)]
pub(super) struct Fake<K: Kind> {
    pub(super) objects: Table<K>,
    pub(super) refuses: BTreeSet<K::Key>,
    /// Every key that was sent, in order, with what became of it.
    pub(super) log: Vec<(Act, K::Key)>,
    pub(super) is_deaf: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Upsert,
    Remove,
}

impl<K: Kind> Fake<K> {
    pub(super) fn holding(objects: Table<K>) -> Self {
        Self { objects, refuses: BTreeSet::new(), log: Vec::new(), is_deaf: false }
    }

    fn error() -> KernelError {
        NetlinkError::refused("set", "fake", Refusal::new(libc::EINVAL)).into()
    }
}

impl<K: Kind> Driver<K> for Fake<K> {
    type Context = ();
    type Actual = K::Value;
    const EVENTS: Events = Events::Exact;

    fn list_owned(&mut self, (): &mut (), _: &Table<K>) -> Result<Table<K>, KernelError> {
        if self.is_deaf { Err(Self::error()) } else { Ok(self.objects.clone()) }
    }

    fn is_met(&self, (): &(), _: &K::Key, wanted: &K::Value, actual: &K::Value) -> bool {
        wanted == actual
    }

    fn upsert(&mut self, (): &mut (), changes: &[Change<K, K::Value>]) -> Vec<Refused<K>> {
        let mut refused = Vec::new();
        for change in changes {
            self.log.push((Act::Upsert, change.key.clone()));
            if self.refuses.contains(&change.key) {
                refused.push((change.key.clone(), Self::error()));
            } else {
                self.objects.insert(change.key.clone(), change.wanted.clone());
            }
        }
        refused
    }

    fn remove(&mut self, (): &mut (), keys: &[K::Key]) -> Vec<Refused<K>> {
        let mut refused = Vec::new();
        for key in keys {
            self.log.push((Act::Remove, key.clone()));
            if self.refuses.contains(key) {
                refused.push((key.clone(), Self::error()));
            } else {
                self.objects.remove(key);
            }
        }
        refused
    }

    fn settled(&self, (): &(), key: &K::Key, _: &K::Value) -> Option<K::Value> {
        self.objects.get(key).cloned()
    }

    fn decode(&self, (): &(), _: &Message<'_>) -> Option<Seen<K, K::Value>> {
        None
    }
}
