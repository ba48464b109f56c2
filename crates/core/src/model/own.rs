//! What this node has of the network's addresses: the subnets of its lease, or its blocks.

use std::{net::IpAddr, sync::Arc};

use russet_net::{Family, Prefix};

use super::{Ends, LeaseKey, Tunnel};

/// What this node has of the network's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    lease: Option<LeaseKey>,
    /// The lease's subnets, IPv4 first, or the node's blocks, in order.
    subnets: Vec<Prefix>,
    /// Addresses out of blocks that are not this node's.
    borrowed: Vec<Prefix>,
    /// What this node's own Node says, where tunnels have addresses of their own.
    ends: Option<Arc<Ends>>,
}

impl Own {
    pub fn of_lease(key: LeaseKey) -> Self {
        Self { lease: Some(key), subnets: key.subnets().collect(), ..Self::default() }
    }

    pub fn of_blocks(mut subnets: Vec<Prefix>, borrowed: Vec<Prefix>, ends: Arc<Ends>) -> Self {
        subnets.sort_unstable();
        Self { lease: None, subnets, borrowed, ends: Some(ends) }
    }

    pub const fn lease(&self) -> Option<LeaseKey> {
        self.lease
    }

    pub fn subnets(&self) -> impl Iterator<Item = Prefix> {
        self.subnets.iter().copied()
    }

    /// Whatever is behind this node: its subnets, and what it has borrowed.
    pub fn all(&self) -> impl Iterator<Item = Prefix> {
        self.subnets.iter().chain(&self.borrowed).copied()
    }

    /// The first of a family; a lease has just one.
    pub fn of(&self, family: Family) -> Option<Prefix> {
        self.subnets().find(|subnet| subnet.family() == family)
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        self.all().any(|subnet| subnet.contains(addr))
    }

    /// The one that a prefix lies in.
    pub fn around(&self, prefix: Prefix) -> Option<Prefix> {
        self.subnets().find(|subnet| subnet.covers(prefix))
    }

    pub fn overlapping(&self, prefix: Prefix) -> Option<Prefix> {
        self.subnets().find(|subnet| subnet.overlaps(prefix))
    }

    /// Whether this node's own Node says where a tunnel ends.
    pub fn announces(&self, tunnel: Tunnel, family: Family) -> bool {
        self.ends.as_ref().is_some_and(|ends| ends.has(tunnel, family))
    }

    /// What a tunnel's device has for an address: one of its own, or the base of the subnet.
    pub fn tunnel_addr(&self, tunnel: Tunnel, family: Family) -> Option<IpAddr> {
        match &self.ends {
            Some(ends) => ends.addr(tunnel, family),
            None => self.of(family).map(Prefix::addr),
        }
    }
}
