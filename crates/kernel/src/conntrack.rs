//! Forgets connections of an address that is given back.
//!
//! A pod's address may be handed out again at once. The connection tracker would send packets of the new
//! pod the way of the old one's connections (a translated port, a masqueraded source), so what it knows of
//! the address goes with the pod.
//!
//! The kernel can only walk its whole table: with 262,144 buckets, the usual size, about 9 ms, however few
//! entries there are. So many addresses are better forgotten in one call than in many, and an answer that
//! somebody waits for should not wait for this. While there are few entries, one walk lists them all and
//! they are looked through here; else the kernel lists those that match, in one walk for each place where
//! an address can stand (`CTA_FILTER`, since Linux 5.8; an older one lists all). Where the table is empty
//! nothing is walked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    netlink::{Attrs, Batch, Message, NetlinkError, Protocol, Refusal, Socket},
    nft::{
        number::{NFNL_SUBSYS_CTNETLINK, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC},
        wire::{NFGEN_LEN, Read, nfgen},
    },
};

/// The connection tracker of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    /// Up to so many entries for each address, listing all costs less than a search.
    few: usize,
}

impl Conntrack {
    /// Opens a socket in the thread's network namespace.
    ///
    /// # Errors
    ///
    /// When the kernel has no netfilter netlink.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)?, few: FEW })
    }

    /// Removes every entry that has one of `addrs` at either end, in either direction, and returns how many
    /// those were. One call removes at most [`MAX_ENTRIES`].
    ///
    /// # Errors
    ///
    /// When the entries cannot be listed, or one cannot be removed for another reason than that it is
    /// gone; the others are removed all the same.
    pub fn forget(&mut self, addrs: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
        let entries = self.find(addrs)?;
        let mut batch = Batch::new();
        for (id, entry) in entries.iter().take(MAX_ENTRIES) {
            entry.write_removal(*id, &mut batch);
        }
        let outcomes = self.socket.batch(&mut batch)?;
        let removed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        match outcomes.into_iter().filter_map(Result::err).find(|refusal| !is_gone(refusal)) {
            Some(refusal) => Err(NetlinkError::refused("forget", "connections", refusal)),
            None => Ok(removed),
        }
    }

    fn find(&mut self, addrs: &BTreeSet<IpAddr>) -> Result<Entries, NetlinkError> {
        let count = self.count()?;
        if count == 0 || addrs.is_empty() {
            return Ok(Entries::new());
        }
        if count <= self.few.saturating_mul(addrs.len()) {
            return self.list(addrs, |batch| drop(push(batch, IPCTNL_MSG_CT_GET, NFPROTO_UNSPEC)));
        }
        let mut entries = Entries::new();
        for addr in addrs {
            for end in ENDS {
                entries.append(&mut self.list(addrs, |batch| write_listing(*addr, end, batch))?);
            }
        }
        Ok(entries)
    }

    /// How many entries this namespace has.
    fn count(&mut self) -> Result<usize, NetlinkError> {
        let mut request = Batch::new();
        push(&mut request, IPCTNL_MSG_CT_GET_STATS, NFPROTO_UNSPEC);
        let mut count = None;
        self.socket.request_with_reply("count", "connections", &mut request, |message| {
            count = message.attrs(NFGEN_LEN).be32(CTA_STATS_GLOBAL_ENTRIES);
        })?;
        Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX))
    }

    fn list(
        &mut self,
        addrs: &BTreeSet<IpAddr>,
        request: impl FnOnce(&mut Batch),
    ) -> Result<Entries, NetlinkError> {
        let mut batch = Batch::new();
        request(&mut batch);
        self.socket.dump("connections", &mut batch, |entries: &mut Entries, message| {
            if entries.len() < MAX_ENTRIES
                && let Some((id, entry)) = read_entry(&message, addrs)
            {
                entries.insert(id, entry);
            }
        })
    }
}

type Entries = BTreeMap<Id, Entry>;

/// A walk of the table costs about as much as telling 7,000 entries, and a search takes three walks more.
const FEW: usize = 20_000;

/// How many entries one call removes: as many as a busy node has in all.
pub const MAX_ENTRIES: usize = 262_144;

/// `CTA_ID`: tells one entry from a later one of the same tuple.
type Id = u32;

/// What names an entry for its removal.
#[derive(Debug)]
struct Entry {
    family: u8,
    /// The octets of `CTA_TUPLE_ORIG`.
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
}

