//! `russet-cni`: reads the environment and standard input, writes a result or an error object.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    path::Path,
    process::ExitCode,
};

use russet_api::cni::{
    calico::{CALICO, CALICO_IPAM},
    conf::kind_of,
    flannel::FLANNEL,
};
use russet_cni::Called;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if args.next().is_some_and(|arg| arg == "-v") {
        // What Calico's installer asks.
        let written = writeln!(io::stdout().lock(), "{}", env!("CARGO_PKG_VERSION"));
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut conf = Vec::new();
    // What cannot be read is as if it was not there: the fault is told as one of the configuration.
    let _ = io::stdin().lock().take(CONF_MAX).read_to_end(&mut conf);
    let var = |name: &str| std::env::var(name).ok();
    let answer = russet_cni::run(called(&name, &conf), var, &conf);
    if !answer.told.is_empty() {
        // A log that nobody keeps is no reason to fail.
        let _ = writeln!(io::stderr().lock(), "{}", answer.told);
    }
    let written = writeln!(io::stdout().lock(), "{}", answer.text);
    if answer.served && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A list with `"type": "calico"` names a file of that name. Under our own name the configuration's word counts.
fn called(name: &OsString, conf: &[u8]) -> Called {
    let file = Path::new(name).file_name().and_then(|name| name.to_str());
    match file {
        Some(FLANNEL) => Called::Flannel,
        Some(CALICO) => Called::Calico,
        Some(CALICO_IPAM) => Called::CalicoIpam,
        _ if kind_of(conf).as_deref() == Some(CALICO) => Called::Calico,
        _ => Called::Russet,
    }
}

/// No network configuration is nearly as long, in octets.
const CONF_MAX: u64 = 4 << 20;
