//! Keeps what must not be forgotten in a file: a DEL until there is an agent to do it, what a delegate was called with.
//!
//! The file is complete before it has its name, and the name is on disk before the runtime hears of success:
//! write beside it, sync, rename, sync the folder. [`Steps`] names these, so that a test can lose each of
//! them.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use russet_api::cni::{spool, wire::Pod};

/// The file operations that keeping takes.
pub trait Steps {
    /// Makes the folder, and those above it.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Writes a new file, or over an old one, and syncs it.
    fn write_synced(&self, path: &Path, octets: &[u8]) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Keeps the DEL of `pod` in `folder`.
///
/// # Errors
///
/// When the file system does; the DEL is not kept then, and must not be acknowledged.
pub fn keep(disk: &impl Steps, folder: &Path, pod: &Pod) -> io::Result<()> {
    put(disk, folder, &spool::file_name(pod), &spool::encode(pod))
}

/// Puts a file into a folder: whole and on the disk, or not at all.
///
/// # Errors
///
/// When the file system does.
pub fn put(disk: &impl Steps, folder: &Path, name: &str, octets: &[u8]) -> io::Result<()> {
    // Two calls for the same pod may run at once; each has a draft of its own.
    let draft = folder.join(format!("{name}.{}", std::process::id()));
    disk.make_folder(folder)?;
    disk.write_synced(&draft, octets)?;
    disk.rename(&draft, &folder.join(name))?;
    disk.sync_folder(folder)
}

/// The real file system.
#[derive(Clone, Copy, Debug)]
pub struct Files;

impl Steps for Files {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        // Whoever may write here may remove anybody's network.
        fs::set_permissions(folder, Permissions::from_mode(0o700))
    }

    fn write_synced(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        // For root alone, as the folder.
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(octets)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}
