//! A log of payloads in one file, which survives whatever interrupts it.
//!
//! ```text
//!  frame.rs    the bytes                       recover.rs  reading back: what is whole, what is damage
//!  disk.rs     the file layer, as a trait      file.rs     the real one, fake.rs: every power failure
//! ```
//!
//! [`Journal::append`] returns when its payload is on the disk. Space is allocated ahead, so a full disk
//! is known before anything depends on it, and a sync need not write the file's length (one append and
//! sync took 190 µs instead of 300). Writing the file anew goes on beside it ([`Rewrite`]) until the new
//! file takes its place.
//!
//! A write or a sync that fails is the end of this journal: what the disk has then is known only by reading
//! it again, so every later call returns the same error.

mod disk;
mod error;
#[cfg(test)]
pub(super) mod fake;
mod file;
mod frame;
mod recover;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use self::error::JournalError;
pub(crate) use self::{disk::Disk, file::FileDisk, recover::Recovered};
use self::{
    disk::DiskFile,
    file::write_zeros,
    frame::{FIRST_FRAME, FRAME_HEADER, Kind},
    recover::{Fault, Visit},
};

/// An open log. One process has it at a time.
#[derive(Debug)]
pub(crate) struct Journal<D: Disk> {
    disk: D,
    log: Log<D::File>,
    /// Why it cannot go on.
    failed: Option<JournalError>,
}

/// A fresh file that is being filled.
#[derive(Debug)]
pub(crate) struct Rewrite<D: Disk> {
    path: std::path::PathBuf,
    log: Log<D::File>,
    buffer: Vec<u8>,
}

/// A fresh file that is complete and on the disk.
#[derive(Debug)]
pub(crate) struct Ready<D: Disk> {
    log: Log<D::File>,
}

/// A file and how far it is written.
#[derive(Debug)]
struct Log<F> {
    file: F,
    salt: u64,
    /// Where the next frame goes.
    end: u64,
    /// The length of the file; zeros from `end` on.
    allocated: u64,
    next_sequence: u64,
}

impl<D: Disk> Journal<D> {
    /// Makes a file that begins with these payloads; it is there whole or not at all.
    pub(crate) fn create(
        disk: D,
        salt: u64,
        payloads: impl Iterator<Item = Vec<u8>>,
    ) -> Result<Self, JournalError> {
        let mut rewrite = Rewrite::<D>::start(&disk, salt)?;
        let filled = payloads.into_iter().try_for_each(|payload| rewrite.add(&payload));
        let ready = filled.and_then(|()| rewrite.finish());
        let path = disk.path().to_owned();
        let appeared = ready.and_then(|ready| {
            disk.appear().map_err(|err| JournalError::io("make", path, err))?;
            Ok(ready)
        });
        match appeared {
            Ok(ready) => Ok(Self { disk, log: ready.log, failed: None }),
            Err(err) => {
                // What matters is why it failed; a left-over is removed at the next start.
                let _ = disk.discard();
                Err(err)
            }
        }
    }

    /// Opens a file and reads it back; what a crash left unfinished is cut.
    ///
    /// # Errors
    ///
    /// When there is none, another process has it, it is none of ours, or damaged. It is not changed then.
    pub(crate) fn open(disk: D, visit: Visit<'_>) -> Result<(Self, Recovered), JournalError> {
        let io = |op, err| JournalError::io(op, disk.path(), err);
        let mut file = disk.open().map_err(|err| io("open", err))?;
        let recovered = recover::read(&file, visit).map_err(|fault| told(fault, disk.path()))?;
        let allocated = file.len().map_err(|err| io("read", err))?;
        if let Some(cut) = recovered.cut {
            write_zeros(&mut file, cut.offset, cut.offset + cut.bytes)
                .and_then(|()| file.sync())
                .map_err(|err| io("cut", err))?;
        }
        disk.discard().map_err(|err| io("remove what a crash left beside", err))?;
        let (salt, end, next_sequence) = (recovered.salt, recovered.end, recovered.next_sequence);
        let log = Log { file, salt, end, allocated, next_sequence };
        Ok((Self { disk, log, failed: None }, recovered))
    }

