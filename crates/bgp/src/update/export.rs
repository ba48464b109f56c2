//! From changed destinations to runs of routes that share what is told of them.

use std::{ops::Range, sync::Arc};

use super::{chunk::Chunker, told::Telling};
use crate::{
    bestpath::Learned,
    policy::{Judgement, Policy, RouteFacts, edit},
    reflector::{Me, Origin, Relation, Towards, may_tell, pass_on},
    rib::{AttrId, AttrPool, DestId, Key, Neighbors, Path, Source, Table},
    wire::{Family, FamilySet, NextHop, Nlri, PathId, Tail, Terms},
};

/// All that makes a difference to what a peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Treatment {
    pub towards: Towards,
    pub export: Arc<Policy>,
    /// Of one family, and without what concerns receiving only.
    pub terms: Terms,
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub family: Family,
    pub pool: &'a AttrPool,
    pub neighbors: &'a Neighbors,
    pub me: &'a Me,
}

/// What is to be told of some destinations.
#[derive(Debug, Default)]
pub struct Plan {
    items: Vec<Item>,
    runs: Vec<Run>,
}

/// A path that may be told; by source first, then by attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    source: Source,
    attrs: AttrId,
    /// Where the destination stands in the list that the plan is of.
    place: u32,
    name: u32,
}

/// Items that are told with one set of attributes.
#[derive(Debug)]
pub struct Run {
    pub source: Source,
    pub octets: Box<[u8]>,
    pub next_hop: NextHop,
    tail: Tail,
    items: Range<usize>,
}

impl Treatment {
    pub fn new(family: Family, towards: Towards, export: Arc<Policy>, terms: Terms) -> Self {
        let only = FamilySet::EMPTY.with(family);
        let terms = Terms {
            families: only,
            add_path_in: FamilySet::EMPTY,
            add_path_out: terms.add_path_out.both(only),
            extended_next_hop: terms.extended_next_hop.both(only),
            ..terms
        };
        Self { towards, export, terms }
    }

    /// Whether every path of a destination is told, and not only the best.
    pub fn tells_all(&self, family: Family) -> bool {
        self.terms.add_path_out.contains(family)
    }
}

impl Plan {
    /// Plans what a group is told of `dests`.
    pub fn make<K: Key>(
        table: &Table<K>,
        dests: &[DestId],
        treatment: &Treatment,
        scene: &Scene<'_>,
    ) -> Self {
        let mut items = if treatment.tells_all(scene.family) {
            every_path(table, dests)
        } else {
            best_paths(table, dests)
        };
        items.sort_unstable();
        let mut plan = Self { items, runs: Vec::new() };
        let mut start = 0;
        while let Some(first) = plan.items.get(start).copied() {
            let same = |item: &Item| item.source == first.source && item.attrs == first.attrs;
            let len = plan.items[start..].iter().take_while(|item| same(item)).count();
            plan.plan_run(start..start + len, table, dests, treatment, scene);
            start += len;
        }
        plan
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// What is told, but for what belongs to `without`.
    pub fn tellings(&self, without: Source) -> Vec<Telling> {
        let runs = self.runs.iter().filter(|run| run.source != without);
        let items = runs.flat_map(|run| &self.items[run.items.clone()]);
        let telling =
            |item: &Item| Telling { place: item.place, name: item.name, source: item.source };
        items.map(telling).collect()
    }

    /// The routes of a run, as they are written.
    pub fn nlris<'a, K: Key>(
        &'a self,
        run: &'a Run,
        table: &'a Table<K>,
        dests: &'a [DestId],
    ) -> impl Iterator<Item = Nlri> + 'a {
        self.items[run.items.clone()].iter().map(|item| Nlri {
            path_id: PathId::new(item.name),
            key: table.key(dests[item.place as usize]).nlri(),
            tail: run.tail,
        })
    }

    /// Plans items that share source and attributes: none, one run, or one for each rule that fitted.
    fn plan_run<K: Key>(
        &mut self,
        range: Range<usize>,
        table: &Table<K>,
        dests: &[DestId],
        treatment: &Treatment,
        scene: &Scene<'_>,
    ) {
        let Item { source, attrs, .. } = self.items[range.start];
        let from = scene.neighbors.origin(source);
        let scope = scene.pool.summary(attrs).scope;
        if !may_tell(from, treatment.towards.relation, scope) {
            return;
        }
        if treatment.export.passes_all() {
            self.runs.extend(run_of(source, attrs, None, range, treatment, scene));
            return;
        }
        let set = scene.pool.get(attrs);
        let attributes = set.attributes();
        let learned = learned(from);
        let facts = RouteFacts { attributes: &attributes, next_hop: set.next_hop, learned };
        let narrowed = treatment.export.narrow(&facts);
        let judge = |item: &Item| narrowed.judge(&table.key(dests[item.place as usize]).nlri());
        self.items[range.clone()].sort_by_cached_key(judge);
        let mut start = range.start;
        while start < range.end {
            let judgement = judge(&self.items[start]);
            let rest = &self.items[start..range.end];
            let len = rest.iter().take_while(|item| judge(item) == judgement).count();
            if let Judgement::Accepted(rule) = judgement {
                let run = run_of(source, attrs, rule, start..start + len, treatment, scene);
                self.runs.extend(run);
            }
            start += len;
        }
    }
}

