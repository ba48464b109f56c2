//! Addresses and foreign routes as the kernel tells of them.

use std::net::IpAddr;

use russet_desired::TABLE_MAIN;
use russet_net::Prefix;

use super::{
    AddressView, LinkView, RouteView, Scope,
    routes::{Paths, RouteNews, Way, What, Whose},
};
use crate::{
    link::{Links, ObservedLink},
    netlink::{
        Attrs, Message, flags,
        rt::{self, ADDR_HEADER_LEN, ROUTE_HEADER_LEN},
    },
    route::PROTOCOL,
};

pub(super) fn link(link: &ObservedLink) -> LinkView {
    LinkView {
        name: link.name,
        index: link.index,
        mtu: link.mtu,
        mac: link.mac,
        kind: link.kind.name().to_owned(),
        up: link.up,
        carrier: link.carrier,
        loopback: link.loopback,
        group: link.group,
        alias: link.alias.as_deref().map(str::to_owned),
        master: link.master,
        addresses: Vec::new(),
        router_advertised: false.into(),
    }
}

/// Reads an address and the index of its link.
pub(super) fn address(message: &Message<'_>) -> Option<(u32, AddressView)> {
    let (mut local, mut address, mut flags) = (None, None, message.u8(2).into());
    for attr in message.attrs(ADDR_HEADER_LEN) {
        match attr.kind {
            rt::IFA_LOCAL => local = attr.ip(),
            rt::IFA_ADDRESS => address = attr.ip(),
            rt::IFA_FLAGS => flags = attr.u32(),
            _ => {}
        }
    }
    let scope = match message.u8(3) {
        rt::RT_SCOPE_UNIVERSE => Scope::Global,
        rt::RT_SCOPE_LINK => Scope::Link,
        _ => Scope::Host,
    };
    let view = AddressView {
        addr: local.or(address)?,
        len: message.u8(1),
        scope,
        lasting: (flags & rt::IFA_F_PERMANENT != 0).into(),
        second_choice: (flags & SECOND_CHOICE != 0).into(),
    };
    Some((message.u32(4), view))
}

/// Reads a route of the main table; `None` for one of another table, or an exception.
pub(super) fn route(links: &Links, message: &Message<'_>) -> Option<RouteNews> {
    let family = rt::family_of(message.u8(0))?;
    let protocol = message.u8(5);
    if message.u32(8) & rt::RTM_F_CLONED != 0 {
        return None;
    }
    let (mut table, mut metric, mut paths) = (u32::from(message.u8(4)), 0, Paths::One);
    let (mut dst, mut link, mut via): (_, _, Option<IpAddr>) = (family.unspecified(), None, None);
    for attr in message.attrs(ROUTE_HEADER_LEN) {
        match attr.kind {
            rt::RTA_TABLE => table = attr.u32(),
            rt::RTA_DST => dst = attr.ip()?,
            rt::RTA_PRIORITY => metric = attr.u32(),
            rt::RTA_OIF => link = links.name(attr.u32()),
            rt::RTA_GATEWAY => via = attr.ip(),
            rt::RTA_MULTIPATH => {
                paths = Paths::Several;
                if link.is_none() {
                    (link, via) = first_path(links, attr.value);
                }
            }
            _ => {}
        }
    }
    if table != TABLE_MAIN {
        return None;
    }
    let dst = Prefix::new(dst, message.u8(1)).ok()?;
    let route = RouteView { dst, metric, protocol, link, via };
    let whose = match protocol {
        PROTOCOL | rt::RTPROT_KERNEL => Whose::Nobodys,
        _ => Whose::Foreign,
    };
    Some(RouteNews { route, whose, what: what(message), paths })
}

fn what(message: &Message<'_>) -> What {
    match message.kind {
        rt::RTM_DELROUTE => What::Went,
        _ if message.flags & flags::REPLACE != 0 => What::Replaced,
        _ => What::Came,
    }
}

/// The first of several paths (`struct rtnexthop`).
fn first_path(links: &Links, paths: &[u8]) -> Way {
    let index = paths.get(4..8).and_then(|octets| octets.first_chunk());
    let link = index.and_then(|octets| links.name(u32::from_ne_bytes(*octets)));
    let len = paths.first_chunk().map_or(0, |octets| u16::from_ne_bytes(*octets));
    let attrs = paths.get(8..usize::from(len)).unwrap_or_default();
    (link, Attrs::new(attrs).find(rt::RTA_GATEWAY).and_then(|attr| attr.ip()))
}

/// `IFA_F_SECONDARY`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED` and `IFA_F_TENTATIVE`.
const SECOND_CHOICE: u32 = 0x01 | 0x08 | 0x20 | 0x40;
