//! What a routing protocol teaches: a prefix, and the router that it is behind.
//!
//! [`judge`] looks at one by itself. Against the store's leases the rule is one line: where a lease says whose a
//! subnet is, no router is asked. So a peer that announces what it should not can take traffic from what has no
//! lease and is not on the underlay's link; the peer's import policy is the guard before that.
//!
//! A router need not be on a link of this node: then it is reached by the longest of what else is known to cover it, what
//! was learned and what others have laid in the kernel, and so on until a gateway is on the link ([`Taught`]).

use std::net::IpAddr;

use russet_net::{At, Dst, Family, Form, IfName, Prefix, Reach, Router};

use crate::{
    error::Fault,
    model::{Pool, TransportConfig},
    transport::Me,
};

/// What this node announces: its own subnets.
///
/// One in a pool that routers are not told of is left out.
pub fn announced(me: &Me<'_>) -> impl Iterator<Item = Reach> {
    let is_told = |subnet: &Prefix| {
        let pool = me.footing.config.pool_of(*subnet);
        pool.is_none_or(|pool| pool.habits.bgp_export.is_on())
    };
    let here = |subnet| Reach { dst: Dst::Prefix(subnet), at: At::Here };
    me.own.all().filter(is_told).map(here)
}

/// What is learned of a prefix, exactly.
pub type Known<'a> = &'a dyn Fn(Prefix) -> Option<Router>;

/// Something learned, and the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taught {
    pub dst: Prefix,
    /// What the protocol says that it is behind.
    pub next_hop: IpAddr,
    /// Who is handed the packet.
    pub gateway: IpAddr,
    /// The gateway's link, where its address holds there only; else the underlay's.
    pub link: Option<IfName>,
}

impl Taught {
    /// Chooses the carrier: packets go bare, by the gateway.
    ///
    /// *The place for another*: a block of a pool that tunnels goes to `next_hop` instead, in the form that the pool's
    /// carrier takes, and no gateway matters.
    pub const fn reach(&self) -> Reach {
        Reach { dst: Dst::Prefix(self.dst), at: At::Node { ip: self.gateway, form: Form::Plain } }
    }
}

/// Reads what was learned, on its own merits and with what leads to its router.
///
/// # Errors
///
/// The first thing in it that cannot be.
pub fn judge(me: &Me<'_>, dst: Prefix, router: Router, known: Known<'_>) -> Result<Taught, Fault> {
    if let Some(other) = me.own.around(dst) {
        return Err(Fault::OverlapsOurs { subnet: dst, other });
    }
    let transport = me.footing.config.pool_of(dst).map(|it| me.footing.config.transport_of(it));
    if matches!(transport, Some(TransportConfig::Wireguard(_))) {
        return Err(Fault::NotSealed);
    }
    is_a_network(me, dst).map_err(|why| Fault::NotTaught { dst, why })?;
    is_a_router(me, dst.family(), router).map_err(|why| Fault::NoRouter { ip: router.ip, why })?;
    let gateway = gateway(me, dst, router, known);
    let gateway = gateway.ok_or(Fault::NoRouter { ip: router.ip, why: UNREACHABLE })?;
    Ok(Taught { dst, next_hop: router.ip, gateway: gateway.ip, link: gateway.link })
}

/// Who leads to a router: itself when it is on a link of ours, else who leads to whoever leads to it. No prefix is asked
/// twice, so nothing goes in circles.
fn gateway(me: &Me<'_>, dst: Prefix, router: Router, known: Known<'_>) -> Option<Router> {
    let mut passed = vec![dst];
    let mut at = router;
    for _ in 0..MOST_STEPS {
        is_a_router(me, dst.family(), at).ok()?;
        if at.link.is_some() || me.footing.underlay.shares_link_with(at.ip) {
            return Some(at);
        }
        at = longest(me, at.ip, &mut passed, known)?;
    }
    None
}

/// What the longest prefix that covers an address is behind; what was learned goes before what others laid.
fn longest(me: &Me<'_>, ip: IpAddr, passed: &mut Vec<Prefix>, known: Known<'_>) -> Option<Router> {
    let underlay = &me.footing.underlay;
    // The kernel knows only gateways on links; one that is told otherwise leads nowhere.
    let laid = underlay.gateways.iter().filter(|route| underlay.shares_link_with(route.via));
    let laid = |dst| laid.clone().find(|route| route.dst == dst).map(|route| route.via.into());
    for len in (0..=Family::of(ip).bits()).rev() {
        let prefix = Prefix::around(ip, len).ok()?;
        if passed.contains(&prefix) {
            continue;
        }
        let learned = known(prefix).filter(|_| is_a_network(me, prefix).is_ok());
        if let Some(router) = learned.or_else(|| laid(prefix)) {
            passed.push(prefix);
            return Some(router);
        }
    }
    None
}

/// A default route is one: it is for the peer's import policy to let it pass or not.
fn is_a_network(me: &Me<'_>, dst: Prefix) -> Result<(), &'static str> {
    let special = match dst.addr() {
        IpAddr::V4(base) => {
            base.is_loopback()
                || base.is_link_local()
                || base.octets()[0] >= 224
                || (base.octets()[0] == 0 && dst.len() > 0)
        }
        IpAddr::V6(base) => {
            base.is_loopback() || base.is_unicast_link_local() || base.is_multicast()
        }
    };
    if special {
        return Err("is no network of unicast addresses");
    }
    // There the other nodes are, and whatever carries packets to them.
    if me.footing.underlay.onlink.iter().any(|link| link.covers(dst)) {
        return Err("lies on a link of this node, where nobody is behind a router");
    }
    Ok(())
}

fn is_a_router(me: &Me<'_>, family: Family, router: Router) -> Result<(), &'static str> {
    let ip = router.ip;
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || broadcast {
        return Err("is no unicast address");
    }
    if Family::of(ip) != family {
        return Err("is of another family than the prefix");
    }
    let is_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    match router.link {
        None if is_local => {
            return Err("is the same on every link; a global address is wanted");
        }
        Some(link) if me.settings.is_ours(link) => return Err("is on a link of the pods"),
        _ => {}
    }
    if me.footing.underlay.addr(family) == Some(ip) {
        return Err("is this node's own");
    }
    if me.footing.config.pools().map(Pool::network).any(|network| network.contains(ip)) {
        return Err("lies in the network of the pods");
    }
    Ok(())
}

const UNREACHABLE: &str = "is not on the underlay's link, and no route that is known leads to it over that link; have the \
    peer announce itself as the next hop";
/// Routers from one to the next.
const MOST_STEPS: usize = 8;
