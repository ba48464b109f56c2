//! Programs that the bench starts, and their end.
//!
//! A program is started through this one's hidden `enter`: that moves into the namespace, ties its life to
//! ours (`PR_SET_PDEATHSIG`), and becomes the program. So nothing outlives the bench, however it ends. The
//! tie is to the *thread* that starts it, which therefore must be the main one.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::net::Namespace;

/// Where the built programs are.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// In `folder`, or beside this program.
    pub fn find(folder: Option<PathBuf>) -> Result<Self> {
        let own = std::env::current_exe().context("find this program")?;
        let beside = || own.parent().map(Path::to_owned).context("this program has a folder");
        Ok(Self(folder.map_or_else(beside, Ok)?))
    }

    /// The path of a program of Russet's.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if !path.is_file() {
            bail!("{} is not built (cargo build --release --workspace --bins)", path.display());
        }
        Ok(path)
    }
}

/// A program that runs until its value is dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program in the namespace; what it says goes to the file `log`. Only from the main thread.
    pub fn start(
        namespace: &Namespace,
        program: &Path,
        args: &[&str],
        log: PathBuf,
    ) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let own = std::env::current_exe().context("find this program")?;
        let out = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let child = Command::new(own)
            .args(["enter", &namespace.path()])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` gives a value, at most `patience`; a program that ends meanwhile is an error.
    pub fn wait<T>(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}:\n{}", self.name, self.tail());
            }
            thread::sleep(POLL);
        }
        bail!("{} is not ready after {patience:?}:\n{}", self.name, self.tail())
    }

    /// Asks it to end, and ends it when it does not.
    pub fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; then nobody is left to tell.
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines that it said.
    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// The hidden `enter`: moves into the namespace and becomes the program.
pub fn enter(namespace: &Path, command: &[OsString]) -> Result<()> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;

    set_parent_process_death_signal(Some(Signal::KILL)).context("tie our life to the parent's")?;
    let file = File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("enter")?;
    let (program, args) = command.split_first().context("no program is named")?;
    Err(Command::new(program).args(args).exec()).context("become the program")
}

const POLL: Duration = Duration::from_millis(5);
