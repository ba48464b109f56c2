//! Routes of ours, each through a next-hop object, onto a link, or into nowhere.
//!
//! Ours is what bears our protocol. A route is made exclusively: where somebody else has one at its key,
//! theirs stays, ours is refused, and the error names the holder. Only what was read back as ours is
//! replaced, and what the system before us left ([`ParsedRoute::is_left_by_flannel`]). With a next hop its routes go too, without a word in IPv4, so whoever notices that a next hop
//! went reads the routes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use russet_desired::{NextHopKey, Route, RouteKey, RouteSpec, RouteVia, Table};
use russet_net::{Family, Prefix};

use crate::{
    Host, KernelError,
    batch::{Tolerate, send_each},
    link::{Links, ObservedLink},
    netlink::{
        Batch, Message, NetlinkError, Socket, Writer, flags,
        rt::{self, ROUTE_HEADER_LEN},
    },
    reconcile::{Change, Driver, Events, Refused, Seen},
};

/// `RTPROT_RUSSET`: the mark of our routes and next hops.
pub const PROTOCOL: u8 = 82;

/// Keeps routes.
#[derive(Debug, Default)]
pub struct RouteDriver {
    /// The keys of routes that were found as flannel leaves them, and do not bear our mark yet.
    inherited: BTreeSet<RouteKey>,
}

/// Where a route of ours leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Through the next hop of this number; 0 is none, which is never wanted.
    Hop(u32),
    /// Onto the link of this index.
    Link(u32),
    Blackhole,
}

impl Driver<Route> for RouteDriver {
    type Context = Host;
    type Actual = Leads;
    const EVENTS: Events = Events::Exact;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _desired: &Table<Route>,
    ) -> Result<BTreeMap<RouteKey, Leads>, KernelError> {
        let mut found = BTreeMap::new();
        for family in Family::BOTH {
            let ours = dump(&mut host.socket, family, PROTOCOL)?;
            found.extend(ours.into_iter().map(|route| (route.key, route.leads)));
        }
        self.inherited = inherited(host)?;
        for key in &self.inherited {
            found.entry(*key).or_insert(Leads::Hop(0));
        }
        Ok(found)
    }

    /// A next hop that was made again has another number, and a second one with the same gateway does not
    /// count.
    fn is_met(&self, host: &Host, _: &RouteKey, wanted: &RouteSpec, actual: &Leads) -> bool {
        leads(host, wanted) == Some(*actual)
    }

    fn upsert(&mut self, host: &mut Host, changes: &[Change<Route, Leads>]) -> Vec<Refused<Route>> {
        let mut refused = upsert_all(host, changes);
        let taken: BTreeSet<RouteKey> =
            refused.iter().filter(|(_, err)| is_taken(err)).map(|(key, _)| *key).collect();
        if !taken.is_empty() {
            refused.retain(|(key, _)| !taken.contains(key));
            refused.extend(settle_taken(host, changes, &taken));
        }
        // What was inherited bears our mark now.
        for change in changes.iter().filter(|it| !refused.iter().any(|(key, _)| *key == it.key)) {
            self.inherited.remove(&change.key);
        }
        refused
    }

    fn remove(&mut self, host: &mut Host, keys: &[RouteKey]) -> Vec<Refused<Route>> {
        let items = keys.iter().map(|key| (*key, self.inherited.contains(key)));
        send_each::<Route, _>(
            &mut host.socket,
            REMOVE,
            Tolerate::Absence,
            items,
            |batch, key, inherited| {
                // The protocol in it keeps the kernel from taking somebody else's.
                let protocol = if inherited { rt::RTPROT_BOOT } else { PROTOCOL };
                let header = header(key, rt::RT_SCOPE_NOWHERE, rt::RTN_UNSPEC, protocol);
                let mut message = batch.push(rt::RTM_DELROUTE, 0, &header);
                write_key(&mut message, key);
                Ok(())
            },
        )
    }

    fn settled(&self, host: &Host, _: &RouteKey, wanted: &RouteSpec) -> Option<Leads> {
        leads(host, wanted)
    }

    fn decode(&self, _: &Host, message: &Message<'_>) -> Option<Seen<Route, Leads>> {
        let gone = match message.kind {
            rt::RTM_NEWROUTE => Gone::No,
            rt::RTM_DELROUTE => Gone::Yes,
            _ => return None,
        };
        let route = ParsedRoute::of(message)?;
        Some(match gone {
            _ if route.protocol != PROTOCOL => Seen::Foreign(route.key),
            Gone::No => Seen::Ours(route.key, route.leads),
            Gone::Yes => Seen::Gone(route.key),
        })
    }
}

enum Gone {
    No,
    Yes,
}

