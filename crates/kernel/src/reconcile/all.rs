//! All kinds of one network namespace, in the order in which they need each other.
//!
//! What is made goes from sysctls to routes and rules, what is removed the other way. Links are special:
//! what lies behind one (addresses, neighbours, FDB entries, next hops, routes) dies with it, or with its
//! carrier, and the kernel says little or nothing of that. So a link that went away, came, went up or down
//! means that all kinds behind links are read back. A next hop that went takes routes with it and means
//! that the routes are read back.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use russet_desired::{
    Address, AddressKey, Engine, EnginePeer, Fdb, FdbKey, Key, Link, LinkKind, Neighbour,
    NeighbourKey, NextHop, Offload, Patches, Port, Route, Sysctl, WireguardDevice, WireguardPeer,
};
use russet_net::{IfName, Mac};

use super::{News, Path, Reconciler, part::Part, rules::Rules};
use crate::{
    Host, KernelError,
    address::AddressDriver,
    engine::{EngineDriver, EnginePeerDriver, EnginePlaces},
    fdb::FdbDriver,
    link::LinkDriver,
    neighbour::NeighbourDriver,
    netlink::{Message, rt},
    next_hop::NextHopDriver,
    offload::OffloadDriver,
    port::PortDriver,
    route::{Leads, RouteDriver},
    sysctl::SysctlDriver,
    wireguard::{WireguardDeviceDriver, WireguardPeerDriver},
};

/// The reconcilers of every kind, and what they share.
#[derive(Debug)]
pub struct Reconcilers {
    host: Host,
    sysctls: Reconciler<Sysctl, SysctlDriver>,
    links: Reconciler<Link, LinkDriver>,
    engines: Reconciler<Engine, EngineDriver>,
    engine_peers: Reconciler<EnginePeer, EnginePeerDriver>,
    wireguard_devices: Reconciler<WireguardDevice, WireguardDeviceDriver>,
    wireguard_peers: Reconciler<WireguardPeer, WireguardPeerDriver>,
    ports: Reconciler<Port, PortDriver>,
    offloads: Reconciler<Offload, OffloadDriver>,
    addresses: Reconciler<Address, AddressDriver>,
    neighbours: Reconciler<Neighbour, NeighbourDriver>,
    fdb: Reconciler<Fdb, FdbDriver>,
    next_hops: Reconciler<NextHop, NextHopDriver>,
    routes: Reconciler<Route, RouteDriver>,
    rules: Rules,
    resyncs: u64,
}

impl Reconcilers {
    /// Opens the sockets in the thread's network namespace. Nothing is changed yet.
    ///
    /// # Errors
    ///
    /// When a socket cannot be had.
    pub fn open() -> Result<Self, KernelError> {
        Self::with_engines(None)
    }

