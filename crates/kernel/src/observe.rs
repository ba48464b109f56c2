//! What a node is like: its links, addresses, default routes, and whose routes are there.
//!
//! Plain data, told anew whenever it has changed. A thread of its own listens to the kernel and waits for a
//! moment of quiet; our own routes and those of the kernel are passed over, so that 10,000 remote nodes cost
//! it nothing. Of others' routes there may be tens of thousands too, which change all the time (a full BGP table): `routes`
//! keeps them event by event, and `pace` has them told ever less often while that goes on.

mod agenda;
mod pace;
mod parse;
mod routes;
mod watch;

use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use russet_desired::Flag;
use russet_net::{Family, IfName, Mac, Prefix};

pub use self::watch::{Observer, observe};

/// Everything that is observed of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Sorted by index.
    pub links: Vec<LinkView>,
    /// Routes of the main table that are neither ours nor the kernel's own, sorted.
    pub routes: Arc<[RouteView]>,
}

/// One link with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    pub name: IfName,
    pub index: u32,
    pub mtu: u32,
    pub mac: Option<Mac>,
    /// As `ip -d link` calls it: `vxlan`, `bridge`, `device`.
    pub kind: String,
    pub up: Flag,
    pub carrier: Flag,
    pub loopback: Flag,
    pub group: u32,
    pub alias: Option<String>,
    pub master: Option<u32>,
    pub addresses: Vec<AddressView>,
    /// Whether its addresses or its default route come from router advertisements: forwarding would end
    /// that unless `accept_ra` is 2.
    pub router_advertised: Flag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressView {
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
    pub scope: Scope,
    /// It has no end (`IFA_F_PERMANENT`), so nobody leased or advertised it.
    pub lasting: Flag,
    /// Whether it is not used to talk to others yet, or not any more (tentative, deprecated, secondary).
    pub second_choice: Flag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Global,
    Link,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteView {
    pub dst: Prefix,
    pub metric: u32,
    /// `RTPROT_*`.
    pub protocol: u8,
    pub link: Option<IfName>,
    pub via: Option<IpAddr>,
}

impl NodeView {
    pub fn link(&self, name: IfName) -> Option<&LinkView> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The link of the family's default route, the one with the lowest metric.
    pub fn default_link(&self, family: Family) -> Option<&LinkView> {
        let defaults = self.routes.iter().filter(|route| is_default(route, family));
        let best =
            defaults.filter(|route| route.link.is_some()).min_by_key(|route| route.metric)?;
        self.link(best.link?)
    }

    /// The link that leads to an address, by the longest prefix and the lowest metric.
    pub fn link_to(&self, addr: IpAddr) -> Option<&LinkView> {
        let connected = self
            .links
            .iter()
            .filter(|link| link.up.is_on())
            .flat_map(|link| link.connected().map(move |prefix| (prefix, 0, link.name)));
        let routes = self.routes.iter().filter_map(|r| Some((r.dst, r.metric, r.link?)));
        let leads = connected.chain(routes).filter(|(prefix, ..)| prefix.contains(addr));
        let best = leads.min_by_key(|(prefix, metric, _)| (Reverse(prefix.len()), *metric))?;
        self.link(best.2)
    }
}

impl LinkView {
    /// The prefixes whose addresses are on this link, by its own addresses.
    pub fn connected(&self) -> impl Iterator<Item = Prefix> {
        let global = self.addresses.iter().filter(|addr| addr.scope == Scope::Global);
        global.filter_map(|addr| Prefix::around(addr.addr, addr.len).ok())
    }

    /// The address that the node is best reached at: global, and not about to go.
    pub fn best_address(&self, family: Family) -> Option<IpAddr> {
        let of_family = self
            .addresses
            .iter()
            .filter(|a| Family::of(a.addr) == family && a.scope == Scope::Global);
        of_family.min_by_key(|a| (a.second_choice.is_on(), !a.lasting.is_on())).map(|a| a.addr)
    }
}

fn is_default(route: &RouteView, family: Family) -> bool {
    route.dst.family() == family && route.dst.len() == 0
}
