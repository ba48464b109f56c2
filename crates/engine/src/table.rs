//! Who is where: the peer that an inner address belongs to, by the longest prefix, and the peer that an outer
//! address is.
//!
//! A [`Table`] never changes. Each change of the peers makes a new one beside the old ([`Tables`]); the threads of
//! the packets look at a number once a batch and take the new table when it has moved, so on their way there is
//! no lock. Nested prefixes are cut into ranges that do not overlap, so a look-up is one binary search.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use russet_kernel::engine::EnginePeerSpec;
use russet_net::{Family, Prefix, PublicKey};

use crate::{
    counters::Flow,
    tunnel::{Tunnel, Vault},
};

/// A node that packets are sent to.
#[derive(Debug)]
pub struct Peer {
    /// Where it was said to be.
    pub endpoint: SocketAddr,
    /// Where packets are sealed. Its sessions need 10 kB, which a bare peer shall not.
    pub tunnel: Option<Box<Tunnel>>,
    pub sent: Flow,
    pub received: Flow,
}

/// Every peer at one moment.
#[derive(Debug, Default)]
pub struct Table {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    peers: Vec<Arc<Peer>>,
    by_ip: HashMap<IpAddr, usize>,
    /// The two families are two ends of one node, and each has sessions of its own.
    by_key: HashMap<(Family, PublicKey), usize>,
    by_index: HashMap<u32, usize>,
}

impl Table {
    /// Makes the table of these prefixes. A peer of `old` keeps what it has counted.
    #[must_use]
    pub fn new(
        wanted: &BTreeMap<Prefix, EnginePeerSpec>,
        old: &Self,
        vault: Option<&Vault>,
    ) -> Self {
        let mut table = Self::default();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (prefix, spec) in wanted {
            let sealed = vault.and_then(|vault| Some((spec.key?, vault)));
            let peer = match (sealed, vault) {
                (Some((key, vault)), _) => table.enter_sealed(spec.endpoint, key, old, vault),
                (None, None) => table.enter(spec.endpoint, old),
                // Nothing goes to a peer without a key where all is sealed.
                (None, Some(_)) => continue,
            };
            match (prefix.addr(), prefix.last()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    v4.push((u32::from(first), u32::from(last), peer));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    v6.push((u128::from(first), u128::from(last), peer));
                }
                // A prefix has one family.
                _ => {}
            }
        }
        table.v4 = Ranges::new(v4);
        table.v6 = Ranges::new(v6);
        table
    }

    fn enter(&mut self, endpoint: SocketAddr, old: &Self) -> usize {
        *self.by_ip.entry(endpoint.ip()).or_insert_with(|| {
            let kept = old.by_ip.get(&endpoint.ip()).map(|place| &old.peers[*place]);
            let peer = match kept {
                Some(kept) if kept.endpoint == endpoint => Arc::clone(kept),
                _ => Arc::new(Peer::new(endpoint, None)),
            };
            self.peers.push(peer);
            self.peers.len() - 1
        })
    }

    /// A peer is who has its key; one that stays where it was said to be keeps its sessions.
    fn enter_sealed(
        &mut self,
        endpoint: SocketAddr,
        key: PublicKey,
        old: &Self,
        vault: &Vault,
    ) -> usize {
        let identity = (family_of(endpoint), key);
        if let Some(place) = self.by_key.get(&identity) {
            return *place;
        }
        let kept = old.by_key.get(&identity).map(|place| &old.peers[*place]);
        let peer = match kept {
            Some(kept) if kept.endpoint == endpoint => Arc::clone(kept),
            _ => Arc::new(Peer::new(endpoint, Some(Box::new(vault.tunnel(key, endpoint))))),
        };
        let place = self.peers.len();
        self.by_key.insert(identity, place);
        self.by_index.extend(peer.tunnel.as_ref().map(|tunnel| (tunnel.index, place)));
        self.peers.push(peer);
        place
    }

    /// The place of the peer that has a key.
    pub fn of_key(&self, family: Family, key: PublicKey) -> Option<usize> {
        self.by_key.get(&(family, key)).copied()
    }

    /// The place of the peer whose tunnel has an index.
    pub fn of_index(&self, index: u32) -> Option<usize> {
        self.by_index.get(&index).copied()
    }

    /// The place of the peer that has an inner address.
    pub fn owner(&self, inner: IpAddr) -> Option<usize> {
        match inner {
            IpAddr::V4(addr) => self.v4.find(addr.into()),
            IpAddr::V6(addr) => self.v6.find(addr.into()),
        }
    }

    /// The place of the peer that an outer address is.
    pub fn at(&self, outer: IpAddr) -> Option<usize> {
        self.by_ip.get(&outer).copied()
    }

    pub fn peer(&self, place: usize) -> Option<&Arc<Peer>> {
        self.peers.get(place)
    }

    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().map(|peer| &**peer)
    }

    /// Those that packets are sealed for and that there is no session with.
    pub fn strangers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        let is_stranger = |tunnel: &Tunnel| tunnel.since_handshake().is_none();
        self.peers.iter().filter(move |peer| peer.tunnel.as_deref().is_some_and(is_stranger))
    }
}

