//! When a session that is not wished any more may go: from a mesh to reflectors, back, or from one reflector to another
//! without an outage.
//!
//! ```text
//!   wished ────────────▶ not wished, its node is gone, or nothing comes in its place ─────────▶ gone
//!     ▲                        │
//!     │                        ▼            all new ones up and heard in full,
//!     └── wished again ──── held ──── and no destination is reached by it alone ─────────────▶ gone
//!                              └───────────── the bound is over ────────────────────────────▶ gone, late
//! ```
//!
//! A session that stays is held with the configuration that it had. One of the mesh is held in any case until a session
//! of another kind is there to take its place: an operator who turns the mesh off before anything else is in place has as
//! long as the bound to make it. A node that is no reflector any more reflects as long as the bound to the nodes that stay
//! its peers, for they may have each other later than it hears of it. There is no clock in here: whoever has the sessions says what time it is, and what
//! they look like.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use russet_bgp::{reflector::Relation, speaker::PeerAddr};
use russet_core::model::calico::PeerKind;

use super::{config::PeerConfig, resources::Wished};

/// The sessions that are on their way in or out.
#[derive(Debug, Default)]
pub struct Handover {
    /// What is wished, and of which kind.
    wished: BTreeMap<PeerAddr, Option<PeerKind>>,
    /// Wished, not heard in full yet, and waited for until then.
    young: BTreeMap<PeerAddr, Instant>,
    held: BTreeMap<PeerAddr, Held>,
    /// Nodes that are no clients of ours any more, and are reflected to until then.
    lingering: BTreeMap<PeerAddr, Instant>,
    /// When to look.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    config: PeerConfig,
    until: Instant,
}

/// How sessions look.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Established, and told in full.
    pub complete: BTreeSet<PeerAddr>,
    /// To how many destinations the way is lost with all that are held, by who leads there.
    pub needed: BTreeMap<PeerAddr, usize>,
}

/// Why a session that was held goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Others carry what it carried.
    Replaced,
    /// It was waited for long enough.
    Late,
    /// The session stays, and its peer is no client any more.
    NoClient,
}

impl Handover {
    /// Takes a wish, and returns the peers that are to be configured: those of the wish, those that could not be
    /// settled as they are, and those that are held.
    pub fn wish(
        &mut self,
        in_force: &[(PeerAddr, PeerConfig)],
        wish: &Wished,
        now: Instant,
    ) -> Vec<(PeerAddr, PeerConfig)> {
        let until = now + BOUND;
        let kind = |config: &PeerConfig| config.origin.as_ref().map(|origin| origin.kind);
        let before = std::mem::take(&mut self.wished);
        // What cannot be settled is wished as it was.
        let settled: BTreeSet<_> = wish.config.peers.iter().map(|(addr, _)| *addr).collect();
        let unsettled = in_force.iter().filter(|(addr, _)| !settled.contains(addr));
        let unsettled: Vec<_> = unsettled.filter(|peer| is_unsettled(peer, wish)).collect();
        let all = unsettled.iter().copied().chain(&wish.config.peers);
        self.wished = all.map(|(addr, peer)| (*addr, kind(peer))).collect();
        let wished = &self.wished;
        self.young.retain(|addr, _| wished.contains_key(addr));
        self.held.retain(|addr, _| !wished.contains_key(addr));
        let there: BTreeSet<_> = in_force.iter().map(|(addr, _)| *addr).collect();
        // One that comes back is as it was.
        let new = wished.keys().filter(|addr| !before.contains_key(addr) && !there.contains(addr));
        self.young.extend(new.map(|addr| (*addr, until)));

        let mut peers = wish.config.peers.clone();
        self.linger(in_force, &mut peers, until);
        peers.extend(unsettled.into_iter().cloned());
        for (addr, config) in in_force {
            if !self.wished.contains_key(addr) && self.holds(*addr, config, wish, until) {
                peers.push((*addr, config.clone()));
            }
        }
        let in_force: BTreeSet<_> = peers.iter().map(|(addr, _)| *addr).collect();
        self.held.retain(|addr, _| in_force.contains(addr));
        self.next = self.next_after(now);
        peers
    }

