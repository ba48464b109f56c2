//! This node's own objects in Calico's store, where others read who it is.
//!
//! ```text
//!   observer ── addresses ──┐
//!   resources ── others ────┤
//!   owner ──── tunnel ends ─┴─▶ keep ── compare-and-swap ─▶ nodes/<name>            (etcd)
//!                               keep ── create once ──────▶ clusterinformations/default
//!   speaker ── report ────────▶ answer ─ compare-and-swap ▶ caliconodestatuses/*
//! ```
//!
//! What is not ours in an object stays in it. An address that another node has is not written: two nodes with one address
//! would take each other's packets, so `keep` says whose it is, and waits until it is nobody's. What the nodes have it hears
//! of those who read the store anyway (`others`): thousands that start together do not list each other. `put_back` is what is
//! written into a store that has lost something and is not believed for that. `report` answers requests for status, `stamp`
//! knows the time.

mod others;
mod put_back;
pub mod report;
mod stamp;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use russet_api::calico::{Born, Group, Key, Kind, Layout, Meta, ResourceId, Stored, Written};
use russet_core::model::calico::{
    ClusterInformation, Name, Node, NodeAddress, NodeBgp, VxlanEnd, WireguardAddr,
};
use russet_net::Asn;
use russet_store::{EtcdClient, Expect, KeyValue, Revision, StoreError, WriteOutcome};
use tokio::{sync::watch, time::sleep};

use self::put_back::May;
pub use self::{
    others::{Others, is_own},
    report::{AskReport, answer},
    stamp::born,
};
use crate::{node::OwnAddresses, one_line};

/// What a part of the agent says of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Said<T> {
    /// Nothing yet: what is in the store stays.
    #[default]
    Nothing,
    /// This, and nothing else.
    This(T),
    /// That there is none.
    None,
}

impl<T> Said<T> {
    fn onto(self, there: &mut Option<T>) {
        match self {
            Self::Nothing => {}
            Self::This(value) => *there = Some(value),
            Self::None => *there = None,
        }
    }
}

/// What the node's tunnels and its speaker are to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The address of `tunl0`.
    pub ipip: Said<Ipv4Addr>,
    pub vxlan_v4: Said<VxlanEnd<Ipv4Addr>>,
    pub vxlan_v6: Said<VxlanEnd<Ipv6Addr>>,
    pub wireguard_v4: Said<WireguardAddr<Ipv4Addr>>,
    pub wireguard_v6: Said<WireguardAddr<Ipv6Addr>>,
    pub asn: Said<Asn>,
}

/// What `keep` hears.
#[derive(Debug)]
pub struct Inputs {
    /// `None` until they are found.
    pub addresses: watch::Receiver<Option<OwnAddresses>>,
    pub ends: watch::Receiver<Ends>,
    pub others: watch::Receiver<Others>,
    /// Whether the store is believed: nothing is written into one that may be another cluster's.
    pub believed: watch::Receiver<bool>,
    /// Whether the store is there. One that comes back may have lost what it had, and nothing is written before it is judged
    /// again; so what is under way is called off, too.
    pub reachable: watch::Receiver<bool>,
    /// Whether the node's object is put back into a store that has lost it, and is not believed for that.
    pub put_back: watch::Receiver<bool>,
}

/// How the node stands in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Registered {
    /// Its addresses are not known yet.
    #[default]
    Waiting,
    Done,
    /// Another node has this address; nothing was written.
    Taken {
        addr: IpAddr,
        by: Name,
    },
    /// The store could not be read or written, or has something else under our name.
    Failed(String),
}

impl Registered {
    /// What is wrong, for a person.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Waiting | Self::Done => None,
            Self::Taken { addr, by } => Some(format!("address {addr} is also {by}'s; not written")),
            Self::Failed(error) => Some(format!("not written: {error}")),
        }
    }
}

/// Keeps the node's object as it should be, for ever. `told` hears how it stands.
pub async fn keep(
    client: EtcdClient,
    name: Name,
    mut inputs: Inputs,
    told: watch::Sender<Registered>,
) {
    let mut keeper = Keeper::new(client, name);
    let mut failures = 0;
    loop {
        if !*inputs.believed.borrow() || inputs.believed.has_changed().unwrap_or(true) {
            keeper.forget_store();
        }
        let Some(may) = inputs.until_something_may_be().await else { return };
        let state = keeper.pass(&mut inputs, may).await;
        failures = if matches!(state, Registered::Failed(_)) { failures + 1 } else { 0 };
        tell(&told, &keeper.name, state);
        // Whoever writes our object again and again is met once a second at most.
        sleep(LULL).await;
        let again = if failures == 0 { PERIOD } else { back_off(failures) };
        if tokio::time::timeout(again, keeper.concerned(&mut inputs)).await == Ok(Heard::Nobody) {
            return;
        }
    }
}

