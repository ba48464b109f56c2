//! What Calico's objects say, as facts of the world.
//!
//! ```text
//!   pools, Felix' settings ─▶ the configuration
//!   nodes                  ─▶ hosts
//!   blocks                 ─▶ what a host holds: the block, and each address of it that another host has
//! ```
//!
//! Several objects make one fact here, so the objects are kept: pools and settings, and of each block which addresses
//! out of it are others'. `kept` is what of all this outlives the process.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use russet_api::calico::{Key, Kind, ResourceId};
use russet_core::{
    Change, Fact, FactId, Fault, Source,
    choices::Distribution,
    model::{
        LeaseKey, NetworkConfig,
        calico::{Affinity, FelixConfiguration, IpPool, Name, Scope, host, network},
    },
};
use russet_net::{Family, Prefix, packed};

use self::kept::Kept;
use super::{Owner, trust::Doubt};
use crate::resources::{BlockNews, History, Known, News, Object, Picture};

/// What several objects make one fact of.
#[derive(Debug)]
pub struct CalicoView {
    node: Name,
    distribution: Distribution,
    pools: BTreeMap<Name, IpPool>,
    /// Pools that were deleted while blocks of theirs are in use: what is in use is carried on.
    left: BTreeMap<Name, IpPool>,
    felix: BTreeMap<Scope, FelixConfiguration>,
    blocks: BTreeSet<Prefix>,
    /// Of a block the addresses that have routes of their own, where there are any.
    lone: BTreeMap<Prefix, Vec<IpAddr>>,
    /// What is wrong with objects that are no fact by themselves.
    faults: BTreeMap<Key, Fault>,
    /// The configuration that was last told.
    told: Option<NetworkConfig>,
    kept: Kept,
}

impl CalicoView {
    pub fn new(node: Name, distribution: Distribution) -> Self {
        Self {
            node,
            distribution,
            pools: BTreeMap::new(),
            left: BTreeMap::new(),
            felix: BTreeMap::new(),
            blocks: BTreeSet::new(),
            lone: BTreeMap::new(),
            faults: BTreeMap::new(),
            told: None,
            kept: Kept::default(),
        }
    }

    /// The whole picture, from scratch.
    pub fn all(&mut self, picture: &Picture) -> Vec<Change> {
        // A pool that is gone stays for what is in use of it, also when nobody was there to see it go.
        let before = std::mem::take(&mut self.pools);
        self.left.extend(before);
        self.told = None;
        self.felix.clear();
        self.blocks.clear();
        self.lone.clear();
        self.faults.clear();
        let mut changes = vec![Change::Resync(Source::Store)];
        for (key, known) in picture.iter() {
            changes.extend(self.one(key, Some(known), picture.text(key)));
        }
        self.kept.retain(|key| picture.get(key).is_some() || is_pool(key));
        self.kept.retain_blocks(|cidr| picture.get(&Key::Block(cidr)).is_some());
        packed::pack_set(&mut self.blocks);
        // It must be there before what is judged by it.
        changes.splice(1..1, self.configuration());
        changes.push(Change::InSync(Source::Store));
        changes
    }

    /// What changed.
    pub fn changed(&mut self, all: &[crate::resources::Change]) -> Vec<Change> {
        let mut changes: Vec<_> = all
            .iter()
            .flat_map(|it| self.one(&it.key, it.known.as_ref(), it.text.as_ref()))
            .collect();
        changes.splice(0..0, self.configuration());
        changes
    }

