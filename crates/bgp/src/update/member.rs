//! How far one peer has been told.

use std::{collections::VecDeque, sync::Arc};

use super::chunk::{Chunk, Piece};
use crate::rib::{DestId, Key, Source, Table, Version};

/// One peer's place in what its group is told.
#[derive(Debug)]
pub struct Member {
    pub reading: Reading,
    /// It has been told all up to here; more, perhaps.
    pub known: Version,
    /// What is said when all that there was has been told.
    pub end: Option<Mark>,
}

/// A marker that is owed.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub end: End,
    /// Said when the log has been read up to here: a snapshot that others share may be older than the member.
    pub after: u64,
}

#[derive(Debug)]
pub enum Reading {
    Log { at: u64 },
    Snapshot { snapshot: Arc<Snapshot>, at: usize },
    Walk(Walk),
}

/// The whole table in chunks, as it was at a version.
#[derive(Debug)]
pub struct Snapshot {
    pub chunks: Vec<Chunk>,
    pub version: Version,
    /// Where the log goes on.
    pub resume: u64,
}

/// A way through the table, to what changed after a version.
#[derive(Debug)]
pub struct Walk {
    /// The next destination to look at; `None` when all have been.
    at: Option<u32>,
    since: Version,
    /// The version at which it began: afterwards all up to here is known.
    pub until: Version,
    /// Where the log goes on.
    pub resume: u64,
    pub gone: Gone,
    pub ready: VecDeque<Arc<[u8]>>,
}

/// Whether destinations that are not there are told to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Told,
    /// The peer knows of nothing yet.
    LeftOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Rib,
    Refresh,
}

/// What a member's next step is.
pub enum Step {
    Say(Piece),
    /// Look again: it has moved.
    Again,
    /// The walk needs more of the table.
    WalkOn,
    /// A snapshot or a walk is at its end.
    Ended,
    Idle,
}

impl Member {
    /// Where in the log it reads, or will.
    pub fn place(&self) -> u64 {
        match &self.reading {
            Reading::Log { at } => *at,
            Reading::Snapshot { snapshot, .. } => snapshot.resume,
            Reading::Walk(walk) => walk.resume,
        }
    }

    /// What a snapshot or a walk says next. The log is the group's to read.
    pub fn step(&mut self, member: Source) -> Step {
        match &mut self.reading {
            Reading::Log { .. } => Step::Idle,
            Reading::Snapshot { snapshot, at } => {
                let Some(chunk) = snapshot.chunks.get(*at) else { return Step::Ended };
                *at += 1;
                if chunk.audience.includes(member) {
                    Step::Say(Piece::Octets(Arc::clone(&chunk.octets)))
                } else {
                    Step::Again
                }
            }
            Reading::Walk(walk) => match walk.ready.pop_front() {
                Some(octets) => Step::Say(Piece::Octets(octets)),
                None if walk.at.is_none() => Step::Ended,
                None => Step::WalkOn,
            },
        }
    }

    /// Goes over from a snapshot or a walk to the log.
    pub fn go_on_to_the_log(&mut self) {
        self.known = self.version_at_end();
        self.reading = Reading::Log { at: self.place() };
    }

    /// Takes the marker that is owed, when all before it has been told.
    pub fn end_that_is_due(&mut self) -> Option<End> {
        let Reading::Log { at } = self.reading else { return None };
        let mark = self.end.filter(|mark| mark.after <= at)?;
        self.end = None;
        Some(mark.end)
    }

    /// Up to which version all is known once what it reads now is at its end.
    pub fn version_at_end(&self) -> Version {
        match &self.reading {
            Reading::Log { .. } => self.known,
            Reading::Snapshot { snapshot, .. } => snapshot.version,
            Reading::Walk(walk) => walk.until,
        }
    }
}

impl Walk {
    /// Begins a walk to what changed after `since`, in a table that is at `until`.
    pub fn begin(since: Version, until: Version, resume: u64, gone: Gone) -> Self {
        Self { at: Some(0), since, until, resume, gone, ready: VecDeque::new() }
    }

    /// The next destinations that have changed; none does not mean that it is at its end.
    pub fn next_part<K: Key>(&mut self, table: &Table<K>, most: usize) -> Vec<DestId> {
        let mut part = Vec::new();
        let Some(mut at) = self.at.take() else { return part };
        while at < table.end() {
            if part.len() == most.max(1) {
                self.at = Some(at);
                break;
            }
            part.extend(Some(DestId(at)).filter(|id| table.changed_since(*id, self.since)));
            at += 1;
        }
        part
    }
}