/// What a run is told with; `None` when it cannot be told in any way that the peer understands.
fn run_of(
    source: Source,
    attrs: AttrId,
    rule: Option<u16>,
    items: Range<usize>,
    treatment: &Treatment,
    scene: &Scene<'_>,
) -> Option<Run> {
    let set = scene.pool.get(attrs);
    let mut attributes = set.attributes();
    let from = scene.neighbors.origin(source);
    let mut next_hop = pass_on(&mut attributes, set.next_hop, from, &treatment.towards, scene.me)?;
    edit(treatment.export.edits(rule), &mut attributes, &mut next_hop);
    let mut octets = Vec::with_capacity(set.octets.len() + 32);
    attributes.write(&mut octets);
    let run = Run { source, octets: octets.into(), next_hop, tail: set.tail, items };
    let understood = understands(treatment.terms, scene.family, next_hop);
    let fits = Chunker::new(scene.family, treatment.terms).fits(&run.octets, next_hop);
    (understood && fits).then_some(run)
}

fn best_paths<K: Key>(table: &Table<K>, dests: &[DestId]) -> Vec<Item> {
    let best = |(place, dest): (u32, &DestId)| Some(item(place, 0, table.best(*dest)?));
    (0..).zip(dests).filter_map(best).collect()
}

fn every_path<K: Key>(table: &Table<K>, dests: &[DestId]) -> Vec<Item> {
    let paths = |(place, dest): (u32, &DestId)| {
        let eligible = table.paths(*dest).iter().filter_map(|path| path.eligible());
        eligible.map(move |path| item(place, path.tx_id, path)).collect::<Vec<_>>()
    };
    (0..).zip(dests).flat_map(paths).collect()
}

fn item(place: u32, name: u32, path: Path) -> Item {
    Item { source: path.source, attrs: path.attrs, place, name }
}

/// Whether a peer may be told a next hop of this kind for the family (RFC 8950).
fn understands(terms: Terms, family: Family, next_hop: NextHop) -> bool {
    match (family, next_hop) {
        (Family::Ipv4Unicast, NextHop::V6 { .. }) => terms.extended_next_hop.contains(family),
        (Family::Ipv6Unicast, NextHop::V4(_)) => false,
        _ => true,
    }
}

/// Where a route was learned, in the words of best path and policy.
pub fn learned(from: Origin) -> Learned {
    match from {
        Origin::Ourselves => Learned::Local,
        Origin::Peer { relation: Relation::External, .. } => Learned::External,
        Origin::Peer { .. } => Learned::Internal,
    }
}
