//! The way into a lab: three stages of the same program.
//!
//! *outer* leaves the host's namespaces and waits, *init* is process 1 of the new process namespace, mounts
//! what is fresh and reaps, *supervisor* builds the world and answers. A process that has moved into a new
//! process namespace is not in it itself, only its children are; that is why there are stages and not one.

use std::{
    fs,
    os::fd::AsFd,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
};

use anyhow::{Context, Result, anyhow};
use rustix::{
    process::{Signal, WaitOptions},
    thread::UnshareFlags,
};

use super::{World, server};
use crate::{
    control,
    programs::Programs,
    space,
    topology::{Stores, Topology},
};

/// The topology's copy in the lab's folder.
pub(crate) fn topology_path(dir: &Path) -> PathBuf {
    dir.join("topology.yaml")
}

/// Says that etcd takes the store's place, when it is there.
pub(crate) fn stores_path(dir: &Path) -> PathBuf {
    dir.join("on-etcd")
}

/// What the supervisor says of itself.
pub(crate) fn log_path(dir: &Path) -> PathBuf {
    dir.join("supervisor.log")
}

/// Whether a lab ends with the process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    WithStarter,
    OfItsOwn,
}

/// Runs one stage to its end.
pub(crate) fn run(stage: &str, dir: &Path) -> Result<ExitCode> {
    match stage {
        "outer" => outer(dir, Life::WithStarter),
        "outer-detached" => outer(dir, Life::OfItsOwn),
        "init" => init(dir),
        "supervisor" => supervisor(dir),
        other => Err(anyhow!("there is no stage {other:?}")),
    }
}

fn outer(dir: &Path, life: Life) -> Result<ExitCode> {
    // A terminal's Ctrl-C is for whoever started the lab. Fails only for who leads a session already.
    let _ = rustix::process::setsid();
    let starter = rustix::process::getppid();
    leave_the_host()?;
    if life == Life::WithStarter {
        die_with_parent()?;
        if rustix::process::getppid() != starter {
            return Ok(ExitCode::FAILURE);
        }
    }
    let status = next("init", dir)?.wait().context("wait for init")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// New namespaces for everything that a lab touches; the user namespace only for who is not root.
fn leave_the_host() -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC;
    if uid.is_root() {
        return space::unshare(flags).context("make namespaces");
    }
    flags |= UnshareFlags::NEWUSER;
    space::unshare(flags)
        .context("make a user namespace (does this system forbid them to users?)")?;
    // Without this the kernel lets nobody map groups (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").context("write setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("write uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("write gid_map")
}

fn init(dir: &Path) -> Result<ExitCode> {
    die_with_parent()?;
    space::keep_mounts_private()?;
    space::mount_proc()?;
    let supervisor = next("supervisor", dir)?.id();
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) => continue,
            Err(err) if err == rustix::io::Errno::INTR => continue,
            Err(err) => return Err(err).context("reap"),
        };
        if u32::try_from(pid.as_raw_nonzero().get()) == Ok(supervisor) {
            let good = status.exit_status() == Some(0);
            return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
}

fn supervisor(dir: &Path) -> Result<ExitCode> {
    die_with_parent()?;
    let listener = control::listen(dir)?;
    let text = fs::read_to_string(topology_path(dir)).context("read the topology")?;
    let stores = if stores_path(dir).exists() { Stores::Etcd } else { Stores::Store };
    let topology = Topology::parse("topology", &text)?.upon(stores);
    let world = match World::build(topology, dir, &mut |stretch| println!("+ {stretch}")) {
        Ok(world) => world,
        Err(err) => {
            println!("! {err:#}");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("ready");
    // Whoever started us reads no further, and we say no more.
    server::serve(listener.as_fd(), world);
    Ok(ExitCode::SUCCESS)
}

/// Starts the next stage; standard output is ours, for progress.
fn next(stage: &str, dir: &Path) -> Result<Child> {
    let line = Programs::beside_this_one()?.stage(stage, dir);
    let (program, args) = line.split_first().ok_or_else(|| anyhow!("no program"))?;
    let log = fs::OpenOptions::new().create(true).append(true).open(log_path(dir))?;
    let mut command = Command::new(program);
    command.args(args).stdin(std::process::Stdio::null()).stderr(log).arg0("russet-lab");
    command.spawn().with_context(|| format!("start {stage}"))
}

fn die_with_parent() -> Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}
