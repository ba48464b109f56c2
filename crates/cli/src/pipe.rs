//! Output whose reader has had enough, as in `russet get ippools | head -1`, is the end and no fault.
//!
//! Other programs are ended by SIGPIPE there. We leave it ignored, for it would also end a program whose peer on a socket went
//! away, without a word; so printing panics, and that is heard here.

use std::panic::{PanicHookInfo, set_hook, take_hook};

/// Ends the process quietly when the standard output cannot be printed to because its reader is gone.
pub fn end_with_the_reader() {
    let usual = take_hook();
    set_hook(Box::new(move |panic| {
        if is_gone(panic) {
            std::process::exit(ENDED_BY_SIGPIPE);
        }
        usual(panic);
    }));
}

/// The words are `std`'s own (`library/std/src/io/stdio.rs`); a test of the whole program hears when they change.
fn is_gone(panic: &PanicHookInfo<'_>) -> bool {
    let said = panic.payload_as_str().unwrap_or_default();
    said.starts_with("failed printing to stdout: Broken pipe")
}

/// What a shell says of a program that SIGPIPE has ended.
const ENDED_BY_SIGPIPE: i32 = 128 + 13;
