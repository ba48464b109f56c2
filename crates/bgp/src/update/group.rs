//! Peers that are told the same, and how they are told it: see [`crate::update`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use super::{
    bounds::Bounds,
    chunk::{Audience, Chunk, Chunker, Piece, end_of_rib},
    export::{Plan, Scene, Treatment},
    log::Log,
    member::{End, Gone, Mark, Member, Reading, Snapshot, Step, Walk},
    told::{Told, Withdrawal},
};
use crate::{
    rib::{DestId, Key, Keyed, Source, Table, Version},
    wire::{Family, Nlri, PathId, Tail},
};

/// Peers with one treatment, for one family.
#[derive(Debug)]
pub struct Group {
    family: Family,
    treatment: Treatment,
    bounds: Bounds,
    told: Told,
    log: Log,
    snapshot: Weak<Snapshot>,
    members: BTreeMap<Source, Member>,
}

// ---- members
impl Group {
    /// Creates a group without members.
    pub fn new(family: Family, treatment: Treatment, keyed: Keyed, bounds: Bounds) -> Self {
        let told = if treatment.tells_all(family) {
            Told::All(HashMap::with_hasher(keyed))
        } else {
            Told::Best(Vec::new())
        };
        let log = Log::new(bounds.log_octets);
        let (snapshot, members) = (Weak::new(), BTreeMap::new());
        Self { family, treatment, bounds, told, log, snapshot, members }
    }

    pub fn treats_like(&self, treatment: &Treatment) -> bool {
        self.treatment == *treatment
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes in a peer that knows nothing yet. Nothing in the table may have changed since the last flush.
    pub fn join<K: Key>(&mut self, member: Source, table: &Table<K>, scene: &Scene<'_>) {
        if self.members.is_empty() {
            self.begin(table, scene);
        }
        let version = table.version();
        let reading = if table.count_dests() > self.bounds.snapshot {
            Reading::Walk(Walk::begin(0, version, self.log.end(), Gone::LeftOut))
        } else {
            Reading::Snapshot { snapshot: self.snapshot_to_share(table, scene), at: 0 }
        };
        let end = Some(Mark { end: End::Rib, after: self.log.end() });
        let joined = Member { reading, known: version, end };
        self.log.join(joined.place());
        let known = joined.version_at_end();
        self.members.insert(member, Member { known, ..joined });
    }

    pub fn leave(&mut self, member: Source) {
        if let Some(gone) = self.members.remove(&member) {
            self.log.leave(gone.place());
        }
    }

    /// Takes in a peer that another group has told something: it is told what it is to hold here, and to forget all
    /// else. Nothing in the table may have changed since the last flush.
    pub fn take_over<K: Key>(
        &mut self,
        member: Source,
        from: &mut Self,
        table: &Table<K>,
        scene: &Scene<'_>,
    ) {
        let Some(moved) = from.members.remove(&member) else { return };
        from.log.leave(moved.place());
        let known = known(&moved, &from.log, table.version());
        if self.members.is_empty() {
            self.begin(table, scene);
        }
        self.told.heed(&from.told);
        let after = self.log.end();
        let end = moved.end.map(|mark| Mark { after, ..mark });
        let walk = Walk::begin(0, table.version(), after, Gone::Told);
        let moved = Member { reading: Reading::Walk(walk), known, end };
        self.log.join(moved.place());
        self.members.insert(member, moved);
    }

    /// From now on nobody begins with what was encoded before. A chunk leaves out the peer that had a number
    /// then, and would leave out the next that gets it.
    pub fn share_no_more(&mut self) {
        self.snapshot = Weak::new();
    }

    /// Tells a member everything again, from the state that it is in.
    pub fn refresh<K: Key>(&mut self, member: Source, table: &Table<K>) {
        let Some(refreshed) = self.members.get_mut(&member) else { return };
        let known = known(refreshed, &self.log, table.version());
        self.log.leave(refreshed.place());
        // Whoever asks before the first telling has ended still waits for that end.
        let owed = refreshed.end.map(|mark| mark.end).filter(|end| *end == End::Rib);
        let end = Mark { end: owed.unwrap_or(End::Refresh), after: self.log.end() };
        let walk = Walk::begin(0, table.version(), self.log.end(), Gone::Told);
        *refreshed = Member { reading: Reading::Walk(walk), known, end: Some(end) };
    }

    /// The version up to which every member knows all.
    pub fn known(&self, version: Version) -> Version {
        let known = self.members.values().map(|member| known(member, &self.log, version));
        known.min().unwrap_or(version)
    }

    /// Members that do not know all up to a version.
    pub fn behind(&self, bound: Version, version: Version) -> impl Iterator<Item = Source> {
        let members = self.members.iter();
        let behind = move |member: &Member| known(member, &self.log, version) < bound;
        members.filter(move |(_, member)| behind(member)).map(|(source, _)| *source)
    }

    /// Octets that wait to be read, each counted once however many will read it.
    pub fn octets(&self) -> usize {
        self.log.octets()
    }
}

// ---- flushing
impl Group {
    /// Encodes what has changed for all members.
    pub fn flush<K: Key>(&mut self, table: &Table<K>, changed: &[DestId], scene: &Scene<'_>) {
        let plan = Plan::make(table, changed, &self.treatment, scene);
        let withdrawals = self.told.update(changed, plan.tellings(Source::NONE));
        // Whoever joins may begin with a snapshot that others still read, and then goes on from here.
        let may_join = self.snapshot.strong_count() > 0;
        let mut chunker = Chunker::new(self.family, self.treatment.terms);
        for same in withdrawals.chunk_by(|one, other| one.audience == other.audience) {
            let audience = same.first().map_or(Audience::All, |first| first.audience);
            // A route may move to a peer that is told by another group.
            let absent = |peer| !self.members.contains_key(&peer) && !may_join;
            if !matches!(audience, Audience::Only(peer) if absent(peer)) {
                chunker.withdraw(audience, same.iter().map(|gone| gone.nlri(table, changed)));
            }
        }
        for chunk in announce(chunker, &plan, table, changed) {
            self.log.push(chunk, table.version(), self.members.len());
        }
    }

