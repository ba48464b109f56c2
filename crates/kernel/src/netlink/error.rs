//! What went wrong in a netlink exchange.

use std::{fmt, io};

/// A netlink exchange that did not do what we asked.
///
/// A message says what we were doing and to what; the cause is the `source`, never repeated in the
/// text. Callers branch on the predicates, never on the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel answered with an error.
    #[error("{op} {subject}")]
    Refused { op: &'static str, subject: String, source: Refusal },

    /// The object belongs to somebody else, so it was left as it is.
    #[error("{op} {subject}: held by {holder}")]
    Foreign { op: &'static str, subject: String, holder: String },

    /// Something that the object needs is not there (yet).
    #[error("{op} {subject}: {missing} is missing")]
    Missing { op: &'static str, subject: String, missing: String },

    /// The object cannot be what is wanted of it.
    #[error("{op} {subject}: {reason}")]
    Impossible { op: &'static str, subject: String, reason: &'static str },

    /// The socket itself failed, so nothing is known about the request: resync.
    #[error("netlink socket: {0}")]
    Socket(Refusal),
}

impl NetlinkError {
    pub fn refused(op: &'static str, subject: impl fmt::Display, source: Refusal) -> Self {
        Self::Refused { op, subject: subject.to_string(), source }
    }

    pub fn missing(
        op: &'static str,
        subject: impl fmt::Display,
        missing: impl fmt::Display,
    ) -> Self {
        Self::Missing { op, subject: subject.to_string(), missing: missing.to_string() }
    }

    pub fn foreign(
        op: &'static str,
        subject: impl fmt::Display,
        holder: impl fmt::Display,
    ) -> Self {
        Self::Foreign { op, subject: subject.to_string(), holder: holder.to_string() }
    }

    /// Whether the object was already there (`EEXIST`).
    pub fn is_already_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the object, its link included, was not there.
    ///
    /// The kernel has a word for each kind: `ENOENT` and `ENODEV`, for a route `ESRCH`, for an address
    /// `EADDRNOTAVAIL`.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
        )
    }

    /// Whether the object is in use (`EBUSY`).
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(libc::EBUSY)
    }

    /// Whether we lack a privilege (`EPERM`, `EACCES`).
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// Whether somebody else holds what we want.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    /// Whether the kernel had more to tell than the socket could hold: what is known is out of date.
    pub fn is_overrun(&self) -> bool {
        matches!(self, Self::Socket(refusal) if refusal.errno == libc::ENOBUFS)
    }

    /// Whether an answer did not come in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Socket(refusal) if refusal.errno == libc::ETIMEDOUT)
    }

    /// The kernel's answer, positive, where there was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => Some(source.errno),
            _ => None,
        }
    }
}

impl From<rustix::io::Errno> for NetlinkError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Socket(Refusal::new(errno.raw_os_error()))
    }
}

impl From<io::Error> for NetlinkError {
    fn from(err: io::Error) -> Self {
        Self::Socket(Refusal::new(err.raw_os_error().unwrap_or(libc::EIO)))
    }
}

/// What the kernel answered: the error's number and, where it said more, its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Positive.
    pub errno: i32,
    /// `NLMSGERR_ATTR_MSG`, or empty.
    pub text: String,
}

impl Refusal {
    pub const fn new(errno: i32) -> Self {
        Self { errno, text: String::new() }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.errno).fmt(f)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}
