//! What the store tells, in the words of the machine and of those who look for leaks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use russet_api::calico;
use russet_core::{
    addressing::blocks::{
        AffinityState, Collector, Key, Outline, Value, Versioned,
        machine::{Change, Input},
    },
    model::calico::Affinity,
};
use tokio::task::JoinSet;

use super::{Gate, Ipam, again, documents::Document, gc::Local, now, shelf::Shelf, wish::Ground};
use crate::resources::{BlockNews, Doubt, History, Known, News, Object, Picture};

impl<S: Shelf> Ipam<S> {
    pub(super) fn news(&mut self, news: News) {
        match news {
            News::All { revision, history, picture } => self.all(revision, history, &picture),
            News::Changed { changes, .. } => {
                let mut grounds = false;
                let mut told = Vec::new();
                for change in changes.iter() {
                    let (key, known) = (&change.key, change.known.as_ref());
                    grounds |= self.ground.put(&self.settings.node, key, known);
                    self.note(key, change.revision, known);
                    told.extend(translate(key, change.revision, known));
                }
                if grounds {
                    self.configure();
                }
                self.machine.handle(Input::Changed(told), now());
            }
            News::Doubted { doubt, picture } => self.doubted(&doubt, &picture),
            News::Aside { changes } => self.put_back.aside(&self.settings.node, &changes),
            News::Away(reason) => self.away = Some(reason),
            News::Back => {
                self.away = None;
                self.put_back.look_again(Instant::now());
            }
        }
    }

    fn doubted(&mut self, doubt: &Doubt, picture: &Picture) {
        if matches!(self.gate, Gate::Open) {
            self.put_back.note(self.local.own());
        }
        // The machine writes nothing from here on: what it knows is of another store.
        self.gate = Gate::Doubted(doubt.to_string());
        self.away = None;
        self.leave_history();
        self.put_back.doubted(&self.settings.node, doubt, picture);
    }

    fn all(&mut self, revision: u64, history: History, picture: &Picture) {
        let is_other = history == History::Other || matches!(self.gate, Gate::Doubted(_));
        if is_other {
            self.leave_history();
            self.desk.other_history();
        }
        // What a store of another history lacks it does not lack for a moment.
        self.looks_for_losses = Some(if is_other { Duration::ZERO } else { again::LAG });
        self.gate = Gate::Open;
        self.away = None;
        self.put_back.over();
        self.local.clear();
        self.nodes.clear();
        self.ground = Ground::of(picture, &self.settings.node);
        self.configure();
        let mut objects = Vec::new();
        for (key, known) in picture.iter() {
            self.note(key, known.revision, Some(known));
            let told = translate(key, known.revision, Some(known));
            objects.extend(told.and_then(|change| {
                Some((change.key, Versioned { rev: change.rev, value: change.value? }))
            }));
        }
        self.local.pack();
        self.machine.handle(Input::Snapshot { objects, rev: revision }, now());
    }

    /// Drops what is to be written, what is under way, and what was seen: it goes by revisions of a history that is not the
    /// store's any more, and might meet the same revision of something else. Whoever waits is decided anew.
    fn leave_history(&mut self) {
        self.machine.handle(Input::OtherHistory, now());
        self.queued.clear();
        self.work = JoinSet::new();
        self.collector = Some(Collector::default());
        self.local = Local::default();
        self.documents.clear();
    }

    fn configure(&mut self) {
        let config = self.ground.config(self.settings.cooldown);
        self.machine.handle(Input::Config(config), now());
        self.desk.pools_changed();
    }

    /// Notes what the collectors and the next writes need of a key.
    fn note(&mut self, key: &calico::Key, revision: u64, known: Option<&Known>) {
        let value = known.and_then(|known| known.value.as_ref());
        match key {
            calico::Key::Block(cidr) => {
                if let Some(Object::Block(BlockNews::Own(stored))) = value {
                    let document = Document::Block(Arc::clone(stored));
                    self.documents.keep(Key::Block(*cidr), revision, document);
                }
                if self.local.block(*cidr, revision, value) {
                    self.looks_for_losses.get_or_insert(again::LAG);
                }
            }
            calico::Key::BlockAffinity(Affinity::Host(node), cidr)
                if *node == self.settings.node =>
            {
                let state = match value {
                    Some(Object::Affinity(affinity)) => Some(affinity.state),
                    _ => None,
                };
                self.local.affinity(*cidr, revision, state);
            }
            calico::Key::Resource(id) if id.kind == calico::Kind::Node => match known {
                // A node whose object is bad is there all the same.
                Some(_) => _ = self.nodes.insert(id.name.clone()),
                None => _ = self.nodes.remove(&id.name),
            },
            _ => {}
        }
    }
}

/// A change in the machine's words. A block that nobody can read exists, and nothing of it can be taken.
fn translate(key: &calico::Key, rev: u64, known: Option<&Known>) -> Option<Change> {
    let value = known.map(|known| known.value.as_ref());
    match key {
        calico::Key::Block(cidr) => {
            let value = value.map(|value| match value {
                Some(Object::Block(BlockNews::Own(stored))) => {
                    Value::Block(Arc::new(stored.value().clone()))
                }
                Some(Object::Block(BlockNews::Other { outline, ours, .. })) => {
                    let ours = ours.iter().map(|(_, handle)| handle.clone());
                    Value::Outline { outline: outline.clone(), ours: ours.collect() }
                }
                _ => Value::Outline { outline: Outline::default(), ours: Arc::default() },
            });
            Some(Change { key: Key::Block(*cidr), rev, value })
        }
        calico::Key::BlockAffinity(Affinity::Host(node), cidr) => {
            let state = |value: Option<&Object>| match value {
                Some(Object::Affinity(affinity)) => affinity.state,
                // One that cannot be read is as one that was never confirmed.
                _ => AffinityState::Pending,
            };
            let value = value.map(|value| Value::Affinity(state(value)));
            Some(Change { key: Key::Affinity(node.clone(), *cidr), rev, value })
        }
        _ => None,
    }
}
