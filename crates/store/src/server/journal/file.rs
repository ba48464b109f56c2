//! The real file layer.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{
    CWD, FallocateFlags, FlockOperation, RenameFlags, fallocate, flock, renameat_with,
};

use super::disk::{Disk, DiskFile};

/// A file by its path. The one beside has `.new` behind its name.
#[derive(Clone, Debug)]
pub(crate) struct FileDisk {
    path: PathBuf,
    beside: PathBuf,
}

impl FileDisk {
    pub(crate) fn new(path: &Path) -> Self {
        let mut beside = OsString::from(path);
        beside.push(".new");
        Self { path: path.to_owned(), beside: beside.into() }
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }

    /// Whether the path still names this file: a rewrite puts another in its place.
    fn is_named(&self, file: &File) -> io::Result<bool> {
        let (ours, named) = (file.metadata()?, std::fs::metadata(&self.path)?);
        Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino()))
    }
}

/// Takes the file for this process alone. A program that ends, or one that a thread of ours is just about to start, has it
/// for a moment still: that is waited for.
fn lock(file: &File) -> io::Result<()> {
    let mut left = LOCK_TRIES;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if left > 0 => std::thread::sleep(LOCK_PAUSE),
            locked => return Ok(locked?),
        }
        left -= 1;
    }
}

impl Disk for FileDisk {
    type File = File;

    const CHUNK: u64 = 1 << 20;

    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<File> {
        for _ in 0..TRIES {
            let file = options().open(&self.path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("not a regular file"));
            }
            lock(&file)?;
            if self.is_named(&file)? {
                return Ok(file);
            }
        }
        Err(io::Error::other("replaced again and again by another process"))
    }

    fn open_to_read(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    fn create_beside(&self) -> io::Result<File> {
        let file = options().create(true).truncate(false).open(&self.beside)?;
        lock(&file)?;
        file.set_len(0)?;
        Ok(file)
    }

    fn replace(&self) -> io::Result<()> {
        std::fs::rename(&self.beside, &self.path)?;
        self.sync_folder()
    }

    fn appear(&self) -> io::Result<()> {
        match renameat_with(CWD, &self.beside, CWD, &self.path, RenameFlags::NOREPLACE) {
            // Not every file system can; a second name does the same, which also replaces nothing.
            Err(rustix::io::Errno::INVAL) => {
                std::fs::hard_link(&self.beside, &self.path)?;
                self.discard()?;
            }
            renamed => renamed?,
        }
        self.sync_folder()
    }

    fn discard(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.beside) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            match FileExt::read_at(self, rest, at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&mut self, from: u64, to: u64) -> io::Result<()> {
        let len = to.saturating_sub(from);
        match fallocate(&*self, FallocateFlags::empty(), from, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(self, from, to),
            allocated => Ok(allocated?),
        }
    }
}

/// Writes zeros, block by block.
pub(crate) fn write_zeros(file: &mut impl DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let count = (to - at).min(BLOCK);
        file.write_at(&vec![0; usize::try_from(count).unwrap_or(0)], at)?;
        at += count;
    }
    Ok(())
}

/// It may hold secrets: nobody else reads it.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

const BLOCK: u64 = 256 << 10;
/// How long a file that somebody else has is waited for.
const LOCK_TRIES: usize = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
/// How often a file may be replaced while we open it.
const TRIES: usize = 8;
