//! The destinations of one family, numbered densely, with all paths to each.
//!
//! The list of a destination's paths, the best first, is what RFC 4271 calls Adj-RIBs-In and Loc-RIB in one.
//! The table notes which destinations have changed in a way that matters until [`Table::take_changed`]; that
//! gives them a version, by which a reader that fell behind finds what it missed.
//!
//! A destination without paths stays, empty, as long as some reader may have to be told that it is gone; who
//! knows that calls [`Table::bury`].

use std::{
    collections::VecDeque,
    fmt,
    hash::{BuildHasher, Hash},
};

use hashbrown::HashTable;

use super::{
    attrs::Keyed,
    bitmap::Bitmap,
    path::{Age, Path, Paths, Source, Standing},
};
use crate::wire::{EvpnKey, NlriKey, PathId, V4Prefix, V6Prefix};

/// What one destination of a family is told from another by.
pub trait Key: Copy + Eq + Hash + fmt::Debug + Send + 'static {
    /// `None` for a key of another family.
    fn from_nlri(key: &NlriKey) -> Option<Self>;
    fn nlri(self) -> NlriKey;
}

/// A destination's number. It is used again once the destination is buried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestId(pub u32);

/// When a destination last changed: the number of the [`Table::take_changed`] that told it.
pub type Version = u64;

#[derive(Debug)]
pub struct Table<K> {
    dests: Vec<Dest<K>>,
    free: Vec<DestId>,
    index: HashTable<DestId>,
    keyed: Keyed,
    /// How many destinations have a path.
    filled: usize,
    changed: Vec<DestId>,
    version: Version,
    /// Empty destinations, by the version that emptied them.
    empty: VecDeque<(Version, DestId)>,
    held: Vec<Holding>,
    own: Holding,
    notice: Notice,
}

/// 32 octets with IPv4, when it has one path.
#[derive(Debug)]
struct Dest<K> {
    key: K,
    paths: Paths,
    /// [`CHANGED`] while it is among the changed.
    version: Version,
}

/// What one peer has in the table.
#[derive(Debug, Default)]
struct Holding {
    dests: Bitmap,
    paths: u32,
}

/// What counts as a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    Best,
    /// Somebody is told other paths than the best too, or uses several.
    AnyPath,
}

/// What became of a path that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    New,
    /// The path that was there is gone; its attributes are let go of.
    Replaced(Path),
    /// It was there already, equal: the attributes that came with it are not kept.
    Same,
}

/// Finds the place of the best among paths. Asked for two and more only.
pub type Choose<'a> = dyn FnMut(&[Path]) -> Option<usize> + 'a;

impl<K: Key> Table<K> {
    pub fn new(keyed: Keyed, notice: Notice) -> Self {
        Self {
            dests: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            keyed,
            filled: 0,
            changed: Vec::new(),
            version: 0,
            empty: VecDeque::new(),
            held: Vec::new(),
            own: Holding::default(),
            notice,
        }
    }

    /// From now on more counts as a change.
    pub fn notice_any_path(&mut self) {
        self.notice = Notice::AnyPath;
    }

    /// How many destinations have a path.
    pub const fn count_dests(&self) -> usize {
        self.filled
    }

    /// Beyond every number in use.
    pub fn end(&self) -> u32 {
        u32::try_from(self.dests.len()).unwrap_or(u32::MAX)
    }

    pub fn find(&self, key: &K) -> Option<DestId> {
        let hash = self.keyed.hash_one(key);
        self.index.find(hash, |id| self.dests[id.place()].key == *key).copied()
    }

    pub fn key(&self, id: DestId) -> K {
        self.dests[id.place()].key
    }

    pub fn paths(&self, id: DestId) -> &[Path] {
        self.dests[id.place()].paths.as_slice()
    }

    pub fn best(&self, id: DestId) -> Option<Path> {
        self.dests[id.place()].paths.best()
    }

    /// How many paths a peer has.
    pub fn count(&self, source: Source) -> u32 {
        self.holding(source).map_or(0, |holding| holding.paths)
    }

    /// The destinations that a peer has paths of.
    pub fn held_by(&self, source: Source) -> impl Iterator<Item = DestId> {
        let held = self.holding(source).into_iter();
        held.flat_map(|holding| holding.dests.iter().map(DestId))
    }

    /// The path that a peer told by this name.
    pub fn path_of(&self, key: &K, source: Source, rx_id: PathId) -> Option<Path> {
        let dest = &self.dests[self.find(key)?.place()];
        dest.paths.position(source, rx_id).map(|place| dest.paths.as_slice()[place])
    }

    /// Whether one more path of this peer would be more than a destination keeps of one.
    pub fn is_full(&self, key: &K, source: Source) -> bool {
        let Some(id) = self.find(key) else { return false };
        let paths = self.paths(id);
        paths.len() >= MOST_PATHS_OF_ONE
            && paths.iter().filter(|path| path.source == source).count() >= MOST_PATHS_OF_ONE
    }
}

