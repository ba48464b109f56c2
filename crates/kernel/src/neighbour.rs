//! Permanent neighbours on links of ours: which MAC address an overlay address has.
//!
//! Ours is what is permanent or was learned from outside the kernel (`extern_learn`), on a link of ours.
//! The kernel's own multicast entries are neither (`NUD_NOARP`).

use std::collections::BTreeMap;

use russet_desired::{Neighbour, NeighbourKey, NeighbourSpec, Table};
use russet_net::{Family, Mac};

use crate::{
    Host, KernelError,
    batch::{Tolerate, send_each},
    link::Links,
    netlink::{
        Batch, Message, flags,
        rt::{self, NEIGH_HEADER_LEN},
    },
    reconcile::{Change, Driver, Events, Refused, Seen},
};

/// Keeps neighbours.
#[derive(Debug, Default)]
pub struct NeighbourDriver;

impl Driver<Neighbour> for NeighbourDriver {
    type Context = Host;
    type Actual = Mac;
    const EVENTS: Events = Events::Exact;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _desired: &Table<Neighbour>,
    ) -> Result<BTreeMap<NeighbourKey, Mac>, KernelError> {
        let mut found = BTreeMap::new();
        for family in Family::BOTH {
            let mut request = Batch::new();
            let header = rt::neigh_header(rt::family_number(family), 0, 0, 0);
            drop(request.push(rt::RTM_GETNEIGH, 0, &header));
            let links = &host.links;
            let neighbours: Vec<_> =
                host.socket.dump("neighbours", &mut request, |all: &mut Vec<_>, message| {
                    all.extend(ours(parse(links, &message)));
                })?;
            found.extend(neighbours);
        }
        Ok(found)
    }

    fn is_met(&self, _: &Host, _: &NeighbourKey, wanted: &NeighbourSpec, actual: &Mac) -> bool {
        wanted.mac == *actual
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<Neighbour, Mac>],
    ) -> Vec<Refused<Neighbour>> {
        let Host { socket, links, .. } = host;
        let items = changes.iter().map(|change| (change.key, change.wanted));
        send_each::<Neighbour, _>(socket, SET, Tolerate::Nothing, items, |batch, key, wanted| {
            let index = links.need_ours(SET, key, key.link)?;
            let family = rt::family_number(Family::of(key.ip));
            let header = rt::neigh_header(family, index, rt::NUD_PERMANENT, 0);
            batch
                .push(rt::RTM_NEWNEIGH, flags::CREATE | flags::REPLACE, &header)
                .ip(rt::NDA_DST, key.ip)
                .bytes(rt::NDA_LLADDR, &wanted.mac.octets());
            Ok(())
        })
    }

    fn remove(&mut self, host: &mut Host, keys: &[NeighbourKey]) -> Vec<Refused<Neighbour>> {
        let Host { socket, links, .. } = host;
        // With its link a neighbour goes too.
        let items = keys.iter().filter_map(|key| Some((*key, links.index(key.link)?)));
        send_each::<Neighbour, _>(socket, REMOVE, Tolerate::Absence, items, |batch, key, index| {
            let family = rt::family_number(Family::of(key.ip));
            let header = rt::neigh_header(family, index, 0, 0);
            batch.push(rt::RTM_DELNEIGH, 0, &header).ip(rt::NDA_DST, key.ip);
            Ok(())
        })
    }

    fn settled(&self, _: &Host, _: &NeighbourKey, wanted: &NeighbourSpec) -> Option<Mac> {
        Some(wanted.mac)
    }

    fn decode(&self, host: &Host, message: &Message<'_>) -> Option<Seen<Neighbour, Mac>> {
        match message.kind {
            rt::RTM_NEWNEIGH => parse(&host.links, message),
            rt::RTM_DELNEIGH => match parse(&host.links, message)? {
                Seen::Ours(key, _) | Seen::Foreign(key) => Some(Seen::Gone(key)),
                other => Some(other),
            },
            _ => None,
        }
    }
}

/// Reads one neighbour; `None` when it is not on a link of ours.
fn parse(links: &Links, message: &Message<'_>) -> Option<Seen<Neighbour, Mac>> {
    rt::family_of(message.u8(0))?;
    let link = links.by_index(message.u32(4)).filter(|link| link.is_ours())?.name;
    let (state, ntf) = (message.u16(8), message.u8(10));
    let (mut ip, mut mac) = (None, None);
    for attr in message.attrs(NEIGH_HEADER_LEN) {
        match attr.kind {
            rt::NDA_DST => ip = attr.ip(),
            rt::NDA_LLADDR => mac = Mac::try_from(attr.value).ok(),
            _ => {}
        }
    }
    let key = NeighbourKey { link, ip: ip? };
    let lasting = state & rt::NUD_PERMANENT != 0 || ntf & rt::NTF_EXT_LEARNED != 0;
    Some(match mac.filter(|_| lasting && state & rt::NUD_NOARP == 0) {
        Some(mac) => Seen::Ours(key, mac),
        None => Seen::Foreign(key),
    })
}

fn ours(seen: Option<Seen<Neighbour, Mac>>) -> Option<(NeighbourKey, Mac)> {
    match seen? {
        Seen::Ours(key, mac) => Some((key, mac)),
        _ => None,
    }
}

const SET: &str = "set neighbour";
const REMOVE: &str = "remove neighbour";