fn tell(told: &watch::Sender<Registered>, node: &Name, state: Registered) {
    told.send_if_modified(|before| {
        if *before == state {
            return false;
        }
        match &state {
            Registered::Waiting | Registered::Done => tracing::info!(%node, op = "register", "{state:?}"),
            Registered::Taken { addr, by } => {
                tracing::error!(%node, op = "register", %addr, %by, "another node has this node's address");
            }
            Registered::Failed(error) => tracing::warn!(%node, op = "register", error),
        }
        *before = state;
        true
    });
}

struct Keeper {
    client: EtcdClient,
    name: Name,
    key: String,
    /// The addresses that no other node was found to have.
    checked: Option<OwnAddresses>,
    cluster: Cluster,
    /// What of the others the last pass went by.
    seen: Concern,
}

/// What of the nodes' objects is this node's concern: the revision of its own, and who has its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Concern {
    /// Whether they were read at all.
    known: bool,
    own: Option<u64>,
    taken: Option<(IpAddr, Name)>,
}

/// Whether the cluster's object has been seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cluster {
    Unseen,
    Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Something,
    /// Whoever could say something is gone.
    Nobody,
}

impl Keeper {
    fn new(client: EtcdClient, name: Name) -> Self {
        let key = key_of(&name);
        let (cluster, seen) = (Cluster::Unseen, Concern::default());
        Self { client, name, key, checked: None, cluster, seen }
    }

    /// The store was read anew, or is another: nothing of what was found in it counts.
    fn forget_store(&mut self) {
        (self.checked, self.cluster) = (None, Cluster::Unseen);
    }

    /// Waits until there is something to do. The others write their objects all the time, and mostly it is no concern of
    /// this node.
    async fn concerned(&self, inputs: &mut Inputs) -> Heard {
        loop {
            let changed = tokio::select! {
                changed = inputs.addresses.changed() => changed,
                changed = inputs.ends.changed() => changed,
                changed = inputs.others.changed() => {
                    let addresses = *inputs.addresses.borrow();
                    if changed.is_ok() && self.seen == concern(&inputs.others.borrow(), addresses) {
                        continue;
                    }
                    changed
                }
                // It is left to be seen by whoever forgets then.
                changed = inputs.believed.changed() => {
                    inputs.believed.mark_changed();
                    changed
                }
                changed = inputs.put_back.changed() => changed,
                changed = inputs.reachable.changed() => changed,
            };
            return if changed.is_ok() { Heard::Something } else { Heard::Nobody };
        }
    }

    async fn pass(&mut self, inputs: &mut Inputs, may: May) -> Registered {
        let addresses = *inputs.addresses.borrow_and_update();
        let ends = *inputs.ends.borrow_and_update();
        let lost = {
            let others = inputs.others.borrow_and_update();
            self.seen = concern(&others, addresses);
            others.lost()
        };
        let Some(addresses) = addresses.filter(|_| self.seen.known) else {
            return Registered::Waiting;
        };
        let mut reachable = inputs.reachable.clone();
        let work = async {
            match may {
                // What the others have is of a store by now that is believed otherwise.
                _ if inputs.may() != may => Ok(Registered::Waiting),
                May::Nothing => Ok(Registered::Waiting),
                May::PutBack => self.put_back(lost, &addresses, ends).await,
                May::Keep => self.try_pass(&addresses, ends).await,
            }
        };
        let passed = tokio::select! {
            passed = work => passed,
            _ = reachable.wait_for(|there| !there) => return Registered::Waiting,
        };
        passed.unwrap_or_else(Registered::Failed)
    }

    async fn try_pass(
        &mut self,
        addresses: &OwnAddresses,
        ends: Ends,
    ) -> Result<Registered, String> {
        if self.cluster == Cluster::Unseen {
            ensure_cluster(&self.client).await?;
            self.cluster = Cluster::Seen;
        }
        // Who was there first is not ousted by one that comes later (calico/node: `checkConflictingNodes`).
        if self.checked != Some(*addresses) {
            if let Some((addr, by)) = self.seen.taken.clone() {
                return Ok(Registered::Taken { addr, by });
            }
            self.checked = Some(*addresses);
        }
        let change = |node: &Node| changed(node, addresses, ends);
        // The news of it may come after those of its end.
        self.seen.own = Some(swap(&self.client, &self.key, &self.name, change).await?.get());
        Ok(Registered::Done)
    }
}

fn concern(others: &Others, own: Option<OwnAddresses>) -> Concern {
    let (known, own_at) = (others.is_known(), others.own());
    Concern { known, own: own_at, taken: own.and_then(|own| others.taken(&own)) }
}

