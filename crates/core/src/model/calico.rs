//! Calico's objects: pools of addresses and what was taken from them, nodes, workloads, BGP, Felix.
//!
//! Each is checked once, at the edge, and then cannot be wrong: a pool has one encapsulation or none, a block
//! counts each of its addresses once, a selector has been read. `api::calico` has their keys and their JSON,
//! and keeps the fields that are not here. Bounds and defaults are Calico's.
//!
//! `pool`, `pools` and `reservation` say what may be handed out, `ipam` and [`IpamBlock`] what was, `node` and
//! `workload` who is where, `bgp`, `bgp_peer` and `bgp_filter` what routers are told, `felix` and `cluster`
//! how nodes behave, `node_status` what they report; `name` and `community` are their words.

mod bgp;
mod bgp_filter;
mod bgp_peer;
mod cluster;
mod community;
mod felix;
mod ipam;
mod name;
mod node;
mod node_status;
mod pool;
mod pools;
mod reservation;
mod workload;

pub use self::{
    bgp::{BgpConfiguration, BindMode, PrefixAdvertisement, SecretRef, Tag},
    bgp_filter::{
        BgpFilter, BgpFilterRule, LenRange, MatchOperator, Operation, PeerType, PrefixMatch,
        RoutePriority, Verdict,
    },
    bgp_peer::{Between, BgpPeer, NextHopMode, Remote, SourceAddress},
    cluster::ClusterInformation,
    community::Community,
    felix::{FelixConfiguration, RouteProtocol},
    ipam::{
        Affinity, AffinityState, BlockAffinity, Claims, HandleId, IpamConfiguration, IpamHandle,
    },
    name::{Name, Scope},
    node::{Node, NodeAddress, NodeBgp, OnSubnet, VxlanEnd, WireguardAddr},
    node_status::{
        CalicoNodeStatus, NodeReport, PeerKind, ReportClass, ReportedPeer, ReportedRoute,
        RouteSource, RouteUse, SessionState,
    },
    pool::{Assignment, BlockLen, Encapsulation, IpPool, PoolFault, Use},
    pools::{NoPool, Overlap, PoolRef, PoolRequest, overlaps},
    reservation::IpReservation,
    workload::{NamedPort, WorkloadEndpoint},
};
/// A block is changed by its own algebra, so it lives with that.
pub use crate::addressing::blocks::Block as IpamBlock;