    /// Reads what is before the damage, if there is any, and changes nothing. Returns the damage.
    ///
    /// # Errors
    ///
    /// When nothing can be read.
    pub(crate) fn salvage(
        disk: &D,
        visit: Visit<'_>,
    ) -> Result<Option<JournalError>, JournalError> {
        let file = disk.open_to_read();
        let file = file.map_err(|err| JournalError::io("open", disk.path(), err))?;
        match recover::read(&file, visit) {
            Ok(_) => Ok(None),
            Err(fault @ Fault::Damaged { .. }) => Ok(Some(told(fault, disk.path()))),
            Err(fault) => Err(told(fault, disk.path())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.disk.path()
    }

    /// Returns the bytes of the file that are in use.
    pub(crate) fn used(&self) -> u64 {
        self.log.end
    }

    /// Returns the size of a payload that surely can be appended.
    pub(crate) fn room(&self) -> u64 {
        self.log.allocated.saturating_sub(self.log.end).saturating_sub(TAIL)
    }

    /// Returns why the journal cannot go on, if it cannot.
    pub(crate) fn check(&self) -> Result<(), JournalError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Makes sure that so much payload can be appended without finding the disk full.
    ///
    /// # Errors
    ///
    /// When the disk is full: nothing has changed then.
    pub(crate) fn make_room(&mut self, payload: u64) -> Result<(), JournalError> {
        self.check()?;
        if self.room() >= payload {
            return Ok(());
        }
        let made = self.log.make_room(payload, D::CHUNK, self.disk.path());
        self.unless_failed(made)
    }

    /// Appends a payload, and returns when it is on the disk.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        self.make_room(len(payload))?;
        let done = self.log.write(Kind::Data, payload, self.disk.path());
        let done = done.and_then(|()| self.log.sync(self.disk.path()));
        self.unless_failed(done)
    }

    /// Notes on the disk that all that was appended is there: damage to the last payload is damage from now
    /// on, and not what a crash left. Worth a sync of its own when there is nothing else to do.
    pub(crate) fn seal(&mut self) -> Result<(), JournalError> {
        self.check()?;
        match self.make_room(0) {
            // It can be done without.
            Err(err) if err.is_no_space() => return Ok(()),
            made => made?,
        }
        // Synced at once: were it left to the next append, that could be on the disk without it, and a
        // whole frame behind one that is not whole is what damage looks like.
        let sealed = self.log.write(Kind::Seal, &[], self.disk.path());
        let sealed = sealed.and_then(|()| self.log.sync(self.disk.path()));
        self.unless_failed(sealed)
    }

    /// Seals the file and lets it go.
    pub(crate) fn close(mut self) -> Result<(), JournalError> {
        self.seal()
    }

    /// Begins a fresh file beside this one.
    pub(crate) fn rewrite(&self, salt: u64) -> Result<Rewrite<D>, JournalError> {
        self.check()?;
        Rewrite::start(&self.disk, salt)
    }

    /// Goes on in the fresh file: what was appended here meanwhile comes behind what it has, with room for so
    /// much more, and it takes this one's place. When that fails this one stays in use.
    pub(crate) fn adopt(
        &mut self,
        ready: Ready<D>,
        tail: &[Vec<u8>],
        room: u64,
    ) -> Result<(), JournalError> {
        self.check()?;
        let path = self.disk.path().to_owned();
        let mut log = ready.log;
        let filled = (|| {
            for payload in tail {
                log.make_room(len(payload), D::CHUNK, &path)?;
                log.write(Kind::Data, payload, &path)?;
            }
            log.make_room(room, D::CHUNK, &path)?;
            log.sync(&path)
        })();
        if let Err(err) = filled {
            self.abandon();
            return Err(err);
        }
        // Whether the new name is on the disk is not known when this fails.
        let placed = self.disk.replace().map_err(|err| JournalError::io("replace", path, err));
        self.unless_failed(placed)?;
        self.log = log;
        Ok(())
    }

    /// Removes a fresh file that nobody needs.
    pub(crate) fn abandon(&self) {
        // A left-over is removed at the next start, or by the next rewrite.
        let _ = self.disk.discard();
    }

    fn unless_failed(&mut self, done: Result<(), JournalError>) -> Result<(), JournalError> {
        if let Err(err) = &done
            && !err.is_no_space()
        {
            self.failed = Some(err.clone());
        }
        done
    }
}

impl<D: Disk> Rewrite<D> {
    fn start(disk: &D, salt: u64) -> Result<Self, JournalError> {
        let path = disk.path().to_owned();
        let file = disk.create_beside();
        let file = file.map_err(|err| JournalError::io("make a file beside", &path, err))?;
        let mut log = Log { file, salt, end: FIRST_FRAME, allocated: 0, next_sequence: 1 };
        let header = frame::file_header(salt);
        let written = log.file.write_at(&header, 0);
        written.map_err(|err| JournalError::io("write", &path, err))?;
        log.allocated = FIRST_FRAME;
        Ok(Self { path, log, buffer: Vec::new() })
    }

