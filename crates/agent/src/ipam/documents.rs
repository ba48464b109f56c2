//! Values as they lie in the store: the algebra's beside the documents that they were read from.
//!
//! What is unknown in an object is kept when it is written, so a write needs the document of the very revision
//! that it replaces. Those of this node's blocks come with the watch, others are kept after they were read or
//! written here; one that is not at hand is read first.

use std::{collections::BTreeMap, sync::Arc};

use russet_api::calico::{self, Layout, Stored};
use russet_core::{
    addressing::blocks::{Key, Value},
    model::calico::{Affinity, BlockAffinity, IpamBlock, IpamHandle},
};
use russet_store::KeyValue;

use crate::one_line;

/// One object with all that it was made of.
#[derive(Clone, Debug)]
pub enum Document {
    Block(Arc<Stored<IpamBlock>>),
    Affinity(Stored<BlockAffinity>),
    Handle(Stored<IpamHandle>),
}

impl Document {
    /// Reads what lies at a key.
    ///
    /// # Errors
    ///
    /// With everything that is wrong with it, in one line.
    pub fn read(key: &Key, kv: &KeyValue) -> Result<Self, String> {
        let bytes = &kv.value;
        let read = match key {
            Key::Block(cidr) => {
                let stored =
                    Stored::<IpamBlock>::read(bytes, Layout::Bare).map_err(|e| one_line(&e))?;
                if stored.value().cidr() != *cidr {
                    return Err(format!("{} is not at its key", stored.value().cidr()));
                }
                Ok(Self::Block(Arc::new(stored)))
            }
            Key::Affinity(..) => Stored::read(bytes, Layout::Bare).map(Self::Affinity),
            Key::Handle(_) => Stored::read(bytes, Layout::Bare).map(Self::Handle),
        };
        read.map_err(|err| one_line(&err))
    }

    /// The algebra's part of it.
    pub fn value(&self) -> Value {
        match self {
            Self::Block(stored) => Value::Block(Arc::new(stored.value().clone())),
            Self::Affinity(stored) => Value::Affinity(stored.value().state),
            Self::Handle(stored) => Value::Handle(stored.value().counts.clone()),
        }
    }

    /// An object that was not there.
    pub fn new(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Block(block) => Self::Block(Arc::new(Stored::bare(block.as_ref().clone()))),
            Value::Affinity(state) => {
                Self::Affinity(Stored::bare(BlockAffinity { state: *state, deleted: false }))
            }
            Value::Handle(counts) => {
                Self::Handle(Stored::bare(IpamHandle { counts: counts.clone(), deleted: false }))
            }
            // It is told, and never written.
            Value::Outline { .. } => return None,
        })
    }

    /// The same object with another value; `None` when that is of another kind.
    pub fn with(self, value: &Value) -> Option<Self> {
        match (self, value) {
            (Self::Block(mut stored), Value::Block(block)) => {
                Arc::make_mut(&mut stored).set(block.as_ref().clone());
                Some(Self::Block(stored))
            }
            (Self::Affinity(mut stored), Value::Affinity(state)) => {
                stored.set(BlockAffinity { state: *state, ..*stored.value() });
                Some(Self::Affinity(stored))
            }
            (Self::Handle(mut stored), Value::Handle(counts)) => {
                let deleted = stored.value().deleted;
                stored.set(IpamHandle { counts: counts.clone(), deleted });
                Some(Self::Handle(stored))
            }
            _ => None,
        }
    }

    /// The bytes, as Calico writes them.
    pub fn text(&self) -> String {
        match self {
            Self::Block(stored) => stored.text(),
            Self::Affinity(stored) => stored.text(),
            Self::Handle(stored) => stored.text(),
        }
    }
}

/// A key of the algebra's as the store has it.
pub fn key_text(key: &Key) -> Vec<u8> {
    let key = match key {
        Key::Block(cidr) => calico::Key::Block(*cidr),
        Key::Affinity(node, cidr) => {
            calico::Key::BlockAffinity(Affinity::Host(node.clone()), *cidr)
        }
        Key::Handle(handle) => calico::Key::Handle(handle.clone()),
    };
    key.to_string().into_bytes()
}

/// The documents at hand, each with its revision.
#[derive(Debug, Default)]
pub struct Documents(BTreeMap<Key, (u64, Document)>);

impl Documents {
    /// The document of exactly this revision.
    pub fn at(&self, key: &Key, revision: u64) -> Option<&Document> {
        self.0.get(key).filter(|(at, _)| *at == revision).map(|(_, document)| document)
    }

    /// Keeps one. An older never replaces a newer.
    pub fn keep(&mut self, key: Key, revision: u64, document: Document) {
        if self.0.get(&key).is_some_and(|(at, _)| *at > revision) {
            return;
        }
        if self.0.len() >= MOST {
            // They can all be read again.
            self.0.clear();
        }
        self.0.insert(key, (revision, document));
    }

    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A node has some hundred pods, each with a handle.
const MOST: usize = 2_048;

#[cfg(test)]
mod tests {
    use russet_core::addressing::blocks::{AffinityState, Handle};
    use russet_store::Revision;

    use super::*;

    #[test]
    fn what_is_unknown_in_an_object_stays_when_its_value_is_written() {
        let key = Key::Handle("h".parse().unwrap());
        let text = r#"{"block":{"10.0.0.0/26":1},"deleted":false,"whim":1}"#;
        let document = Document::read(&key, &kv(text)).unwrap();
        let counts = Handle::new([("10.0.0.64/26".parse().unwrap(), 2)]);
        let next = document.with(&Value::Handle(counts)).unwrap();
        assert_eq!(next.text(), r#"{"block":{"10.0.0.64/26":2},"deleted":false,"whim":1}"#);
        let pending = Value::Affinity(AffinityState::Pending);
        assert!(next.with(&pending).is_none(), "another kind");
        let fresh = Document::new(&pending).unwrap();
        assert_eq!(fresh.text(), r#"{"state":"pending","deleted":false}"#);
    }

    #[test]
    fn a_document_of_another_revision_is_not_at_hand() {
        let key = Key::Handle("h".parse().unwrap());
        let mut documents = Documents::default();
        let document = Document::new(&Value::Handle(Handle::default())).unwrap();
        documents.keep(key.clone(), 5, document.clone());
        documents.keep(key.clone(), 4, document);
        assert!(documents.at(&key, 5).is_some() && documents.at(&key, 4).is_none());
    }

    fn kv(text: &str) -> KeyValue {
        KeyValue {
            key: Vec::new(),
            value: text.as_bytes().to_vec(),
            created: Revision::ZERO,
            modified: Revision::new(1),
            version: 1,
            lease: None,
        }
    }
}