    /// Who stops being a reflector reflects for a while yet: its clients have nobody else until they have each other.
    fn linger(
        &mut self,
        in_force: &[(PeerAddr, PeerConfig)],
        peers: &mut [(PeerAddr, PeerConfig)],
        until: Instant,
    ) {
        let clients = in_force.iter().filter(|(_, peer)| is_client_node(peer));
        let clients: BTreeSet<_> = clients.map(|(addr, _)| *addr).collect();
        let mut lingering = BTreeMap::new();
        for (addr, peer) in peers {
            if clients.contains(addr) && peer.settings.internal != Relation::Client {
                let until = self.lingering.get(addr).copied().unwrap_or(until);
                lingering.insert(*addr, until);
                peer.settings.internal = Relation::Client;
            }
        }
        self.lingering = lingering;
    }

    /// Whether a session that is not wished any more is held.
    fn holds(
        &mut self,
        addr: PeerAddr,
        config: &PeerConfig,
        wish: &Wished,
        until: Instant,
    ) -> bool {
        let Some(origin) = &config.origin else { return false };
        if is_with_nobody(config, wish) {
            return false;
        }
        if !self.held.contains_key(&addr) {
            if origin.kind != PeerKind::NodeMesh && self.young.is_empty() {
                return false;
            }
            self.held.insert(addr, Held { config: config.clone(), until });
        }
        true
    }

    /// Looks at the sessions, and lets go of those that may go.
    pub fn look(&mut self, sight: &Sight, now: Instant) -> Vec<(PeerAddr, Release)> {
        self.young.retain(|addr, until| *until > now && !sight.complete.contains(addr));
        let is_other =
            |(_, kind): &(&PeerAddr, &Option<PeerKind>)| **kind != Some(PeerKind::NodeMesh);
        let mut others = self.wished.iter().filter(is_other);
        let has_other = others.any(|(addr, _)| sight.complete.contains(addr));
        let all_are_up = self.young.is_empty();
        let mut released = Vec::new();
        self.held.retain(|addr, held| {
            let of_mesh =
                held.config.origin.as_ref().is_some_and(|it| it.kind == PeerKind::NodeMesh);
            let needed = sight.needed.get(addr).is_some_and(|many| *many > 0);
            let release = if held.until <= now {
                Some(Release::Late)
            } else {
                let replaced = all_are_up && !needed && (has_other || !of_mesh);
                replaced.then_some(Release::Replaced)
            };
            released.extend(release.map(|release| (*addr, release)));
            release.is_none()
        });
        self.lingering.retain(|addr, until| {
            released.extend((*until <= now).then_some((*addr, Release::NoClient)));
            *until > now
        });
        self.next = self.next_after(now);
        released
    }

    /// When to look; `None` while nothing is on its way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    fn next_after(&self, now: Instant) -> Option<Instant> {
        if !self.held.is_empty() {
            return Some(now + OFTEN);
        }
        let waits = !self.young.is_empty() || !self.lingering.is_empty();
        waits.then(|| now + SOMETIMES)
    }

    /// Those that are held, each with the time that is left to it.
    pub fn held(&self) -> impl Iterator<Item = (PeerAddr, Instant)> {
        self.held.iter().map(|(addr, held)| (*addr, held.until))
    }

    /// Those of which is to be known whether they are complete.
    pub fn awaited(&self) -> impl Iterator<Item = PeerAddr> {
        let others = self.wished.iter().filter(|(_, kind)| **kind != Some(PeerKind::NodeMesh));
        self.young.keys().chain(others.map(|(addr, _)| addr)).copied()
    }
}

/// Whether a session that is not settled is wished all the same, and stays as it is.
fn is_unsettled((addr, config): &(PeerAddr, PeerConfig), wish: &Wished) -> bool {
    let object = config.origin.as_ref().and_then(|origin| origin.object.as_ref());
    let by_object = object.is_some_and(|object| wish.faulty.contains(object));
    wish.unsettled.contains(addr) || (by_object && !is_with_nobody(config, wish))
}

