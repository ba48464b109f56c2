//! The few things that the agent does with files, named one by one so that a test can lose each of them.
//!
//! What is written is on disk only after a sync: of the file for its content, of the folder for its names.
//! Between, a power failure may tear the one and drop the other, in any combination; a killed process loses
//! nothing that was done. [`fake`] plays both at every boundary. `checkpoint` is one user, pod records and
//! the spool of the CNI plugin are others.

pub mod checkpoint;
pub mod fake;

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

/// File operations, each as small as the kernel has it.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The names in a folder, sorted; none when there is no folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes a folder and those above it, durably.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Writes a file, new or over the old one. Not durable before [`Self::sync`].
    fn write(&self, path: &Path, octets: &[u8]) -> io::Result<()>;
    /// Makes a file's content durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, over what had that name. Not durable before [`Self::sync_folder`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. That it is gone already is success. Not durable before [`Self::sync_folder`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Takes the lock that a folder's users share (`flock` on `lock` in it, as host-local does).
    fn lock(&self, folder: &Path) -> io::Result<Lock>;
}

/// Lets go of a folder's lock when dropped.
#[derive(Debug)]
pub struct Lock(Option<File>);

impl Lock {
    /// The lock of a disk that nobody else has.
    pub(crate) const fn unshared() -> Self {
        Self(None)
    }
}

/// Replaces a file so that it is there whole, as it was before or as it is to be, and durably so.
///
/// # Errors
///
/// When the disk does. The old file is whole then.
pub fn replace(disk: &dyn Disk, path: &Path, octets: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    disk.write(&draft, octets)?;
    disk.sync(&draft)?;
    disk.rename(&draft, path)?;
    disk.sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files;

impl Disk for Files {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(folder) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        // A name that is not UTF-8 is none of ours.
        let names =
            entries.filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose());
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        folder.parent().map_or(Ok(()), |above| self.sync_folder(above))
    }

    fn write(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        File::create(path)?.write_all(octets)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, folder: &Path) -> io::Result<Lock> {
        let file =
            File::options().write(true).create(true).truncate(false).open(folder.join("lock"))?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(Some(file))),
                Err(rustix::io::Errno::AGAIN) if Instant::now() < until => {
                    std::thread::sleep(LOCK_STEP);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file lets go of the lock; a failure here would change nothing about that.
        let _ = self.0.as_ref().map(|file| flock(file, FlockOperation::Unlock));
    }
}

/// host-local holds the lock for well under a millisecond.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_STEP: Duration = Duration::from_micros(500);
