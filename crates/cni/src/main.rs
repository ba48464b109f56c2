//! `russet-cni`: reads the environment and standard input, writes a result or an error object.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

use russet_api::cni::flannel::FLANNEL;

fn main() -> ExitCode {
    let mut conf = Vec::new();
    // What cannot be read is as if it was not there: the fault is told as one of the configuration.
    let _ = io::stdin().lock().take(CONF_MAX).read_to_end(&mut conf);
    let var = |name: &str| std::env::var(name).ok();
    let answer = if called_as_flannel() {
        russet_cni::run_flannel(var, &conf)
    } else {
        russet_cni::run(var, &conf)
    };
    let written = writeln!(io::stdout().lock(), "{}", answer.text);
    if answer.served && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A list with `"type": "flannel"` names a file of that name.
fn called_as_flannel() -> bool {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_name() == Some(FLANNEL.as_ref())
}

/// No network configuration is nearly as long, in octets.
const CONF_MAX: u64 = 4 << 20;
