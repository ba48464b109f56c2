//! Tests on the real kernel, each in a network namespace of its own, with `nft` and `iptables-nft` as a
//! second opinion.

mod foreign;
mod golden;
mod leftover;
mod live;
mod property;
mod pure;
mod traffic;
mod wishes;

use std::process::{Command, Stdio};

use crate::netns::Namespace;

/// Runs a test in a network namespace of its own, which vanishes with it.
pub(crate) fn in_netns<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let namespace = Namespace::create().expect("make a network namespace: root is needed");
    namespace.run(test).expect("enter the network namespace")
}

/// Runs a program in the thread's network namespace and returns what it printed.
pub(crate) fn run(line: &str) -> String {
    let (ok, out) = try_run(line);
    assert!(ok, "{line}: {out}");
    out
}

pub(crate) fn try_run(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|err| panic!("{program} is needed: {err}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Lets `nft` do what a script says.
pub(crate) fn nft(script: &str) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), script).expect("the script");
    run(&format!("nft -f {}", file.path().display()));
}