    /// Notes what the first member is going to be told. Nobody has been told what could need a withdrawal.
    fn begin<K: Key>(&mut self, table: &Table<K>, scene: &Scene<'_>) {
        let dests: Vec<_> = (0..table.end()).map(DestId).collect();
        let plan = Plan::make(table, &dests, &self.treatment, scene);
        self.told.update(&dests, plan.tellings(Source::NONE));
    }

    /// The snapshot that others read, if the log still goes on from it; else a new one.
    fn snapshot_to_share<K: Key>(&mut self, table: &Table<K>, scene: &Scene<'_>) -> Arc<Snapshot> {
        let shared = self.snapshot.upgrade();
        if let Some(snapshot) = shared.filter(|shared| shared.resume >= self.log.first()) {
            return snapshot;
        }
        let dests: Vec<_> = (0..table.end()).map(DestId).collect();
        let plan = Plan::make(table, &dests, &self.treatment, scene);
        let chunker = Chunker::new(self.family, self.treatment.terms);
        let snapshot = Arc::new(Snapshot {
            chunks: announce(chunker, &plan, table, &dests),
            version: table.version(),
            resume: self.log.end(),
        });
        self.snapshot = Arc::downgrade(&snapshot);
        snapshot
    }
}

// ---- reading
impl Group {
    /// What a member is told next; `None` when it has been told all. Nothing in the table may have changed since
    /// the last flush.
    pub fn next<K: Key>(
        &mut self,
        member: Source,
        table: &Table<K>,
        scene: &Scene<'_>,
    ) -> Option<Piece> {
        loop {
            let reader = self.members.get_mut(&member)?;
            match reader.step(member) {
                Step::Say(piece) => return Some(piece),
                Step::Again => {}
                Step::WalkOn => self.walk_on(member, table, scene),
                Step::Ended => reader.go_on_to_the_log(),
                Step::Idle => {
                    if let Some(end) = reader.end_that_is_due() {
                        return Some(self.marker(end));
                    }
                    match self.read_log(member, table.version()) {
                        Read::Chunk(octets) => return Some(Piece::Octets(octets)),
                        Read::Skipped => {}
                        Read::AtEnd => return None,
                    }
                }
            }
        }
    }

