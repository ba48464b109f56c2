//! Hears what others do to links, addresses, neighbours, next hops and routes.
//!
//! The kernel drops the echoes of our own requests before they reach us, so an event is somebody else's
//! doing or a consequence. When it had more to say than fits, everything has to be read back
//! ([`Drained::Lost`]). It says so once and then drops without a word until all that waits has been read
//! (`NETLINK_S_CONGESTED` in `net/netlink/af_netlink.c`), so that is the moment to read back, and no
//! earlier one.

use std::{
    collections::BTreeMap,
    fs, mem,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use crate::{
    KernelError,
    netlink::{Message, NetlinkError, Protocol, ReceiveBuffer, Socket, rt},
    sys,
};

/// Readable when there may be news.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    /// Whether something was lost since all that waited had been read.
    lost: bool,
}

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    Empty,
    More,
    /// Nothing waits, and events were lost before: what is known is out of date.
    Lost,
}

impl Monitor {
    /// Subscribes to everything that the reconcilers keep, in the thread's network namespace. Events that
    /// the requests of the socket with port `own` cause are passed over.
    ///
    /// # Errors
    ///
    /// When the socket cannot be had.
    pub fn open(own: u32) -> Result<Self, KernelError> {
        let monitor = Self::of_groups(&[
            rt::GROUP_LINK,
            rt::GROUP_NEIGH,
            rt::GROUP_V4_ADDR,
            rt::GROUP_V4_ROUTE,
            rt::GROUP_V6_ADDR,
            rt::GROUP_V6_ROUTE,
            rt::GROUP_V4_NETCONF,
            rt::GROUP_V6_NETCONF,
            rt::GROUP_NEXTHOP,
        ])?;
        sys::pass_over_port(monitor.as_fd(), own).map_err(NetlinkError::from)?;
        Ok(monitor)
    }

    pub(crate) fn of_groups(groups: &[u32]) -> Result<Self, KernelError> {
        let socket = Socket::open(Protocol::Route)?;
        for group in groups {
            socket.join(*group)?;
        }
        Ok(Self { socket, lost: false })
    }

    /// How much the kernel may queue for us; by default as much as the events of 30,000 objects.
    pub fn set_receive_buffer(&self, size: ReceiveBuffer) {
        self.socket.set_receive_buffer(size);
    }

    /// Hands every waiting event to `each`, at most [`DATAGRAMS`], without waiting for more.
    ///
    /// # Errors
    ///
    /// When the socket fails otherwise than by an overrun.
    pub fn drain(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<Drained, NetlinkError> {
        for _ in 0..DATAGRAMS {
            match self.socket.receive(Duration::ZERO) {
                Ok(None) if mem::take(&mut self.lost) => return Ok(Drained::Lost),
                Ok(None) => return Ok(Drained::Empty),
                Ok(Some(messages)) => messages.for_each(&mut each),
                Err(err) if err.is_overrun() => self.lost = true,
                Err(err) => return Err(err),
            }
        }
        Ok(Drained::More)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Which program a netlink port belongs to, as far as that can be told: its first socket has its process
/// id for a port, and it may be gone before anybody asks.
#[derive(Debug, Default)]
pub struct Authors {
    by_port: BTreeMap<u32, Option<Arc<str>>>,
}

impl Authors {
    /// `ip (pid 4711)`; `None` for the kernel itself.
    pub fn of(&mut self, port: u32) -> Option<Arc<str>> {
        if self.by_port.len() >= MAX_AUTHORS {
            self.by_port.clear();
        }
        self.by_port.entry(port).or_insert_with(|| author(port)).clone()
    }

    /// Forgets all: a number may get another process.
    pub fn forget(&mut self) {
        self.by_port.clear();
    }
}

fn author(port: u32) -> Option<Arc<str>> {
    match port {
        0 => None,
        // A process' second socket has a number from above.
        _ if port > i32::MAX.cast_unsigned() => Some(format!("netlink port {port}").into()),
        pid => Some(match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("{} (pid {pid})", name.trim()).into(),
            Err(_) => format!("a program that has ended (pid {pid})").into(),
        }),
    }
}

/// How many datagrams one call reads.
pub const DATAGRAMS: usize = 1_024;
const MAX_AUTHORS: usize = 64;
