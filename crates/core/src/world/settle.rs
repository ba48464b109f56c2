//! What is in force on this node: the present configuration where it holds here, else what did before.

use std::sync::Arc;

use russet_net::Prefix;

use super::{World, held::Holding};
use crate::{
    change::FactId,
    error::Fault,
    model::{
        Addressing, Attachment, Backend, Ends, ForeignRoute, Lease, LeaseKey, NetworkConfig,
        NodeFact, NodeName, Own, PodFact, PodId, Pool, UnderlayFact,
    },
    transport::Footing,
};

impl World {
    /// Decides anew what is in force: the present configuration on the present node; else the one that
    /// was in force, on the present node; else all as it was. Tells whether what this node has is other than before.
    pub(super) fn settle(&mut self) -> bool {
        self.held.clear();
        self.settle_footing();
        let own = self.own_in_force.clone();
        self.settle_own();
        self.settle_pods();
        self.own_in_force != own
    }

    /// A route that is in the way may yet turn out to lead to a lease's subnet.
    pub(super) fn waits_for_leases(&self) -> bool {
        matches!(self.held.get(&FactId::Config), Some(Fault::NetworkHeld { .. }))
    }

    /// A lease that what is in force cannot serve does not replace one that it can.
    fn settle_own(&mut self) {
        if self.settings.addressing == Addressing::Blocks {
            self.settle_blocks();
            return;
        }
        let Some(own) = self.own() else {
            self.own_in_force = None;
            return;
        };
        let Some(footing) = &self.in_force else { return };
        match lies_within(own, &footing.config) {
            Ok(()) => {
                self.own_in_force = Some(Own::of_lease(own));
                self.first_own.get_or_insert(own);
            }
            Err(fault) => _ = self.held.insert(FactId::Own, fault),
        }
    }

    /// What is held in this node's name. Tells whether it is other than before.
    pub(super) fn settle_blocks(&mut self) -> bool {
        let Ok(name) = self.settings.node.parse::<NodeName>() else { return false };
        let keys = self.held_by.get(&name).into_iter().flatten();
        // An address out of another's block has a route of its own, and is no subnet of ours.
        let (lone, blocks) = keys.flat_map(|key| key.subnets()).partition(|it| it.is_host());
        let ends = match self.host(&name) {
            Some((Lease { backend: Backend::Ends(ends), .. }, _)) => Arc::clone(ends),
            _ => Arc::new(Ends::default()),
        };
        let own = Some(Own::of_blocks(blocks, lone, ends));
        let moved = self.own_in_force != own;
        self.own_in_force = own;
        moved
    }

    /// Pods that were given an address before the node's lease was lost to another.
    fn settle_pods(&mut self) {
        let Some(own) = self.own_in_force.as_ref().filter(|own| own.lease().is_some()) else {
            return;
        };
        let outside = |(id, pod): (&PodId, &PodFact)| {
            let addr = *pod.addresses.iter().find(|addr| !own.contains(**addr))?;
            Some((FactId::Pod(id.clone()), Fault::PodOutside { addr }))
        };
        let outside: Vec<_> = self.pods().filter_map(outside).collect();
        self.held.extend(outside);
    }

    fn settle_footing(&mut self) {
        let (Some(config), Some(node)) = (self.config(), self.node()) else { return };
        let fault = match self.footing(config.clone(), node) {
            Ok(footing) => {
                self.in_force = Some(footing.after(self.in_force.as_ref()));
                return;
            }
            Err(fault) => fault,
        };
        if let Some(footing) = self.without_bad_pools(&config, node) {
            self.in_force = Some(footing.after(self.in_force.as_ref()));
            self.held.insert(FactId::Config, fault);
            return;
        }
        match self.in_force.as_ref().map(|old| self.still(old.config.clone(), &node.underlay)) {
            None => _ = self.held.insert(FactId::Config, fault),
            Some(Ok(mut footing)) => {
                if footing.config != config {
                    self.make_way(&mut footing, &fault);
                    self.held.insert(FactId::Config, fault);
                }
                self.in_force = Some(footing.after(self.in_force.as_ref()));
            }
            Some(Err(fault)) => _ = self.held.insert(FactId::Node, fault),
        }
    }

    /// Pods that come while others are too large for what is to come fit into it, so that it comes when the last of
    /// those has gone. Behind a bridge all are as large as it is.
    fn make_way(&self, footing: &mut Footing, fault: &Fault) {
        if let (Fault::PodsTooLarge { left, .. }, Attachment::Routed) =
            (fault, self.settings.attachment)
        {
            footing.pod_mtu = footing.pod_mtu.min(*left);
        }
    }