// ---- changes
impl<K: Key> Table<K> {
    /// Puts a path in, in the place of what the same peer told by the same name before.
    pub fn put(&mut self, key: &K, path: Path, choose: &mut Choose<'_>) -> Put {
        let id = self.find_or_make(key);
        let dest = &mut self.dests[id.place()];
        let before = dest.paths.best();
        let put = if let Some(place) = dest.paths.position(path.source, path.rx_id) {
            let old = &mut dest.paths.as_mut_slice()[place];
            if old.attrs == path.attrs && old.standing == path.standing {
                old.age = path.age;
                return Put::Same;
            }
            let path = Path { tx_id: old.tx_id, ..path };
            Put::Replaced(std::mem::replace(old, path))
        } else {
            let tx_id = dest.paths.free_tx_id();
            self.filled += usize::from(dest.paths.as_slice().is_empty());
            dest.paths.push(Path { tx_id, ..path });
            let holding = self.holding_mut(path.source);
            holding.paths += 1;
            holding.dests.insert(id.0);
            Put::New
        };
        self.settle(id, before, choose);
        put
    }

    /// Takes a path away, and returns it.
    pub fn take(
        &mut self,
        key: &K,
        source: Source,
        rx_id: PathId,
        choose: &mut Choose<'_>,
    ) -> Option<Path> {
        let id = self.find(key)?;
        let place = self.dests[id.place()].paths.position(source, rx_id)?;
        self.take_at(id, place, choose)
    }

    /// Takes away the paths of a peer that `which` says, and hands each out.
    pub fn take_all_of(
        &mut self,
        source: Source,
        which: impl Fn(&Path) -> bool,
        choose: &mut Choose<'_>,
        mut gone: impl FnMut(Path),
    ) {
        let ids: Vec<_> = self.held_by(source).collect();
        let of = |path: &Path| path.source == source && which(path);
        for id in ids {
            while let Some(place) = self.paths(id).iter().position(of) {
                if let Some(path) = self.take_at(id, place, choose) {
                    gone(path);
                }
            }
        }
    }

    /// Notes as changed every destination that a peer has a path to.
    pub fn note_all_of(&mut self, source: Source) {
        let ids: Vec<_> = self.held_by(source).collect();
        for id in ids {
            self.note(id);
        }
    }

    /// The paths to each destination that a peer has one to.
    pub fn paths_with(&self, source: Source) -> impl Iterator<Item = &[Path]> {
        self.held_by(source).map(|id| self.paths(id))
    }

    /// Marks every path of a peer as told before now.
    pub fn make_stale(&mut self, source: Source) {
        let ids: Vec<_> = self.held_by(source).collect();
        for id in ids {
            let paths = self.dests[id.place()].paths.as_mut_slice();
            for path in paths.iter_mut().filter(|path| path.source == source) {
                path.age = Age::Stale;
            }
        }
    }

    /// Lets `judge` give every path another standing, and chooses anew everywhere.
    pub fn reassess(&mut self, judge: impl Fn(&Path) -> Standing, choose: &mut Choose<'_>) {
        for id in (0..self.end()).map(DestId) {
            let paths = &mut self.dests[id.place()].paths;
            let before = paths.best();
            let mut moved = false;
            for path in paths.as_mut_slice() {
                let standing = judge(path);
                moved |= standing != path.standing;
                path.standing = standing;
            }
            if self.rank(id, before, choose) || (moved && self.notice == Notice::AnyPath) {
                self.note(id);
            }
        }
    }

    fn take_at(&mut self, id: DestId, place: usize, choose: &mut Choose<'_>) -> Option<Path> {
        let dest = &mut self.dests[id.place()];
        let before = dest.paths.best();
        let path = dest.paths.swap_remove(place)?;
        let last = dest.paths.as_slice().iter().all(|other| other.source != path.source);
        self.filled -= usize::from(dest.paths.as_slice().is_empty());
        let holding = self.holding_mut(path.source);
        holding.paths -= 1;
        if last {
            holding.dests.remove(id.0);
        }
        self.settle(id, before, choose);
        Some(path)
    }

    /// Notes the destination if what has happened to its paths matters to anyone.
    fn settle(&mut self, id: DestId, before: Option<Path>, choose: &mut Choose<'_>) {
        if self.rank(id, before, choose) || self.notice == Notice::AnyPath {
            self.note(id);
        }
    }

    /// Puts the best path first, and returns whether it is another than before.
    fn rank(&mut self, id: DestId, before: Option<Path>, choose: &mut Choose<'_>) -> bool {
        let dest = &mut self.dests[id.place()];
        let paths = dest.paths.as_mut_slice();
        if paths.len() > 1 {
            let best = choose(paths).unwrap_or(0);
            paths.swap(0, best);
        }
        let told = |path: Path| (path.attrs, path.source, path.rx_id);
        dest.paths.best().map(told) != before.map(told)
    }

    fn note(&mut self, id: DestId) {
        let dest = &mut self.dests[id.place()];
        if dest.version != CHANGED {
            dest.version = CHANGED;
            self.changed.push(id);
        }
    }
}