    /// [`Self::open`], with a place for engines.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn with_engines(engines: Option<EnginePlaces>) -> Result<Self, KernelError> {
        let key_file = engines.as_ref().map(|places| places.key.clone());
        Ok(Self {
            host: Host::with_engines(engines)?,
            sysctls: Reconciler::new(SysctlDriver::default()),
            links: Reconciler::new(LinkDriver),
            engines: Reconciler::new(EngineDriver),
            engine_peers: Reconciler::new(EnginePeerDriver),
            wireguard_devices: Reconciler::new(WireguardDeviceDriver::new(key_file)),
            wireguard_peers: Reconciler::new(WireguardPeerDriver::default()),
            ports: Reconciler::new(PortDriver),
            offloads: Reconciler::new(OffloadDriver),
            addresses: Reconciler::new(AddressDriver),
            neighbours: Reconciler::new(NeighbourDriver),
            fdb: Reconciler::new(FdbDriver),
            next_hops: Reconciler::new(NextHopDriver::default()),
            routes: Reconciler::new(RouteDriver::default()),
            rules: Rules::open()?,
            resyncs: 0,
        })
    }

    /// Takes newer wishes. Cheap: the kernel is not touched until [`Self::apply`].
    pub fn update(&mut self, mut patches: Patches) {
        for part in self.row() {
            part.update(&mut patches);
        }
    }

    /// Says that every wish has been told, so what is ours and unwished may go.
    pub fn complete(&mut self) {
        for part in self.row() {
            part.complete();
        }
    }

    /// Asks for everything to be read back before the next change.
    pub fn mark_stale(&mut self, path: Path) {
        for part in self.row() {
            part.mark_stale(path);
        }
    }

    /// Asks for the rules alone to be read back.
    pub fn mark_rules_stale(&mut self, path: Path) {
        self.rules.mark_stale(path);
    }

    /// Says who changed rules last, for what is found to be repaired there.
    pub fn blame_for_rules(&mut self, by: Option<Arc<str>>) {
        self.rules.blame(by);
    }

    /// Tries again what was refused.
    pub fn retry(&mut self) {
        for part in self.row() {
            part.retry();
        }
    }

    /// Takes in one event of `NETLINK_ROUTE`. Whoever calls it resolves `by` only when it is asked for.
    pub fn observe(
        &mut self,
        message: &Message<'_>,
        by: &mut dyn FnMut() -> Option<Arc<str>>,
        now: Instant,
    ) {
        if matches!(message.kind, rt::RTM_NEWLINK | rt::RTM_DELLINK) {
            self.host.links.observe(message);
            self.follow_links(Path::Link);
        }
        let (host, row) = self.host_and_row();
        for part in row {
            part.observe(host, message, by, now);
        }
        if self.next_hops.is_stale() {
            self.routes.mark_stale(Path::Link);
        }
    }

    /// Looks which engines have gone.
    pub fn observe_engines(&mut self) {
        if self.host.engines.drop_broken() {
            self.engines.mark_stale(Path::Event);
            self.engine_peers.mark_stale(Path::Link);
        }
    }

    /// Has read back what lies behind the links that changed, and tries again what may have waited for
    /// them.
    fn follow_links(&mut self, path: Path) {
        for link in self.host.links.take_changed() {
            if self.is_used(link) || self.is_inherited(link) {
                self.mark_behind_stale(path);
            }
            if self.is_needed(link) {
                self.retry();
            }
        }
    }

    /// Whether something that is wanted lies behind the link.
    fn is_used(&self, link: IfName) -> bool {
        let lowest = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let address = AddressKey { link, addr: lowest, len: 0 };
        let neighbour = NeighbourKey { link, ip: lowest };
        let entry = FdbKey { link, mac: Mac::ZERO };
        let first = |key: Option<IfName>| key == Some(link);
        first(self.addresses.desired().range(address..).next().map(|(key, _)| key.link))
            || first(self.neighbours.desired().range(neighbour..).next().map(|(key, _)| key.link))
            || first(self.fdb.desired().range(entry..).next().map(|(key, _)| key.link))
            || self.next_hops.desired().keys().any(|key| key.link == link)
            || self.wireguard_devices.desired().contains_key(&link)
    }

    /// Whether others may have made it, who left behind it what nobody wants.
    fn is_inherited(&self, link: IfName) -> bool {
        self.links.desired().get(&link).is_some_and(|spec| spec.inherits.is_on())
    }

    /// Whether something that is wanted may wait for the link.
    fn is_needed(&self, link: IfName) -> bool {
        let stands_on = |kind: &LinkKind| match kind {
            LinkKind::Vxlan(spec) => spec.underlay == link,
            LinkKind::Bridge
            | LinkKind::Ipip(_)
            | LinkKind::Tun
            | LinkKind::Wireguard
            | LinkKind::PodVeth => false,
        };
        let links = self.links.desired();
        links.contains_key(&link)
            || self.is_used(link)
            || links.values().any(|spec| spec.master == Some(link) || stands_on(&spec.kind))
    }

    fn mark_behind_stale(&mut self, path: Path) {
        self.wireguard_devices.mark_stale(path);
        self.wireguard_peers.mark_stale(path);
        self.ports.mark_stale(path);
        self.offloads.mark_stale(path);
        self.addresses.mark_stale(path);
        self.neighbours.mark_stale(path);
        self.fdb.mark_stale(path);
        self.next_hops.mark_stale(path);
        self.routes.mark_stale(path);
    }

    /// Reads back what is stale, then makes, changes and removes what is pending.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be read back. What could not be stays stale; nothing is lost by calling again.
    pub fn apply(&mut self, now: Instant) -> Result<(), KernelError> {
        self.resync(Path::Link, now)?;
        self.sysctls.upsert(&mut self.host, now);
        self.links.upsert(&mut self.host, now);
        self.host.links.refuse(self.links.refused().keys());
        self.engines.upsert(&mut self.host, now);
        // A new engine has no peers yet, whatever we thought it had.
        if self.host.engines.take_started() {
            self.engine_peers.mark_stale(Path::Own);
        }
        // A link that we made, or made again, has nothing behind it yet, whatever we thought was there.
        self.resync(Path::Own, now)?;
        let (host, row) = self.host_and_row();
        for part in row.into_iter().skip(3) {
            part.upsert(host, now);
        }
        self.keep_old_ways();
        let (host, row) = self.host_and_row();
        for part in row.into_iter().rev() {
            part.remove(host);
        }
        // The removal of links is our own doing as well.
        self.follow_links(Path::Own);
        Ok(())
    }

    /// A route that is to lead another way, and cannot, goes on leading the old one.
    fn keep_old_ways(&mut self) {
        let routes = self.routes.actual();
        let hop = |key| match routes.get(key)? {
            Leads::Hop(number) => Some(*number),
            Leads::Link(_) | Leads::Blackhole => None,
        };
        self.host.next_hops.stand_upon(self.routes.refused().keys().filter_map(hop));
    }

    /// Reads back what is stale. Links come first: their listing may show that one changed, and that makes
    /// what lies behind it stale, by `path`.
    fn resync(&mut self, path: Path, now: Instant) -> Result<(), KernelError> {
        self.host.links.grow_old();
        self.follow_links(path);
        for from in [0, LINKS + 1] {
            let (host, row) = self.host_and_row();
            let until = if from == 0 { LINKS + 1 } else { row.len() };
            let mut resyncs = 0;
            let parts = row.into_iter().take(until).skip(from);
            let result = parts.filter(|part| part.is_stale()).try_for_each(|part| {
                resyncs += 1;
                part.resync(host, now)
            });
            self.resyncs += resyncs;
            result?;
            self.follow_links(path);
        }
        Ok(())
    }

    /// Whether [`Self::apply`] has anything to do.
    pub fn is_pending(&mut self) -> bool {
        self.row().iter().any(|part| part.is_stale() || part.is_pending())
    }

    /// How many objects are refused now.
    pub fn refused(&mut self) -> usize {
        self.row().iter().map(|part| part.refused()).sum()
    }

    /// How many objects are wanted, by kind.
    pub fn wanted(&mut self) -> Vec<(&'static str, usize)> {
        self.row().iter().map(|part| (part.name(), part.wanted())).collect()
    }

    /// What was noticed since the last call.
    pub fn take_news(&mut self) -> Vec<News<Key>> {
        let mut news = Vec::new();
        for part in self.row() {
            part.take_news(&mut news);
        }
        news
    }

    /// How many kinds were read back, ever, each time counted.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What each sysctl was before we set it for the first time.
    pub fn sysctls_before(&self) -> &std::collections::BTreeMap<String, String> {
        self.sysctls.driver().before()
    }

    fn row(&mut self) -> [&mut dyn Part; 14] {
        self.host_and_row().1
    }

    /// The kinds in the order of making.
    fn host_and_row(&mut self) -> (&mut Host, [&mut dyn Part; 14]) {
        let row: [&mut dyn Part; 14] = [
            &mut self.sysctls,
            &mut self.links,
            &mut self.engines,
            &mut self.engine_peers,
            &mut self.wireguard_devices,
            &mut self.wireguard_peers,
            &mut self.ports,
            &mut self.offloads,
            &mut self.addresses,
            &mut self.neighbours,
            &mut self.fdb,
            &mut self.next_hops,
            &mut self.routes,
            &mut self.rules,
        ];
        (&mut self.host, row)
    }
}

/// Where the links stand in the row.
const LINKS: usize = 1;
