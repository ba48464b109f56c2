//! Packets as they pass on a link, decoded.
//!
//! [`open`] makes a packet socket where the thread is; the lab opens it inside a namespace and hands it out,
//! for reading it needs no privilege. [`Capture`] reads it, `decode` makes a [`Frame`] of the octets, `text`
//! shows one to a reader, `pcap` writes a file for other programs. Whatever is on the wire is somebody else's:
//! a packet that is cut off or malicious decodes as far as it is sound, and never further.

mod decode;
mod pcap;
mod text;

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use russet_net::IfName;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType},
};

pub use self::{
    decode::{Arp, Frame, Icmp, Ip, Tcp, Transport, Udp, Vxlan},
    pcap::Pcap,
};
use crate::rtnl::Rtnl;

/// Opens a packet socket on a link of the thread's network namespace.
pub fn open(link: IfName) -> Result<OwnedFd> {
    let index = Rtnl::open()?.index_of(link)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
        .context("open a packet socket")?;
    russet_kernel::sys::bind_packet_socket(std::os::fd::AsFd::as_fd(&socket), index.get())
        .with_context(|| format!("listen on {link}"))?;
    Ok(socket)
}

/// A packet socket that is read.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    buf: Vec<u8>,
}

impl Capture {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, buf: vec![0; MAX_PACKET] }
    }

    /// The next packet's octets, or `None` when the time is over.
    pub fn next(&mut self, until: Instant) -> Result<Option<&[u8]>> {
        let left = until.saturating_duration_since(Instant::now());
        let mut wait = [PollFd::new(&self.socket, PollFlags::IN)];
        let left = Timespec::try_from(left)?;
        if rustix::io::retry_on_intr(|| poll(&mut wait, Some(&left)))? == 0 {
            return Ok(None);
        }
        let (len, _) = rustix::net::recv(&self.socket, &mut self.buf[..], RecvFlags::empty())
            .context("read a packet")?;
        Ok(self.buf.get(..len))
    }

    /// The first packet that `wanted` takes, or `None` when the time is over.
    pub fn find(
        &mut self,
        within: Duration,
        wanted: impl Fn(&Frame) -> bool,
    ) -> Result<Option<Frame>> {
        let until = Instant::now() + within;
        while let Some(octets) = self.next(until)? {
            let frame = Frame::decode(octets);
            if wanted(&frame) {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

/// The largest packet that a link can carry with its header, segmentation offload included.
const MAX_PACKET: usize = 256 * 1024;
