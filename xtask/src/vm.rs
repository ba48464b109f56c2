//! `cargo xtask vm-test`: topologies on another kernel than this machine's.
//!
//! ```text
//!  kernel.rs     Debian's cloud kernel, downloaded and unpacked below target/: nothing is installed
//!  initramfs.rs  the built programs, what they are linked with, the kernel's modules, the topologies
//!  guest.sh      process 1 in there: loads the modules, plays one topology after the other, ends the machine
//! ```
//!
//! For what the kernel at hand lacks (`ipip`, `wireguard`) and for what an older one does differently. The machine
//! is emulated (`-accel tcg`): it works wherever qemu does, and is slow, so topologies meant for it wait
//! longer than others. It has no disk and no network but its own.

mod initramfs;
mod kernel;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Cargo, root};

/// Boots once and plays the topologies, [`TOPOLOGIES`] when none is named.
pub fn run(topologies: &[PathBuf]) -> Result<()> {
    crate::setup::install_for_vm()?;
    Cargo::new(["build", "--package", "russet", "--package", "russet-cni"]).run()?;
    let ours = TOPOLOGIES.iter().map(|file| root().join(file));
    let topologies: Vec<_> =
        if topologies.is_empty() { ours.collect() } else { topologies.to_vec() };
    for topology in &topologies {
        ensure!(topology.is_file(), "there is no topology {}", topology.display());
    }
    let folder = root().join("target/vm");
    let kernel = kernel::Kernel::get(&folder)?;
    let image = initramfs::make(&folder, &kernel, &topologies)?;
    println!("\n── {} topologies on Linux {}", topologies.len(), kernel.release);
    let played = Machine::boot(&kernel, &image)?.watch()?;
    report(&played, topologies.len())
}

/// How one topology ended.
#[derive(Debug, PartialEq, Eq)]
struct Played {
    name: String,
    code: i32,
}

/// A test that did not run is no test that passed.
fn report(played: &[Played], wanted: usize) -> Result<()> {
    let failed: Vec<_> = played.iter().filter(|one| one.code != 0).collect();
    println!("\nvm: {} passed, {} failed", played.len() - failed.len(), failed.len());
    ensure!(failed.is_empty(), "failed: {}", names(&failed));
    ensure!(played.len() == wanted, "{} of {wanted} topologies were played", played.len());
    Ok(())
}

fn names(played: &[&Played]) -> String {
    played.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The running machine; ended when dropped.
struct Machine(Child);

impl Machine {
    fn boot(kernel: &kernel::Kernel, image: &Path) -> Result<Self> {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(image)
            // A panic ends the machine at once, and with it the wait.
            .args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(Self(command.spawn().context("start qemu-system-x86_64")?))
    }

    /// Shows what the machine says until it ends, and returns how each topology did.
    fn watch(mut self) -> Result<Vec<Played>> {
        let console = self.0.stdout.take().context("the machine's console")?;
        let pid = self.0.id();
        let (done, over) = std::sync::mpsc::channel::<()>();
        // Whoever waits for a line cannot look at the time as well.
        let guard = thread::spawn(move || {
            let late =
                over.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if late {
                end(pid);
            }
            late
        });
        let played = follow(BufReader::new(console));
        drop(done);
        let late = guard.join().unwrap_or(false);
        self.0.wait()?;
        if late {
            bail!("the machine did not end within {} minutes", PATIENCE.as_secs() / 60);
        }
        played
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends a process that we started and still hold.
fn end(pid: u32) {
    let _ = Command::new("kill").arg(pid.to_string()).status();
}

/// Reads the console: `@@ NAME CODE` is a topology that has ended.
fn follow(console: impl BufRead) -> Result<Vec<Played>> {
    let begun = Instant::now();
    let mut played = Vec::new();
    for line in console.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        match ended(line) {
            Some(one) => {
                let seconds = begun.elapsed().as_secs();
                let how = if one.code == 0 { "holds" } else { "FAILED" };
                println!("   {seconds:>4} s  {} {how}", one.name);
                played.push(one);
            }
            None => println!("   | {line}"),
        }
    }
    Ok(played)
}

fn ended(line: &str) -> Option<Played> {
    let (name, code) = line.strip_prefix("@@ ")?.rsplit_once(' ')?;
    Some(Played { name: name.to_owned(), code: code.parse().ok()? })
}

/// What differs by kernel: tunnels, rules (before 6.9 a table has no owner that outlives a socket), repair.
const TOPOLOGIES: &[&str] = &[
    "docs/lab/three-nodes.yaml",
    "docs/lab/dual-stack.yaml",
    "crates/cli/tests/topologies/masquerade.yaml",
    "crates/cli/tests/topologies/tampered.yaml",
    "crates/cli/tests/topologies/vm/calico-ipip.yaml",
    "crates/cli/tests/topologies/vm/calico-modes.yaml",
    "crates/cli/tests/topologies/vm/calico-modes-bgp.yaml",
    "crates/cli/tests/topologies/vm/calico-switch-ipip.yaml",
    "crates/cli/tests/topologies/vm/calico-walk.yaml",
    "crates/cli/tests/topologies/vm/ipip.yaml",
    "crates/cli/tests/topologies/vm/ipip-changed.yaml",
    "crates/cli/tests/topologies/vm/wireguard-kernel.yaml",
    "crates/cli/tests/topologies/vm/wireguard-modes.yaml",
];
/// Topologies that no other test plays: each must be among [`TOPOLOGIES`].
#[cfg(test)]
const OF_ITS_OWN: &str = "crates/cli/tests/topologies/vm";
/// For all of them together.
const PATIENCE: Duration = Duration::from_mins(25);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_console_says_of_a_topology_is_read_and_the_rest_is_shown() {
        let said = b"booting\r\n@@ three-nodes.yaml 0\r\n@@ odd name.yaml 1\r\n@@ cut";
        let played = follow(&said[..]).unwrap();
        let names: Vec<_> = played.iter().map(|one| (one.name.as_str(), one.code)).collect();
        assert_eq!(names, [("three-nodes.yaml", 0), ("odd name.yaml", 1)]);
    }

    /// A file that no test runs would be a promise that nobody checks.
    #[test]
    fn every_topology_of_the_machine_s_own_is_played() {
        let folder = root().join(OF_ITS_OWN);
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let paths = names.map(|name| format!("{OF_ITS_OWN}/{}", name.to_str().unwrap()));
        let missing: Vec<_> = paths.filter(|path| !TOPOLOGIES.contains(&path.as_str())).collect();
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn one_that_failed_or_was_never_played_is_an_error() {
        let of = |code| vec![Played { name: "a".into(), code }];
        assert!(report(&of(0), 1).is_ok());
        assert!(report(&of(1), 1).unwrap_err().to_string().contains("failed: a"));
        assert!(report(&of(0), 2).unwrap_err().to_string().contains("1 of 2"));
    }
}
