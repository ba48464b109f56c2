//! `russet-cni`: reads the environment and standard input, writes a result or an error object.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let mut conf = Vec::new();
    // What cannot be read is as if it was not there: the fault is told as one of the configuration.
    let _ = io::stdin().lock().take(CONF_MAX).read_to_end(&mut conf);
    let answer = russet_cni::run(|name| std::env::var(name).ok(), &conf);
    let written = writeln!(io::stdout().lock(), "{}", answer.text);
    if answer.served && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// No network configuration is nearly as long, in octets.
const CONF_MAX: u64 = 4 << 20;