    /// Adds a payload; it is on the disk when the file is finished.
    pub(crate) fn add(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        let log = &mut self.log;
        frame::encode(log.salt, log.next_sequence, Kind::Data, payload, &mut self.buffer);
        log.next_sequence += 1;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Completes the file, and returns when it is on the disk.
    pub(crate) fn finish(mut self) -> Result<Ready<D>, JournalError> {
        let log = &mut self.log;
        frame::encode(log.salt, log.next_sequence, Kind::Complete, &[], &mut self.buffer);
        log.next_sequence += 1;
        self.flush()?;
        // What was written is what there is: whatever comes now needs room of its own.
        self.log.make_room(0, D::CHUNK, &self.path)?;
        self.log.sync(&self.path)?;
        Ok(Ready { log: self.log })
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let written = self.log.file.write_at(&self.buffer, self.log.end);
        written.map_err(|err| JournalError::io("write", &self.path, err))?;
        self.log.end += len(&self.buffer);
        self.log.allocated = self.log.end;
        self.buffer.clear();
        Ok(())
    }
}

impl<F: DiskFile> Log<F> {
    fn write(&mut self, kind: Kind, payload: &[u8], path: &Path) -> Result<(), JournalError> {
        let mut bytes = Vec::with_capacity(payload.len() + 64);
        frame::encode(self.salt, self.next_sequence, kind, payload, &mut bytes);
        let written = self.file.write_at(&bytes, self.end);
        written.map_err(|err| failed("write", path, err))?;
        self.end += len(&bytes);
        self.next_sequence += 1;
        Ok(())
    }

    fn sync(&mut self, path: &Path) -> Result<(), JournalError> {
        self.file.sync().map_err(|err| failed("sync", path, err))
    }

    /// Allocates at least so much, and the zeros that show the end.
    fn make_room(&mut self, payload: u64, chunk: u64, path: &Path) -> Result<(), JournalError> {
        let needed = self.end + frame::size(payload) + TAIL;
        if needed <= self.allocated {
            return Ok(());
        }
        let chunk = chunk.max((self.end / CHUNK_PART).min(LARGEST_CHUNK));
        let io = |op, err| JournalError::io(op, path, err);
        // A whole chunk if the disk has it, else what is needed.
        let mut to = needed.next_multiple_of(chunk);
        let mut made = self.file.allocate(self.allocated, to);
        if made.is_err() {
            to = needed;
            made = self.file.allocate(self.allocated, to);
        }
        made.map_err(|err| io("allocate", err))?;
        // The length must be on the disk before anything is written there.
        self.file.sync().map_err(|err| failed("sync", path, err))?;
        self.allocated = to;
        Ok(())
    }
}

/// A write or a sync that fails is a failed disk, whatever the reason.
fn failed(op: &'static str, path: &Path, err: std::io::Error) -> JournalError {
    JournalError::Failed { op, path: path.to_owned(), source: std::sync::Arc::new(err) }
}

fn told(fault: Fault, path: &Path) -> JournalError {
    let path = path.to_owned();
    match fault {
        Fault::Io(err) => JournalError::io("read", path, err),
        Fault::Empty => JournalError::Empty(path),
        Fault::Foreign(what) => JournalError::Foreign { path, what },
        Fault::Newer(format) => JournalError::Newer { path, format },
        Fault::Damaged { offset, reason } => JournalError::Damaged { path, offset, reason },
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// What is kept behind the end: the zeros that show it, a seal, and the padding of a payload.
const TAIL: u64 = 3 * FRAME_HEADER + 8;
/// A large file grows by this part of itself.
const CHUNK_PART: u64 = 16;
const LARGEST_CHUNK: u64 = 32 << 20;
/// A file that is written anew is written in blocks of this.
const BUFFER: usize = 1 << 20;