fn upsert_all(host: &mut Host, changes: &[Change<Route, Leads>]) -> Vec<Refused<Route>> {
    let led = |change: &Change<Route, Leads>| leads(host, &change.wanted);
    let led: Vec<_> = changes.iter().map(led).collect();
    let items = changes.iter().zip(led).map(|(change, leads)| (change.key, (change, leads)));
    send_each::<Route, _>(
        &mut host.socket,
        SET,
        Tolerate::Nothing,
        items,
        |batch, key, (change, leads)| {
            let leads = leads.ok_or_else(|| missing_next_hop(key, &change.wanted))?;
            let how = match change.before {
                Some(_) => flags::REPLACE,
                None => flags::EXCL,
            };
            let (scope, kind) = match leads {
                Leads::Hop(_) => (rt::RT_SCOPE_UNIVERSE, rt::RTN_UNICAST),
                Leads::Link(_) => (rt::RT_SCOPE_LINK, rt::RTN_UNICAST),
                Leads::Blackhole => (rt::RT_SCOPE_UNIVERSE, rt::RTN_BLACKHOLE),
            };
            let header = header(key, scope, kind, PROTOCOL);
            let mut message = batch.push(rt::RTM_NEWROUTE, flags::CREATE | how, &header);
            write_key(&mut message, key);
            match leads {
                Leads::Hop(id) => _ = message.u32(rt::RTA_NH_ID, id),
                Leads::Link(index) => _ = message.u32(rt::RTA_OIF, index),
                Leads::Blackhole => {}
            }
            Ok(())
        },
    )
}

/// Where a route is to lead to, once its next hop or its link is there.
fn leads(host: &Host, wanted: &RouteSpec) -> Option<Leads> {
    match wanted.via {
        RouteVia::Hop(hop) => host.next_hops.get(&hop).map(Leads::Hop),
        RouteVia::Link(link) => host.links.usable(link).map(Leads::Link),
        RouteVia::Blackhole => Some(Leads::Blackhole),
    }
}

fn missing_next_hop(key: &RouteKey, wanted: &RouteSpec) -> NetlinkError {
    NetlinkError::missing(SET, key, format_args!("{}", wanted.via))
}

/// Looks at what is in the way: ours is replaced, anybody else's is named. One listing for all keys.
fn settle_taken(
    host: &mut Host,
    changes: &[Change<Route, Leads>],
    taken: &BTreeSet<RouteKey>,
) -> Vec<Refused<Route>> {
    let holders = match list_holders(&mut host.socket, taken) {
        Ok(holders) => holders,
        Err(err) => return taken.iter().map(|key| (*key, err.clone().into())).collect(),
    };
    let mut refused = Vec::new();
    let mut again = Vec::new();
    for change in changes.iter().filter(|change| taken.contains(&change.key)) {
        match holders.get(&change.key) {
            Some(holder)
                if holder.protocol == PROTOCOL || holder.is_what(&change.wanted, &host.links) =>
            {
                again.push(Change { before: Some(holder.leads), ..change.clone() });
            }
            Some(holder) => {
                let name = format_args!("protocol {}", ProtocolName(holder.protocol));
                refused.push((change.key, NetlinkError::foreign(SET, change.key, name).into()));
            }
            // It has gone in the meantime.
            None => again.push(Change { before: None, ..change.clone() }),
        }
    }
    refused.extend(upsert_all(host, &again));
    refused
}

/// The routes that flannel left behind devices which are ours now.
fn inherited(host: &mut Host) -> Result<BTreeSet<RouteKey>, NetlinkError> {
    let mut keys = BTreeSet::new();
    for family in Family::BOTH {
        let boot = dump(&mut host.socket, family, rt::RTPROT_BOOT)?;
        let left = boot.into_iter().filter(|route| route.is_left_by_flannel(&host.links));
        keys.extend(left.map(|route| route.key));
    }
    Ok(keys)
}

fn list_holders(
    socket: &mut Socket,
    taken: &BTreeSet<RouteKey>,
) -> Result<BTreeMap<RouteKey, ParsedRoute>, NetlinkError> {
    let mut holders = BTreeMap::new();
    for family in Family::BOTH {
        if taken.iter().any(|key| key.dst.family() == family) {
            let all = dump(socket, family, ANY_PROTOCOL)?;
            // The first of several at a key is the one that packets take.
            for route in all.into_iter().filter(|route| taken.contains(&route.key)) {
                holders.entry(route.key).or_insert(route);
            }
        }
    }
    Ok(holders)
}