/// Whether the node at the other end is there no more.
fn is_with_nobody(config: &PeerConfig, wish: &Wished) -> bool {
    let node = config.origin.as_ref().and_then(|origin| origin.node.as_ref());
    node.is_some_and(|node| !wish.nodes.contains(node))
}

/// Whether the peer is a node, and we reflect to it.
fn is_client_node(peer: &PeerConfig) -> bool {
    let is_node = peer.origin.as_ref().is_some_and(|origin| origin.node.is_some());
    is_node && peer.settings.internal == Relation::Client
}

/// So long a session waits for those that come in its place.
pub const BOUND: Duration = Duration::from_mins(2);
const OFTEN: Duration = Duration::from_millis(250);
const SOMETIMES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::resources::{self, Base, Documents, Folder};

    #[test]
    fn mesh_sessions_wait_for_every_reflector_and_for_every_route() {
        let mut it = Run::new(&[MESH]);
        assert_eq!(it.configured(), ["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9"]);
        it.complete(&["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9"]);
        it.wish(&[REFLECTORS, "no-mesh"]);
        // The reflectors were in the mesh, and have become something else where they are.
        assert_eq!(it.configured(), ["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9"]);
        it.needed = BTreeMap::from([(addr("10.0.0.2"), 1)]);
        assert_eq!(it.look(), ["10.0.0.3 Replaced"]);
        it.needed.clear();
        assert_eq!(it.look(), ["10.0.0.2 Replaced"]);
        assert_eq!(it.handover.poll_timeout(), None);
    }

    #[test]
    fn a_reflector_that_never_comes_up_is_waited_for_as_long_as_the_bound() {
        let mut it = Run::new(&[MESH, "without-reflectors"]);
        it.complete(&["10.0.0.2", "10.0.0.3"]);
        it.wish(&[REFLECTORS, "no-mesh"]);
        assert_eq!(it.configured(), ["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9"]);
        it.complete(&["10.0.0.2", "10.0.0.3", "10.0.0.8"]);
        assert!(it.look().is_empty());
        it.now += BOUND.saturating_sub(OFTEN);
        assert!(it.look().is_empty());
        it.now += OFTEN;
        assert_eq!(it.look(), ["10.0.0.2 Late", "10.0.0.3 Late"]);
        assert_eq!(it.configured(), ["10.0.0.8", "10.0.0.9"]);
    }

    #[test]
    fn reflectors_wait_for_the_mesh_and_one_for_another() {
        let mut it = Run::new(&[REFLECTORS, "no-mesh", "9-is-none"]);
        assert_eq!(it.configured(), ["10.0.0.8"]);
        it.complete(&["10.0.0.8"]);
        // The label goes from one node to another.
        it.wish(&[REFLECTORS, "no-mesh", "8-is-none"]);
        assert_eq!(it.configured(), ["10.0.0.8", "10.0.0.9"]);
        assert!(it.look().is_empty());
        it.complete(&["10.0.0.8", "10.0.0.9"]);
        assert_eq!(it.look(), ["10.0.0.8 Replaced"]);
        // Back into the mesh, where no reflector is any more.
        it.wish(&[MESH]);
        assert_eq!(it.configured(), ["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9"]);
        it.wish(&[MESH, "without-reflectors"]);
        assert_eq!(it.configured(), ["10.0.0.2", "10.0.0.3"], "their nodes are gone");
    }

    #[test]
    fn a_node_that_is_deleted_and_a_peer_without_a_successor_go_at_once() {
        let mut it = Run::new(&[MESH, "rack"]);
        it.complete(&["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9", "10.0.0.254"]);
        assert!(it.look().is_empty());
        it.wish(&[MESH, "rack", "without-reflectors"]);
        assert_eq!(it.configured(), ["10.0.0.2", "10.0.0.254", "10.0.0.3"]);
        it.wish(&[MESH, "without-reflectors"]);
        assert_eq!(it.configured(), ["10.0.0.2", "10.0.0.3"]);
    }

    #[test]
    fn a_session_that_was_held_and_is_wished_again_but_cannot_be_settled_stays() {
        let mut it = Run::new(&[MESH, "rack", "without-reflectors"]);
        it.complete(&["10.0.0.2", "10.0.0.3", "10.0.0.254"]);
        it.wish(&[REFLECTORS, "no-mesh"]);
        let all = ["10.0.0.2", "10.0.0.254", "10.0.0.3", "10.0.0.8", "10.0.0.9"];
        assert_eq!(it.configured(), all);
        it.wish(&[REFLECTORS, "no-mesh", "rack", "rack-is-bad"]);
        it.complete(&all);
        assert_eq!(it.look(), ["10.0.0.2 Replaced", "10.0.0.3 Replaced"]);
        it.now += BOUND * 2;
        assert!(it.look().is_empty());
        assert_eq!(it.configured(), ["10.0.0.254", "10.0.0.8", "10.0.0.9"]);
    }

    #[test]
    fn one_that_comes_in_another_s_place_and_cannot_be_settled_is_waited_for() {
        let mut it = Run::new(&[MESH, "rack", "without-reflectors"]);
        it.complete(&["10.0.0.2", "10.0.0.3", "10.0.0.254"]);
        it.wish(&[REFLECTORS, "no-mesh", "rack"]);
        it.wish(&[REFLECTORS, "no-mesh", "rack", "rr-is-bad"]);
        assert!(it.look().is_empty(), "the reflectors' sessions are not up");
        it.complete(&["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9", "10.0.0.254"]);
        assert_eq!(it.look(), ["10.0.0.2 Replaced", "10.0.0.3 Replaced"]);
    }

    #[test]
    fn a_session_by_an_object_that_cannot_be_settled_goes_with_its_node() {
        let mut it = Run::new(&[REFLECTORS, "no-mesh"]);
        it.wish(&[REFLECTORS, "no-mesh", "rr-is-bad"]);
        assert_eq!(it.configured(), ["10.0.0.8", "10.0.0.9"]);
        it.wish(&[REFLECTORS, "no-mesh", "rr-is-bad", "without-9"]);
        assert_eq!(it.configured(), ["10.0.0.8"]);
    }

    #[test]
    fn a_mesh_that_is_turned_off_before_anything_takes_its_place_is_held() {
        let mut it = Run::new(&[MESH]);
        it.complete(&["10.0.0.2", "10.0.0.3", "10.0.0.8", "10.0.0.9"]);
        it.wish(&[MESH, "no-mesh"]);
        assert_eq!(it.configured().len(), 4);
        assert!(it.look().is_empty());
        it.wish(&[REFLECTORS, "no-mesh"]);
        assert_eq!(it.look(), ["10.0.0.2 Replaced", "10.0.0.3 Replaced"]);
        // What comes back in time is as it was.
        it.wish(&[MESH, "no-mesh"]);
        it.wish(&[MESH]);
        it.now += BOUND;
        assert!(it.look().is_empty());
    }

    #[test]
    fn who_is_no_reflector_any_more_reflects_for_a_while_yet() {
        let mut it = Run::of("n8", &[REFLECTORS, "no-mesh"]);
        let clients = |it: &Run| {
            let is_client =
                |peer: &&(PeerAddr, PeerConfig)| peer.1.settings.internal == Relation::Client;
            it.in_force.iter().filter(is_client).count()
        };
        assert_eq!(clients(&it), 3, "the other reflector is of the same cluster");
        it.wish(&[MESH]);
        it.now += BOUND / 2;
        it.wish(&[MESH]);
        assert_eq!((clients(&it), it.configured().len()), (3, 4));
        assert!(it.look().is_empty());
        it.now += BOUND / 2;
        let settled = ["10.0.0.1 NoClient", "10.0.0.2 NoClient", "10.0.0.3 NoClient"];
        assert_eq!(it.look(), settled);
        assert!(it.look().is_empty());
    }

    /// This node is 1 unless told; 8 and 9 are or become reflectors.
    struct Run {
        node: &'static str,
        handover: Handover,
        in_force: Vec<(PeerAddr, PeerConfig)>,
        complete: BTreeSet<PeerAddr>,
        needed: BTreeMap<PeerAddr, usize>,
        now: Instant,
    }

    const MESH: &str = "mesh";
    const REFLECTORS: &str = "reflectors";

    impl Run {
        fn new(scene: &[&str]) -> Self {
            Self::of("n1", scene)
        }

        fn of(node: &'static str, scene: &[&str]) -> Self {
            let mut run = Self {
                node,
                handover: Handover::default(),
                in_force: Vec::new(),
                complete: BTreeSet::new(),
                needed: BTreeMap::new(),
                now: Instant::now(),
            };
            run.wish(scene);
            run
        }

        fn wish(&mut self, scene: &[&str]) {
            let wished = wished(self.node, scene);
            self.in_force = self.handover.wish(&self.in_force, &wished, self.now);
        }

        fn complete(&mut self, peers: &[&str]) {
            self.complete = peers.iter().map(|peer| addr(peer)).collect();
        }

        fn look(&mut self) -> Vec<String> {
            let sight = Sight { complete: self.complete.clone(), needed: self.needed.clone() };
            let released = self.handover.look(&sight, self.now);
            let gone = |addr: &PeerAddr| {
                released.iter().any(|(it, why)| it == addr && *why != Release::NoClient)
            };
            self.in_force.retain(|(addr, _)| !gone(addr));
            released.into_iter().map(|(addr, why)| format!("{addr} {why:?}")).collect()
        }

        fn configured(&self) -> Vec<String> {
            let mut peers: Vec<_> =
                self.in_force.iter().map(|(addr, _)| addr.to_string()).collect();
            peers.sort();
            peers
        }
    }

    fn addr(text: &str) -> PeerAddr {
        text.parse().unwrap()
    }

    fn wished(node: &str, scene: &[&str]) -> Wished {
        let is = |word: &str| scene.contains(&word);
        let mut documents = Documents::new(node.parse().unwrap(), None);
        for number in [1, 2, 3, 8, 9] {
            let may_reflect = number > 3;
            if may_reflect && is("without-reflectors") && !is(REFLECTORS) {
                continue;
            }
            if is(&format!("without-{number}")) {
                continue;
            }
            let reflects = is(REFLECTORS) && may_reflect && !is(&format!("{number}-is-none"));
            let mut bgp = serde_json::json!({"ipv4Address": format!("10.0.0.{number}/24")});
            if reflects {
                bgp["routeReflectorClusterID"] = "1.1.1.1".into();
            }
            let labels =
                if reflects { serde_json::json!({"rr": ""}) } else { serde_json::json!({}) };
            let name = format!("n{number}");
            object(
                &mut documents,
                "Node",
                &serde_json::json!({"name": name, "labels": labels}),
                &serde_json::json!({"bgp": bgp}),
            );
        }
        let named = |name: &str| serde_json::json!({"name": name});
        let mesh = serde_json::json!({"nodeToNodeMeshEnabled": !is("no-mesh")});
        object(&mut documents, "BGPConfiguration", &named("default"), &mesh);
        // There is no filter of this name.
        let filters = |bad: &str| if is(bad) { vec!["gone"] } else { Vec::new() };
        if is(REFLECTORS) {
            let filters = filters("rr-is-bad");
            let spec = serde_json::json!({"nodeSelector": "all()", "peerSelector": "has(rr)", "filters": filters});
            object(&mut documents, "BGPPeer", &named("rr"), &spec);
        }
        if is("rack") {
            let filters = filters("rack-is-bad");
            let spec =
                serde_json::json!({"peerIP": "10.0.0.254", "asNumber": 65_000, "filters": filters});
            object(&mut documents, "BGPPeer", &named("rack"), &spec);
        }
        let base = Base { admin_socket: "/run/x".into(), http: None, announced: Vec::new() };
        resources::derive(&documents.done(), &base, None, &Folder(None)).unwrap()
    }

    fn object(
        documents: &mut Documents<'_>,
        kind: &str,
        metadata: &serde_json::Value,
        spec: &serde_json::Value,
    ) {
        let version = "projectcalico.org/v3";
        documents
            .read(&serde_json::json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}))
            .unwrap();
    }
}
