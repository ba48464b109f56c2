//! Next-hop objects, which routes share.
//!
//! A next hop is wanted by its gateway and link; the kernel knows it by a number, which is ours to choose.
//! [`NextHopIds`] says which number has which key; it is learned from the kernel, so a restarted agent
//! goes on with its predecessor's. Ours is what bears our protocol. A second object for a key, or one that
//! is no plain gateway, is garbage: nobody wants it, and it is swept when everything has been told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use russet_desired::{Flag, NextHop, NextHopKey, NextHopSpec, Table};
use russet_net::Family;

use crate::{
    Host, KernelError,
    batch::{Tolerate, send_each},
    link::Links,
    netlink::{
        Batch, Message, NetlinkError, flags,
        rt::{self, NEXT_HOP_HEADER_LEN},
    },
    reconcile::{Change, Driver, Events, Refused, Seen, refuse_all},
    route::PROTOCOL,
};

/// Which number stands for which next hop.
#[derive(Debug)]
pub struct NextHopIds {
    by_key: HashMap<NextHopKey, u32>,
    next: u32,
    /// Those that routes stand upon which should lead elsewhere and cannot: the kernel would take the routes with them.
    stood_upon: BTreeSet<u32>,
}

impl Default for NextHopIds {
    fn default() -> Self {
        Self { by_key: HashMap::new(), next: FIRST_ID, stood_upon: BTreeSet::new() }
    }
}

impl NextHopIds {
    pub fn get(&self, key: &NextHopKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The key's number, a new one if it has none.
    fn take(&mut self, key: NextHopKey) -> u32 {
        *self.by_key.entry(key).or_insert_with(|| {
            let id = self.next;
            self.next = if id >= LAST_ID { FIRST_ID } else { id + 1 };
            id
        })
    }

    /// Says which are not to be removed yet.
    pub fn stand_upon(&mut self, numbers: impl Iterator<Item = u32>) {
        self.stood_upon = numbers.collect();
    }

    /// Whether a number stands for one of our keys.
    fn contains(&self, id: u32) -> bool {
        self.by_key.values().any(|known| *known == id)
    }
}

/// Keeps next hops.
#[derive(Debug, Default)]
pub struct NextHopDriver {
    /// Numbers of objects of ours that have no key of their own.
    garbage: Vec<u32>,
}

impl Driver<NextHop> for NextHopDriver {
    type Context = Host;
    type Actual = NextHopSpec;
    const EVENTS: Events = Events::Anonymous;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _desired: &Table<NextHop>,
    ) -> Result<BTreeMap<NextHopKey, NextHopSpec>, KernelError> {
        let mut request = Batch::new();
        drop(request.push(rt::RTM_GETNEXTHOP, 0, &rt::next_hop_header(0, 0, 0)));
        let links = &host.links;
        let all: Vec<Parsed> =
            host.socket.dump("next hops", &mut request, |all: &mut Vec<_>, message| {
                all.extend(Parsed::of(links, &message).filter(Parsed::is_ours));
            })?;
        Ok(self.learn(&mut host.next_hops, all))
    }

    fn is_met(&self, _: &Host, _: &NextHopKey, wanted: &NextHopSpec, actual: &NextHopSpec) -> bool {
        wanted == actual
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<NextHop, NextHopSpec>],
    ) -> Vec<Refused<NextHop>> {
        let mut todo: Vec<_> = changes.iter().collect();
        let mut refused = Vec::new();
        for _ in 0..ID_TRIES {
            let (taken, other): (Vec<_>, Vec<_>) =
                upsert_once(host, &todo).into_iter().partition(is_taken);
            // Somebody else's object has the number: these keys get others.
            let taken: BTreeSet<_> = taken.into_iter().map(|(key, _)| key).collect();
            host.next_hops.by_key.retain(|key, _| !taken.contains(key));
            refused.extend(other);
            todo.retain(|change| taken.contains(&change.key));
            if todo.is_empty() {
                break;
            }
        }
        let none = NetlinkError::Impossible {
            op: SET,
            subject: "any".to_owned(),
            reason: "no number is free",
        };
        refused.extend(refuse_all::<NextHop>(todo.iter().map(|c| c.key), &none.into()));
        forget_unmade(&mut host.next_hops, changes, &refused);
        refused
    }

    fn remove(&mut self, host: &mut Host, keys: &[NextHopKey]) -> Vec<Refused<NextHop>> {
        let Host { socket, next_hops, .. } = host;
        let items = keys.iter().filter_map(|key| Some((*key, next_hops.get(key)?)));
        let refused =
            send_each::<NextHop, _>(socket, REMOVE, Tolerate::Absence, items, |batch, key, id| {
                if next_hops.stood_upon.contains(&id) {
                    let (op, subject) = (REMOVE, key.to_string());
                    let reason = "a route stands upon it that should lead elsewhere and cannot";
                    return Err(NetlinkError::Impossible { op, subject, reason });
                }
                write_removal(batch, id);
                Ok(())
            });
        let kept: BTreeSet<_> = refused.iter().map(|(key, _)| *key).collect();
        for key in keys.iter().filter(|key| !kept.contains(*key)) {
            next_hops.by_key.remove(key);
        }
        refused
    }

    fn settled(&self, _: &Host, _: &NextHopKey, wanted: &NextHopSpec) -> Option<NextHopSpec> {
        Some(*wanted)
    }

    fn sweep(&mut self, host: &mut Host) -> Result<(), KernelError> {
        if self.garbage.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for id in self.garbage.drain(..) {
            write_removal(&mut batch, id);
        }
        host.socket.batch(&mut batch)?;
        Ok(())
    }

    /// An object's number may have got another meaning, and the routes through it with it, so any event
    /// that concerns us is a reason to read back.
    fn decode(&self, host: &Host, message: &Message<'_>) -> Option<Seen<NextHop, NextHopSpec>> {
        if !matches!(message.kind, rt::RTM_NEWNEXTHOP | rt::RTM_DELNEXTHOP) {
            return None;
        }
        let parsed = Parsed::of(&host.links, message)?;
        (parsed.is_ours() || host.next_hops.contains(parsed.id)).then_some(Seen::Unclear)
    }
}