impl Entry {
    fn write_removal(&self, id: Id, batch: &mut Batch) {
        let mut message = push(batch, IPCTNL_MSG_CT_DELETE, self.family);
        message.bytes(CTA_TUPLE_ORIG | NLA_F_NESTED, &self.original).u32_be(CTA_ID, id);
        if let Some(zone) = &self.zone {
            message.bytes(CTA_ZONE, zone);
        }
    }
}

/// Where an address can stand in an entry.
#[derive(Clone, Copy, Debug)]
struct End {
    tuple: u16,
    /// `CTA_FILTER_ORIG_FLAGS` or `CTA_FILTER_REPLY_FLAGS`.
    filter: u16,
    side: Side,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Source,
    Destination,
}

const ENDS: [End; 4] = [
    End { tuple: CTA_TUPLE_ORIG, filter: CTA_FILTER_ORIG_FLAGS, side: Side::Source },
    End { tuple: CTA_TUPLE_ORIG, filter: CTA_FILTER_ORIG_FLAGS, side: Side::Destination },
    End { tuple: CTA_TUPLE_REPLY, filter: CTA_FILTER_REPLY_FLAGS, side: Side::Source },
    End { tuple: CTA_TUPLE_REPLY, filter: CTA_FILTER_REPLY_FLAGS, side: Side::Destination },
];

fn write_listing(addr: IpAddr, end: End, batch: &mut Batch) {
    let (family, attr) = match (addr, end.side) {
        (IpAddr::V4(_), Side::Source) => (NFPROTO_IPV4, CTA_IP_V4_SRC),
        (IpAddr::V4(_), Side::Destination) => (NFPROTO_IPV4, CTA_IP_V4_DST),
        (IpAddr::V6(_), Side::Source) => (NFPROTO_IPV6, CTA_IP_V6_SRC),
        (IpAddr::V6(_), Side::Destination) => (NFPROTO_IPV6, CTA_IP_V6_DST),
    };
    let flag = match end.side {
        Side::Source => FILTER_IP_SRC,
        Side::Destination => FILTER_IP_DST,
    };
    push(batch, IPCTNL_MSG_CT_GET, family)
        .nest(end.tuple, |tuple| {
            tuple.nest(CTA_TUPLE_IP, |ip| _ = ip.ip(attr, addr));
        })
        .nest(CTA_FILTER, |filter| _ = filter.u32(end.filter, flag));
}

/// An entry of the listing, when it does have one of the addresses.
fn read_entry(message: &Message<'_>, addrs: &BTreeSet<IpAddr>) -> Option<(Id, Entry)> {
    let attrs = message.attrs(NFGEN_LEN);
    let ends = [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY].map(|tuple| addresses(&attrs, tuple));
    if !ends.into_iter().flatten().flatten().any(|end| addrs.contains(&end)) {
        return None;
    }
    let original = attrs.value(CTA_TUPLE_ORIG)?.to_vec();
    let zone = attrs.value(CTA_ZONE).map(<[u8]>::to_vec);
    Some((attrs.be32(CTA_ID)?, Entry { family: message.u8(0), original, zone }))
}

/// Both addresses of a tuple.
fn addresses(attrs: &Attrs<'_>, tuple: u16) -> Option<[IpAddr; 2]> {
    let ip = attrs.nest(tuple)?.nest(CTA_TUPLE_IP)?;
    let addr = |v4, v6| ip.clone().find(v4).or_else(|| ip.clone().find(v6))?.ip();
    Some([addr(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, addr(CTA_IP_V4_DST, CTA_IP_V6_DST)?])
}

fn push(batch: &mut Batch, message: u16, family: u8) -> crate::netlink::Writer<'_> {
    batch.push(NFNL_SUBSYS_CTNETLINK << 8 | message, 0, &nfgen(family, 0))
}

fn is_gone(refusal: &Refusal) -> bool {
    refusal.errno == libc::ENOENT
}

