//! Enters the pod's network namespace, once and for the rest of this short process.
//!
//! The agent's socket is a path, which a network namespace does not change, so nothing is lost by staying.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use russet_api::cni::calico::Forwarding;
use russet_net::Family;
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// A pod's network namespace, and a routing socket that lives in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    netlink: OwnedFd,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespaceError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a network namespace, or may not be entered ({0})")]
    Enter(rustix::io::Errno),
    #[error("it is the host's own namespace; a pod has one of its own")]
    Host,
}

impl Namespace {
    /// Enters the namespace at `path` and opens a netlink socket there.
    pub(crate) fn enter(path: &Path) -> Result<Self, NamespaceError> {
        let file = File::open(path)?;
        let (theirs, ours) = (file.metadata()?, fs::metadata(OWN)?);
        if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
            return Err(NamespaceError::Host);
        }
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(NamespaceError::Enter)?;
        // No protocol is protocol 0, and that is `NETLINK_ROUTE`.
        let netlink =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        Ok(Self { file, netlink: netlink.map_err(io::Error::from)? })
    }

    /// What goes to the agent, in the order that `wire` says.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.file.as_fd(), self.netlink.as_fd()]
    }
}

/// Lets interfaces that are made from now on in the entered namespace have IPv6 addresses: `/proc/sys/net`
/// shows the namespace of whoever looks.
pub(crate) fn enable_ipv6(_: &Namespace) -> io::Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0")
}

/// Says whether the entered namespace forwards packets that are not its own.
pub(crate) fn set_forwarding(
    _: &Namespace,
    family: Family,
    forwarding: Forwarding,
) -> io::Result<()> {
    let path = match family {
        Family::V4 => "/proc/sys/net/ipv4/ip_forward",
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    };
    fs::write(path, if forwarding == Forwarding::Allowed { "1" } else { "0" })
}

const OWN: &str = "/proc/self/ns/net";
