//! Addresses on links of ours.
//!
//! Ours is every lasting address on a link of ours but the kernel's own link-local ones. IPv6 addresses are
//! set without duplicate address detection: they are unique by their lease, and usable at once.

use std::{collections::BTreeMap, net::IpAddr};

use russet_desired::{Address, AddressKey, AddressScope, AddressSpec, Table};
use russet_net::Family;

use crate::{
    Host, KernelError,
    batch::{Tolerate, send_each},
    link::Links,
    netlink::{
        Batch, Message, flags,
        rt::{self, ADDR_HEADER_LEN},
    },
    reconcile::{Change, Driver, Events, Refused, Seen},
    route::PROTOCOL,
};

/// Keeps addresses.
#[derive(Debug, Default)]
pub struct AddressDriver;

impl Driver<Address> for AddressDriver {
    type Context = Host;
    type Actual = AddressSpec;
    const EVENTS: Events = Events::Exact;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _desired: &Table<Address>,
    ) -> Result<BTreeMap<AddressKey, AddressSpec>, KernelError> {
        let mut request = Batch::new();
        let header = rt::addr_header(rt::AF_UNSPEC, 0, 0, 0);
        drop(request.push(rt::RTM_GETADDR, 0, &header));
        let links = &host.links;
        Ok(host.socket.dump("addresses", &mut request, |all: &mut BTreeMap<_, _>, message| {
            if let Some(Seen::Ours(key, actual)) = parse(links, &message) {
                all.insert(key, actual);
            }
        })?)
    }

    /// The kernel derives an IPv6 address's scope from the address itself.
    fn is_met(
        &self,
        _: &Host,
        key: &AddressKey,
        wanted: &AddressSpec,
        actual: &AddressSpec,
    ) -> bool {
        key.addr.is_ipv6() || wanted == actual
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<Address, AddressSpec>],
    ) -> Vec<Refused<Address>> {
        // A scope cannot be changed in place.
        let other: Vec<_> = changes.iter().filter(|c| c.before.is_some()).map(|c| c.key).collect();
        let mut refused = self.remove(host, &other);
        let Host { socket, links, .. } = host;
        let items = changes.iter().map(|change| (change.key, change.wanted));
        refused.extend(send_each::<Address, _>(
            socket,
            SET,
            Tolerate::Nothing,
            items,
            |batch, key, wanted| {
                let index = links.need_ours(SET, key, key.link)?;
                write(batch, key, wanted, index);
                Ok(())
            },
        ));
        refused
    }

    fn remove(&mut self, host: &mut Host, keys: &[AddressKey]) -> Vec<Refused<Address>> {
        let Host { socket, links, .. } = host;
        let items = keys.iter().filter_map(|key| Some((*key, links.index(key.link)?)));
        send_each::<Address, _>(socket, REMOVE, Tolerate::Absence, items, |batch, key, index| {
            let family = rt::family_number(Family::of(key.addr));
            let header = rt::addr_header(family, key.len, 0, index);
            batch
                .push(rt::RTM_DELADDR, 0, &header)
                .ip(rt::IFA_LOCAL, key.addr)
                .ip(rt::IFA_ADDRESS, key.addr);
            Ok(())
        })
    }

    fn settled(&self, _: &Host, _: &AddressKey, wanted: &AddressSpec) -> Option<AddressSpec> {
        Some(*wanted)
    }

    fn decode(&self, host: &Host, message: &Message<'_>) -> Option<Seen<Address, AddressSpec>> {
        match message.kind {
            rt::RTM_NEWADDR => parse(&host.links, message),
            rt::RTM_DELADDR => match parse(&host.links, message)? {
                Seen::Ours(key, _) => Some(Seen::Gone(key)),
                other => Some(other),
            },
            _ => None,
        }
    }
}

fn write(batch: &mut Batch, key: &AddressKey, wanted: AddressSpec, index: u32) {
    let family = Family::of(key.addr);
    let scope = match wanted.scope {
        AddressScope::Global => rt::RT_SCOPE_UNIVERSE,
        AddressScope::Link => rt::RT_SCOPE_LINK,
    };
    let header = rt::addr_header(rt::family_number(family), key.len, scope, index);
    let mut message = batch.push(rt::RTM_NEWADDR, flags::CREATE | flags::REPLACE, &header);
    message.ip(rt::IFA_LOCAL, key.addr).ip(rt::IFA_ADDRESS, key.addr);
    if family == Family::V6 {
        message.u32(rt::IFA_FLAGS, rt::IFA_F_NODAD).u8(rt::IFA_PROTO, PROTOCOL);
    }
}

/// Reads one address; `None` when it is not on a link of ours.
fn parse(links: &Links, message: &Message<'_>) -> Option<Seen<Address, AddressSpec>> {
    let link = links.by_index(message.u32(4)).filter(|link| link.is_ours())?.name;
    let (mut local, mut address, mut flags, mut proto) = (None, None, message.u8(2).into(), 0);
    for attr in message.attrs(ADDR_HEADER_LEN) {
        match attr.kind {
            rt::IFA_LOCAL => local = attr.ip(),
            rt::IFA_ADDRESS => address = attr.ip(),
            rt::IFA_FLAGS => flags = attr.u32(),
            rt::IFA_PROTO => proto = attr.u8(),
            _ => {}
        }
    }
    let key = AddressKey { link, addr: local.or(address)?, len: message.u8(1) };
    let scope = match message.u8(3) {
        rt::RT_SCOPE_UNIVERSE => AddressScope::Global,
        _ => AddressScope::Link,
    };
    let ours = flags & rt::IFA_F_PERMANENT != 0 && !is_kernels(key.addr, proto);
    Some(if ours { Seen::Ours(key, AddressSpec { scope }) } else { Seen::Foreign(key) })
}

/// Whether the kernel made the address by itself: an IPv6 link-local one that does not say otherwise.
fn is_kernels(addr: IpAddr, proto: u8) -> bool {
    match addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(addr) => addr.is_unicast_link_local() && proto != PROTOCOL,
    }
}

const SET: &str = "set address";
const REMOVE: &str = "remove address";
