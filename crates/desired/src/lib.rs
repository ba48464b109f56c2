//! What this node should look like, said to the kernel drivers.
//!
//! `core` computes it, `kernel` makes it so. It knows links by name and never by index, and it knows
//! nothing of pods, leases, Kubernetes or Flannel. It travels as patches: key to wanted value, or to
//! none; the newest wins. `kind` has the kinds of kernel object, `nft` the two-dimensional one, `patch`
//! how wishes travel and what became of them.

mod kind;
mod nft;
mod patch;

pub use self::{
    kind::{
        Address, AddressKey, AddressScope, AddressSpec, Engine, EngineEnd, EnginePeer,
        EnginePeerKey, EnginePeerSpec, EngineSpec, EngineWire, Fdb, FdbKey, FdbSpec, Flag,
        IpipSpec, Kind, Link, LinkKind, LinkSpec, Neighbour, NeighbourKey, NeighbourSpec, NextHop,
        NextHopKey, NextHopSpec, Offload, OffloadSpec, Port, PortSpec, ROUTE_METRIC_V4,
        ROUTE_METRIC_V6, Route, RouteKey, RouteSpec, RouteVia, Sysctl, SysctlKey, SysctlSpec,
        TABLE_MAIN, VxlanSpec, WireguardDevice, WireguardDeviceSpec, WireguardPeer,
        WireguardPeerKey, WireguardPeerSpec, WireguardSpec,
    },
    nft::{
        BaseChain, Chain, ChainKey, ChainSpec, ChainType, Element, ElementKey, ElementSpec, Field,
        ForeignAccept, ForeignAcceptSpec, Hook, Leftover, LeftoverKey, LeftoverSpec, Match, Rule,
        Set, SetKey, SetKind, SetSpec, Verdict,
    },
    patch::{Emit, Item, Key, Patch, Patches, Table, Tables},
};
