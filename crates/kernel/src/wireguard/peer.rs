//! The peers of a WireGuard link of ours.
//!
//! A wish is one prefix and who holds it; the kernel has peers that have prefixes. Of several wishes with one key one
//! peer is made. A peer that has lost its last prefix is nobody's wish, and is swept.
//!
//! A peer that has roamed is where it was last heard from, as WireGuard means it: while its session lives, another
//! endpoint than the wished one is no drift. One that has not been heard of for longer is looked for again where its
//! lease says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use russet_desired::{Table, WireguardPeer, WireguardPeerKey, WireguardPeerSpec, WireguardSpec};
use russet_net::{IfName, Prefix, PublicKey};

use super::{
    Talk,
    wire::{self, Order, Peer},
};
use crate::{
    Host, KernelError,
    link::Links,
    netlink::{Batch, Message, NetlinkError},
    reconcile::{Change, Driver, Events, Refused, Seen},
};

/// Keeps peers.
#[derive(Debug, Default)]
pub struct WireguardPeerDriver {
    /// What each peer of the kernel holds, and where we said that it is.
    held: BTreeMap<Id, Held>,
}

/// One peer of one link.
type Id = (IfName, PublicKey);

#[derive(Clone, Debug, Default)]
struct Held {
    allowed: BTreeSet<Prefix>,
    told: Option<SocketAddr>,
}

/// Who holds a prefix now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerActual {
    pub key: PublicKey,
    pub endpoint: Option<SocketAddr>,
    pub shared: WireguardSpec,
}

impl Driver<WireguardPeer> for WireguardPeerDriver {
    type Context = Host;
    type Actual = PeerActual;
    const EVENTS: Events = Events::Hint;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _: &Table<WireguardPeer>,
    ) -> Result<BTreeMap<WireguardPeerKey, PeerActual>, KernelError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // First, so that a failure leaves what is known.
        let devices = host.wireguard.devices(&host.links)?;
        let told = std::mem::take(&mut self.held);
        let mut found = BTreeMap::new();
        for device in devices {
            let Some(link) = device.link else { continue };
            for (key, peer) in device.peers {
                let told = told.get(&(link, key)).and_then(|held| held.told);
                let actual = PeerActual {
                    key,
                    endpoint: whereabouts(&peer, told, now),
                    shared: WireguardSpec { psk: peer.psk, keepalive: peer.keepalive },
                };
                let rows = peer
                    .allowed
                    .iter()
                    .map(|prefix| (WireguardPeerKey { link, prefix: *prefix }, actual));
                found.extend(rows);
                self.held.insert((link, key), Held { allowed: peer.allowed, told });
            }
        }
        Ok(found)
    }

    fn is_met(
        &self,
        _: &Host,
        _: &WireguardPeerKey,
        wanted: &WireguardPeerSpec,
        actual: &PeerActual,
    ) -> bool {
        *actual == settled(wanted)
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<WireguardPeer, PeerActual>],
    ) -> Vec<Refused<WireguardPeer>> {
        let mut peers: BTreeMap<Id, Peer> = BTreeMap::new();
        for change in changes {
            let WireguardPeerSpec { key, endpoint, shared } = change.wanted;
            let peer = peers.entry((change.key.link, key)).or_default();
            (peer.endpoint, peer.psk, peer.keepalive) =
                (Some(endpoint), shared.psk, shared.keepalive);
            peer.allowed.insert(change.key.prefix);
        }
        let orders: Vec<_> = peers.iter().map(|(id, peer)| (*id, Order::Set(peer))).collect();
        let failed = send(host, &orders);
        self.note(peers.iter().filter(|(id, _)| !failed.contains_key(id)));
        let of = |change: &Change<WireguardPeer, PeerActual>| (change.key.link, change.wanted.key);
        changes.iter().filter_map(|c| Some((c.key, failed.get(&of(c))?.clone()))).collect()
    }

    fn remove(
        &mut self,
        host: &mut Host,
        keys: &[WireguardPeerKey],
    ) -> Vec<Refused<WireguardPeer>> {
        // Peers go with their link.
        let there = |key: &&WireguardPeerKey| host.links.index(key.link).is_some();
        let mut losers: BTreeMap<Id, BTreeSet<Prefix>> = BTreeMap::new();
        let holders = self.holders();
        for key in keys.iter().filter(there) {
            if let Some(holder) = holders.get(key) {
                losers.entry((key.link, *holder)).or_default().insert(key.prefix);
            }
        }
        let left: BTreeMap<Id, BTreeSet<Prefix>> = losers
            .iter()
            .filter_map(|(id, lost)| Some((*id, &self.held.get(id)?.allowed - lost)))
            .collect();
        let failed = send(host, &orders_for(&left));
        for (id, allowed) in left {
            match (failed.contains_key(&id), allowed.is_empty()) {
                (true, _) => {}
                (false, true) => _ = self.held.remove(&id),
                (false, false) => self.held.entry(id).or_default().allowed = allowed,
            }
        }
        let refused = |id: &Id| failed.get(id).cloned();
        losers
            .into_iter()
            .filter_map(|(id, lost)| Some((id, lost, refused(&id)?)))
            .flat_map(|((link, _), lost, err)| {
                lost.into_iter().map(move |prefix| (WireguardPeerKey { link, prefix }, err.clone()))
            })
            .collect()
    }

    fn settled(
        &self,
        _: &Host,
        _: &WireguardPeerKey,
        wanted: &WireguardPeerSpec,
    ) -> Option<PeerActual> {
        Some(settled(wanted))
    }

    /// Peers without a prefix have no key of their own.
    fn sweep(&mut self, host: &mut Host) -> Result<(), KernelError> {
        let bare = self.held.iter().filter(|(_, held)| held.allowed.is_empty());
        let orders: Vec<_> = bare.map(|(id, _)| (*id, Order::Remove)).collect();
        let failed = send(host, &orders);
        self.held.retain(|id, held| !held.allowed.is_empty() || failed.contains_key(id));
        failed.into_values().next().map_or(Ok(()), Err)
    }

    fn decode(&self, _: &Host, _: &Message<'_>) -> Option<Seen<WireguardPeer, PeerActual>> {
        None
    }
}

