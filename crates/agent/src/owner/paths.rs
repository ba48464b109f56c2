//! What the prober found on the paths to the other nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use russet_api::admin::{PathProblem, SHOWN};
use russet_core::{
    Calc, Change, Fact, FactId,
    calc::{PeerView, Standing},
    model::{LeaseKey, NodeFact},
    world::HasRouter,
};
use russet_net::{Family, IfName};

use super::Owner;
use crate::prober::{Carries, Checksums, Finding, Path, Paths, Tunnel};

/// The paths that do not carry what is sent over them.
#[derive(Debug, Default)]
pub struct PathView {
    narrow: BTreeMap<(LeaseKey, IpAddr), Finding>,
    /// How often in a row checksums were found spoiled, by tunnel device.
    suspicions: BTreeMap<IfName, u32>,
    /// The devices that are to be spared. Once one is, the device itself remembers, and whoever turns it back by hand has
    /// the link tried again.
    to_spare: BTreeSet<IfName>,
    /// Those that are, whoever did it.
    spared: BTreeSet<IfName>,
}

impl PathView {
    /// Takes what was found on all ways to a peer, and tells whether what is to be spared is other than before.
    fn take(&mut self, key: LeaseKey, findings: &[Finding]) -> bool {
        let known = |node| findings.iter().any(|finding| finding.path.node == node);
        // It may have moved.
        self.narrow.retain(|(of, node), _| *of != key || known(*node));
        let before = self.to_spare.clone();
        for finding in findings {
            self.note_width(key, *finding);
            if let (Some(tunnel), Some(checksums)) = (finding.path.tunnel, finding.checksums) {
                self.note_checksums(tunnel.link, checksums);
            }
        }
        self.to_spare != before
    }

    /// One look may be misled: by loss, or by a peer that refuses only so much in a second.
    fn note_checksums(&mut self, link: IfName, checksums: Checksums) {
        match checksums {
            Checksums::Right => {
                self.suspicions.remove(&link);
                self.to_spare.remove(&link);
                self.spared.remove(&link);
            }
            Checksums::Spoiled => {
                self.spared.remove(&link);
                let times = self.suspicions.entry(link).or_default();
                *times += 1;
                if *times >= SURE && self.to_spare.insert(link) {
                    tracing::warn!(op = "probe", %link, "checksums inside the tunnel arrive spoiled when they are left to the link; they are worked out by the processor from here on");
                }
            }
            Checksums::Spared => {
                self.suspicions.remove(&link);
                self.to_spare.remove(&link);
                self.spared.insert(link);
            }
        }
    }

    fn note_width(&mut self, key: LeaseKey, finding: Finding) {
        let at = (key, finding.path.node);
        let (before, node) = (self.narrow.get(&at).map(|known| known.carries), finding.path.node);
        match finding.carries {
            Carries::All => {
                if self.narrow.remove(&at).is_some() {
                    tracing::info!(op = "probe", %node, "the path carries all that is sent again");
                }
            }
            Carries::Told(_) | Carries::Hole(_) => {
                if before != Some(finding.carries) {
                    let reason = problem(&finding);
                    tracing::warn!(op = "probe", %node, %reason, "a path is too narrow");
                }
                self.narrow.insert(at, finding);
            }
            // What is away now says nothing of the path.
            Carries::Silent => {}
        }
    }

    /// Forgets peers and devices that have gone.
    fn keep(&mut self, is_there: impl Fn(LeaseKey) -> bool, is_used: impl Fn(IfName) -> bool) {
        self.narrow.retain(|(key, _), _| is_there(*key));
        self.suspicions.retain(|link, _| is_used(*link));
        self.spared.retain(|link| is_used(*link));
    }

    /// What is wrong, for an operator; at most [`SHOWN`].
    pub fn problems(&self) -> Vec<PathProblem> {
        let row = |((key, node), finding): (&(LeaseKey, IpAddr), &Finding)| PathProblem {
            path: format!("{node} ({key})"),
            problem: problem(finding),
        };
        let spared = |link: &IfName| PathProblem {
            path: format!("tunnel {link}"),
            problem: format!(
                "checksums are not left to the link (tx-checksum is off), because they were found spoiled or by somebody's hand; ethtool -K {link} tx on has it tried again"
            ),
        };
        let checksums = self.spared.union(&self.to_spare).map(spared);
        checksums.chain(self.narrow.iter().map(row)).take(SHOWN).collect()
    }
}

fn problem(finding: &Finding) -> String {
    let sent = finding.path.octets;
    match finding.carries {
        Carries::Told(mtu) => {
            format!(
                "carries {mtu} octets of the {sent} that are sent, and says so: packets are cut up or refused on the way"
            )
        }
        Carries::Hole(mtu) => {
            format!(
                "carries {mtu} octets of the {sent} that are sent, and larger packets, or the answers to them, vanish (MTU black hole): let the path carry more, or set the network's MTU to {mtu}"
            )
        }
        Carries::All | Carries::Silent => String::new(),
    }
}

impl Owner {
    /// The next peer to be probed, behind this one.
    pub(super) fn next_path(&mut self, after: Option<LeaseKey>) -> Option<Paths> {
        let next = self.calc.peers_after(after).find_map(|peer| paths(&self.calc, &peer));
        if next.is_none() {
            let world = self.calc.world();
            let device = |family| world.in_force().and_then(|footing| footing.vxlan_link(family));
            self.paths.keep(
                |key| world.lease(key).is_some(),
                |link| Family::BOTH.into_iter().any(|family| device(family) == Some(link)),
            );
        }
        next
    }