    /// What a store that is not believed has that is new: nothing is removed or repointed for its sake. It is younger
    /// than all up to `believed`: a store that begins anew begins with low revisions, and the lower one wins.
    pub fn added<'a>(
        &self,
        all: impl IntoIterator<Item = (&'a Key, &'a Known)>,
        has: impl Fn(&FactId) -> bool,
        believed: u64,
    ) -> Vec<Change> {
        let mut fresh = Self::new(self.node.clone(), self.distribution);
        let all = all.into_iter().flat_map(|(key, known)| fresh.one(key, Some(known), None));
        let younger = |change| match change {
            Change::Upsert { id, fact, rev } if !has(&id) => {
                Some(Change::Upsert { id, fact, rev: believed.saturating_add(rev) })
            }
            _ => None,
        };
        all.filter_map(younger).collect()
    }

    /// Objects that are left out, or not as they should be.
    pub fn faults(&self) -> impl Iterator<Item = (String, &Fault)> {
        self.faults.iter().map(|(key, fault)| (key.to_string(), fault))
    }

    fn one(&mut self, key: &Key, known: Option<&Known>, text: Option<&Arc<[u8]>>) -> Vec<Change> {
        match (known, text) {
            (Some(known), Some(text)) => self.kept.put(key, known, text),
            // A pool stays for what is in use of it.
            (None, _) if !is_pool(key) => self.kept.retain(|other| other != key),
            _ => {}
        }
        match key {
            Key::Block(cidr) => return self.block(*cidr, known),
            Key::Resource(id) if id.kind == Kind::Node => return host_change(&id.name, known),
            _ => {}
        }
        match known.and_then(|known| known.fault.as_deref()) {
            Some(fault) => _ = self.faults.insert(key.clone(), fault.clone()),
            None => _ = self.faults.remove(key),
        }
        let Key::Resource(id) = key else { return Vec::new() };
        match (id.kind, known.and_then(|known| known.value.as_ref())) {
            (Kind::IpPool, Some(Object::Pool(pool))) => {
                self.left.remove(&id.name);
                self.pools.insert(id.name.clone(), (**pool).clone());
            }
            (Kind::IpPool, _) if known.is_none() => {
                let gone = self.pools.remove(&id.name);
                self.left.extend(gone.map(|pool| (id.name.clone(), pool)));
            }
            (Kind::FelixConfiguration, Some(Object::Felix(felix))) => {
                self.felix.insert(Scope::of(&id.name), (**felix).clone());
            }
            (Kind::FelixConfiguration, _) if known.is_none() => {
                self.felix.remove(&Scope::of(&id.name));
            }
            _ => {}
        }
        Vec::new()
    }

    fn block(&mut self, cidr: Prefix, known: Option<&Known>) -> Vec<Change> {
        match known {
            Some(_) => _ = self.blocks.insert(cidr),
            None => _ = self.blocks.remove(&cidr),
        }
        let before = self.lone.remove(&cidr);
        let mut gone: BTreeSet<Prefix> = before.into_iter().flatten().map(Prefix::host).collect();
        gone.insert(cidr);
        let mut changes = Vec::new();
        if known.is_none_or(|known| known.fault.is_none()) {
            self.kept.block(cidr, known.is_some_and(|known| is_of(&self.node, known)));
        }
        if let Some(Known { created, value: Some(Object::Block(block)), .. }) = known {
            let held = held(cidr, block);
            let lone: Vec<_> = held.iter().skip(1).flatten().map(|(it, _)| it.addr()).collect();
            if !lone.is_empty() {
                self.lone.insert(cidr, lone);
            }
            for (prefix, name) in held.into_iter().flatten() {
                gone.remove(&prefix);
                changes.extend(lease_id(prefix).map(|id| Change::Upsert {
                    id,
                    fact: Fact::Held(name),
                    rev: *created,
                }));
            }
        } else if let Some(fault) = known.and_then(|known| known.fault.as_deref()) {
            gone.remove(&cidr);
            let fault = fault.clone();
            changes.extend(lease_id(cidr).map(|id| Change::Bad { id, fault }));
        }
        changes.extend(gone.into_iter().filter_map(lease_id).map(|id| Change::Remove { id }));
        changes
    }

    /// The network that pools and settings make, when it is another than was told.
    fn configuration(&mut self) -> Option<Change> {
        self.leave_unused();
        let felix = |scope| self.felix.get(&scope).cloned().unwrap_or_default();
        let felix = felix(Scope::Node(self.node.clone())).over(felix(Scope::Cluster));
        if self.pools.is_empty() {
            // Somebody emptied the store; what is in force stays.
            let gone = Change::Bad { id: FactId::Config, fault: Fault::ConfigGone };
            return self.told.take().map(|_| gone);
        }
        let mut pools = self.left.clone();
        pools.extend(self.pools.clone());
        let now = network(&pools, &felix, self.distribution);
        if self.told.as_ref() == Some(&now) {
            return None;
        }
        self.told = Some(now.clone());
        self.kept.configured();
        Some(Change::Upsert { id: FactId::Config, fact: Fact::Config(now), rev: 0 })
    }

    /// Forgets deleted pools that nothing is in use of any more, and names the others.
    fn leave_unused(&mut self) {
        let (blocks, pools) = (&self.blocks, &self.pools);
        let in_use = |pool: &IpPool| {
            let is_in = |block: &Prefix| pool.cidr().covers(*block);
            let elsewhere = |block: &Prefix| pools.values().any(|it| it.cidr().covers(*block));
            blocks.iter().filter(|block| is_in(block) && !elsewhere(block)).count()
        };
        let mut left = std::mem::take(&mut self.left);
        left.retain(|name, pool| {
            let key = pool_key(name);
            let blocks = in_use(pool);
            match blocks {
                0 => _ = self.faults.remove(&key),
                _ => _ = self.faults.insert(key, Fault::PoolInUse { blocks }),
            }
            blocks > 0
        });
        self.left = left;
        let is_known =
            |id: &ResourceId| self.pools.contains_key(&id.name) || self.left.contains_key(&id.name);
        self.kept.retain(|key| match key {
            Key::Resource(id) if is_pool(key) => is_known(id),
            _ => true,
        });
    }
}

