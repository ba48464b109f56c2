//! What comes in at the front door: facts by name, and that they changed.
//!
//! Every input is a fact with a stable name; a removal or a parse error needs no value. What the node
//! observes of itself comes in by the same door as what the store declares.

use std::fmt;

use russet_net::{Prefix, Router};

use crate::{
    error::Fault,
    model::{Lease, LeaseKey, NetworkConfig, NodeFact, NodeName, PodFact, PodId},
};

/// Where facts come from. Each tells its whole picture, then every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The configuration and the leases.
    Store,
    /// What this node observes of itself.
    Kernel,
    /// The records of this node's own pods.
    Pods,
    /// What routing protocols teach.
    Routes,
}

impl Source {
    pub const ALL: [Self; 4] = [Self::Store, Self::Kernel, Self::Pods, Self::Routes];
}

/// The stable name of a fact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FactId {
    Config,
    Node,
    /// The lease that this node holds. It comes from [`LeaseMachine`](crate::lease::LeaseMachine)
    /// (`Acquired`) or the checkpoint, and not from the store's picture: a lease that somebody deletes
    /// from the store is still ours to forward for until it is lost.
    Own,
    /// Where a routing protocol says that a prefix is.
    Learned(Prefix),
    /// A lease in the store, our own included; or a block, or an address out of another node's block.
    Lease(LeaseKey),
    /// A node of the cluster, where leases name one instead of saying how it is reached. This node too.
    Host(NodeName),
    /// One of this node's own pods.
    Pod(PodId),
}

impl FactId {
    /// Whose picture the fact is part of; [`FactId::Own`] is part of none and only goes when it is removed.
    pub fn source(&self) -> Option<Source> {
        match self {
            Self::Config | Self::Lease(_) | Self::Host(_) => Some(Source::Store),
            Self::Node => Some(Source::Kernel),
            Self::Pod(_) => Some(Source::Pods),
            Self::Learned(_) => Some(Source::Routes),
            Self::Own => None,
        }
    }
}

impl fmt::Display for FactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("configuration"),
            Self::Node => f.write_str("node"),
            Self::Own => f.write_str("own lease"),
            Self::Learned(dst) => write!(f, "learned route {dst}"),
            Self::Lease(key) => write!(f, "lease {key}"),
            Self::Host(name) => write!(f, "node {name}"),
            Self::Pod(id) => write!(f, "pod {id}"),
        }
    }
}

/// What a fact says. Of what names its holder there are four for each node, so what is larger stands beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    Config(NetworkConfig),
    Node(Box<NodeFact>),
    Own(LeaseKey),
    /// The router that it is behind.
    Learned(Router),
    Lease(Box<Lease>),
    /// The node that has it.
    Held(NodeName),
    /// How a node is reached.
    Host(Box<Lease>),
    Pod(Box<PodFact>),
}

/// One thing that happened to the facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The fact is now this. `rev` is a lease's *create* revision (a renewal keeps it), so that of two
    /// claims the earlier can be told; for other facts it is informative. The changes of one id
    /// come in order. A fact whose kind does not fit its id is ignored.
    Upsert { id: FactId, fact: Fact, rev: u64 },
    /// The fact is there and of no use. A peer: as if absent. Configuration: the last good one stays.
    Bad { id: FactId, fault: Fault },
    /// The fact is gone.
    Remove { id: FactId },
    /// A new whole picture begins: what is not repeated before [`Change::InSync`] is gone.
    Resync(Source),
    /// The whole picture has been told.
    InSync(Source),
}
