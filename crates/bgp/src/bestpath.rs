//! Which of a destination's paths is the best (RFC 4271 §9.1.2, RFC 4456 §9, RFC 7432 §15).
//!
//! Each [`Step`] keeps the paths that are best in one respect and drops the others, until one is left. Since a
//! step looks at all that are left at once, the outcome does not depend on the order of arrival, with MED
//! neither: that is compared within each neighboring AS ("deterministic MED"). [`explain`] tells at which step
//! each path was dropped.
//!
//! The last step compares peer and path identifier, which no two paths share, so exactly one is left.

use std::{fmt, net::IpAddr};

use russet_net::Asn;

use crate::wire::{Origin, PathId, Sticky};

/// What is compared of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub mobility: Mobility,
    pub local_pref: u32,
    pub learned: Learned,
    pub hops: u32,
    pub origin: Origin,
    /// Zero when the path has none (RFC 4271 §9.1.2.2).
    pub med: u32,
    /// The AS that the path came from into ours; `None` for a path of our own AS.
    pub neighbor: Option<Asn>,
    /// How far the next hop is inside our AS.
    pub cost: u32,
    /// Who brought the path into our AS: the originator, else the peer.
    pub id: u32,
    pub clusters: u32,
    pub peer: IpAddr,
    /// The peer's number with us: link-local addresses of two links may be equal.
    pub number: u16,
    pub path_id: PathId,
}

/// Where a path was learned; the smaller the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Learned {
    Local,
    External,
    Internal,
}

/// How often a MAC address has moved (RFC 7432 §7.7, §15). Nothing outside EVPN, and equal for all then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mobility {
    /// The address may not move, and wins over one that did.
    pub sticky: u8,
    pub sequence: u32,
}

/// In what respect one path is better than another, in the order of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The MAC address moved here last (RFC 7432 §15).
    Mobility,
    /// The higher local preference.
    LocalPref,
    /// A route of our own goes before all that are learned.
    Local,
    /// The shorter AS path: step a.
    AsPath,
    /// The lower origin: step b.
    Origin,
    /// The lower MED among paths through one neighboring AS: step c.
    Med,
    /// Learned from an external peer: step d.
    External,
    /// The nearer next hop: step e.
    Cost,
    /// The lower identifier of the originator or the peer: step f.
    RouterId,
    /// The shorter cluster list (RFC 4456 §9).
    ClusterList,
    /// The lower address of the peer: step g.
    PeerAddress,
    /// The lower path identifier between paths of one peer (RFC 7911).
    PathId,
}

/// Between whose paths MED is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MedRule {
    /// Those that came through one neighboring AS, as RFC 4271 asks.
    #[default]
    SameNeighbor,
    /// All.
    Always,
}

/// Which paths may be used beside the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multipath {
    pub most: usize,
    pub through: Through,
}

/// How alike paths must be to be used together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    SameNeighbor,
    AnyNeighbor,
}

impl From<(Sticky, u32)> for Mobility {
    fn from((sticky, sequence): (Sticky, u32)) -> Self {
        Self { sticky: u8::from(sticky == Sticky::Yes), sequence }
    }
}

impl Step {
    pub const ORDER: [Self; 12] = [
        Self::Mobility,
        Self::LocalPref,
        Self::Local,
        Self::AsPath,
        Self::Origin,
        Self::Med,
        Self::External,
        Self::Cost,
        Self::RouterId,
        Self::ClusterList,
        Self::PeerAddress,
        Self::PathId,
    ];

    /// How a path stands in this respect; the smaller the better. MED has a rule of its own beside it.
    fn rank(self, path: &Candidate) -> u128 {
        match self {
            Self::Mobility => {
                u128::from(u8::MAX - path.mobility.sticky) << 32
                    | u128::from(u32::MAX - path.mobility.sequence)
            }
            Self::LocalPref => u128::from(u32::MAX - path.local_pref),
            Self::Local => u128::from(path.learned != Learned::Local),
            Self::AsPath => path.hops.into(),
            Self::Origin => path.origin.wire().into(),
            Self::Med => path.med.into(),
            Self::External => u128::from(path.learned == Learned::Internal),
            Self::Cost => path.cost.into(),
            Self::RouterId => path.id.into(),
            Self::ClusterList => path.clusters.into(),
            Self::PeerAddress => match path.peer {
                IpAddr::V4(addr) => addr.to_bits().into(),
                IpAddr::V6(addr) => addr.to_bits(),
            },
            Self::PathId => u128::from(path.number) << 32 | u128::from(path.path_id.get()),
        }
    }
}

/// The place of the best path; `None` when there is none at all.
pub fn best(paths: &[Candidate], med: MedRule) -> Option<usize> {
    match paths {
        [] => None,
        [_] => Some(0),
        _ => eliminate(paths, med, |_, _| {}).first().copied(),
    }
}