/// A block's own node first, `None` where it has no affinity to one; then whoever has addresses out of it.
fn held(cidr: Prefix, block: &BlockNews) -> Vec<Option<(Prefix, Name)>> {
    let owner = block.affinity().and_then(Affinity::host).map(|host| (cidr, host.clone()));
    let others = block.borrowed();
    let others = others.iter().map(|(addr, name)| Some((Prefix::host(*addr), name.clone())));
    std::iter::once(owner).chain(others).collect()
}

fn is_of(node: &Name, known: &Known) -> bool {
    match &known.value {
        Some(Object::Block(block)) => block.affinity().and_then(Affinity::host) == Some(node),
        _ => false,
    }
}

fn is_pool(key: &Key) -> bool {
    matches!(key, Key::Resource(id) if id.kind == Kind::IpPool)
}

fn host_change(name: &Name, known: Option<&Known>) -> Vec<Change> {
    let id = FactId::Host(name.clone());
    let change = match known {
        None => Change::Remove { id },
        Some(known) => match (&known.value, &known.fault) {
            // The last good value stays; that it is not the present one is told besides.
            (Some(Object::Node(node)), fault) => {
                let fact = Fact::Host(Box::new(host(name, node)));
                let good = Change::Upsert { id: id.clone(), fact, rev: known.created };
                let bad = fault.as_deref().map(|fault| Change::Bad { id, fault: fault.clone() });
                return std::iter::once(good).chain(bad).collect();
            }
            (_, Some(fault)) => Change::Bad { id, fault: (**fault).clone() },
            _ => return Vec::new(),
        },
    };
    vec![change]
}

fn lease_id(prefix: Prefix) -> Option<FactId> {
    let of = |family| (prefix.family() == family).then_some(prefix);
    LeaseKey::new(of(Family::V4), of(Family::V6)).map(FactId::Lease)
}

/// The id that the cluster was given.
fn named(changes: &[crate::resources::Change]) -> Option<String> {
    let key = crate::resources::cluster()?;
    let known = changes.iter().rev().find(|one| one.key == key)?.known.as_ref()?;
    match known.value.as_ref()? {
        Object::Cluster(cluster) => cluster.guid.clone(),
        _ => None,
    }
}

fn pool_key(name: &Name) -> Key {
    let (kind, namespace, name) = (Kind::IpPool, None, name.clone());
    Key::Resource(ResourceId { kind, namespace, name })
}

impl Owner {
    /// Takes what Calico's part of the datastore says.
    pub(super) fn resources(&mut self, news: News) {
        self.store.events += 1;
        let Some(calico) = &mut self.calico else { return };
        match news {
            News::All { revision, history, picture } => {
                if history == History::Other {
                    tracing::warn!(op = "snapshot", "the datastore has another history");
                }
                self.store.reached_at(revision, None);
                self.store.seen.cluster_id = picture.cluster_id();
                let changes = calico.all(&picture);
                self.take_pieces(changes);
                self.unsettled = true;
            }
            News::Changed { revision, changes } => {
                self.store.reached_at(revision, None);
                if let Some(id) = named(&changes) {
                    self.store.seen.cluster_id = Some(id);
                }
                let changes = calico.changed(&changes);
                self.changes(changes);
            }
            News::Doubted { doubt, picture } => {
                let revision = self.store.seen.revision;
                self.store.reached_at(revision, Some(doubt));
                self.add_only(picture.iter());
            }
            News::Aside { changes } => {
                let all = changes.iter().filter_map(|one| Some((&one.key, one.known.as_ref()?)));
                self.add_only(all);
            }
            News::Away(error) => self.store.away(error.as_ref().to_owned()),
            News::Back => self.store.back(),
        }
    }

    fn add_only<'a>(&mut self, all: impl Iterator<Item = (&'a Key, &'a Known)>) {
        let Some(calico) = &self.calico else { return };
        if matches!(self.store.doubt, Some(Doubt::OtherCluster { found: Some(_), .. })) {
            // The same blocks lead elsewhere there.
            return;
        }
        let facts = &self.calc.world().facts;
        let believed = self.store.seen.revision;
        let added = calico.added(all, |id| facts.contains_key(id), believed);
        self.changes(added);
    }
}

#[cfg(test)]
mod tests;