// ---- versions
impl<K: Key> Table<K> {
    pub fn version(&self) -> Version {
        self.version
    }

    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Gives what has changed a version, and returns it. The order is that of the changes.
    pub fn take_changed(&mut self) -> Vec<DestId> {
        let changed = std::mem::take(&mut self.changed);
        if !changed.is_empty() {
            self.version += 1;
        }
        for id in &changed {
            let dest = &mut self.dests[id.place()];
            dest.version = self.version;
            if dest.paths.as_slice().is_empty() {
                self.empty.push_back((self.version, *id));
            }
        }
        changed
    }

    /// Gives the list back, so that its memory is used again.
    pub fn recycle(&mut self, mut list: Vec<DestId>) {
        if list.capacity() <= KEPT {
            list.clear();
            self.changed = list;
        }
    }

    /// Whether a destination changed after a version. What is noted but has no version yet did.
    pub fn changed_since(&self, id: DestId, since: Version) -> bool {
        self.dests[id.place()].version > since
    }

    /// How often a destination was emptied that is not buried yet.
    pub fn empty(&self) -> usize {
        self.empty.len()
    }

    /// The version that emptied the newest destination beyond the `most` newest; `None` when there are no more.
    pub fn empty_version(&self, most: usize) -> Option<Version> {
        let beyond = self.empty.len().checked_sub(most + 1)?;
        self.empty.get(beyond).map(|(version, _)| *version)
    }

    /// Forgets the empty destinations that everybody knows to be gone, who knows all up to a version.
    pub fn bury(&mut self, known: Version) {
        while let Some(&(version, id)) = self.empty.front() {
            if version > known {
                break;
            }
            self.empty.pop_front();
            let dest = &mut self.dests[id.place()];
            // It may have come back, and gone again later, which another entry tells.
            if dest.version == version && dest.paths.as_slice().is_empty() {
                // Its key may get another number: no walk may take this one for it.
                dest.version = 0;
                let hash = self.keyed.hash_one(dest.key);
                if let Ok(entry) = self.index.find_entry(hash, |other| *other == id) {
                    entry.remove();
                }
                self.free.push(id);
            }
        }
        if self.index.is_empty() && self.dests.capacity() > KEPT {
            self.give_back();
        }
    }

    /// With nothing in it, the table gives its memory back.
    fn give_back(&mut self) {
        self.dests = Vec::new();
        self.free = Vec::new();
        self.index = HashTable::new();
        self.changed = Vec::new();
        self.empty = VecDeque::new();
        self.held.iter_mut().for_each(|holding| holding.dests = Bitmap::default());
    }
}

// ---- helpers
impl<K: Key> Table<K> {
    fn find_or_make(&mut self, key: &K) -> DestId {
        let hash = self.keyed.hash_one(key);
        let dests = &mut self.dests;
        if let Some(id) = self.index.find(hash, |id| dests[id.place()].key == *key) {
            return *id;
        }
        let dest = Dest { key: *key, paths: Paths::None, version: 0 };
        let id = if let Some(id) = self.free.pop() {
            dests[id.place()] = dest;
            id
        } else {
            // Four billion destinations have no room in any memory of today.
            let id = DestId(u32::try_from(dests.len()).unwrap_or(u32::MAX));
            dests.push(dest);
            id
        };
        let keyed = self.keyed;
        self.index.insert_unique(hash, id, |id| keyed.hash_one(dests[id.place()].key));
        id
    }

    fn holding(&self, source: Source) -> Option<&Holding> {
        match source {
            Source::LOCAL => Some(&self.own),
            peer => self.held.get(peer.number()),
        }
    }

    fn holding_mut(&mut self, source: Source) -> &mut Holding {
        if source == Source::LOCAL {
            return &mut self.own;
        }
        let number = source.number();
        if self.held.len() <= number {
            self.held.resize_with(number + 1, Holding::default);
        }
        &mut self.held[number]
    }
}

impl DestId {
    const fn place(self) -> usize {
        self.0 as usize
    }
}

impl Key for V4Prefix {
    fn from_nlri(key: &NlriKey) -> Option<Self> {
        match key {
            NlriKey::V4(prefix) => Some(*prefix),
            _ => None,
        }
    }

    fn nlri(self) -> NlriKey {
        NlriKey::V4(self)
    }
}

impl Key for V6Prefix {
    fn from_nlri(key: &NlriKey) -> Option<Self> {
        match key {
            NlriKey::V6(prefix) => Some(*prefix),
            _ => None,
        }
    }

    fn nlri(self) -> NlriKey {
        NlriKey::V6(self)
    }
}

impl Key for EvpnKey {
    fn from_nlri(key: &NlriKey) -> Option<Self> {
        match key {
            NlriKey::Evpn(key) => Some(*key),
            _ => None,
        }
    }

    fn nlri(self) -> NlriKey {
        NlriKey::Evpn(self)
    }
}

/// How many paths of one peer a destination keeps: with add-path a peer could tell millions, and each would
/// have to be looked through.
pub const MOST_PATHS_OF_ONE: usize = 64;
const CHANGED: Version = Version::MAX;
/// Lists and tables up to this size are kept when they are empty.
const KEPT: usize = 64 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_with_one_path_has_32_octets() {
        assert_eq!(size_of::<Dest<V4Prefix>>(), 32);
    }
}