impl WireguardPeerDriver {
    /// Who holds each prefix.
    fn holders(&self) -> BTreeMap<WireguardPeerKey, PublicKey> {
        let of = |(&(link, key), held): (&Id, &Held)| {
            held.allowed
                .iter()
                .map(|prefix| (WireguardPeerKey { link, prefix: *prefix }, key))
                .collect::<Vec<_>>()
        };
        self.held.iter().flat_map(of).collect()
    }

    /// Takes note of what was set. A prefix has one holder: the kernel takes it from whoever had it.
    fn note<'a>(&mut self, set: impl Iterator<Item = (&'a Id, &'a Peer)>) {
        let mut holders = self.holders();
        for (&(link, key), peer) in set {
            for prefix in &peer.allowed {
                let before = holders.insert(WireguardPeerKey { link, prefix: *prefix }, key);
                if let Some(held) = before.and_then(|before| self.held.get_mut(&(link, before))) {
                    held.allowed.remove(prefix);
                }
            }
            let held = self.held.entry((link, key)).or_default();
            held.allowed.extend(&peer.allowed);
            held.told = peer.endpoint;
        }
    }
}

/// Where the peer counts as being.
fn whereabouts(peer: &Peer, told: Option<SocketAddr>, now: Duration) -> Option<SocketAddr> {
    let is_alive = now.saturating_sub(peer.handshake) < SESSION;
    if is_alive { told.or(peer.endpoint) } else { peer.endpoint }
}

const fn settled(wanted: &WireguardPeerSpec) -> PeerActual {
    PeerActual { key: wanted.key, endpoint: Some(wanted.endpoint), shared: wanted.shared }
}

fn orders_for(left: &BTreeMap<Id, BTreeSet<Prefix>>) -> Vec<(Id, Order<'_>)> {
    let order =
        |allowed| if BTreeSet::is_empty(allowed) { Order::Remove } else { Order::Allow(allowed) };
    left.iter().map(|(id, allowed)| (*id, order(allowed))).collect()
}

/// Sends every order, and tells which failed.
fn send(host: &mut Host, orders: &[(Id, Order<'_>)]) -> BTreeMap<Id, KernelError> {
    if orders.is_empty() {
        return BTreeMap::new();
    }
    let Host { wireguard, links, .. } = host;
    match wireguard.talk() {
        Ok(talk) => send_by(talk, links, orders),
        Err(err) => {
            let err = KernelError::from(err);
            orders.iter().map(|(id, _)| (*id, err.clone())).collect()
        }
    }
}

fn send_by(
    talk: &mut Talk,
    links: &Links,
    orders: &[(Id, Order<'_>)],
) -> BTreeMap<Id, KernelError> {
    let mut failed = BTreeMap::new();
    let mut batch = Batch::new();
    let mut sent = Vec::new();
    for (id, order) in orders {
        match links.need_ours(SET, id.1, id.0) {
            Ok(index) => {
                wire::set_peer(&mut batch, talk.family, index, id.1, *order);
                sent.push(*id);
            }
            Err(err) => _ = failed.insert(*id, err.into()),
        }
    }
    match talk.socket.batch(&mut batch) {
        Ok(outcomes) => {
            let refused = sent.into_iter().zip(outcomes).filter_map(|(id, outcome)| {
                Some((id, NetlinkError::refused(SET, id.1, outcome.err()?).into()))
            });
            failed.extend(refused);
        }
        Err(err) => failed.extend(sent.into_iter().map(|id| (id, err.clone().into()))),
    }
    failed
}

const SET: &str = "set WireGuard peer";
/// How long a session may be used after its handshake (`REJECT_AFTER_TIME`).
const SESSION: Duration = Duration::from_mins(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_has_roamed_is_looked_for_again_when_its_session_is_over() {
        let at = |n: u8| Some(SocketAddr::from(([192, 168, 77, n], 51_820)));
        let handshake = Duration::from_secs(1_000);
        let peer = Peer { endpoint: at(9), handshake, ..Peer::default() };
        let later = |seconds| handshake + Duration::from_secs(seconds);
        assert_eq!(whereabouts(&peer, at(2), later(179)), at(2), "it lives");
        assert_eq!(whereabouts(&peer, at(2), later(180)), at(9), "it does not");
        assert_eq!(whereabouts(&peer, None, later(1)), at(9), "nobody said anything");
    }

    #[test]
    fn a_prefix_that_changes_hands_leaves_its_old_holder_bare() {
        let link: IfName = "flannel-wg".parse().unwrap();
        let key = |n| PublicKey::new([n; 32]);
        let prefix: Prefix = "10.50.2.0/24".parse().unwrap();
        let peer = Peer { allowed: [prefix].into(), ..Peer::default() };
        let mut driver = WireguardPeerDriver::default();
        for n in [1, 2] {
            driver.note([(&(link, key(n)), &peer)].into_iter());
        }
        assert!(driver.held[&(link, key(1))].allowed.is_empty());
        assert_eq!(driver.holders()[&WireguardPeerKey { link, prefix }], key(2));
    }
}
