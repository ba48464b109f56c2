//! What routers taught, judged by itself and against the leases, one change at a time.
//!
//! Whether something learned stands depends on itself and on the lease whose subnet it lies in. Several may be behind
//! one router and share its next hop, so objects are counted.

use std::{collections::BTreeMap, net::IpAddr};

use russet_desired::{Emit, Flag, Item, Key, Patches};
use russet_net::{Prefix, Reach};

use crate::{
    distribution::{bgp, store::Claims},
    error::Fault,
    model::LeaseKey,
    transport::Me,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Learned {
    placed: BTreeMap<Prefix, Reach>,
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
        self.wanted.clear();
    }

    /// Judges these anew; a router of `None` is one that nobody teaches any more.
    pub(super) fn update(
        &mut self,
        me: &Me<'_>,
        claims: &Claims,
        learned: impl Iterator<Item = (Prefix, Option<IpAddr>)>,
    ) -> Patches {
        let mut patches = Patches::default();
        for (dst, router) in learned {
            self.judged.push(dst);
            self.faults.remove(&dst);
            let lease = claims.lease_of(dst);
            let verdict = router.map(|router| verdict(me, lease, dst, router));
            let reach = match verdict {
                Some(Ok(reach)) => Some(reach),
                Some(Err(fault)) => {
                    self.faults.insert(dst, fault);
                    None
                }
                None => None,
            };
            self.place(me, dst, reach, &mut patches);
        }
        patches
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
        let wants = |reach: &Reach| objects(me, reach).iter().any(|item| item.key() == *key);
        self.placed.iter().find(|(_, reach)| wants(reach)).map(|(dst, _)| *dst)
    }

    /// The new wish comes before the old one goes, so that what both want stays.
    fn place(&mut self, me: &Me<'_>, dst: Prefix, reach: Option<Reach>, patches: &mut Patches) {
        let old = match reach {
            Some(reach) => self.placed.insert(dst, reach),
            None => self.placed.remove(&dst),
        };
        for item in reach.iter().flat_map(|reach| objects(me, reach)) {
            *self.wanted.entry(item.key()).or_default() += 1;
            patches.set(item);
        }
        for key in old.iter().flat_map(|reach| objects(me, reach)).map(|item| item.key()) {
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
    router: IpAddr,
) -> Result<Reach, Fault> {
    let reach = bgp::judge(me, dst, router)?;
    match lease {
        Some(other) => Err(Fault::Leased { dst, other }),
        None => Ok(reach),
    }
}

/// What reaches a router.
pub(super) fn objects(me: &Me<'_>, reach: &Reach) -> Vec<Item> {
    let mut out = Emit::default();
    me.footing.carrier_of(reach).remote(me, reach, &mut out);
    // What flannel left it left for its leases; a route that an administrator laid for the same is theirs.
    for item in &mut out.items {
        if let Item::Route(_, spec) = item {
            spec.inherits = Flag::Off;
        }
    }
    out.items
}
