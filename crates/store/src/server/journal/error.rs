//! What can be wrong with the store's file, each with what can be done about it.

use std::{io, path::PathBuf, sync::Arc};

/// Why a file cannot be used, or used any longer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    #[error(
        "{}: the file is empty, so it is not taken for a store; remove it to begin a new one, or restore \
         a snapshot with `russet store snapshot restore`", .0.display()
    )]
    Empty(PathBuf),
    #[error("{}: not a store of russet: {what}", path.display())]
    Foreign { path: PathBuf, what: &'static str },
    #[error("{}: written by a newer russet (format {format}, this one reads {FORMAT})", path.display())]
    Newer { path: PathBuf, format: u32 },
    #[error(
        "{}: damaged at byte {offset}: {reason}; nothing was changed. Restore a snapshot with `russet store \
         snapshot restore`, or keep what is before the damage with `russet store salvage`", path.display()
    )]
    Damaged { path: PathBuf, offset: u64, reason: String },
    #[error("{}: in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("{}: there is a file already", .0.display())]
    Exists(PathBuf),
    #[error("{}: no space left on the disk", .0.display())]
    NoSpace(PathBuf),
    /// The disk failed; what is in the file is known only after it is read again.
    #[error("{op} {}", path.display())]
    Failed { op: &'static str, path: PathBuf, source: Arc<io::Error> },
}

impl JournalError {
    /// Whether there is no file, so that a new one may be made.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }

    /// Whether the disk is full: nothing is lost, and it may go on when there is room.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace(_))
    }

    /// Whether the file holds something else than what was written.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Names what the system said.
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>, err: io::Error) -> Self {
        let path = path.into();
        match err.kind() {
            io::ErrorKind::NotFound if op == "open" => Self::Missing(path),
            io::ErrorKind::AlreadyExists => Self::Exists(path),
            io::ErrorKind::WouldBlock => Self::InUse(path),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(path),
            _ => Self::Failed { op, path, source: Arc::new(err) },
        }
    }
}

/// The format that is read and written.
pub(crate) const FORMAT: u32 = 1;
