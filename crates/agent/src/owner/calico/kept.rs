//! What is kept on disk of Calico's objects, so that a start without the store repairs what this node has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use russet_api::calico::{Key, Kind};
use russet_core::{
    Change, Fact, FactId,
    model::{Lease, NetworkConfig, calico::host},
    transport::Footing,
};
use russet_net::{Labels, Prefix};

use super::{CalicoView, lease_id};
use crate::{
    disk::checkpoint::Objects,
    resources::{self, Known, Object},
};

/// The bytes of objects, as they stand in the store.
type Texts = BTreeMap<Key, Arc<[u8]>>;

#[derive(Debug, Default)]
pub(super) struct Kept {
    now: Texts,
    /// This node's blocks.
    blocks: BTreeSet<Prefix>,
    /// Pools and settings of before, while tunnels of theirs may be in use.
    before: Vec<Texts>,
    /// The pools and settings that the configuration was last made of.
    configured: Texts,
    /// How this node was reached, and its labels, when its object was last kept: it is written every few seconds, for other
    /// reasons.
    host: Option<(Lease, Labels)>,
    /// The whole, until something of it changes.
    whole: Option<Arc<Objects>>,
    /// Configurations of an earlier life, until there is a node that they can be in force on.
    earlier: Vec<NetworkConfig>,
}

impl Kept {
    /// Takes the text of an object that is good.
    pub(super) fn put(&mut self, key: &Key, known: &Known, text: &Arc<[u8]>) {
        if let (Key::Resource(id), Some(Object::Node(node))) = (key, &known.value) {
            let now = Some((host(&id.name, node), node.labels.clone()));
            if self.host == now {
                return;
            }
            self.host = now;
        }
        if self.now.get(key) != Some(text) {
            self.now.insert(key.clone(), Arc::clone(text));
            self.whole = None;
        }
    }

    /// Lets go what is not meant.
    pub(super) fn retain(&mut self, is_meant: impl Fn(&Key) -> bool) {
        let before = self.now.len();
        self.now.retain(|key, _| is_meant(key));
        if self.now.len() != before {
            self.whole = None;
        }
    }

    pub(super) fn block(&mut self, cidr: Prefix, is_own: bool) {
        let changed = if is_own { self.blocks.insert(cidr) } else { self.blocks.remove(&cidr) };
        if changed {
            self.whole = None;
        }
    }

    /// Lets go blocks that are not there any more.
    pub(super) fn retain_blocks(&mut self, is_there: impl Fn(Prefix) -> bool) {
        let before = self.blocks.len();
        self.blocks.retain(|cidr| is_there(*cidr));
        if self.blocks.len() != before {
            self.whole = None;
        }
    }

    /// Another configuration is made of what there is now.
    pub(super) fn configured(&mut self) {
        let now: Texts = self.now.iter().filter(|(key, _)| makes_config(key)).map(shared).collect();
        if now == self.configured {
            return;
        }
        let before = std::mem::replace(&mut self.configured, now);
        if !before.is_empty() {
            self.before.push(before);
            // Whoever changes it so often within one change loses the tunnels of the first.
            self.before.drain(..self.before.len().saturating_sub(MOST_BEFORE));
            self.whole = None;
        }
    }

    /// Nobody sends by a tunnel of before any more.
    pub(super) fn nothing_retires(&mut self) {
        if !self.before.is_empty() {
            self.before.clear();
            self.whole = None;
        }
    }

    pub(super) fn whole(&mut self) -> Arc<Objects> {
        if let Some(whole) = &self.whole {
            return Arc::clone(whole);
        }
        let whole = Arc::new(Objects {
            now: written(&self.now),
            blocks: self.blocks.clone(),
            before: self.before.iter().map(written).collect(),
        });
        self.whole = Some(Arc::clone(&whole));
        whole
    }
}

impl CalicoView {
    /// Takes what an earlier life kept. That much is in force before the store has said anything.
    pub fn recall(&mut self, kept: &Objects) -> Vec<Change> {
        for texts in &kept.before {
            let mut then = Self::new(self.node.clone(), self.distribution);
            then.read(texts);
            if let Some(Change::Upsert { fact: Fact::Config(config), .. }) = then.configuration() {
                self.kept.earlier.push(config);
            }
            self.kept.before.push(then.kept.now);
        }
        let mut changes = self.read(&kept.now);
        for cidr in &kept.blocks {
            self.blocks.insert(*cidr);
            self.kept.block(*cidr, true);
            let fact = Fact::Held(self.node.clone());
            changes.extend(lease_id(*cidr).map(|id| Change::Upsert { id, fact, rev: 0 }));
        }
        changes.splice(0..0, self.configuration());
        changes
    }

    fn read(&mut self, texts: &BTreeMap<String, String>) -> Vec<Change> {
        let picture = resources::recalled(&self.node, texts);
        let all = picture.iter();
        all.flat_map(|(key, known)| self.one(key, Some(known), picture.text(key))).collect()
    }

    /// The configurations of an earlier life whose tunnels may be in use, and the present one behind them: each is to be in
    /// force for a moment, so that what is in force knows where it comes from.
    pub fn replay(&mut self) -> Vec<Change> {
        let earlier = std::mem::take(&mut self.kept.earlier);
        let Some(now) = self.told.clone().filter(|_| !earlier.is_empty()) else {
            return Vec::new();
        };
        let change =
            |config| Change::Upsert { id: FactId::Config, fact: Fact::Config(config), rev: 0 };
        earlier.into_iter().chain([now]).map(change).collect()
    }

    /// What is to be kept, with the configurations of before unless nothing of them is in use.
    pub fn kept(&mut self, in_force: Option<&Footing>) -> Arc<Objects> {
        let settled = |footing: &Footing| {
            !footing.uses_what_was() && Some(&footing.config) == self.told.as_ref()
        };
        if in_force.is_some_and(settled) {
            self.kept.nothing_retires();
        }
        self.kept.whole()
    }
}

const fn makes_config(key: &Key) -> bool {
    match key {
        Key::Resource(id) => matches!(id.kind, Kind::IpPool | Kind::FelixConfiguration),
        _ => false,
    }
}

fn shared((key, text): (&Key, &Arc<[u8]>)) -> (Key, Arc<[u8]>) {
    (key.clone(), Arc::clone(text))
}

fn written(texts: &Texts) -> BTreeMap<String, String> {
    // It was read as JSON, so it is UTF-8.
    let text = |(key, text): (&Key, &Arc<[u8]>)| {
        Some((key.to_string(), str::from_utf8(text).ok()?.to_owned()))
    };
    texts.iter().filter_map(text).collect()
}

/// How many changes of pools and settings are remembered while the first of them is not done.
const MOST_BEFORE: usize = 8;