impl Peer {
    fn new(endpoint: SocketAddr, tunnel: Option<Box<Tunnel>>) -> Self {
        Self { endpoint, tunnel, sent: Flow::default(), received: Flow::default() }
    }
}

/// Ranges of addresses that do not overlap, in order.
#[derive(Debug)]
struct Ranges<A> {
    /// The first address of each range, and the peer that has it, if any.
    starts: Vec<A>,
    owners: Vec<Option<usize>>,
}

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self { starts: Vec::new(), owners: Vec::new() }
    }
}

impl<A: Address> Ranges<A> {
    /// Cuts prefixes, each its first and its last address. Two of them are apart or one holds the other.
    fn new(mut prefixes: Vec<(A, A, usize)>) -> Self {
        // The longer of two that begin together comes later and is within.
        prefixes.sort_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
        let mut ranges = Self::default();
        let mut open: Vec<(A, usize)> = Vec::new();
        for (first, last, peer) in prefixes {
            ranges.close(&mut open, |end| end < first);
            ranges.begin(first, Some(peer));
            open.push((last, peer));
        }
        ranges.close(&mut open, |_| true);
        ranges
    }

    /// Ends those of the open prefixes whose last address says so; after each, what it lies in goes on.
    fn close(&mut self, open: &mut Vec<(A, usize)>, ends: impl Fn(A) -> bool) {
        while let Some((last, _)) = open.pop_if(|(last, _)| ends(*last)) {
            if let Some(next) = last.next() {
                self.begin(next, open.last().map(|(_, peer)| *peer));
            }
        }
    }

    fn begin(&mut self, first: A, owner: Option<usize>) {
        if self.starts.last() == Some(&first) {
            self.starts.pop();
            self.owners.pop();
        }
        self.starts.push(first);
        self.owners.push(owner);
    }

    fn find(&self, addr: A) -> Option<usize> {
        let after = self.starts.partition_point(|start| *start <= addr);
        self.owners.get(after.checked_sub(1)?).copied().flatten()
    }
}

/// A number that stands for an address.
trait Address: Copy + Ord {
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// The table of now, which one thread changes and many read.
#[derive(Debug, Default)]
pub struct Tables {
    edition: AtomicU64,
    newest: Mutex<Arc<Table>>,
}

impl Tables {
    /// Puts a table in the place of the one before.
    pub fn publish(&self, table: Table) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.edition.fetch_add(1, Ordering::Release);
    }

    pub fn newest(&self) -> Arc<Table> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One thread's view of the tables.
#[derive(Debug)]
pub struct View {
    tables: Arc<Tables>,
    edition: u64,
    table: Arc<Table>,
}

impl View {
    pub fn new(tables: Arc<Tables>) -> Self {
        let edition = tables.edition.load(Ordering::Acquire);
        let table = tables.newest();
        Self { tables, edition, table }
    }

    /// The table of now.
    pub fn table(&mut self) -> &Table {
        let edition = self.tables.edition.load(Ordering::Acquire);
        if edition != self.edition {
            self.edition = edition;
            self.table = self.tables.newest();
        }
        &self.table
    }

