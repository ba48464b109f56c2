//! What a copy says while it runs, and at its end.

use std::fmt;

use super::verify::Difference;
use crate::{
    client::ServerStatus,
    contract::{Revision, SnapshotReason},
};

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

/// What has just happened.
#[derive(Clone, Debug)]
pub enum Progress {
    Reached {
        source: ServerStatus,
        target: ServerStatus,
    },
    /// The source's keys were read; so many writes are needed.
    Copying {
        keys: usize,
        puts: usize,
        deletes: usize,
        revision: Revision,
    },
    /// So many of the writes are done.
    Wrote {
        done: usize,
        of: usize,
    },
    StartsOver {
        reason: SnapshotReason,
    },
    Away {
        side: Side,
        cause: String,
    },
    Back {
        side: Side,
    },
    CaughtUp {
        revision: Revision,
    },
    Following,
    /// Both were read; so many keys are compared.
    Comparing {
        keys: usize,
    },
}

/// How a copy ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// The source's keys at `source_revision`, all of them compared.
    pub keys: usize,
    /// Bytes of their values.
    pub bytes: u64,
    /// Leases that live on both sides.
    pub leases: usize,
    /// Up to which revision of the source the target is a copy.
    pub source_revision: Revision,
    pub target_revision: Revision,
    pub puts: u64,
    pub deletes: u64,
    /// How often the source had forgotten what was needed next.
    pub started_over: usize,
    /// What is not the same; the first [`Difference::MAX_LISTED`] of it.
    pub differences: Vec<Difference>,
    /// All that is not the same.
    pub differing: usize,
}

impl Report {
    #[must_use]
    pub fn is_true_copy(&self) -> bool {
        self.differing == 0
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached { source, target } => write!(
                f,
                "source: cluster {:x} at revision {}; target: cluster {:x} at revision {}",
                source.server.cluster, source.revision, target.server.cluster, target.revision
            ),
            Self::Copying { keys, puts, deletes, revision } => write!(
                f,
                "{keys} keys at the source's revision {revision}: {puts} to write, {deletes} to remove"
            ),
            Self::Wrote { done, of } => write!(f, "{done} of {of} written"),
            Self::StartsOver { reason } => write!(f, "starts over: {reason:?}"),
            Self::Away { side, cause } => write!(f, "{side} away, will retry: {cause}"),
            Self::Back { side } => write!(f, "{side} answers again"),
            Self::CaughtUp { revision } => {
                write!(f, "caught up with the source's revision {revision}")
            }
            Self::Following => {
                f.write_str("following every change; Ctrl-C when the owners have switched")
            }
            Self::Comparing { keys } => write!(f, "comparing {keys} keys"),
        }
    }
}
