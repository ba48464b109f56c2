//! What a driver could not do.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use crate::netlink::{NetlinkError, Refusal};

/// Why one object is not as it should be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KernelError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),

    /// A file below `/proc/sys`.
    #[error("{op} {path}")]
    File { op: &'static str, path: String, source: Refusal },

    /// Somebody sets the object back as often as we set it.
    #[error("{subject}: reverted {times} times in {seconds} s by {by}; left alone for a while")]
    Contested { subject: String, times: u32, seconds: u64, by: String },

    /// Another driver's own kind of error.
    #[error(transparent)]
    Other(Arc<dyn StdError + Send + Sync>),
}

impl KernelError {
    pub fn file(op: &'static str, path: impl fmt::Display, err: &io::Error) -> Self {
        let source = Refusal::new(err.raw_os_error().unwrap_or(libc::EIO));
        Self::File { op, path: path.to_string(), source }
    }

    pub fn other(err: impl StdError + Send + Sync + 'static) -> Self {
        Self::Other(Arc::new(err))
    }

    /// Whether the socket itself failed: nothing is known of what was asked.
    pub fn is_socket_failure(&self) -> bool {
        matches!(self, Self::Netlink(NetlinkError::Socket(_)))
    }

    /// Whether somebody else holds what we want.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Netlink(err) if err.is_foreign())
    }

    /// Whether somebody sets the object back again and again.
    pub fn is_contested(&self) -> bool {
        matches!(self, Self::Contested { .. })
    }
}

/// Joins an error and its causes into one line. Used only where an error leaves the program: the
/// log, the CNI result, the terminal.
pub fn one_line(err: &dyn StdError) -> String {
    std::iter::successors(Some(err), |&e| e.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_the_operation_the_subject_and_the_cause() {
        let refusal = Refusal { errno: 17, text: "there is one".into() };
        let err: KernelError = NetlinkError::refused("add link", "rst.vx4", refusal).into();
        assert_eq!(one_line(&err), "add link rst.vx4: File exists (os error 17): there is one");
    }
}
