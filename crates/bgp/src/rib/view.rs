//! Routes as people and other parts of the program see them.

use super::{
    AttrSet, Rib,
    path::{Age, Path, Source, Standing},
    rules::candidates,
};
use crate::{
    bestpath::{Step, explain, together},
    policy::{Judgement, RouteFacts},
    update::learned,
    wire::{Family, NlriKey, PathId},
};

/// A destination with all paths to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    pub key: NlriKey,
    /// The best first, if any may be it.
    pub paths: Vec<PathView>,
}

/// A path, and why it is or is not the best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    pub source: Source,
    pub path_id: PathId,
    pub attrs: AttrSet,
    pub standing: Standing,
    pub age: Age,
    /// The step at which a better one won; `None` for the best, and for what may not be it.
    pub lost_at: Option<Step>,
    /// The import rule that rejects it, by name.
    pub rule: Option<String>,
    /// Whether it is used: the best, and what is used together with it.
    pub used: bool,
}

impl Rib {
    /// A destination with its paths, as they are now; `None` when there are none.
    pub fn route(&self, key: &NlriKey) -> Option<RouteView> {
        let paths = self.families[key.family().index()].paths(key);
        if paths.is_empty() {
            return None;
        }
        let (places, candidates) = candidates(&self.pool, &self.neighbors, &self.distances, &paths);
        let lost = explain(&candidates, self.config.med);
        let used = match self.config.multipath {
            Some(rule) => together(&candidates, self.config.med, rule),
            None => lost.iter().position(Option::is_none).into_iter().collect(),
        };
        let view = |(place, path): (usize, &Path)| {
            let candidate = places.iter().position(|other| *other == place);
            PathView {
                lost_at: candidate.and_then(|candidate| lost[candidate]),
                used: candidate.is_some_and(|candidate| used.contains(&candidate)),
                ..self.view(key, path)
            }
        };
        Some(RouteView { key: *key, paths: paths.iter().enumerate().map(view).collect() })
    }

    /// Some destinations of a family from a number on, and the number to go on from. Ordered by number, which
    /// means nothing.
    pub fn routes(&self, family: Family, from: u32, most: usize) -> (Vec<RouteView>, Option<u32>) {
        let (keys, next) = self.families[family.index()].page(from, most);
        (keys.iter().filter_map(|key| self.route(key)).collect(), next)
    }

    /// How many destinations of a family have a path.
    pub fn count(&self, family: Family) -> usize {
        self.families[family.index()].count_dests()
    }

    /// How many paths of a family a peer has told.
    pub fn count_of(&self, peer: Source, family: Family) -> u32 {
        self.families[family.index()].count(peer)
    }

    /// How many different sets of attributes there are.
    pub fn attribute_sets(&self) -> usize {
        self.pool.len()
    }

    fn view(&self, key: &NlriKey, path: &Path) -> PathView {
        let rejected = path.standing == Standing::Policy;
        PathView {
            source: path.source,
            path_id: path.rx_id,
            attrs: self.pool.get(path.attrs).clone(),
            standing: path.standing,
            age: path.age,
            lost_at: None,
            rule: rejected.then(|| self.rejecting_rule(key, path)).flatten(),
            used: false,
        }
    }

    /// What is rejected is kept as it came, so that the policy can be asked again.
    fn rejecting_rule(&self, key: &NlriKey, path: &Path) -> Option<String> {
        let policy = &self.neighbors.get(path.source)?.import;
        let set = self.pool.get(path.attrs);
        let attributes = set.attributes();
        let learned = learned(self.neighbors.origin(path.source));
        let facts = RouteFacts { attributes: &attributes, next_hop: set.next_hop, learned };
        match policy.narrow(&facts).judge(key) {
            Judgement::Rejected(rule) => Some(policy.name_of(rule).to_owned()),
            Judgement::Accepted(_) => None,
        }
    }
}
