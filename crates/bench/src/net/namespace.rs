//! A network namespace that lives as long as its value, and threads that visit it.
//!
//! No name in /run/netns: the namespace hangs on one descriptor of this process, so it is gone when the
//! process is, however it ends. Programs are given its path below /proc.

use std::{
    fs::{self, File},
    os::fd::{AsFd, AsRawFd},
    thread,
};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::Rtnl;

#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback that is up.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<Self> {
            leave_network()?;
            let file = File::open("/proc/thread-self/ns/net").context("open a namespace")?;
            Ok(Self(file))
        });
        let namespace = made.join().map_err(|_| anyhow!("a thread panicked"))??;
        let mut rtnl = namespace.rtnl()?;
        let loopback = rtnl.index("lo")?;
        rtnl.up(loopback)?;
        Ok(namespace)
    }

    /// Runs `job` on a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                job()
            });
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        })
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("enter a namespace")
    }

    /// A socket for rtnetlink that stays in the namespace, whichever thread uses it.
    pub fn rtnl(&self) -> Result<Rtnl> {
        self.run(Rtnl::open)
    }

    /// The path by which other programs of this machine find it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Sets a kernel setting, named with slashes below /proc/sys, which shows the reader's own namespace.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| {
            fs::write(format!("/proc/sys/{name}"), value).with_context(|| format!("set {name}"))
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes the calling thread, and every thread and program that it will start, out of the machine's
/// network into an empty one.
pub fn leave_network() -> Result<()> {
    // It is deprecated for flags that could split the descriptor table under safe code; this one does not.
    #[expect(deprecated, reason = "only CLONE_NEWNET, which no safe code can be hurt by")]
    rustix::thread::unshare(UnshareFlags::NEWNET)
        .context("make a network namespace (root is needed)")
}