    /// The table that was last looked at: places from it still mean the same.
    pub fn kept(&self) -> &Table {
        &self.table
    }
}

/// The family that both ends of a peer's path have.
pub const fn family_of(endpoint: SocketAddr) -> Family {
    Family::of(endpoint.ip())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_beyond_all_there_is_nobody() {
        let table =
            table(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.1.255.0/24", 3), ("fd00::/16", 4)]);
        for (addr, want) in [
            ("10.0.0.0", Some(1)),
            ("10.0.255.255", Some(1)),
            ("10.1.0.0", Some(2)),
            ("10.1.255.7", Some(3)),
            ("10.2.0.0", Some(1)),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("fd00::1", Some(4)),
            ("fd01::", None),
        ] {
            assert_eq!(owner(&table, addr.parse().unwrap()), want, "{addr}");
        }
    }

    #[test]
    fn the_ends_of_a_family_are_found() {
        let table = table(&[("0.0.0.0/0", 1), ("255.255.255.255/32", 2), ("::/0", 3)]);
        assert_eq!(owner(&table, "0.0.0.0".parse().unwrap()), Some(1));
        assert_eq!(owner(&table, "255.255.255.255".parse().unwrap()), Some(2));
        assert_eq!(owner(&table, Prefix::all(Family::V6).last()), Some(3));
    }

    #[test]
    fn a_peer_that_stays_keeps_what_it_has_counted() {
        let old = table(&[("10.1.0.0/16", 1), ("10.2.0.0/16", 2)]);
        old.peer(old.at(outer(1)).unwrap()).unwrap().sent.add(3, 30);
        let new = Table::new(&wanted(&[("10.9.0.0/16", 1)]), &old, None);
        assert_eq!(new.peer(new.at(outer(1)).unwrap()).unwrap().sent.get(), [3, 30]);
        assert_eq!(new.at(outer(2)), None);
    }

    #[test]
    fn a_view_takes_a_new_table_when_there_is_one() {
        let tables = Arc::new(Tables::default());
        let mut view = View::new(Arc::clone(&tables));
        assert_eq!(view.table().at(outer(1)), None);
        tables.publish(table(&[("10.1.0.0/16", 1)]));
        assert!(view.table().at(outer(1)).is_some());
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_of_all_prefixes_finds(
            rows in proptest::collection::vec((any::<u8>(), 0..=8_u8, 1..20_u8), 0..30),
            probes in proptest::collection::vec(any::<u8>(), 40),
        ) {
            // A family of 256 addresses, so that prefixes meet.
            let mut wanted = BTreeMap::new();
            for (low, len, peer) in rows {
                let prefix = Prefix::around([10, 0, 0, low].into(), 24 + len).unwrap();
                wanted.insert(prefix, spec(peer));
            }
            let table = Table::new(&wanted, &Table::default(), None);
            for low in probes {
                let addr = IpAddr::from([10, 0, 0, low]);
                let best = wanted.iter().filter(|(p, _)| p.contains(addr)).max_by_key(|(p, _)| p.len());
                let found = table.owner(addr).and_then(|place| table.peer(place)).map(|p| p.endpoint);
                prop_assert_eq!(found, best.map(|(_, spec)| spec.endpoint));
            }
        }
    }

    fn table(rows: &[(&str, u8)]) -> Table {
        Table::new(&wanted(rows), &Table::default(), None)
    }

    fn wanted(rows: &[(&str, u8)]) -> BTreeMap<Prefix, EnginePeerSpec> {
        let row = |(prefix, n): &(&str, u8)| (prefix.parse().unwrap(), spec(*n));
        rows.iter().map(row).collect()
    }

    fn spec(n: u8) -> EnginePeerSpec {
        EnginePeerSpec { endpoint: SocketAddr::new(outer(n), 8_285), key: None }
    }

    fn outer(n: u8) -> IpAddr {
        [192, 168, 77, n].into()
    }

    fn owner(table: &Table, addr: IpAddr) -> Option<u8> {
        let IpAddr::V4(ip) = table.peer(table.owner(addr)?)?.endpoint.ip() else { return None };
        Some(ip.octets()[3])
    }
}