    pub(super) fn probed(&mut self, key: LeaseKey, findings: &[Finding]) {
        if self.paths.take(key, findings)
            && let Some(node) = self.calc.world().node().cloned()
        {
            self.change_node(node);
        }
    }

    /// Takes what the node looks like, with what only the prober knows of it.
    pub(super) fn change_node(&mut self, mut node: NodeFact) {
        node.underlay.spoils_checksums = self.paths.to_spare.iter().copied().collect();
        self.change(Change::Upsert { id: FactId::Node, fact: Fact::Node(Box::new(node)), rev: 0 });
    }
}

/// The ways to a peer; `None` when it is us, or not reached by any way of ours.
fn paths(calc: &Calc, peer: &PeerView<'_>) -> Option<Paths> {
    let (lease, me) = (peer.lease.as_ref()?, calc.world().me()?);
    match peer.standing {
        Standing::Own
        | Standing::Refused(_)
        | Standing::Unknown
        | Standing::Foreign
        | Standing::Extension => return None,
        Standing::Tunnel
        | Standing::Engine
        | Standing::Ipip
        | Standing::Sealed
        | Standing::Direct => {}
    }
    let octets = u16::try_from(me.footing.outer_mtu().get()).unwrap_or(u16::MAX);
    let families = me.footing.config.families();
    let ways = families.filter_map(|family| {
        let subnet = peer.key.of(family)?;
        let carrier = me.footing.carrier(lease, subnet, me.own, HasRouter::No).ok()?;
        let node = carrier.address(lease, family)?;
        let tunnelled = peer.standing == Standing::Tunnel;
        let tunnel = tunnelled.then(|| tunnel(&me, peer.key, family)).flatten();
        Some(Path { node, octets, tunnel })
    });
    let mut all: Vec<Path> = Vec::new();
    for way in ways {
        if all.iter().all(|known| known.node != way.node) {
            all.push(way);
        }
    }
    (!all.is_empty()).then_some(Paths { key: peer.key, paths: all })
}

fn tunnel(me: &russet_core::transport::Me<'_>, peer: LeaseKey, family: Family) -> Option<Tunnel> {
    Some(Tunnel {
        link: me.footing.vxlan_link(family)?,
        here: me.own.tunnel_addr(russet_core::model::Tunnel::Vxlan, family)?,
        there: peer.of(family)?.addr(),
    })
}

/// How many looks must agree before anything is changed.
const SURE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_changes_nothing_and_a_good_one_starts_over() {
        let mut view = PathView::default();
        let spoiled = [finding("192.0.2.2", Carries::All, Some(Checksums::Spoiled))];
        let right = [finding("192.0.2.3", Carries::All, Some(Checksums::Right))];
        assert!(!view.take(key(2), &spoiled));
        assert!(!view.take(key(3), &right));
        assert!(!view.take(key(2), &spoiled));
        assert!(view.take(key(3), &spoiled));
        assert!(view.to_spare.contains(&link()));
        assert!(view.problems()[0].problem.contains("ethtool -K flannel.1 tx on"));
    }

    /// The device remembers, so there is nothing to hold on to, and whoever turns it back has it tried again.
    #[test]
    fn what_is_spared_is_wanted_no_more_and_still_said() {
        let mut view = PathView::default();
        let spared = [finding("192.0.2.2", Carries::All, Some(Checksums::Spared))];
        assert!(!view.take(key(2), &spared));
        assert!(view.to_spare.is_empty());
        view.keep(|_| true, |used| used == link());
        assert_eq!(view.problems().len(), 1);
        view.keep(|_| true, |_| false);
        assert_eq!(view.problems(), []);
        view.take(key(2), &spared);
        view.take(key(2), &[finding("192.0.2.2", Carries::All, Some(Checksums::Right))]);
        assert_eq!(view.problems(), []);
    }

    #[test]
    fn a_narrow_path_is_said_until_it_carries_all_or_its_node_has_moved_or_gone() {
        let mut view = PathView::default();
        let narrow = |node| [finding(node, Carries::Hole(1_400), None)];
        view.take(key(2), &narrow("192.0.2.2"));
        view.take(key(2), &[finding("192.0.2.2", Carries::Silent, None)]);
        assert_eq!(view.problems().len(), 1);
        view.take(key(2), &narrow("192.0.2.9"));
        assert!(view.problems()[0].path.starts_with("192.0.2.9"));
        assert_eq!(view.problems().len(), 1);
        view.take(key(2), &[finding("192.0.2.9", Carries::All, None)]);
        assert_eq!(view.problems(), []);
        view.take(key(2), &narrow("192.0.2.9"));
        view.keep(|_| false, |_| true);
        assert_eq!(view.problems(), []);
    }

    fn finding(node: &str, carries: Carries, checksums: Option<Checksums>) -> Finding {
        let node = node.parse().unwrap();
        let tunnel = Some(Tunnel { link: link(), here: node, there: node });
        Finding { path: Path { node, octets: 1_500, tunnel }, carries, checksums }
    }

    fn link() -> IfName {
        "flannel.1".parse().unwrap()
    }

    fn key(n: u8) -> LeaseKey {
        LeaseKey::new(format!("10.50.{n}.0/24").parse().ok(), None).unwrap()
    }
}
