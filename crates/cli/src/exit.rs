//! What an exit code of `russet` means (`sysexits.h` where it has a name for it).

use std::process::ExitCode;

use russet_store::{
    server::{FileError, JournalError, ServeError},
    snapshot::{EtcdDbError, SnapshotError},
};

use crate::{
    client::{NoAgent, NoSpeaker},
    resources::Refused,
};

/// `EX_USAGE`: configuration or topology is refused; nothing was touched.
pub const REFUSED: u8 = 64;
/// `EX_DATAERR`: a file is not what it should be, and starting again will not change that.
pub const BAD_FILE: u8 = 65;
/// `EX_UNAVAILABLE`: the agent does not answer.
pub const UNAVAILABLE: u8 = 69;

/// The code that tells a script what kind of error this is.
pub fn code_of(err: &anyhow::Error) -> ExitCode {
    if is_refused(err) {
        ExitCode::from(REFUSED)
    } else if is_bad_file(err) {
        ExitCode::from(BAD_FILE)
    } else if err.is::<NoAgent>() || err.is::<NoSpeaker>() {
        ExitCode::from(UNAVAILABLE)
    } else {
        ExitCode::FAILURE
    }
}

fn is_refused(err: &anyhow::Error) -> bool {
    err.is::<russet_agent::config::ConfigFaults>()
        || err.is::<russet_store::ConfigFaults>()
        || matches!(err.downcast_ref(), Some(ServeError::Exposed(_)))
}

fn is_bad_file(err: &anyhow::Error) -> bool {
    if err.is::<Refused>() {
        return true;
    }
    match err.downcast_ref() {
        Some(ServeError::File(err)) => is_unusable(err),
        _ => err.downcast_ref().is_some_and(is_unusable) || is_bad_snapshot(err),
    }
}

fn is_bad_snapshot(err: &anyhow::Error) -> bool {
    match err.downcast_ref() {
        Some(SnapshotError::Read { source, .. }) => !matches!(source, EtcdDbError::Io(_)),
        Some(SnapshotError::Store(err)) => is_unusable(err),
        _ => false,
    }
}

/// Whether it is the file's content that is at fault.
fn is_unusable(err: &FileError) -> bool {
    use JournalError::{Damaged, Empty, Foreign, Newer};
    matches!(
        err,
        FileError::Base { .. }
            | FileError::Journal(Empty(_) | Foreign { .. } | Newer { .. } | Damaged { .. })
    )
}