/// What the object should say, given what it says.
fn changed(there: &Node, addresses: &OwnAddresses, ends: Ends) -> Node {
    let mut node = there.clone();
    let mut bgp = node.bgp.unwrap_or_default();
    // A family that is not looked for keeps what it has (calico/node: `IP=none`).
    bgp.v4 = addresses.v4.map(|found| found.addr).or(bgp.v4);
    bgp.v6 = addresses.v6.map(|found| found.addr).or(bgp.v6);
    ends.asn.onto(&mut bgp.asn);
    node.bgp = (bgp != NodeBgp::default()).then_some(bgp);
    node.addresses.retain(|address| address.kind != OWN_KIND);
    let own = [bgp.v4, bgp.v6].into_iter().flatten();
    let own = own.map(|addr| NodeAddress { addr, kind: OWN_KIND.to_owned() });
    node.addresses.splice(0..0, own);
    ends.ipip.onto(&mut node.ipip);
    put(ends.vxlan_v4, &mut node.vxlan_v4);
    put(ends.vxlan_v6, &mut node.vxlan_v6);
    put(ends.wireguard_v4, &mut node.wireguard_v4);
    put(ends.wireguard_v6, &mut node.wireguard_v6);
    node
}

/// As [`Said::onto`], where none is a value too.
fn put<T: Default>(said: Said<T>, there: &mut T) {
    match said {
        Said::Nothing => {}
        Said::This(value) => *there = value,
        Said::None => *there = T::default(),
    }
}

/// Creates the cluster's object where there is none, and completes one that lacks what Calico needs (libcalico-go:
/// `EnsureInitialized`).
async fn ensure_cluster(client: &EtcdClient) -> Result<(), String> {
    // A constant within the rules of names.
    let name: Name = "default".parse().map_err(|err| format!("{err}"))?;
    let key = key(Kind::ClusterInformation, name.clone());
    let guid = stamp::uuid().map_err(|err| format!("make a cluster's id: {err}"))?;
    swap(client, &key, &name, |there: &ClusterInformation| ClusterInformation {
        guid: there.guid.clone().or_else(|| Some(guid.replace('-', ""))),
        // One that is off stays off: a migration goes on.
        datastore_ready: there.datastore_ready.or(Some(true)),
        ..there.clone()
    })
    .await
    .map(drop)
}

/// Changes an object, or makes it, by compare-and-swap; whoever writes between is read and built upon. An object that is as
/// it should be is not written. Returns the revision at which it is so.
async fn swap<T: Written + Default + PartialEq>(
    client: &EtcdClient,
    key: &str,
    name: &Name,
    change: impl Fn(&T) -> T,
) -> Result<Revision, String> {
    let told = |err: StoreError| one_line(&err);
    let mut there = client.get(key.as_bytes()).await.map_err(told)?;
    for _ in 0..ATTEMPTS {
        let (stored, expect) = match prepared(there.as_ref(), name, &change)? {
            Prepared::Fine { at } => return Ok(at),
            Prepared::Write(stored, expect) => (stored, expect),
        };
        let written = client.put_if(key.as_bytes(), expect, stored.text().as_bytes()).await;
        match written.map_err(told)? {
            WriteOutcome::Done { revision } => return Ok(revision),
            WriteOutcome::Conflict(now) => there = now,
        }
    }
    Err(format!("{key} was written by others {ATTEMPTS} times in between"))
}

/// What is to be done about an object.
enum Prepared<T> {
    /// It is as it should be.
    Fine {
        at: Revision,
    },
    Write(Box<Stored<T>>, Expect),
}

fn prepared<T: Written + Default + PartialEq>(
    there: Option<&KeyValue>,
    name: &Name,
    change: impl Fn(&T) -> T,
) -> Result<Prepared<T>, String> {
    let Some(kv) = there else {
        let stored = made(None, name, change(&T::default()))?;
        return Ok(Prepared::Write(Box::new(stored), Expect::Absent));
    };
    let mut stored =
        Stored::<T>::read(&kv.value, Layout::Resource).map_err(|err| err.to_string())?;
    let wanted = change(stored.value());
    if wanted == *stored.value() {
        return Ok(Prepared::Fine { at: kv.modified });
    }
    stored.set(wanted);
    Ok(Prepared::Write(Box::new(stored), Expect::At(kv.modified)))
}

/// An object that was not there.
pub fn made<T: Written>(
    namespace: Option<Name>,
    name: &Name,
    value: T,
) -> Result<Stored<T>, String> {
    let Born { uid, created } = born().map_err(|err| format!("make an object's id: {err}"))?;
    let (uid, created) = (Some(uid), Some(created));
    let meta = Meta { namespace, uid, created, ..Meta::named(name.clone()) };
    Ok(Stored::new(meta, value, Group::V3))
}

/// Where a node's object lies.
pub fn key_of(node: &Name) -> String {
    key(Kind::Node, node.clone())
}

fn key(kind: Kind, name: Name) -> String {
    Key::Resource(ResourceId { kind, namespace: None, name }).to_string()
}

fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(MOST_WAIT)
}

/// What calico/node calls a node's own addresses.
const OWN_KIND: &str = "CalicoNodeIP";
/// As calico/node looks (`AUTODETECT_POLL_INTERVAL`).
const PERIOD: Duration = Duration::from_mins(1);
const LULL: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(30);
/// How often a write is tried before the next pass.
const ATTEMPTS: usize = 5;
