//! What routers taught, judged by itself and against the leases, one change at a time.
//!
//! Whether something learned stands depends on itself and on the lease whose subnet it lies in. Several may be behind
//! one router and share its next hop, so objects are counted. A router that is on no link is reached by what else is
//! known, so what is behind it is judged anew when something that covers the router changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use russet_desired::{
    Emit, Flag, Item, Key, NextHopKey, NextHopSpec, Patches, RouteKey, RouteSpec,
};
use russet_net::{Prefix, Router};

use crate::{
    distribution::{
        bgp::{self, Known, Taught},
        store::Claims,
    },
    error::Fault,
    model::LeaseKey,
    transport::Me,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Learned {
    placed: BTreeMap<Prefix, Taught>,
    /// What is behind each router that is on no link of ours, and the other way round.
    behind: BTreeMap<IpAddr, BTreeSet<Prefix>>,
    far: BTreeMap<Prefix, IpAddr>,
    /// How many of those want an object.
    wanted: BTreeMap<Key, usize>,
    faults: BTreeMap<Prefix, Fault>,
    /// Whose fault may be another than before.
    judged: Vec<Prefix>,
}

impl Learned {
    /// Forgets all of it; what was wanted is the caller's to take back.
    pub(super) fn forget(&mut self) {
        self.judged.extend(std::mem::take(&mut self.faults).into_keys());
        self.placed.clear();
        self.behind.clear();
        self.far.clear();
        self.wanted.clear();
    }

    /// Judges these anew; a router of `None` is one that nobody teaches any more.
    pub(super) fn update(
        &mut self,
        me: &Me<'_>,
        claims: &Claims,
        known: Known<'_>,
        learned: impl Iterator<Item = (Prefix, Option<Router>)>,
    ) -> Patches {
        let mut patches = Patches::default();
        for (dst, router) in learned {
            self.judged.push(dst);
            self.faults.remove(&dst);
            let lease = claims.lease_of(dst);
            self.note_router(me, dst, router);
            let verdict = router.map(|router| verdict(me, lease, dst, router, known));
            let taught = match verdict {
                Some(Ok(taught)) => Some(taught),
                Some(Err(fault)) => {
                    self.faults.insert(dst, fault);
                    None
                }
                None => None,
            };
            self.place(me, dst, taught, &mut patches);
        }
        patches
    }

    /// These, and all whose router is reached by one of them, or by what is reached by one of them; sorted.
    pub(super) fn with_those_behind(&self, changed: Vec<Prefix>) -> Vec<Prefix> {
        let mut all: BTreeSet<Prefix> = changed.iter().copied().collect();
        let mut left = changed;
        while let Some(prefix) = left.pop() {
            let routers = self.behind.range(prefix.addr()..=prefix.last());
            let more = routers.flat_map(|(_, behind)| behind);
            left.extend(more.filter(|dst| all.insert(**dst)));
        }
        all.into_iter().collect()
    }

    fn note_router(&mut self, me: &Me<'_>, dst: Prefix, router: Option<Router>) {
        if let Some(before) = self.far.remove(&dst)
            && let Some(behind) = self.behind.get_mut(&before)
        {
            behind.remove(&dst);
            if behind.is_empty() {
                self.behind.remove(&before);
            }
        }
        let is_far = |ip: &IpAddr| !me.footing.underlay.shares_link_with(*ip);
        if let Some(ip) = router.map(|router| router.ip).filter(is_far) {
            self.far.insert(dst, ip);
            self.behind.entry(ip).or_default().insert(dst);
        }
    }

    pub(super) fn take_judged(&mut self) -> Vec<Prefix> {
        std::mem::take(&mut self.judged)
    }

    pub(super) fn fault(&self, dst: Prefix) -> Option<&Fault> {
        self.faults.get(&dst)
    }

    /// One that wants an object.
    pub(super) fn holder_of(&self, me: &Me<'_>, key: &Key) -> Option<Prefix> {
        if let Key::Route(route) = key {
            return self.placed.contains_key(&route.dst).then_some(route.dst);
        }
        let wants = |taught: &Taught| objects(me, taught).iter().any(|item| item.key() == *key);
        self.placed.iter().find(|(_, taught)| wants(taught)).map(|(dst, _)| *dst)
    }

    /// The new wish comes before the old one goes, so that what both want stays.
    fn place(&mut self, me: &Me<'_>, dst: Prefix, taught: Option<Taught>, patches: &mut Patches) {
        let old = match taught {
            Some(taught) => self.placed.insert(dst, taught),
            None => self.placed.remove(&dst),
        };
        for item in taught.iter().flat_map(|taught| objects(me, taught)) {
            *self.wanted.entry(item.key()).or_default() += 1;
            patches.set(item);
        }
        for key in old.iter().flat_map(|taught| objects(me, taught)).map(|item| item.key()) {
            let Some(count) = self.wanted.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(&key);
                patches.unset(key);
            }
        }
    }
}

/// Whether something learned is used: it must be right by itself, and in nobody's lease.
pub(super) fn verdict(
    me: &Me<'_>,
    lease: Option<LeaseKey>,
    dst: Prefix,
    router: Router,
    known: Known<'_>,
) -> Result<Taught, Fault> {
    let taught = bgp::judge(me, dst, router, known)?;
    match lease {
        Some(other) => Err(Fault::Leased { dst, other }),
        None => Ok(taught),
    }
}

/// What reaches a router.
pub(super) fn objects(me: &Me<'_>, taught: &Taught) -> Vec<Item> {
    if let Some(link) = taught.link {
        let via = NextHopKey { via: taught.gateway, link };
        let route = RouteSpec { via: via.into(), inherits: Flag::Off };
        return vec![
            Item::NextHop(via, NextHopSpec { onlink: Flag::Off }),
            Item::Route(RouteKey::main(taught.dst), route),
        ];
    }
    let reach = taught.reach();
    let mut out = Emit::default();
    me.footing.carrier_of(&reach).remote(me, &reach, &mut out);
    // What flannel left it left for its leases; a route that an administrator laid for the same is theirs.
    for item in &mut out.items {
        if let Item::Route(_, spec) = item {
            spec.inherits = Flag::Off;
        }
    }
    out.items
}