    /// One pool that does not hold here does not stop the others; but what of it was in force stays so, with all of them.
    fn without_bad_pools(&self, config: &NetworkConfig, node: &NodeFact) -> Option<Footing> {
        if self.settings.addressing != Addressing::Blocks {
            return None;
        }
        let was_in_force = |pool: Pool| {
            let old = self.in_force.as_ref().map(|footing| &footing.config);
            old.is_some_and(|old| old.pools().any(|other| other.network() == pool.network()))
        };
        let is_good = |pool: Pool| self.footing(config.only(|other| other == pool), node).is_ok();
        let rest = config.only(|pool| was_in_force(pool) || is_good(pool));
        let (left, all) = (rest.pools().count(), config.pools().count());
        (left > 0 && left < all).then(|| self.footing(rest, node).ok()).flatten()
    }

    /// A configuration on this node, if it may come into force.
    fn footing(&self, config: NetworkConfig, node: &NodeFact) -> Result<Footing, Fault> {
        let footing = self.still(config, &node.underlay)?;
        let config = &footing.config;
        if self.in_force.as_ref().is_some_and(|old| old.config == *config) {
            // What is in force has been let in before: a stranger's route that comes later is a matter
            // between that route and ours, not a reason to stop.
            return Ok(footing);
        }
        self.lies_free(config, node)?;
        self.leaves_pods_alone(&footing)?;
        // Last, so that this is the fault only when a lease elsewhere is all that is wanting.
        self.holds_own(config)?;
        Ok(footing)
    }

    fn still(&self, config: NetworkConfig, underlay: &UnderlayFact) -> Result<Footing, Fault> {
        Footing::new(&self.settings, config, underlay)
    }

    /// While our lease lies elsewhere, the machine is on its way to another; until then all stays.
    fn holds_own(&self, config: &NetworkConfig) -> Result<(), Fault> {
        self.own().map_or(Ok(()), |own| lies_within(own, config))
    }

    fn lies_free(&self, config: &NetworkConfig, node: &NodeFact) -> Result<(), Fault> {
        for pool in config.pools() {
            let network = pool.network();
            let underlay = node.underlay.addr(network.family());
            if let Some(addr) = underlay.filter(|addr| network.contains(*addr)) {
                return Err(Fault::NetworkHoldsNode { network, addr });
            }
            // Where others carry the packets, routes within the network are theirs to lay.
            let others = config.transport_of(pool).is_carried_by_others();
            let laid =
                |route: &ForeignRoute| others && route.dst != network && network.covers(route.dst);
            let held = |route: &&ForeignRoute| !laid(route) && self.is_in_the_way(route, network);
            let held = node.foreign.iter().find(held);
            if let Some(ForeignRoute { dst: route, .. }) = held {
                return Err(Fault::NetworkHeld { network, route: *route });
            }
        }
        Ok(())
    }

    /// Default routes overlap everything. A route through a device of ours, or to exactly the subnet of a
    /// lease, is what a predecessor of ours leaves; the driver adopts it or says who holds it.
    fn is_in_the_way(&self, route: &ForeignRoute, network: Prefix) -> bool {
        route.dst.len() > 0
            && route.dst.overlaps(network)
            && !route.link.is_some_and(|link| self.settings.is_ours(link))
            && !self.is_leased(route.dst)
    }

    fn is_leased(&self, subnet: Prefix) -> bool {
        let is_it = |(key, _): (LeaseKey, Holding)| key.of(subnet.family()) == Some(subnet);
        match LeaseKey::new(Some(subnet), None) {
            // Keys sort by their IPv4 subnet first, and one without a second family is the first of them.
            Some(first) => self.leases_from(FactId::Lease(first)).next().is_some_and(is_it),
            None => self.leases().any(is_it),
        }
    }

    /// Pods that run keep their MTU, so a change must not make it too large for the new path. At a start
    /// nothing better is in force, and the pods are not to blame.
    fn leaves_pods_alone(&self, footing: &Footing) -> Result<(), Fault> {
        let left = footing.pod_mtu;
        let large: Vec<_> = self.pods().map(|(_, pod)| pod.mtu).filter(|mtu| *mtu > left).collect();
        match large.iter().max() {
            Some(&have) if self.in_force.is_some() => {
                Err(Fault::PodsTooLarge { pods: large.len(), have, left })
            }
            _ => Ok(()),
        }
    }
}

fn lies_within(own: LeaseKey, config: &NetworkConfig) -> Result<(), Fault> {
    for pool in config.pools() {
        let (family, network) = (pool.family(), pool.network());
        let subnet = own.of(family).ok_or(Fault::FamilyMissing { family })?;
        if !network.covers(subnet) {
            return Err(Fault::OwnOutside { subnet, network });
        }
    }
    Ok(())
}