// `linux/netfilter/nfnetlink_conntrack.h`
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const IPCTNL_MSG_CT_GET_STATS: u16 = 5;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// Which parts of a tuple must match (`net/netfilter/nf_internals.h`), in the host's order.
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_IP_DST: u32 = 1 << 1;
const NLA_F_NESTED: u16 = 0x8000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::tests::{in_netns, run};

    fn add(entry: &str) {
        let tcp = "-p tcp --state ESTABLISHED -t 600";
        run(&format!("conntrack -I {tcp} {entry}"));
    }

    fn left() -> String {
        run("conntrack -L") + &run("conntrack -L -f ipv6")
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn only(text: &str) -> BTreeSet<IpAddr> {
        BTreeSet::from([addr(text)])
    }

    #[test]
    fn every_entry_of_the_address_goes_and_no_other() {
        remove_one_of_two_pods(FEW);
    }

    #[test]
    fn in_a_large_table_the_kernel_searches() {
        remove_one_of_two_pods(0);
    }

    fn remove_one_of_two_pods(few: usize) {
        in_netns(|| {
            // From the pod; to the pod; to a service that is the pod; from the pod, masqueraded.
            add("-s 10.50.7.2 -d 10.50.8.2 --sport 1001 --dport 80");
            add("-s 10.50.8.2 -d 10.50.7.2 --sport 1002 --dport 80");
            add("-s 10.50.8.2 -d 10.96.0.1 -r 10.50.7.2 -q 10.50.8.2 --sport 1003 --dport 80 \
                 --reply-port-src 8080 --reply-port-dst 1003");
            add("-s 10.50.7.2 -d 192.0.2.9 -r 192.0.2.9 -q 192.0.2.1 --sport 1004 --dport 80 \
                 --reply-port-src 80 --reply-port-dst 40004");
            add("-s 10.50.7.3 -d 10.50.8.2 --sport 1005 --dport 80");
            add("-s 10.50.7.20 -d 10.50.8.2 --sport 1006 --dport 80");

            let mut conntrack = Conntrack { few, ..Conntrack::open().unwrap() };
            assert_eq!(conntrack.forget(&only("10.50.7.2")).unwrap(), 4);
            let left = left();
            assert!(left.contains("sport=1005") && left.contains("sport=1006"), "{left}");
            assert!(!left.contains("10.50.7.2 "), "{left}");
            assert_eq!(conntrack.forget(&only("10.50.7.2")).unwrap(), 0);
        });
    }

    #[test]
    fn ipv6_entries_go_too() {
        in_netns(|| {
            add("-s fd00:50:7::2 -d fd00:50:8::2 --sport 1001 --dport 80");
            add("-s fd00:50:8::2 -d fd00:50:7::2 --sport 1002 --dport 80");
            add("-s fd00:50:7::3 -d fd00:50:8::2 --sport 1003 --dport 80");
            let mut conntrack = Conntrack::open().unwrap();
            assert_eq!(conntrack.forget(&only("fd00:50:7::2")).unwrap(), 2);
            assert!(left().contains("sport=1003"));
        });
    }

    #[test]
    fn the_kernel_lists_only_what_was_asked_for() {
        in_netns(|| {
            // The address at each of the four places, and one entry without it.
            add("-s 10.50.7.2 -d 10.50.8.2 --sport 1001 --dport 80");
            add("-s 10.50.8.2 -d 10.50.7.2 --sport 1002 --dport 80");
            add("-s 10.50.7.3 -d 10.50.8.2 --sport 1003 --dport 80");
            let mut socket = Socket::open(Protocol::Netfilter).unwrap();
            for end in ENDS {
                let mut request = Batch::new();
                write_listing(addr("10.50.7.2"), end, &mut request);
                let told = socket.dump("connections", &mut request, |n: &mut usize, _| *n += 1);
                assert_eq!(told.unwrap(), 1, "{end:?}");
            }
        });
    }

    #[test]
    fn several_addresses_of_both_families_go_at_once() {
        in_netns(|| {
            add("-s 10.50.7.2 -d 10.50.8.2 --sport 1001 --dport 80");
            add("-s 10.50.7.3 -d 10.50.8.2 --sport 1002 --dport 80");
            add("-s fd00:50:7::2 -d fd00:50:8::2 --sport 1003 --dport 80");
            add("-s 10.50.7.4 -d 10.50.8.2 --sport 1004 --dport 80");
            let mut conntrack = Conntrack::open().unwrap();
            assert_eq!(conntrack.count().unwrap(), 4);
            let addrs = ["10.50.7.2", "10.50.7.3", "fd00:50:7::2"].map(addr);
            assert_eq!(conntrack.forget(&addrs.into()).unwrap(), 3);
            assert_eq!(conntrack.forget(&BTreeSet::new()).unwrap(), 0);
            assert_eq!(conntrack.count().unwrap(), 1);
        });
    }
}
