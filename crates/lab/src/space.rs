//! Namespaces, entered by threads.
//!
//! A namespace belongs to a thread, not to a process, and a child inherits that of the thread that makes it.
//! So there are no helper processes that hold namespaces open: a [`Space`] holds descriptors, and
//! [`Space::enter`] runs a closure on a thread of its own that has moved in and ends with the closure.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, anyhow};
use rustix::{
    mount::{MountFlags, MountPropagationFlags},
    thread::{LinkNameSpaceType, UnshareFlags},
};

use crate::{
    rtnl::{Carry, Rtnl},
    shadow,
};

/// A network namespace with the mounts and the host name that belong to it.
#[derive(Debug)]
pub(crate) struct Space {
    name: String,
    net: OwnedFd,
    mounts: OwnedFd,
    host_name: OwnedFd,
}

impl Space {
    /// Makes a machine: its own network, mounts and host name. `fresh` are folders that are empty in it.
    pub(crate) fn machine(name: &str, fresh: &[PathBuf]) -> Result<Self> {
        on_thread(|| {
            let all = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWUTS;
            unshare(all).with_context(|| format!("make namespaces of {name}"))?;
            rustix::system::sethostname(name.as_bytes())?;
            keep_mounts_private()?;
            shadow::machine(fresh).with_context(|| format!("make folders of {name}"))?;
            settle()?;
            Self::of_this_thread(name)
        })
    }

    /// Makes a network namespace beside this machine's, in its mounts, and names it as `ip netns` would.
    pub(crate) fn pod(&self, name: &str) -> Result<Self> {
        self.enter(|| {
            unshare(UnshareFlags::NEWNET).with_context(|| format!("make namespace of {name}"))?;
            settle()?;
            let path = pod_path(name);
            File::create(&path).with_context(|| format!("create {}", path.display()))?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)
                .with_context(|| format!("mount {}", path.display()))?;
            Self::of_this_thread(name)
        })
    }

    /// Forgets the name that [`Self::pod`] gave. The namespace ends with its last user.
    pub(crate) fn forget_pod(&self, name: &str) -> Result<()> {
        self.enter(|| {
            let path = pod_path(name);
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH)?;
            Ok(fs::remove_file(&path)?)
        })
    }

    fn of_this_thread(name: &str) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/thread-self/ns/{kind}");
            File::open(&path).map(OwnedFd::from).with_context(|| format!("open {path}"))
        };
        let (net, mounts, host_name) = (open("net")?, open("mnt")?, open("uts")?);
        Ok(Self { name: name.to_owned(), net, mounts, host_name })
    }

    pub(crate) fn net(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    /// Runs `work` on a thread inside. What it spawns is inside too.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            self.move_in().with_context(|| format!("enter {}", self.name))?;
            work()
        })
    }

    fn move_in(&self) -> io::Result<()> {
        // The mounts of a thread that shares its working folder with others cannot be changed.
        unshare(UnshareFlags::FS)?;
        for (fd, kind) in [
            (&self.mounts, LinkNameSpaceType::Mount),
            (&self.host_name, LinkNameSpaceType::HostNameAndNISDomainName),
            (&self.net, LinkNameSpaceType::Network),
        ] {
            rustix::thread::move_into_link_name_space(fd.as_fd(), Some(kind))?;
        }
        Ok(())
    }
}

/// Where a pod's network namespace is found from within its node.
pub(crate) fn pod_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Moves this thread, or a process that has no other, into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES), "the table of descriptors stays shared");
    // Deprecated for the one flag that is not sound, which the line above keeps out.
    #[expect(deprecated)]
    Ok(rustix::thread::unshare(flags)?)
}

/// Lets no mount of ours be seen outside, and none from outside come in.
pub(crate) fn keep_mounts_private() -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).context("make mounts private")
}

/// A fresh /proc: that of this process namespace, with a writable /proc/sys/net.
pub(crate) fn mount_proc() -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None)
        .context("mount /proc (is this a container whose /proc is masked?)")
}

/// Brings a new network namespace to where a machine is after its start: loopback up, and nothing that
/// waits. Duplicate address detection takes two seconds, and here nobody else gives out addresses.
fn settle() -> Result<()> {
    for conf in ["all", "default"] {
        for (key, value) in [("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")] {
            sysctl(&format!("net/ipv6/conf/{conf}/{key}"), value)?;
        }
    }
    // A ping needs no privilege then. Group 0 is the only one that surely exists in here.
    sysctl("net/ipv4/ping_group_range", "0 0")?;
    Rtnl::open()?.set_carry("lo".parse()?, Carry::Up)?;
    Ok(())
}

/// Sets a sysctl of the thread's network namespace. One that the kernel does not have is passed over.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<()> {
    match fs::write(Path::new("/proc/sys").join(key), value) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.with_context(|| format!("set sysctl {key}")),
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(anyhow!("a thread inside a namespace panicked")))
}
