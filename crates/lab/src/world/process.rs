//! What runs on the nodes: started, signalled, waited for, its output kept in a file.
//!
//! Each process has one thread that waits for its end. A signal goes through a pidfd, so it never meets
//! another process that took the number.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Read,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::lock;
use crate::{
    control::{ProcessStatus, Usage},
    space::Space,
    topology::form::SignalName,
};

/// The processes of a lab by node and name.
#[derive(Debug)]
pub(crate) struct Processes {
    logs: PathBuf,
    table: Arc<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: Mutex<BTreeMap<(String, String), Entry>>,
    ended: Condvar,
}

#[derive(Debug)]
struct Entry {
    state: State,
    starts: u32,
    log: PathBuf,
}

#[derive(Debug)]
enum State {
    Running { pid: u32, handle: OwnedFd },
    Ended(ExitStatus),
}

/// A command line with its environment.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) status: i32,
    /// What it wrote to standard output.
    pub(crate) text: String,
}

impl Processes {
    pub(crate) fn new(logs: PathBuf) -> Result<Self> {
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        Ok(Self { logs, table: Arc::default() })
    }

    /// Starts a process inside `space`; its output is appended to `NODE.PROCESS.log`.
    pub(crate) fn start(
        &self,
        space: &Space,
        node: &str,
        process: &str,
        line: &Line,
    ) -> Result<()> {
        let key = (node.to_owned(), process.to_owned());
        if self.is_running(node, process) {
            bail!("{process} on {node} is running already");
        }
        let log = self.logs.join(format!("{node}.{process}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        let child = space.enter(|| spawn(line, Stdio::null(), &file))?;
        let handle = pidfd(&child)?;
        let pid = child.id();
        let mut entries = lock(&self.table.entries);
        let starts = entries.get(&key).map_or(0, |entry| entry.starts) + 1;
        let state = State::Running { pid, handle };
        entries.insert(key.clone(), Entry { state, starts, log });
        drop(entries);
        self.wait_for(child, key)
    }

    /// Waits for the child's end on a thread of its own.
    fn wait_for(&self, mut child: Child, key: (String, String)) -> Result<()> {
        let table = Arc::clone(&self.table);
        let wait = move || {
            let Ok(status) = child.wait() else { return };
            if let Some(entry) = lock(&table.entries).get_mut(&key) {
                entry.state = State::Ended(status);
            }
            table.ended.notify_all();
        };
        thread::Builder::new().name("wait".to_owned()).spawn(wait).context("start a thread")?;
        Ok(())
    }

    pub(crate) fn is_running(&self, node: &str, process: &str) -> bool {
        let key = (node.to_owned(), process.to_owned());
        lock(&self.table.entries).get(&key).is_some_and(Entry::is_running)
    }

    pub(crate) fn signal(&self, node: &str, process: &str, signal: Signal) -> Result<()> {
        let entries = lock(&self.table.entries);
        match entries.get(&(node.to_owned(), process.to_owned())).map(|entry| &entry.state) {
            Some(State::Running { handle, .. }) => {
                Ok(rustix::process::pidfd_send_signal(handle, signal)?)
            }
            Some(State::Ended(status)) => bail!("{process} on {node} has ended: {status}"),
            None => bail!("{process} on {node} was never started"),
        }
    }

    /// Ends a process and waits until it is gone.
    pub(crate) fn stop(&self, node: &str, process: &str) -> Result<()> {
        self.signal(node, process, Signal::TERM)?;
        self.wait_until_ended(node, process)
    }

    pub(crate) fn wait_until_ended(&self, node: &str, process: &str) -> Result<()> {
        let key = (node.to_owned(), process.to_owned());
        let until = Instant::now() + STOP_WITHIN;
        let mut entries = lock(&self.table.entries);
        while entries.get(&key).is_some_and(Entry::is_running) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{process} on {node} does not end within {STOP_WITHIN:?}");
            }
            entries = self
                .table
                .ended
                .wait_timeout(entries, left)
                .map_err(|_| anyhow!("a thread panicked"))?
                .0;
        }
        Ok(())
    }

