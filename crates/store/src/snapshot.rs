//! Snapshots, in the form of etcd's own: what `etcdctl snapshot` reads and writes.
//!
//! A store's file and a snapshot hold the same; these functions make one of the other. Nothing that is
//! there is ever overwritten.

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

pub use crate::{bolt::BoltError, etcd_db::EtcdDbError};
use crate::{
    etcd_db, random,
    server::{
        FileError, JournalError,
        image::Image,
        open::{self, Salvaged},
    },
};

/// What a snapshot holds, as `etcdctl snapshot status` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// CRC-32C over all that is in it.
    pub hash: u32,
    /// The newest revision of any key in it.
    pub revision: u64,
    /// Versions of keys, leases, and what etcd keeps beside them.
    pub keys: u64,
    /// Of the database.
    pub bytes: u64,
}

/// What could be kept of a damaged store.
#[derive(Debug)]
pub struct Kept {
    /// The newest revision that was kept.
    pub revision: u64,
    /// What ended the reading; `None`: the file was whole.
    pub damage: Option<JournalError>,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: EtcdDbError },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: EtcdDbError },
    #[error(transparent)]
    Store(#[from] FileError),
}

/// Looks at a snapshot, and at all of it.
///
/// # Errors
///
/// When it is damaged or none.
pub fn status(path: &Path) -> Result<SnapshotStatus, SnapshotError> {
    let contents = read(path)?;
    let last = contents.image.versions.last();
    let revision = last.map_or(0, |version| version.revision.get());
    let etcd_db::Contents { hash, keys, bytes, .. } = contents;
    Ok(SnapshotStatus { hash, revision, keys, bytes })
}

/// Makes a store's file of a snapshot, ours or etcd's: another cluster, so that clients notice. Returns its
/// revision.
///
/// # Errors
///
/// When the snapshot is damaged, or there is a file already.
pub fn restore(snapshot: &Path, file: &Path) -> Result<u64, SnapshotError> {
    let image = renamed(read(snapshot)?.image);
    open::create(file, &image)?;
    Ok(image.revision.get())
}

/// Makes a snapshot of a store's file that no server uses just now. Returns its revision.
///
/// # Errors
///
/// When the file cannot be read, or there is a snapshot of that name.
pub fn export(file: &Path, snapshot: &Path) -> Result<u64, SnapshotError> {
    let image = open::read(file)?;
    write(&image, snapshot)
        .map_err(|source| SnapshotError::Write { path: snapshot.to_owned(), source })?;
    Ok(image.revision.get())
}

/// Writes a store's file anew without what is not needed any more, while no server uses it. Returns its bytes
/// before and after.
///
/// # Errors
///
/// When it is in use or cannot be read, or the disk has no room for another one.
pub fn defragment(file: &Path) -> Result<(u64, u64), SnapshotError> {
    Ok(open::rewrite(file)?)
}

/// Makes a new store's file of what can be read of a damaged one: another cluster, since it may have
/// forgotten what others know.
///
/// # Errors
///
/// When nothing can be read, or there is a file already.
pub fn salvage(damaged: &Path, file: &Path) -> Result<Kept, SnapshotError> {
    let Salvaged { image, damage } = open::salvage(damaged)?;
    let revision = image.revision.get();
    open::create(file, &renamed(image))?;
    Ok(Kept { revision, damage })
}

fn renamed(image: Image) -> Image {
    Image { cluster: random::id64(), member: random::id64(), ..image }
}

fn read(path: &Path) -> Result<etcd_db::Contents, SnapshotError> {
    let failed = |source| SnapshotError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(|err| failed(err.into()))?;
    etcd_db::read(BufReader::new(file)).map_err(failed)
}

/// Writes beside and renames, so that a snapshot of that name is whole.
fn write(image: &Image, path: &Path) -> Result<(), EtcdDbError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut out = Hashing { out: BufWriter::new(file), hash: Sha256::new() };
    let layout = etcd_db::lay_out(image)?;
    etcd_db::write(image, layout, &mut out)?;
    let hash = out.hash.finalize();
    out.out.write_all(&hash)?;
    let file = out.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    // A second name replaces nothing.
    std::fs::hard_link(&beside, path)?;
    Ok(std::fs::remove_file(&beside)?)
}

/// Hashes what goes by.
struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