    /// Whether a member has not been told all.
    pub fn has_more(&self, member: Source) -> bool {
        self.members.get(&member).is_some_and(|member| match member.reading {
            Reading::Log { at } => at < self.log.end() || member.end.is_some(),
            Reading::Snapshot { .. } | Reading::Walk(_) => true,
        })
    }

    fn read_log(&mut self, member: Source, version: Version) -> Read {
        let Some(reader) = self.members.get_mut(&member) else { return Read::AtEnd };
        reader.known = known(reader, &self.log, version);
        let at = reader.place();
        if at < self.log.first() {
            // What it has not read is gone from the log.
            let walk = Walk::begin(reader.known, version, self.log.end(), Gone::Told);
            reader.reading = Reading::Walk(walk);
            return Read::Skipped;
        }
        let Some(chunk) = self.log.get(at) else { return Read::AtEnd };
        let octets = chunk.audience.includes(member).then(|| Arc::clone(&chunk.octets));
        reader.reading = Reading::Log { at: at + 1 };
        self.log.read(at);
        octets.map_or(Read::Skipped, Read::Chunk)
    }

    fn marker(&self, end: End) -> Piece {
        match end {
            End::Rib => Piece::Octets(end_of_rib(self.family, self.treatment.terms)),
            End::Refresh => Piece::Refreshed(self.family),
        }
    }

    /// Looks at a part of the table, and makes what a member that walks is told of it.
    fn walk_on<K: Key>(&mut self, member: Source, table: &Table<K>, scene: &Scene<'_>) {
        let Some(reader) = self.members.get_mut(&member) else { return };
        let Reading::Walk(walk) = &mut reader.reading else { return };
        let dests = walk.next_part(table, self.bounds.walk);
        let plan = Plan::make(table, &dests, &self.treatment, scene);
        let mut chunker = Chunker::new(self.family, self.treatment.terms);
        if walk.gone == Gone::Told {
            let missing = missing(&self.told, &dests, &plan, member);
            let nlris = missing.iter().map(|gone| gone.nlri(table, &dests));
            chunker.withdraw(Audience::Only(member), nlris);
        }
        let chunks = announce(chunker, &plan, table, &dests);
        let ours = chunks.into_iter().filter(|chunk| chunk.audience.includes(member));
        walk.ready.extend(ours.map(|chunk| chunk.octets));
    }
}

/// What the log had for a member.
enum Read {
    Chunk(Arc<[u8]>),
    Skipped,
    AtEnd,
}

impl Withdrawal {
    fn nlri<K: Key>(&self, table: &Table<K>, dests: &[DestId]) -> Nlri {
        Nlri {
            path_id: PathId::new(self.name),
            key: table.key(dests[self.place as usize]).nlri(),
            tail: Tail::None,
        }
    }
}

/// Up to which version a member has been told all.
fn known(member: &Member, log: &Log, version: Version) -> Version {
    match member.reading {
        Reading::Log { at } if at == log.end() => version,
        Reading::Log { at } => member.known.max(log.known_at(at).unwrap_or(0)),
        Reading::Snapshot { .. } | Reading::Walk(_) => member.known,
    }
}

/// Writes the runs of a plan behind what a chunker has.
fn announce<K: Key>(
    mut chunker: Chunker,
    plan: &Plan,
    table: &Table<K>,
    dests: &[DestId],
) -> Vec<Chunk> {
    for run in plan.runs() {
        let audience = Audience::of_routes_from(run.source);
        chunker.announce(audience, &run.octets, run.next_hop, plan.nlris(run, table, dests));
    }
    chunker.finish()
}

/// What a member may hold of these destinations that it is not told now.
fn missing(told: &Told, dests: &[DestId], plan: &Plan, member: Source) -> Vec<Withdrawal> {
    let mut kept: Vec<_> =
        plan.tellings(member).iter().map(|telling| (telling.place, telling.name)).collect();
    kept.sort_unstable();
    let mut missing = Vec::new();
    for (place, dest) in (0..).zip(dests) {
        let gone = told.names(*dest).filter(|name| kept.binary_search(&(place, *name)).is_err());
        let audience = Audience::Only(member);
        missing.extend(gone.map(|name| Withdrawal { audience, place, name }));
    }
    missing
}