    /// What a running process has used, as /proc of this process namespace and its log tell it.
    pub(crate) fn usage(&self, node: &str, process: &str) -> Result<Usage> {
        let entries = lock(&self.table.entries);
        let entry = entries.get(&(node.to_owned(), process.to_owned()));
        let Some(Entry { state: State::Running { pid, .. }, starts, log }) = entry else {
            bail!("{process} on {node} does not run");
        };
        let stat = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&stat).with_context(|| format!("read {stat}"))?;
        let cpu = processor_time(&stat).with_context(|| format!("no times in {stat:?}"))?;
        let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
        let lines = String::from_utf8_lossy(&text).lines().count();
        Ok(Usage { cpu, lines: u64::try_from(lines)?, starts: *starts })
    }

    pub(crate) fn of_node(&self, node: &str) -> Vec<ProcessStatus> {
        let entries = lock(&self.table.entries);
        let own = entries.iter().filter(|((on, _), _)| on == node);
        own.map(|((_, name), entry)| entry.status(name)).collect()
    }
}

impl Entry {
    fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn status(&self, name: &str) -> ProcessStatus {
        let (state, pid) = match &self.state {
            State::Running { pid, .. } => ("running".to_owned(), Some(*pid)),
            State::Ended(status) => (status.to_string(), None),
        };
        ProcessStatus {
            name: name.to_owned(),
            state,
            pid,
            starts: self.starts,
            log: self.log.clone(),
        }
    }
}

/// Starts a command where the thread is; output and error go to `out`.
pub(crate) fn spawn(line: &Line, input: Stdio, out: &File) -> Result<Child> {
    let (out, err) = (out.try_clone()?, out.try_clone()?);
    let mut command = prepare(line)?;
    command.stdin(input).stdout(out).stderr(err).process_group(0);
    command.spawn().with_context(|| format!("start {}", line.command.join(" ")))
}

/// Runs a command where the thread is, to its end.
pub(crate) fn output(line: &Line) -> Result<Output> {
    output_of(line, b"")
}

/// Runs a command where the thread is, with `input`, to its end. Both its outputs are read, each within a
/// bound; standard error follows when standard output is empty.
pub(crate) fn output_of(line: &Line, input: &[u8]) -> Result<Output> {
    let told = || format!("run {}", line.command.join(" "));
    let mut command = prepare(line)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(told)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input is not at fault.
        let _ = std::io::Write::write_all(&mut pipe, input);
    }
    let errors = child.stderr.take();
    let errors = thread::spawn(move || errors.map(read_text).unwrap_or_default());
    let text = child.stdout.take().map(read_text).unwrap_or_default();
    let status = child.wait().with_context(told)?;
    let errors = errors.join().unwrap_or_default();
    let text = if text.trim().is_empty() { errors } else { text };
    Ok(Output { status: code(status), text })
}

fn read_text(pipe: impl Read) -> String {
    let mut octets = Vec::new();
    let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut octets);
    String::from_utf8_lossy(&octets).into_owned()
}

pub(crate) fn prepare(line: &Line) -> Result<Command> {
    let (program, args) =
        line.command.split_first().ok_or_else(|| anyhow!("no command is given"))?;
    let mut command = Command::new(program);
    command.args(args).envs(line.env.iter().map(|(k, v)| (k, v))).current_dir("/");
    Ok(command)
}

/// The time that all threads spent on a processor (proc(5): utime, stime, the 14th and 15th field).
fn processor_time(stat: &str) -> Option<Duration> {
    // The second field is the name, which may have blanks and brackets in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = times.next()?? + times.next()??;
    Some(Duration::from_millis(ticks * MS_PER_TICK))
}

/// As a shell would tell it: 128 and the signal's number when a signal ended it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

pub(crate) fn pidfd(child: &Child) -> Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid_of(child)?, PidfdFlags::empty())?)
}

pub(crate) fn pid_of(child: &Child) -> Result<Pid> {
    let raw = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| anyhow!("a child without a number"))
}

impl From<SignalName> for Signal {
    fn from(name: SignalName) -> Self {
        match name {
            SignalName::Kill => Self::KILL,
            SignalName::Term => Self::TERM,
            SignalName::Int => Self::INT,
            SignalName::Hup => Self::HUP,
            SignalName::Stop => Self::STOP,
            SignalName::Cont => Self::CONT,
            SignalName::Usr1 => Self::USR1,
            SignalName::Usr2 => Self::USR2,
        }
    }
}

/// `USER_HZ` is 100 wherever Russet runs.
const MS_PER_TICK: u64 = 10;
const STOP_WITHIN: Duration = Duration::from_secs(10);
const MAX_OUTPUT: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 98 0 0 0 12 30 0 0 20 0 4 0 11 1 2 3";
        assert_eq!(processor_time(stat), Some(Duration::from_millis(420)));
        assert_eq!(processor_time("7 (a) S 1 7"), None);
    }
}
