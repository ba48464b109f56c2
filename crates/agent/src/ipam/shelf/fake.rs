//! A store in memory that is away when it is told to be, loses answers, and can be looked into.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use russet_store::{Expect, Guard, KeyChange, KeyValue, Revision, StoreError, WriteOutcome};

use super::{Shelf, Swap};

#[derive(Clone, Debug, Default)]
pub struct FakeShelf(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    revision: u64,
    keys: BTreeMap<Vec<u8>, KeyValue>,
    log: Vec<KeyChange>,
    /// The keys that were read one by one.
    read: Vec<Vec<u8>>,
    away: bool,
    /// One in so many operations is lost on its way back; 0 is none.
    loss: u64,
    calls: u64,
}

impl FakeShelf {
    pub fn put(&self, key: &str, text: &str) {
        self.state().write(key.as_bytes(), Some(text.as_bytes()));
    }

    pub fn delete(&self, key: &str) {
        self.state().write(key.as_bytes(), None);
    }

    pub fn text(&self, key: &str) -> Option<String> {
        let state = self.state();
        state.keys.get(key.as_bytes()).map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
    }

    /// The keys that begin with this.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let state = self.state();
        let keys = state.keys.keys().map(|key| String::from_utf8_lossy(key).into_owned());
        keys.filter(|key| key.starts_with(prefix)).collect()
    }

    pub fn go_away(&self, away: bool) {
        self.state().away = away;
    }

    pub fn lose_one_in(&self, loss: u64) {
        self.state().loss = loss;
    }

    pub fn entries(&self) -> (u64, Vec<KeyValue>) {
        let state = self.state();
        (state.revision, state.keys.values().cloned().collect())
    }

    /// What was written since the log had this length, and its length now.
    pub fn since(&self, at: usize) -> (Vec<KeyChange>, usize) {
        let state = self.state();
        (state.log.get(at..).unwrap_or_default().to_vec(), state.log.len())
    }

    /// The keys that were read one by one since this was asked last.
    pub fn take_read(&self) -> Vec<String> {
        let read = std::mem::take(&mut self.state().read);
        read.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    pub fn log_len(&self) -> usize {
        self.state().log.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn trip(&self) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        if self.state().away { Err(late()) } else { Ok(()) }
    }

    fn back<T>(&self, answer: T) -> Result<T, StoreError> {
        let mut state = self.state();
        state.calls += 1;
        let lost = state.loss > 0 && state.calls.is_multiple_of(state.loss);
        if lost { Err(late()) } else { Ok(answer) }
    }
}

impl State {
    fn fits(&self, key: &[u8], expect: Expect) -> bool {
        let there = self.keys.get(key);
        match expect {
            Expect::Absent => there.is_none(),
            Expect::At(revision) => there.is_some_and(|kv| kv.modified == revision),
        }
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> Revision {
        self.revision += 1;
        let revision = Revision::new(self.revision);
        let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
        if let Some(value) = value {
            let created = self.keys.get(&key).map_or(revision, |kv| kv.created);
            let kv = KeyValue { key, value, created, modified: revision, version: 1, lease: None };
            self.keys.insert(kv.key.clone(), kv.clone());
            self.log.push(KeyChange::Put(kv));
        } else {
            self.keys.remove(&key);
            self.log.push(KeyChange::Delete { key, revision });
        }
        revision
    }
}

fn late() -> StoreError {
    StoreError::Timeout { op: "ask", subject: "the fake".to_owned(), after: Duration::ZERO }
}

impl Shelf for FakeShelf {
    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        self.trip().await?;
        self.state().read.push(key.to_vec());
        let found = self.state().keys.get(key).cloned();
        self.back(found)
    }

    async fn swap(
        &self,
        key: &[u8],
        expect: Expect,
        value: Option<&[u8]>,
    ) -> Result<WriteOutcome, StoreError> {
        self.trip().await?;
        let outcome = {
            let mut state = self.state();
            if state.fits(key, expect) {
                WriteOutcome::Done { revision: state.write(key, value) }
            } else {
                WriteOutcome::Conflict(state.keys.get(key).cloned())
            }
        };
        self.back(outcome)
    }

    async fn swap_all(&self, swaps: Vec<Swap>) -> Result<Option<Revision>, StoreError> {
        self.trip().await?;
        let revision = {
            let mut state = self.state();
            swaps.iter().all(|swap| state.fits(&swap.key, swap.expect)).then(|| {
                let revision = Revision::new(state.revision + 1);
                for Swap { key, value, .. } in &swaps {
                    state.revision = revision.get() - 1;
                    state.write(key, value.as_deref());
                }
                revision
            })
        };
        self.back(revision)
    }

    async fn create(
        &self,
        guard: Guard,
        keys: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<bool, StoreError> {
        self.trip().await?;
        let made = {
            let mut state = self.state();
            let Guard::Key { key, expect } = guard else { panic!("it is not asked for here") };
            let absent = keys.iter().all(|(key, _)| state.fits(key, Expect::Absent));
            let fits = absent && state.fits(&key, expect);
            for (key, value) in keys.iter().filter(|_| fits) {
                state.write(key, Some(value));
            }
            fits
        };
        self.back(made)
    }

    async fn hold(&self, key: &[u8], name: &[u8], _: u32) -> Result<bool, StoreError> {
        self.trip().await?;
        let mut state = self.state();
        let ours = state.keys.get(key).is_none_or(|kv| kv.value == name);
        if ours {
            state.write(key, Some(name));
        }
        Ok(ours)
    }

    async fn visit(
        &self,
        prefix: &[u8],
        each: impl FnMut(KeyValue) + Send,
    ) -> Result<(), StoreError> {
        self.trip().await?;
        let state = self.state();
        state.keys.values().filter(|kv| kv.key.starts_with(prefix)).cloned().for_each(each);
        Ok(())
    }
}
