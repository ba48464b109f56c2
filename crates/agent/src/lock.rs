//! One agent per node: a lock that dies with its holder, and a look around for programs that do the same
//! work and would undo ours.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Held for as long as the agent lives; the kernel lets go of it however the agent ends.
#[derive(Debug)]
pub struct NodeLock {
    _file: File,
}

/// Why the agent may not run here.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another russet agent runs on this node (pid {holder}, lock {})", path.display())]
    Held { path: PathBuf, holder: String },
    #[error(
        "{program} runs on this node (pid {pid}) and would undo what russet does: stop it first"
    )]
    Foreign { program: String, pid: u32 },
    #[error("lock {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

impl NodeLock {
    /// Takes the lock, after a look for a running flanneld or Felix in this network namespace.
    ///
    /// # Errors
    ///
    /// When another holds it, or a foreign agent runs beside us.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let file = |source| LockError::File { path: path.to_owned(), source };
        if let Some((program, pid)) = running_beside() {
            return Err(LockError::Foreign { program, pid });
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(file)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(file)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            return Err(LockError::Held {
                path: path.to_owned(),
                holder: holder.trim().to_owned(),
            });
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(file)?;
        writeln!(lock, "{}", std::process::id()).map_err(file)?;
        Ok(Self { _file: lock })
    }
}

/// A program of the same trade that runs on this node: its name and number.
pub fn running_beside() -> Option<(String, u32)> {
    foreign_agent(Path::new("/proc"))
}

/// Finds one among the other processes of our own network namespace. We may be called flanneld ourselves.
fn foreign_agent(proc: &Path) -> Option<(String, u32)> {
    let ours = fs::read_link(proc.join("self/ns/net")).ok()?;
    let program_of = |process: &Path| fs::read_link(process.join("exe")).ok();
    let we = program_of(&proc.join("self"));
    fs::read_dir(proc).ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        if pid == std::process::id() {
            return None;
        }
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        let program = comm.trim_end();
        let same_node = fs::read_link(entry.path().join("ns/net")).ok()? == ours;
        // An engine of ours bears the name that we are installed under.
        let is_we = we.is_some() && program_of(&entry.path()) == we;
        (same_node && !is_we && FOREIGN_AGENTS.contains(&program))
            .then(|| (program.to_owned(), pid))
    })
}

/// As `/proc/PID/comm` has them, cut to 15 octets.
const FOREIGN_AGENTS: &[&str] = &["flanneld", "calico-felix", "calico-node"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_is_refused_and_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.lock");
        let first = NodeLock::take(&path).unwrap();
        let err = NodeLock::take(&path).unwrap_err();
        assert!(err.to_string().contains(&format!("pid {}", std::process::id())), "{err}");
        drop(first);
        NodeLock::take(&path).unwrap();
    }

    #[test]
    fn a_flanneld_in_our_namespace_is_found_and_one_elsewhere_is_not() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, comm: &str, net: &str| {
            let ns = proc.path().join(pid).join("ns");
            fs::create_dir_all(&ns).unwrap();
            fs::write(proc.path().join(pid).join("comm"), format!("{comm}\n")).unwrap();
            std::os::unix::fs::symlink(net, ns.join("net")).unwrap();
        };
        process("self", "russet", "net:[1]");
        process("70", "flanneld", "net:[2]");
        assert_eq!(foreign_agent(proc.path()), None);
        process("71", "flanneld", "net:[1]");
        assert_eq!(foreign_agent(proc.path()), Some(("flanneld".into(), 71)));
    }

    #[test]
    fn what_runs_our_own_program_under_another_s_name_is_no_stranger() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, program) in [("self", "/usr/bin/flanneld"), ("80", "/usr/bin/flanneld")] {
            let process = proc.path().join(pid);
            fs::create_dir_all(process.join("ns")).unwrap();
            fs::write(process.join("comm"), "flanneld\n").unwrap();
            std::os::unix::fs::symlink("net:[1]", process.join("ns/net")).unwrap();
            std::os::unix::fs::symlink(program, process.join("exe")).unwrap();
        }
        assert_eq!(foreign_agent(proc.path()), None);
        fs::remove_file(proc.path().join("80/exe")).unwrap();
        std::os::unix::fs::symlink("/opt/flanneld", proc.path().join("80/exe")).unwrap();
        assert_eq!(foreign_agent(proc.path()), Some(("flanneld".into(), 80)));
    }
}
