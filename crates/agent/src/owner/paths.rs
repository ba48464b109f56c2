//! What the prober found on the paths to the other nodes.

use std::{collections::BTreeMap, net::IpAddr};

use russet_api::admin::{PathProblem, SHOWN};
use russet_core::{
    Calc, Change, Fact, FactId,
    calc::{PeerView, Standing},
    model::{LeaseKey, NodeFact},
};
use russet_net::Family;

use super::Owner;
use crate::prober::{Carries, Checksums, Finding, Path, Paths, Tunnel};

/// The paths that do not carry what is sent over them.
#[derive(Debug, Default)]
pub struct PathView {
    narrow: BTreeMap<(LeaseKey, IpAddr), Finding>,
    /// Whether checksums are kept from our link, and the peer that showed the need.
    spoils_checksums: bool,
}

impl PathView {
    /// Takes a finding, and tells whether checksums are other than before.
    fn take(&mut self, key: LeaseKey, finding: Finding) -> bool {
        self.note_width(key, finding);
        let spoils = match finding.checksums {
            Some(Checksums::Spoiled | Checksums::Spared) => true,
            Some(Checksums::Right) => false,
            None => return false,
        };
        let changed = spoils != self.spoils_checksums;
        self.spoils_checksums = spoils;
        changed
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

    /// Forgets peers that have gone.
    fn keep(&mut self, is_there: impl Fn(LeaseKey) -> bool) {
        self.narrow.retain(|(key, _), _| is_there(*key));
    }

    /// What is wrong, for an operator; at most [`SHOWN`].
    pub fn problems(&self, calc: &Calc) -> Vec<PathProblem> {
        let row = |((key, node), finding): (&(LeaseKey, IpAddr), &Finding)| PathProblem {
            path: format!("{node} ({key})"),
            problem: problem(finding),
        };
        let link = calc.world().in_force().map(|footing| footing.underlay.link);
        let checksums = link.filter(|_| self.spoils_checksums).map(|link| PathProblem {
            path: format!("tunnels over {link}"),
            problem: "checksums that are left to the link do not arrive; they are worked out by the processor instead (tx-checksum is off on the tunnel's device)".into(),
        });
        checksums.into_iter().chain(self.narrow.iter().map(row)).take(SHOWN).collect()
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
                "carries {mtu} octets of the {sent} that are sent, and larger packets vanish (MTU black hole): let the path carry more, or set the network's MTU to {mtu}"
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
            self.paths.keep(|key| world.lease(key).is_some());
        }
        next
    }

    pub(super) fn probed(&mut self, key: LeaseKey, finding: Finding) {
        if self.paths.take(key, finding) {
            if self.paths.spoils_checksums {
                tracing::warn!(op = "probe", node = %finding.path.node, "checksums inside the tunnel are spoiled when they are left to the link; tx-checksum is off from here on");
            }
            if let Some(node) = self.calc.world().node().cloned() {
                self.change_node(node);
            }
        }
    }

    /// Takes what the node looks like, with what only the prober knows of it.
    pub(super) fn change_node(&mut self, mut node: NodeFact) {
        node.underlay.spoils_checksums = self.paths.spoils_checksums;
        self.change(Change::Upsert { id: FactId::Node, fact: Fact::Node(node), rev: 0 });
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
        let node = me.footing.carrier(lease, family).ok()?.address(lease, family)?;
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
        here: me.own.of(family)?.addr(),
        there: peer.of(family)?.addr(),
    })
}
