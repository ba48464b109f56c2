//! Calico's objects: pools of addresses and what was taken from them, nodes, workloads, BGP, Felix.
//!
//! Each is checked once, at the edge, and then cannot be wrong: a pool has one encapsulation or none, a block
//! counts each of its addresses once, a selector has been read. `api::calico` has their keys and their JSON,
//! and keeps the fields that are not here. Bounds and defaults are Calico's.
//!
//! `pool`, `pools` and `reservation` say what may be handed out, `ipam` and [`IpamBlock`] what was, `pool_use`
//! and `pool_split` what may change while it is, `ipam_audit` whether all of it adds up, `node` and
//! `workload` who is where, `bgp`, `bgp_peer`, `bgp_filter` and `bgp_filter_idle` what routers are told, `felix` and
//! `cluster` how nodes behave, `node_status` what they report; `name` and `community` are their words;
//! `network` says all of it in the words of the other presets.

mod bgp;
mod bgp_filter;
mod bgp_filter_idle;
mod bgp_peer;
mod cluster;
mod community;
mod felix;
mod ipam;
mod ipam_audit;
mod name;
mod network;
mod node;
mod node_status;
mod pool;
mod pool_split;
mod pool_use;
mod pools;
mod reservation;
mod workload;

pub use self::{
    bgp::{BgpConfiguration, BindMode, PrefixAdvertisement, SecretRef, Tag},
    bgp_filter::{
        BgpFilter, BgpFilterRule, LenRange, MatchOperator, Operation, PeerType, PrefixMatch,
        RoutePriority, Verdict,
    },
    bgp_filter_idle::{FilterList, IdleRule, WhyIdle},
    bgp_peer::{Between, BgpPeer, FailureDetection, NextHopMode, Remote, SourceAddress},
    cluster::ClusterInformation,
    community::Community,
    felix::FelixConfiguration,
    ipam::{
        Affinity, AffinityState, BlockAffinity, Claims, HandleId, IpamConfiguration, IpamHandle,
    },
    ipam_audit::{BlockFacts, IpamFacts, IpamProblem, TakenFacts},
    name::{Name, Scope},
    network::{host, network, vtep_mac},
    node::{Node, NodeAddress, NodeBgp, OnSubnet, VxlanEnd, WireguardAddr, hashed_router_id},
    node_status::{
        CalicoNodeStatus, NodeReport, PeerKind, ReportClass, ReportedPeer, ReportedRoute,
        RouteSource, RouteUse, SessionState,
    },
    pool::{Assignment, BlockLen, Encapsulation, IpPool, PoolFault, Use},
    pool_split::{SplitFault, split},
    pool_use::{PoolInUse, PoolUse, check_change, check_removal},
    pools::{NoPool, Overlap, PoolRef, PoolRequest, overlaps},
    reservation::IpReservation,
    workload::{NamedPort, Workload, WorkloadEndpoint},
};
/// A block is changed by its own algebra, so it lives with that.
pub use crate::addressing::blocks::Block as IpamBlock;
