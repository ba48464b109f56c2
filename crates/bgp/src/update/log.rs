//! The chunks of a group, in the order in which they were encoded, until everybody has read them.

use std::collections::VecDeque;

use super::chunk::Chunk;
use crate::rib::Version;

/// A queue with many readers and a bound.
#[derive(Debug)]
pub struct Log {
    most_octets: usize,
    entries: VecDeque<Entry>,
    /// The place of the first entry that is left; places are never used again.
    first: u64,
    octets: usize,
}

#[derive(Debug)]
struct Entry {
    chunk: Chunk,
    version: Version,
    /// How many have not read it yet.
    unread: usize,
}

impl Log {
    pub const fn new(most_octets: usize) -> Self {
        Self { most_octets, entries: VecDeque::new(), first: 0, octets: 0 }
    }

    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The place of the next chunk that comes.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Adds a chunk for `readers`. The oldest go when there are too many octets; see [`Self::first`].
    pub fn push(&mut self, chunk: Chunk, version: Version, readers: usize) {
        self.octets += chunk.octets.len();
        self.entries.push_back(Entry { chunk, version, unread: readers });
        while self.octets > self.most_octets && self.entries.len() > 1 {
            self.pop();
        }
        self.drop_read();
    }

    pub fn get(&self, place: u64) -> Option<&Chunk> {
        self.entry(place).map(|entry| &entry.chunk)
    }

    /// Up to which version somebody at this place knows all; `None` at the end.
    pub fn known_at(&self, place: u64) -> Option<Version> {
        // Others of the same version may follow.
        self.entry(place).map(|entry| entry.version - 1)
    }

    /// Notes that one reader has done with the chunk at `place`.
    pub fn read(&mut self, place: u64) {
        if let Some(entry) = self.entry_mut(place) {
            entry.unread = entry.unread.saturating_sub(1);
        }
        self.drop_read();
    }

    /// Notes that one more will read what is there from `place` on.
    pub fn join(&mut self, place: u64) {
        self.from(place).for_each(|entry| entry.unread += 1);
    }

    /// Notes that one reader will not read what is there from `place` on.
    pub fn leave(&mut self, place: u64) {
        self.from(place).for_each(|entry| entry.unread = entry.unread.saturating_sub(1));
        self.drop_read();
    }

    pub const fn octets(&self) -> usize {
        self.octets
    }

    fn drop_read(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.unread == 0) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.octets -= entry.chunk.octets.len();
            self.first += 1;
        }
    }

    fn from(&mut self, place: u64) -> impl Iterator<Item = &mut Entry> {
        let skip = usize::try_from(place.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.entries.iter_mut().skip(skip)
    }

    fn entry(&self, place: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(place.checked_sub(self.first)?).ok()?)
    }

    fn entry_mut(&mut self, place: u64) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(place.checked_sub(self.first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::chunk::Audience, *};

    #[test]
    fn a_chunk_goes_when_the_last_reader_has_read_it() {
        let mut log = Log::new(MOST);
        log.push(chunk(10), 1, 2);
        log.push(chunk(20), 2, 2);
        log.read(0);
        assert_eq!((log.first(), log.octets()), (0, 30));
        log.read(0);
        assert_eq!((log.first(), log.octets()), (1, 20));
        assert_eq!(log.known_at(1), Some(1));
        log.read(1);
        log.leave(1);
        assert_eq!((log.first(), log.end(), log.octets()), (2, 2, 0));
    }

    #[test]
    fn the_oldest_go_beyond_the_bound_whoever_has_not_read_them() {
        let mut log = Log::new(MOST);
        for version in 1..=9 {
            log.push(chunk(MOST / 8), version, 1);
        }
        assert_eq!((log.first(), log.end()), (1, 9));
        assert!(log.octets() <= MOST);
        assert!(log.get(0).is_none());
    }

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let mut log = Log::new(MOST);
        log.push(chunk(10), 1, 0);
        assert_eq!((log.first(), log.octets()), (1, 0));
    }

    const MOST: usize = 800;

    fn chunk(octets: usize) -> Chunk {
        Chunk { audience: Audience::All, octets: vec![0; octets].into() }
    }
}
