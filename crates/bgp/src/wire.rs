//! BGP's messages and what is in them: octets to checked values and back.
//!
//! ```text
//!   octets of a stream ──frame──▶ one message ──▶ Open, Notification, Refresh: owned values
//!                                             └─▶ Update: a view over the octets; its routes are iterated
//!
//!   path attributes ──canonical──▶ octets that are equal when the attributes are ──▶ Attributes: owned values
//! ```
//!
//! An UPDATE is looked at once, in full, when its view is made ([`Update::parse`]); from then on its parts
//! cannot fail. The outcome is that of RFC 7606: the message is good, some attributes are left out, its routes
//! count as withdrawn, or (only when it cannot be parsed) the session must be reset.
//!
//! *Canonical* attributes are ordered by type, have four-octet AS numbers, the flags that their type demands,
//! an extended length only when they need it, and neither next hop nor routes: two paths with equal canonical
//! octets differ in no attribute. [`UpdateWriter`] takes them back, with a next hop, into as few messages as
//! the routes fit in.

mod as_path;
mod attributes;
mod canonical;
mod capability;
mod community;
mod encode;
mod evpn;
mod family;
mod fault;
mod frame;
mod mrt;
mod next_hop;
mod nlri;
mod notification;
mod number;
mod open;
mod pmsi;
mod reader;
mod refresh;
mod terms;
mod update;

pub use self::{
    as_path::{AsPath, Segment, SegmentKind},
    attributes::{Aggregator, Attributes, Origin, OtherAttribute, PartialTypes},
    capability::{
        AddPathMode, Capabilities, ExtendedNextHop, GracefulRestart, RestartFamily, RestartFlags,
    },
    community::{Community, ExtCommunity, LargeCommunity, Sticky},
    encode::{AttributesTooLong, UpdateWriter},
    evpn::{Esi, EvpnKey, Label, RouteDistinguisher},
    family::{AfiSafi, Family, FamilySet},
    fault::{AttributeFault, Outcome, Reset},
    frame::{Frame, HEADER_LEN, MessageKind, write_keepalive},
    mrt::{MRT_OURSELVES, MrtPath, MrtPeer, MrtWriter},
    next_hop::NextHop,
    nlri::{Nlri, NlriIter, NlriKey, Nlris, Tail, V4Prefix, V6Prefix},
    notification::{Notification, Reason},
    number::{ClusterId, HoldTime, PathId, RouterId},
    open::Open,
    pmsi::{PmsiTunnel, TunnelKind},
    refresh::{Refresh, RefreshKind},
    terms::{AsWidth, MessageLimit, Peering, Terms},
    update::{Announced, Update},
};
