//! From a file to a running store, and other ways to read one.
//!
//! A file that is not there is made; nothing else ever becomes a new store. What is read back is held
//! against what it claims: a record whose checksum is right but which does not follow from those before it
//! is damage like any other.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    Keep, Limits,
    image::Image,
    journal::{FileDisk, Journal, JournalError},
    record::{self, Record},
    state::State,
    writer::fill,
};
use crate::random;

/// A store as it stands in its file, and the file, if it has one.
pub(crate) type Opened = (State, Option<Journal<FileDisk>>);

/// Why a store's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{}: what it begins with does not make a store: {reason}", path.display())]
    Base { path: PathBuf, reason: String },
    #[error("{}: there is a store already", .0.display())]
    Exists(PathBuf),
}

/// Opens the store, or begins one.
pub(crate) fn open(
    keep: &Keep,
    cluster: Option<u64>,
    limits: &Limits,
) -> Result<Opened, FileError> {
    let new = || Image::empty(cluster.unwrap_or_else(random::id64), random::id64());
    match keep {
        Keep::Memory => Ok((state(Path::new("memory"), new(), limits)?, None)),
        Keep::File(path) => match open_file(path, limits) {
            Err(FileError::Journal(err)) if err.is_missing() => {
                create(path, &new())?;
                open_file(path, limits)
            }
            opened => opened,
        }
        .map(|(state, journal)| (state, Some(journal))),
    }
}

/// Writes a new file that holds `image`.
///
/// # Errors
///
/// When there is one already, the image contradicts itself, or it cannot be written.
pub(crate) fn create(path: &Path, image: &Image) -> Result<(), FileError> {
    // Read once, so that what is written can be read.
    let image = state(path, image.clone(), &Limits::default())?.image();
    let payloads = record::payloads(&image);
    Journal::create(FileDisk::new(path), random::id64(), payloads)?.close()?;
    tracing::info!(path = %path.display(), "datastore's file made");
    Ok(())
}

/// Writes a file anew that no server uses just now; returns its bytes before and after.
///
/// # Errors
///
/// When it is in use, damaged, no store, or the disk has no room for another.
pub(crate) fn rewrite(path: &Path) -> Result<(u64, u64), FileError> {
    let (state, mut journal) = open_file(path, &Limits::default())?;
    let before = journal.used();
    let ready = journal.rewrite(random::id64()).and_then(|fresh| fill(fresh, &state.image()));
    match ready {
        Ok(ready) => journal.adopt(ready, &[], 0)?,
        Err(err) => {
            journal.abandon();
            return Err(err.into());
        }
    }
    let after = journal.used();
    journal.close()?;
    Ok((before, after))
}

/// Returns what a file holds that no server uses just now.
///
/// # Errors
///
/// When it is in use, damaged, or no store.
pub(crate) fn read(path: &Path) -> Result<Image, FileError> {
    let (state, journal) = open_file(path, &Limits::default())?;
    journal.close()?;
    Ok(state.image())
}

/// What could be read of a damaged file.
#[derive(Debug)]
pub(crate) struct Salvaged {
    pub(crate) image: Image,
    /// What ended the reading; `None`: the file is whole.
    pub(crate) damage: Option<JournalError>,
}

/// Returns what is before the damage. The file is not changed.
///
/// # Errors
///
/// When nothing can be read.
pub(crate) fn salvage(path: &Path) -> Result<Salvaged, FileError> {
    let mut reader = Reader::new(&Limits::default());
    let read = Journal::salvage(&FileDisk::new(path), &mut |payload| reader.payload(payload));
    let damage = read?;
    match (reader.finish(path), damage) {
        // Nothing is before it.
        (Err(_), Some(damage)) => Err(damage.into()),
        (state, damage) => Ok(Salvaged { image: state?.image(), damage }),
    }
}

pub(super) fn open_file(
    path: &Path,
    limits: &Limits,
) -> Result<(State, Journal<FileDisk>), FileError> {
    let mut reader = Reader::new(limits);
    let (journal, recovered) =
        Journal::open(FileDisk::new(path), &mut |payload| reader.payload(payload))?;
    if let Some(cut) = recovered.cut {
        tracing::warn!(
            path = %path.display(), offset = cut.offset, bytes = cut.bytes,
            "what a crash left unfinished, and nobody was told of, is cut from the datastore's file"
        );
    }
    Ok((reader.finish(path)?, journal))
}

fn state(path: &Path, image: Image, limits: &Limits) -> Result<State, FileError> {
    State::new(image, limits.clone(), Instant::now())
        .map_err(|reason| FileError::Base { path: path.to_owned(), reason })
}

/// Makes a store of records.
pub(super) struct Reader {
    limits: Limits,
    stage: Stage,
}

enum Stage {
    /// Nothing was read yet.
    Start,
    /// The parts of the image that the file begins with.
    Base(Box<Image>),
    Running(Box<State>),
}

impl Reader {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), stage: Stage::Start }
    }

    pub(super) fn payload(&mut self, payload: &[u8]) -> Result<(), String> {
        record::read(payload, |record| self.record(record))
    }

    fn record(&mut self, record: Record) -> Result<(), String> {
        match (&mut self.stage, record) {
            (Stage::Start, Record::Base { cluster, member, revision, compacted }) => {
                let base = Image { revision, compacted, ..Image::empty(cluster, member) };
                self.stage = Stage::Base(Box::new(base));
            }
            (Stage::Start, _) => return Err("it does not begin with a store".to_owned()),
            (Stage::Base(image), Record::Version(version)) => image.versions.push(version),
            (Stage::Base(image), Record::Grant { lease, ttl }) if image.versions.is_empty() => {
                image.leases.push((lease, ttl));
            }
            (Stage::Base(_), record) => self.begin()?.replay(record, Instant::now())?,
            (Stage::Running(state), record) => state.replay(record, Instant::now())?,
        }
        Ok(())
    }

    /// Makes the store of its beginning.
    fn begin(&mut self) -> Result<&mut State, String> {
        if let Stage::Base(image) = &mut self.stage {
            let image = std::mem::replace(&mut **image, Image::empty(0, 0));
            let state = State::new(image, self.limits.clone(), Instant::now())?;
            self.stage = Stage::Running(Box::new(state));
        }
        match &mut self.stage {
            Stage::Running(state) => Ok(state),
            Stage::Start | Stage::Base(_) => Err("it does not begin with a store".to_owned()),
        }
    }

    pub(super) fn finish(mut self, path: &Path) -> Result<State, FileError> {
        let base = |reason| FileError::Base { path: path.to_owned(), reason };
        let state = self.begin().map_err(base)?;
        state.restart_leases(Instant::now());
        match self.stage {
            Stage::Running(state) => Ok(*state),
            Stage::Start | Stage::Base(_) => Err(base("nothing was read".to_owned())),
        }
    }
}
