//! What an exit code of `russet` means (`sysexits.h` where it has a name for it).

use std::process::ExitCode;

use russet_agent::config::ConfigFaults;

/// `EX_USAGE`: configuration or topology is refused; nothing was touched.
pub const REFUSED: u8 = 64;
/// `EX_UNAVAILABLE`: the agent does not answer.
pub const UNAVAILABLE: u8 = 69;

/// The code that tells a script what kind of error this is.
pub fn code_of(err: &anyhow::Error) -> ExitCode {
    if err.is::<ConfigFaults>() {
        ExitCode::from(REFUSED)
    } else if err.is::<crate::client::NoAgent>() {
        ExitCode::from(UNAVAILABLE)
    } else {
        ExitCode::FAILURE
    }
}
