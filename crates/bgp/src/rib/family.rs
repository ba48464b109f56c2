//! The RIB of one family: its table, and the groups of peers that are told of it.

use std::{collections::BTreeMap, fmt};

use super::{
    attrs::Keyed,
    import::Incoming,
    neighbor::{Limit, LimitAction, RibEvent},
    path::{Age, Path, Source, Standing},
    rules::Rules,
    table::{DestId, Key, Notice, Put, Table, Version},
};
use crate::{
    update::{Bounds, Group, Piece, Scene, Treatment},
    wire::{ClusterId, Family, Nlri, NlriKey, Nlris, PathId},
};

/// What the RIB does with a family, whatever its keys are.
pub trait FamilyRib: fmt::Debug + Send {
    /// Puts in what a peer announced.
    fn announce(
        &mut self,
        source: Source,
        nlris: &Nlris<'_>,
        incoming: &mut Incoming<'_>,
        rules: &mut Rules<'_>,
    );
    fn withdraw(&mut self, source: Source, nlris: &Nlris<'_>, rules: &mut Rules<'_>);
    fn put(&mut self, nlri: &Nlri, path: Path, rules: &mut Rules<'_>);
    fn take(&mut self, key: &NlriKey, source: Source, rules: &mut Rules<'_>);
    fn make_stale(&mut self, source: Source);
    fn sweep(&mut self, source: Source, which: Sweep, rules: &mut Rules<'_>);
    /// Looks again at every path, for distances or a peer have changed.
    fn reassess(&mut self, rules: &mut Rules<'_>);
    /// Looks again at which paths came through our cluster, which is another now.
    fn judge_cluster(&mut self, cluster: ClusterId, rules: &mut Rules<'_>);
    /// Notes as changed whatever a peer told.
    fn note_all_of(&mut self, source: Source);
    /// How many destinations no eligible path is left to without a peer and the others.
    fn lost_without(&self, source: Source, others: &[Source]) -> usize;
    fn count(&self, source: Source) -> u32;
    fn count_dests(&self) -> usize;
    fn has_changed(&self) -> bool;

    /// Encodes what has changed for everybody, and hands out the destinations.
    fn flush(&mut self, scene: &Scene<'_>, seen: &mut dyn FnMut(NlriKey));
    fn join(&mut self, member: Source, treatment: Treatment, scene: &Scene<'_>);
    /// A peer that has been told something is to be told by another treatment from now on.
    fn treat_anew(&mut self, member: Source, treatment: Treatment, scene: &Scene<'_>);
    fn leave(&mut self, member: Source);
    /// Somebody's number is free, and may go to another.
    fn free_number(&mut self);
    fn refresh(&mut self, member: Source);
    fn next(&mut self, member: Source, scene: &Scene<'_>) -> Option<Piece>;
    fn has_more(&self, member: Source) -> bool;
    /// Members that would have to be told of destinations that are to be forgotten.
    fn too_slow(&self) -> Vec<Source>;

    /// The paths to a destination, the best first.
    fn paths(&self, key: &NlriKey) -> Vec<Path>;
    /// Destinations from a number on, at most so many, and the number to go on from.
    fn page(&self, from: u32, most: usize) -> (Vec<NlriKey>, Option<u32>);
}

/// Which paths of a peer are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    All,
    Stale,
}

/// A family's table, and who is told.
#[derive(Debug)]
pub struct Routes<K> {
    family: Family,
    keyed: Keyed,
    bounds: Bounds,
    table: Table<K>,
    /// A place is empty when its group has no members any more.
    groups: Vec<Option<Group>>,
    /// In which group each peer is.
    member_of: BTreeMap<Source, usize>,
    /// What has been said of a peer's number of routes in its session.
    said: BTreeMap<Source, Said>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Many,
    TooMany,
}

impl<K: Key> Routes<K> {
    pub fn new(family: Family, keyed: Keyed, notice: Notice, bounds: Bounds) -> Self {
        Self {
            family,
            keyed,
            bounds,
            table: Table::new(keyed, notice),
            groups: Vec::new(),
            member_of: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    fn put_path(&mut self, key: &K, path: Path, rules: &mut Rules<'_>) {
        match self.table.put(key, path, &mut |paths| rules.choose(paths)) {
            Put::New => {}
            Put::Replaced(old) => rules.pool.release(old.attrs),
            Put::Same => rules.pool.release(path.attrs),
        }
    }

    fn take_path(&mut self, key: &K, source: Source, rx_id: PathId, rules: &mut Rules<'_>) {
        let gone = self.table.take(key, source, rx_id, &mut |paths| rules.choose(paths));
        if let Some(gone) = gone {
            rules.pool.release(gone.attrs);
        }
    }

    /// Whether there is room for one more route of a peer. What is known of a route already needs none.
    fn has_room(
        &mut self,
        key: &K,
        source: Source,
        rx_id: PathId,
        limit: Option<Limit>,
        rules: &mut Rules<'_>,
    ) -> bool {
        let known = || self.table.path_of(key, source, rx_id).is_some();
        if rx_id != PathId::NONE && self.table.is_full(key, source) && !known() {
            return false;
        }
        let Some(limit) = limit else { return true };
        let routes = self.table.count(source) + 1;
        if routes < limit.warn_at.min(limit.most.saturating_add(1)) || known() {
            return true;
        }
        let (peer, family) = (source, self.family);
        if routes <= limit.most {
            if self.say(source, Said::Many) {
                rules.events.push_back(RibEvent::ManyRoutes { peer, family, routes });
            }
            return true;
        }
        if self.say(source, Said::TooMany) {
            let action = limit.action;
            rules.events.push_back(RibEvent::TooManyRoutes { peer, family, action });
        }
        limit.action == LimitAction::Warn
    }

    /// Whether this was not said yet.
    fn say(&mut self, source: Source, what: Said) -> bool {
        let before = self.said.insert(source, what);
        let new = before.is_none_or(|before| before < what);
        if !new {
            self.said.extend(before.map(|before| (source, before)));
        }
        new
    }

    fn group(&self, member: Source) -> Option<&Group> {
        self.groups.get(*self.member_of.get(&member)?)?.as_ref()
    }

    fn group_for(&mut self, treatment: Treatment) -> usize {
        let alike = |group: &Option<Group>| {
            group.as_ref().is_some_and(|group| group.treats_like(&treatment))
        };
        if let Some(place) = self.groups.iter().position(alike) {
            return place;
        }
        if treatment.tells_all(self.family) {
            self.table.notice_any_path();
        }
        let group = Some(Group::new(self.family, treatment, self.keyed, self.bounds));
        if let Some(free) = self.groups.iter().position(Option::is_none) {
            self.groups[free] = group;
            return free;
        }
        self.groups.push(group);
        self.groups.len() - 1
    }

    /// Forgets the empty destinations that every member knows to be gone.
    fn bury(&mut self) {
        if self.table.empty() > 0 {
            let version = self.table.version();
            let known = self.groups.iter().flatten().map(|group| group.known(version)).min();
            self.table.bury(known.unwrap_or(version));
        }
    }

    /// The version before which members must know all, so that no more empty ones are kept than may be.
    fn oldest_kept(&self) -> Option<Version> {
        self.table.empty_version(self.bounds.empty)
    }
}

impl<K: Key> FamilyRib for Routes<K> {
    fn announce(
        &mut self,
        source: Source,
        nlris: &Nlris<'_>,
        incoming: &mut Incoming<'_>,
        rules: &mut Rules<'_>,
    ) {
        let limit = rules.neighbors.get(source).and_then(|neighbor| neighbor.limit(self.family));
        for nlri in nlris {
            let Some(key) = K::from_nlri(&nlri.key) else { continue };
            if !self.has_room(&key, source, nlri.path_id, limit, rules) {
                continue;
            }
            let Some((attrs, standing)) = incoming.take(&nlri, rules.pool) else { continue };
            let path = Path::new(attrs, source, nlri.path_id, standing);
            self.put_path(&key, path, rules);
        }
    }

    fn withdraw(&mut self, source: Source, nlris: &Nlris<'_>, rules: &mut Rules<'_>) {
        for nlri in nlris {
            if let Some(key) = K::from_nlri(&nlri.key) {
                self.take_path(&key, source, nlri.path_id, rules);
            }
        }
    }

    fn put(&mut self, nlri: &Nlri, path: Path, rules: &mut Rules<'_>) {
        match K::from_nlri(&nlri.key) {
            Some(key) => self.put_path(&key, path, rules),
            None => rules.pool.release(path.attrs),
        }
    }

    fn take(&mut self, key: &NlriKey, source: Source, rules: &mut Rules<'_>) {
        if let Some(key) = K::from_nlri(key) {
            self.take_path(&key, source, PathId::NONE, rules);
        }
    }

    fn make_stale(&mut self, source: Source) {
        self.table.make_stale(source);
    }

    fn sweep(&mut self, source: Source, which: Sweep, rules: &mut Rules<'_>) {
        let mut gone = Vec::new();
        let swept = |path: &Path| which == Sweep::All || path.age == Age::Stale;
        let choose = &mut |paths: &[Path]| rules.choose(paths);
        self.table.take_all_of(source, swept, choose, |path| gone.push(path.attrs));
        for attrs in gone {
            rules.pool.release(attrs);
        }
        if which == Sweep::All {
            self.said.remove(&source);
        }
    }

    fn reassess(&mut self, rules: &mut Rules<'_>) {
        let judge = |path: &Path| match path.standing {
            Standing::Eligible | Standing::Unreachable => rules.reach(path),
            other => other,
        };
        self.table.reassess(judge, &mut |paths| rules.choose(paths));
    }

    fn judge_cluster(&mut self, cluster: ClusterId, rules: &mut Rules<'_>) {
        let judge = |path: &Path| match path.standing {
            Standing::Eligible | Standing::Unreachable | Standing::ClusterLoop => {
                if rules.came_through(cluster, path) {
                    Standing::ClusterLoop
                } else {
                    rules.reach(path)
                }
            }
            other => other,
        };
        self.table.reassess(judge, &mut |paths| rules.choose(paths));
    }

    fn note_all_of(&mut self, source: Source) {
        self.table.note_all_of(source);
    }

    fn lost_without(&self, source: Source, others: &[Source]) -> usize {
        let goes = |path: &Path| path.source == source || others.contains(&path.source);
        let lost = |paths: &[Path]| {
            let mut eligible = paths.iter().filter(|path| path.standing == Standing::Eligible);
            eligible.clone().next().is_some() && eligible.all(goes)
        };
        self.table.paths_with(source).filter(|paths| lost(paths)).count()
    }

    fn count(&self, source: Source) -> u32 {
        self.table.count(source)
    }

    fn count_dests(&self) -> usize {
        self.table.count_dests()
    }

    fn has_changed(&self) -> bool {
        self.table.has_changed()
    }

    fn flush(&mut self, scene: &Scene<'_>, seen: &mut dyn FnMut(NlriKey)) {
        let changed = self.table.take_changed();
        for group in self.groups.iter_mut().flatten() {
            group.flush(&self.table, &changed, scene);
        }
        for id in &changed {
            seen(self.table.key(*id).nlri());
        }
        self.table.recycle(changed);
        self.bury();
    }

    fn join(&mut self, member: Source, treatment: Treatment, scene: &Scene<'_>) {
        self.leave(member);
        let place = self.group_for(treatment);
        if let Some(Some(group)) = self.groups.get_mut(place) {
            group.join(member, &self.table, scene);
            self.member_of.insert(member, place);
        }
    }

    fn treat_anew(&mut self, member: Source, treatment: Treatment, scene: &Scene<'_>) {
        let Some(old) = self.member_of.get(&member).copied() else { return };
        let new = self.group_for(treatment);
        if new == old {
            return;
        }
        let Some(mut from) = self.groups[old].take() else { return };
        if let Some(to) = &mut self.groups[new] {
            to.take_over(member, &mut from, &self.table, scene);
            self.member_of.insert(member, new);
        }
        if !from.is_empty() {
            self.groups[old] = Some(from);
        }
    }

    fn leave(&mut self, member: Source) {
        self.said.remove(&member);
        let Some(place) = self.member_of.remove(&member) else { return };
        if let Some(slot) = self.groups.get_mut(place)
            && let Some(group) = slot
        {
            group.leave(member);
            if group.is_empty() {
                *slot = None;
            }
        }
    }

    fn free_number(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.share_no_more();
        }
    }

    fn refresh(&mut self, member: Source) {
        let Some(place) = self.member_of.get(&member) else { return };
        if let Some(Some(group)) = self.groups.get_mut(*place) {
            group.refresh(member, &self.table);
        }
    }

    fn next(&mut self, member: Source, scene: &Scene<'_>) -> Option<Piece> {
        let group = self.groups.get_mut(*self.member_of.get(&member)?)?.as_mut()?;
        let piece = group.next(member, &self.table, scene);
        if piece.is_none() {
            self.bury();
        }
        piece
    }

    fn has_more(&self, member: Source) -> bool {
        self.group(member).is_some_and(|group| group.has_more(member))
    }

    fn too_slow(&self) -> Vec<Source> {
        let Some(bound) = self.oldest_kept() else { return Vec::new() };
        let version = self.table.version();
        let groups = self.groups.iter().flatten();
        groups.flat_map(|group| group.behind(bound, version)).collect()
    }

    fn paths(&self, key: &NlriKey) -> Vec<Path> {
        let id = K::from_nlri(key).and_then(|key| self.table.find(&key));
        id.map_or_else(Vec::new, |id| self.table.paths(id).to_vec())
    }

    fn page(&self, from: u32, most: usize) -> (Vec<NlriKey>, Option<u32>) {
        let mut keys = Vec::new();
        for id in from..self.table.end() {
            if keys.len() == most {
                return (keys, Some(id));
            }
            if !self.table.paths(DestId(id)).is_empty() {
                keys.push(self.table.key(DestId(id)).nlri());
            }
        }
        (keys, None)
    }
}