/// At which step each path was dropped, in the order of `paths`; the best has none.
pub fn explain(paths: &[Candidate], med: MedRule) -> Vec<Option<Step>> {
    let mut steps = vec![None; paths.len()];
    eliminate(paths, med, |path, step| steps[path] = Some(step));
    steps
}

/// The places of the paths that are used together, the best first.
pub fn together(paths: &[Candidate], med: MedRule, rule: Multipath) -> Vec<usize> {
    let Some(best) = best(paths, med) else { return Vec::new() };
    let dropped = explain(paths, med);
    let alike = |path: &usize| {
        let equal = dropped[*path].is_none_or(|step| step > Step::Cost);
        let through =
            rule.through == Through::AnyNeighbor || paths[*path].neighbor == paths[best].neighbor;
        *path != best && equal && through
    };
    let others = (0..paths.len()).filter(alike);
    std::iter::once(best).chain(others).take(rule.most.max(1)).collect()
}

/// Takes one step after the other, tells what each drops, and returns what is left: one.
fn eliminate(paths: &[Candidate], med: MedRule, mut drop: impl FnMut(usize, Step)) -> Vec<usize> {
    let mut left: Vec<usize> = (0..paths.len()).collect();
    for step in Step::ORDER {
        if left.len() < 2 {
            break;
        }
        if step == Step::Med && med == MedRule::SameNeighbor {
            keep_least_med(paths, &mut left, &mut drop);
            continue;
        }
        let least = left.iter().map(|path| step.rank(&paths[*path])).min();
        left.retain(|path| {
            let stays = Some(step.rank(&paths[*path])) == least;
            if !stays {
                drop(*path, step);
            }
            stays
        });
    }
    left
}

