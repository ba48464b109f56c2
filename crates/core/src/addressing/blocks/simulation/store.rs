//! The store of the simulation: compare and swap, revisions, and a log to watch.

use std::collections::BTreeMap;

use super::super::{
    Affinity, Key, Name, Outcome, Outline, Reserved, StoreOp, Timestamp, Value, Versioned,
    gc::Picture, machine::Change,
};

#[derive(Default)]
pub(super) struct Store {
    pub(super) rev: u64,
    pub(super) objects: BTreeMap<Key, Versioned>,
    pub(super) log: Vec<Change>,
}

impl Store {
    pub(super) fn take(&mut self, what: &StoreOp) -> Outcome {
        let present = self.objects.get(what.key()).cloned();
        match what {
            StoreOp::Swap { key, expect, value } if *expect == present.as_ref().map(|p| p.rev) => {
                self.rev += 1;
                let rev = self.rev;
                match value.clone() {
                    Some(value) => _ = self.objects.insert(key.clone(), Versioned { rev, value }),
                    None => _ = self.objects.remove(key),
                }
                self.log.push(Change { key: key.clone(), rev, value: value.clone() });
                Outcome::Done { rev }
            }
            StoreOp::Read(_) | StoreOp::Swap { .. } => {
                Outcome::Present { at: self.rev, value: present }
            }
        }
    }

    /// A transaction: all of it at one revision, or what is there instead.
    pub(super) fn take_together(&mut self, ops: &[StoreOp]) -> Vec<Outcome> {
        let is_as_expected = |op: &StoreOp| match op {
            StoreOp::Swap { key, expect, .. } => {
                *expect == self.objects.get(key).map(|present| present.rev)
            }
            StoreOp::Read(_) => panic!("a read in a transaction"),
        };
        if !ops.iter().all(is_as_expected) {
            let present = |op: &StoreOp| self.objects.get(op.key()).cloned();
            let present = |op| Outcome::Present { at: self.rev, value: present(op) };
            return ops.iter().map(present).collect();
        }
        let rev = self.rev + 1;
        for op in ops {
            self.rev = rev - 1;
            self.take(op);
        }
        vec![Outcome::Done { rev }; ops.len()]
    }

    /// What a node watches: every block, and its own affinities.
    pub(super) fn snapshot(&self, node: &Name) -> Vec<(Key, Versioned)> {
        let objects = self.objects.iter().filter(|(key, _)| concerns(key, node));
        let told = |found: &Versioned| Versioned { value: told(&found.value, node), ..*found };
        objects.map(|(key, found)| (key.clone(), told(found))).collect()
    }

    /// What was written between two places of the log, the last of each object.
    pub(super) fn changes(&self, from: usize, to: usize, node: &Name) -> Vec<Change> {
        let mut last: BTreeMap<&Key, &Change> = BTreeMap::new();
        for change in self.log[from..to].iter().filter(|change| concerns(&change.key, node)) {
            last.insert(&change.key, change);
        }
        let told = |change: &Change| Change {
            value: change.value.as_ref().map(|value| told(value, node)),
            ..change.clone()
        };
        let mut changes: Vec<_> = last.into_values().map(told).collect();
        changes.sort_by_key(|change| change.rev);
        changes
    }

    pub(super) fn picture(&self) -> Picture {
        let mut picture = Picture::default();
        for (key, Versioned { rev, value }) in self.objects.clone() {
            match (key, value) {
                (Key::Block(cidr), Value::Block(value)) => {
                    picture.blocks.insert(cidr, Versioned { rev, value });
                }
                (Key::Affinity(node, cidr), Value::Affinity(value)) => {
                    picture.affinities.insert((node, cidr), Versioned { rev, value });
                }
                (Key::Handle(handle), Value::Handle(value)) => {
                    picture.handles.insert(handle, Versioned { rev, value });
                }
                (key, value) => panic!("{key:?} with {value:?}"),
            }
        }
        picture
    }
}

fn concerns(key: &Key, node: &Name) -> bool {
    match key {
        Key::Block(_) => true,
        Key::Affinity(of, _) => of == node,
        Key::Handle(_) => false,
    }
}

/// Of others' blocks a node is told the outline only.
fn told(value: &Value, node: &Name) -> Value {
    match value {
        Value::Block(block) if block.affinity().and_then(Affinity::host) != Some(node) => {
            let outline = Outline::of(block, &Reserved::default(), Timestamp::default());
            let ours = block.allocated().filter(|(_, of)| of.node() == Some(node.as_str()));
            let ours = ours.filter_map(|(_, of)| of.handle.clone()).collect();
            Value::Outline { outline, ours }
        }
        value => value.clone(),
    }
}
