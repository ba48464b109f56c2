//! What a routing protocol teaches: a prefix, and the router that it is behind.
//!
//! [`judge`] looks at one by itself. Against the store's leases the rule is one line: where a lease says whose a
//! subnet is, no router is asked. So a peer that announces what it should not can take traffic from what has no
//! lease and is not on the underlay's link; the peer's import policy is the guard before that.

use std::net::IpAddr;

use russet_net::{At, Dst, Family, Form, Prefix, Reach};

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

/// Reads what was learned, on its own merits.
///
/// # Errors
///
/// The first thing in it that cannot be.
pub fn judge(me: &Me<'_>, dst: Prefix, router: IpAddr) -> Result<Reach, Fault> {
    if let Some(other) = me.own.around(dst) {
        return Err(Fault::OverlapsOurs { subnet: dst, other });
    }
    let transport = me.footing.config.pool_of(dst).map(|it| me.footing.config.transport_of(it));
    if matches!(transport, Some(TransportConfig::Wireguard(_))) {
        return Err(Fault::NotSealed);
    }
    is_a_network(me, dst).map_err(|why| Fault::NotTaught { dst, why })?;
    is_a_router(me, dst, router).map_err(|why| Fault::NoRouter { ip: router, why })?;
    Ok(Reach { dst: Dst::Prefix(dst), at: At::Node { ip: router, form: Form::Plain } })
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

fn is_a_router(me: &Me<'_>, dst: Prefix, router: IpAddr) -> Result<(), &'static str> {
    let broadcast = matches!(router, IpAddr::V4(v4) if v4.is_broadcast());
    if router.is_unspecified() || router.is_loopback() || router.is_multicast() || broadcast {
        return Err("is no unicast address");
    }
    if Family::of(router) != dst.family() {
        return Err("is of another family than the prefix");
    }
    if matches!(router, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return Err("is the same on every link; a global address is wanted");
    }
    if me.footing.underlay.addr(dst.family()) == Some(router) {
        return Err("is this node's own");
    }
    if me.footing.config.pools().map(Pool::network).any(|network| network.contains(router)) {
        return Err("lies in the network of the pods");
    }
    if !me.footing.underlay.shares_link_with(router) {
        return Err("is not on the underlay's link; have the peer announce itself as the next hop");
    }
    Ok(())
}