/// Keeps the paths with the least MED of each neighboring AS.
fn keep_least_med(paths: &[Candidate], left: &mut Vec<usize>, drop: &mut impl FnMut(usize, Step)) {
    let by_neighbor = |path: &usize| (paths[*path].neighbor, paths[*path].med);
    left.sort_unstable_by_key(by_neighbor);
    let mut least = None;
    left.retain(|path| {
        let (neighbor, med) = by_neighbor(path);
        // The first of each neighbor has its least.
        let stays = match least {
            Some((of, bound)) if of == neighbor => med == bound,
            _ => {
                least = Some((neighbor, med));
                true
            }
        };
        if !stays {
            drop(*path, Step::Med);
        }
        stays
    });
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mobility => "MAC mobility",
            Self::LocalPref => "local preference",
            Self::Local => "local origin",
            Self::AsPath => "AS path length",
            Self::Origin => "origin",
            Self::Med => "MED",
            Self::External => "external before internal",
            Self::Cost => "cost of the next hop",
            Self::RouterId => "router id",
            Self::ClusterList => "cluster list length",
            Self::PeerAddress => "peer address",
            Self::PathId => "path identifier",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_step_decides_when_all_before_it_are_equal() {
        for (step, better) in better_by() {
            let paths = [BASE, better];
            assert_eq!(best(&paths, MedRule::SameNeighbor), Some(1), "{step}");
            assert_eq!(explain(&paths, MedRule::SameNeighbor), [Some(step), None], "{step}");
        }
    }

    #[test]
    fn an_earlier_step_outweighs_every_later_one() {
        let steps = better_by();
        for (n, (step, better)) in steps.iter().enumerate() {
            for (later, other) in &steps[n + 1..] {
                let dropped = explain(&[*better, *other], MedRule::SameNeighbor);
                assert_eq!(dropped, [None, Some(*step)], "{step} before {later}");
            }
        }
    }

    #[test]
    fn med_counts_within_one_neighbor_only_unless_told() {
        let through = |asn, med, id| Candidate { neighbor: Some(Asn::new(asn)), med, id, ..BASE };
        // The lowest id is beaten by its own neighbor's lower MED, whatever the order.
        let mut paths = [through(1, 9, 1), through(1, 5, 4), through(2, 7, 3)];
        for _ in 0..3 {
            let winner = paths[best(&paths, MedRule::SameNeighbor).unwrap()];
            assert_eq!((winner.neighbor, winner.med), (Some(Asn::new(2)), 7));
            let winner = paths[best(&paths, MedRule::Always).unwrap()];
            assert_eq!(winner.med, 5);
            paths.rotate_left(1);
        }
    }

    #[test]
    fn paths_that_tie_up_to_the_cost_are_used_together() {
        let other = Candidate { id: 9, ..BASE };
        let through = Candidate { id: 9, neighbor: Some(Asn::new(7)), ..BASE };
        let far = Candidate { cost: 11, ..BASE };
        let paths = [other, through, far, BASE];
        let rule = |most, through| Multipath { most, through };
        let of = |rule| together(&paths, MedRule::SameNeighbor, rule);
        assert_eq!(of(rule(8, Through::SameNeighbor)), [3, 0]);
        assert_eq!(of(rule(8, Through::AnyNeighbor)), [3, 0, 1]);
        assert_eq!(of(rule(1, Through::AnyNeighbor)), [3]);
        assert_eq!(together(&[], MedRule::Always, rule(2, Through::AnyNeighbor)), [0; 0]);
    }

    proptest! {
        /// The RFC's words, pair by pair: a path stays in a step unless another that is left beats it.
        #[test]
        fn elimination_is_what_the_rfc_says_for_every_order(
            mut paths in proptest::collection::vec(candidate(), 1..12),
            turn in 0_usize..12,
        ) {
            let winner = |paths: &[Candidate]| paths[best(paths, MedRule::SameNeighbor).unwrap()];
            let expected = by_pairs(paths.clone());
            prop_assert_eq!(winner(&paths), expected);
            let turn = turn % paths.len();
            paths.rotate_left(turn);
            prop_assert_eq!(winner(&paths), expected);
            paths.reverse();
            prop_assert_eq!(winner(&paths), expected);
        }
    }

    fn by_pairs(mut left: Vec<Candidate>) -> Candidate {
        type Beats = fn(&Candidate, &Candidate) -> bool;
        let steps: [Beats; 12] = [
            |m, n| m.mobility > n.mobility,
            |m, n| m.local_pref > n.local_pref,
            |m, n| m.learned == Learned::Local && n.learned != Learned::Local,
            |m, n| m.hops < n.hops,
            |m, n| m.origin < n.origin,
            |m, n| m.neighbor == n.neighbor && m.med < n.med,
            |m, n| m.learned != Learned::Internal && n.learned == Learned::Internal,
            |m, n| m.cost < n.cost,
            |m, n| m.id < n.id,
            |m, n| m.clusters < n.clusters,
            |m, n| m.peer < n.peer,
            |m, n| m.path_id < n.path_id,
        ];
        for beats in steps {
            let before = left.clone();
            left.retain(|n| !before.iter().any(|m| beats(m, n)));
        }
        left[0]
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        let small = 0_u32..3;
        let parts = (small.clone(), 0_u8..2, 0_u32..2, small.clone(), small.clone(), small.clone());
        (parts, 0_u32..2, small.clone(), small, 0_u8..3, any::<u32>()).prop_map(
            |((pref, sticky, sequence, hops, med, neighbor), cost, id, clusters, peer, path_id)| {
                Candidate {
                    mobility: Mobility { sticky, sequence },
                    local_pref: 99 + pref,
                    learned: [Learned::Local, Learned::External, Learned::Internal]
                        [(id as usize + 1) % 3],
                    hops,
                    origin: [Origin::Igp, Origin::Egp][cost as usize],
                    med,
                    neighbor: (neighbor > 0).then_some(Asn::new(neighbor)),
                    cost,
                    id,
                    clusters,
                    peer: [10, 0, 0, peer].into(),
                    number: 0,
                    path_id: PathId::new(path_id),
                }
            },
        )
    }

    const BASE: Candidate = Candidate {
        mobility: Mobility { sticky: 0, sequence: 1 },
        local_pref: 100,
        learned: Learned::Internal,
        hops: 3,
        origin: Origin::Incomplete,
        med: 50,
        neighbor: Some(Asn::new(65_001)),
        cost: 10,
        id: 8,
        clusters: 2,
        peer: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)),
        number: 1,
        path_id: PathId::new(4),
    };

    /// A path for each step that is better than [`BASE`] in that step alone.
    fn better_by() -> Vec<(Step, Candidate)> {
        let moved = Mobility { sticky: 0, sequence: 2 };
        vec![
            (Step::Mobility, Candidate { mobility: moved, ..BASE }),
            (Step::LocalPref, Candidate { local_pref: 101, ..BASE }),
            (Step::Local, Candidate { learned: Learned::Local, ..BASE }),
            (Step::AsPath, Candidate { hops: 2, ..BASE }),
            (Step::Origin, Candidate { origin: Origin::Egp, ..BASE }),
            (Step::Med, Candidate { med: 49, ..BASE }),
            (Step::External, Candidate { learned: Learned::External, ..BASE }),
            (Step::Cost, Candidate { cost: 9, ..BASE }),
            (Step::RouterId, Candidate { id: 7, ..BASE }),
            (Step::ClusterList, Candidate { clusters: 1, ..BASE }),
            (Step::PeerAddress, Candidate { peer: [10, 0, 0, 8].into(), ..BASE }),
            (Step::PathId, Candidate { path_id: PathId::new(3), ..BASE }),
        ]
    }
}
