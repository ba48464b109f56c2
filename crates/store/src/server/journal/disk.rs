//! The file layer: one file in a folder, and a fresh one beside it that can take its place.
//!
//! [`super::file`] is the real one. The fake records every step, and makes each state that a power
//! failure could leave behind.

use std::{io, path::Path};

/// A place where one file lives.
pub(crate) trait Disk: Send {
    type File: DiskFile;

    /// How much is allocated at a time, at least.
    const CHUNK: u64;

    fn path(&self) -> &Path;

    /// Opens the file for this process alone. `WouldBlock`: another one has it.
    fn open(&self) -> io::Result<Self::File>;

    /// Opens the file to look at it.
    fn open_to_read(&self) -> io::Result<Self::File>;

    /// Makes an empty file beside it, for this process alone.
    fn create_beside(&self) -> io::Result<Self::File>;

    /// Has the file beside take the place of the file, durably.
    fn replace(&self) -> io::Result<()>;

    /// Has the file beside become the file, durably. `AlreadyExists`: there is one.
    fn appear(&self) -> io::Result<()>;

    /// Removes the file beside, if there is one.
    fn discard(&self) -> io::Result<()>;
}

/// A file of it.
pub(crate) trait DiskFile: Send {
    fn len(&self) -> io::Result<u64>;

    /// Reads up to the length of the buffer; less only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Waits until everything that was written, and the length, is on the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// Makes the file so long, with zeros, so that writing there cannot find the disk full.
    fn allocate(&mut self, from: u64, to: u64) -> io::Result<()>;
}