impl NextHopDriver {
    /// Takes one number for each key, the lowest, and leaves the rest as garbage.
    fn learn(
        &mut self,
        ids: &mut NextHopIds,
        mut all: Vec<Parsed>,
    ) -> BTreeMap<NextHopKey, NextHopSpec> {
        all.sort_by_key(|next_hop| next_hop.id);
        ids.by_key.clear();
        self.garbage.clear();
        let mut found = BTreeMap::new();
        for next_hop in all {
            let key = next_hop.key.filter(|key| !found.contains_key(key));
            let Some(key) = key else {
                self.garbage.push(next_hop.id);
                continue;
            };
            found.insert(key, NextHopSpec { onlink: next_hop.onlink });
            ids.by_key.insert(key, next_hop.id);
            if (FIRST_ID..LAST_ID).contains(&next_hop.id) {
                ids.next = ids.next.max(next_hop.id + 1);
            }
        }
        found
    }
}

fn upsert_once(
    host: &mut Host,
    changes: &[&Change<NextHop, NextHopSpec>],
) -> Vec<Refused<NextHop>> {
    let Host { socket, links, next_hops, .. } = host;
    let items = changes.iter().map(|change| (change.key, *change));
    send_each::<NextHop, _>(socket, SET, Tolerate::Nothing, items, |batch, key, change| {
        let index = links.need(SET, key, key.link)?;
        let how = if change.before.is_some() { flags::REPLACE } else { flags::EXCL };
        let onlink = if change.wanted.onlink.is_on() { rt::RTNH_F_ONLINK } else { 0 };
        let family = rt::family_number(Family::of(key.via));
        let header = rt::next_hop_header(family, PROTOCOL, onlink);
        batch
            .push(rt::RTM_NEWNEXTHOP, flags::CREATE | how, &header)
            .u32(rt::NHA_ID, next_hops.take(*key))
            .u32(rt::NHA_OIF, index)
            .ip(rt::NHA_GATEWAY, key.via);
        Ok(())
    })
}

/// What was not made has no number.
fn forget_unmade(
    ids: &mut NextHopIds,
    changes: &[Change<NextHop, NextHopSpec>],
    refused: &[Refused<NextHop>],
) {
    if refused.is_empty() {
        return;
    }
    let refused: BTreeSet<_> = refused.iter().map(|(key, _)| *key).collect();
    let unmade = changes.iter().filter(|c| c.before.is_none() && refused.contains(&c.key));
    for change in unmade {
        ids.by_key.remove(&change.key);
    }
}

fn write_removal(batch: &mut Batch, id: u32) {
    let header = rt::next_hop_header(rt::AF_UNSPEC, 0, 0);
    batch.push(rt::RTM_DELNEXTHOP, 0, &header).u32(rt::NHA_ID, id);
}

fn is_taken((_, err): &Refused<NextHop>) -> bool {
    matches!(err, KernelError::Netlink(err) if err.is_already_exists())
}

/// One object of the kernel's.
#[derive(Clone, Copy, Debug)]
struct Parsed {
    id: u32,
    protocol: u8,
    onlink: Flag,
    /// `None` when it is no plain gateway on a link.
    key: Option<NextHopKey>,
}

impl Parsed {
    fn of(links: &Links, message: &Message<'_>) -> Option<Self> {
        let (mut id, mut index, mut via): (_, _, Option<IpAddr>) = (None, None, None);
        for attr in message.attrs(NEXT_HOP_HEADER_LEN) {
            match attr.kind {
                rt::NHA_ID => id = Some(attr.u32()),
                rt::NHA_OIF => index = Some(attr.u32()),
                rt::NHA_GATEWAY => via = attr.ip(),
                _ => {}
            }
        }
        let link = index.and_then(|index| links.name(index));
        Some(Self {
            id: id?,
            protocol: message.u8(2),
            onlink: (message.u32(4) & rt::RTNH_F_ONLINK != 0).into(),
            key: via.zip(link).map(|(via, link)| NextHopKey { via, link }),
        })
    }

    const fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }
}

/// Our numbers begin with the letter R, far from those that the kernel gives out.
const FIRST_ID: u32 = 0x5200_0001;
const LAST_ID: u32 = 0x52ff_ffff;
/// How often a number that is taken is exchanged for another.
const ID_TRIES: usize = 16;
const SET: &str = "set next hop";
const REMOVE: &str = "remove next hop";