/// Lists the routes of a family; the kernel filters by protocol, or not when that is 0.
fn dump(
    socket: &mut Socket,
    family: Family,
    protocol: u8,
) -> Result<Vec<ParsedRoute>, NetlinkError> {
    let mut header = [0; ROUTE_HEADER_LEN];
    header[0] = rt::family_number(family);
    header[5] = protocol;
    let mut request = Batch::new();
    drop(request.push(rt::RTM_GETROUTE, 0, &header));
    let result = socket.dump("routes", &mut request, |all: &mut Vec<ParsedRoute>, message| {
        let wanted = |route: &ParsedRoute| protocol == ANY_PROTOCOL || route.protocol == protocol;
        all.extend(ParsedRoute::of(&message).filter(wanted));
    });
    match result {
        // No table has such a route.
        Err(err) if err.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

/// `struct rtmsg`.
fn header(key: &RouteKey, scope: u8, kind: u8, protocol: u8) -> [u8; ROUTE_HEADER_LEN] {
    let family = rt::family_number(key.dst.family());
    // Tables above 255 stand in an attribute alone.
    let table = u8::try_from(key.table).unwrap_or_default();
    [family, key.dst.len(), 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]
}

fn write_key(message: &mut Writer<'_>, key: &RouteKey) {
    message.ip(rt::RTA_DST, key.dst.addr());
    if u8::try_from(key.table).is_err() {
        message.u32(rt::RTA_TABLE, key.table);
    }
    if key.metric != 0 {
        message.u32(rt::RTA_PRIORITY, key.metric);
    }
}

/// One route of the kernel's, of whoever.
#[derive(Clone, Copy, Debug)]
struct ParsedRoute {
    key: RouteKey,
    protocol: u8,
    leads: Leads,
    link: u32,
    gateway: Option<IpAddr>,
}

impl ParsedRoute {
    /// `SUBNET via BASE dev DEVICE`, protocol boot, and the device is ours: nobody but flannel lays routes like this,
    /// and it marks them by nothing else.
    fn is_left_by_flannel(&self, links: &Links) -> bool {
        let ours = || links.by_index(self.link).is_some_and(ObservedLink::is_ours);
        self.protocol == rt::RTPROT_BOOT && self.gateway == Some(self.key.dst.addr()) && ours()
    }

    /// Whether it does already what is wanted, laid by whoever laid it without a mark: flannel's `host-gw`, whose
    /// routes go through a link that is nobody's.
    fn is_what(&self, wanted: &RouteSpec, links: &Links) -> bool {
        let same = |hop: NextHopKey| {
            self.gateway == Some(hop.via) && links.index(hop.link) == Some(self.link)
        };
        wanted.inherits.is_on()
            && self.protocol == rt::RTPROT_BOOT
            && wanted.via.hop().is_some_and(same)
    }

    /// `None` for what is no entry of a routing table, and for those of the kernel's own table.
    fn of(message: &Message<'_>) -> Option<Self> {
        let family = rt::family_of(message.u8(0))?;
        if message.u32(8) & rt::RTM_F_CLONED != 0 || u32::from(message.u8(4)) == rt::RT_TABLE_LOCAL
        {
            return None;
        }
        let (mut table, mut metric, mut next_hop) = (u32::from(message.u8(4)), 0, 0);
        let (mut dst, mut link, mut gateway) = (family.unspecified(), 0, None);
        for attr in message.attrs(ROUTE_HEADER_LEN) {
            match attr.kind {
                rt::RTA_DST => dst = attr.ip()?,
                rt::RTA_TABLE => table = attr.u32(),
                rt::RTA_PRIORITY => metric = attr.u32(),
                rt::RTA_NH_ID => next_hop = attr.u32(),
                rt::RTA_OIF => link = attr.u32(),
                rt::RTA_GATEWAY => gateway = attr.ip(),
                _ => {}
            }
        }
        let dst = Prefix::new(dst, message.u8(1)).ok()?;
        let key = RouteKey { table, dst, metric };
        let leads = match message.u8(7) {
            rt::RTN_BLACKHOLE => Leads::Blackhole,
            _ if next_hop == 0 && gateway.is_none() => Leads::Link(link),
            _ => Leads::Hop(next_hop),
        };
        Some(Self { key, protocol: message.u8(5), leads, link, gateway })
    }
}

/// A routing protocol, as `ip route` calls it (`/etc/iproute2/rt_protos`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolName(pub u8);

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "redirect",
            2 => "kernel",
            3 => "boot",
            4 => "static",
            9 => "ra",
            11 => "zebra",
            12 => "bird",
            16 => "dhcp",
            18 => "keepalived",
            PROTOCOL => "russet",
            80 => "calico",
            186 => "bgp",
            187 => "isis",
            188 => "ospf",
            189 => "rip",
            192 => "eigrp",
            other => return other.fmt(f),
        };
        f.write_str(name)
    }
}

fn is_taken(err: &KernelError) -> bool {
    matches!(err, KernelError::Netlink(err) if err.is_already_exists())
}

const ANY_PROTOCOL: u8 = 0;
const SET: &str = "set route";
const REMOVE: &str = "remove route";
