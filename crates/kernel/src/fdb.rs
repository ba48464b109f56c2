//! Forwarding entries of VXLAN links of ours: behind which VTEP a MAC address is.
//!
//! Ours is a lasting `self` entry with a remote destination on a VXLAN link of ours; what the link has
//! learned by itself is not, nor is a bridge port's own address.

use std::{collections::BTreeMap, net::IpAddr};

use russet_desired::{Fdb, FdbKey, FdbSpec, Table};
use russet_net::Mac;

use crate::{
    Host, KernelError,
    batch::{Tolerate, send_each},
    link::{Links, ObservedKind, ObservedLink},
    netlink::{
        Batch, Message, flags,
        rt::{self, NEIGH_HEADER_LEN},
    },
    reconcile::{Change, Driver, Events, Refused, Seen},
};

/// Keeps FDB entries.
#[derive(Debug, Default)]
pub struct FdbDriver;

/// Where the kernel sends the frames for a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbActual {
    To(IpAddr),
    /// To several VTEPs, of which at most one is wanted.
    Several,
}

impl Driver<Fdb> for FdbDriver {
    type Context = Host;
    type Actual = FdbActual;
    const EVENTS: Events = Events::Anonymous;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _desired: &Table<Fdb>,
    ) -> Result<BTreeMap<FdbKey, FdbActual>, KernelError> {
        let ours: Vec<u32> = host
            .links
            .iter()
            .filter(|link| is_vxlan_of_ours(link))
            .map(|link| link.index)
            .collect();
        let mut found = BTreeMap::new();
        for index in ours {
            let mut request = Batch::new();
            let header = rt::neigh_header(rt::AF_BRIDGE, index, 0, 0);
            drop(request.push(rt::RTM_GETNEIGH, 0, &header));
            let links = &host.links;
            let entries: BTreeMap<_, _> =
                host.socket.dump("FDB", &mut request, |all: &mut BTreeMap<_, _>, message| {
                    if let Some(Seen::Ours(key, actual)) = parse(links, &message) {
                        all.entry(key).and_modify(|a| *a = FdbActual::Several).or_insert(actual);
                    }
                })?;
            found.extend(entries);
        }
        Ok(found)
    }

    fn is_met(&self, _: &Host, _: &FdbKey, wanted: &FdbSpec, actual: &FdbActual) -> bool {
        *actual == FdbActual::To(wanted.dst)
    }

    fn upsert(&mut self, host: &mut Host, changes: &[Change<Fdb, FdbActual>]) -> Vec<Refused<Fdb>> {
        // The kernel replaces the destination of a unicast address, and of no other.
        let others = changes.iter().filter(|c| c.before.is_some() && !c.key.mac.is_unicast());
        let others: Vec<_> = others.map(|change| change.key).collect();
        let mut refused = self.remove(host, &others);
        let Host { socket, links, .. } = host;
        let items = changes.iter().map(|change| (change.key, change.wanted.dst));
        refused.extend(send_each::<Fdb, _>(
            socket,
            SET,
            Tolerate::Nothing,
            items,
            |batch, key, dst| {
                let index = links.need_ours(SET, key, key.link)?;
                let header =
                    rt::neigh_header(rt::AF_BRIDGE, index, rt::NUD_PERMANENT, rt::NTF_SELF);
                let how = if key.mac.is_unicast() { flags::REPLACE } else { flags::EXCL };
                batch
                    .push(rt::RTM_NEWNEIGH, flags::CREATE | how, &header)
                    .bytes(rt::NDA_LLADDR, &key.mac.octets())
                    .ip(rt::NDA_DST, dst);
                Ok(())
            },
        ));
        refused
    }

    fn remove(&mut self, host: &mut Host, keys: &[FdbKey]) -> Vec<Refused<Fdb>> {
        let Host { socket, links, .. } = host;
        let items = keys.iter().filter_map(|key| Some((*key, links.index(key.link)?)));
        send_each::<Fdb, _>(socket, REMOVE, Tolerate::Absence, items, |batch, key, index| {
            let header = rt::neigh_header(rt::AF_BRIDGE, index, 0, rt::NTF_SELF);
            batch.push(rt::RTM_DELNEIGH, 0, &header).bytes(rt::NDA_LLADDR, &key.mac.octets());
            Ok(())
        })
    }

    fn settled(&self, _: &Host, _: &FdbKey, wanted: &FdbSpec) -> Option<FdbActual> {
        Some(FdbActual::To(wanted.dst))
    }

    fn decode(&self, host: &Host, message: &Message<'_>) -> Option<Seen<Fdb, FdbActual>> {
        match message.kind {
            rt::RTM_NEWNEIGH if message.flags & flags::APPEND != 0 => {
                parse(&host.links, message).map(|_| Seen::Unclear)
            }
            rt::RTM_NEWNEIGH => parse(&host.links, message),
            rt::RTM_DELNEIGH => match parse(&host.links, message)? {
                Seen::Ours(key, _) | Seen::Foreign(key) => Some(Seen::Gone(key)),
                other => Some(other),
            },
            _ => None,
        }
    }
}

/// Reads one entry; `None` when it is not on a VXLAN link of ours.
fn parse(links: &Links, message: &Message<'_>) -> Option<Seen<Fdb, FdbActual>> {
    if message.u8(0) != rt::AF_BRIDGE {
        return None;
    }
    let link = links.by_index(message.u32(4)).filter(|link| is_vxlan_of_ours(link))?.name;
    let (state, ntf) = (message.u16(8), message.u8(10));
    let (mut mac, mut dst) = (None, None);
    for attr in message.attrs(NEIGH_HEADER_LEN) {
        match attr.kind {
            rt::NDA_LLADDR => mac = Mac::try_from(attr.value).ok(),
            rt::NDA_DST => dst = attr.ip(),
            _ => {}
        }
    }
    let key = FdbKey { link, mac: mac? };
    let lasting = state & rt::NUD_PERMANENT != 0 || ntf & rt::NTF_EXT_LEARNED != 0;
    Some(match dst.filter(|_| lasting && ntf & rt::NTF_SELF != 0) {
        Some(dst) => Seen::Ours(key, FdbActual::To(dst)),
        None => Seen::Foreign(key),
    })
}

fn is_vxlan_of_ours(link: &ObservedLink) -> bool {
    link.is_ours() && matches!(link.kind, ObservedKind::Vxlan(_))
}

const SET: &str = "set FDB entry";
const REMOVE: &str = "remove FDB entry";
