//! ICMP echo, both versions (RFC 792, RFC 4443 §4).
//!
//! A datagram ("ping") socket where the group may have one, else a raw one. The kernel numbers echoes with 16
//! bits; our number goes into the payload with 64, and the two never meet.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use anyhow::{Context, Result};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto},
};

use russet_net::checksum;

use super::pace::{Mark, Wire};

/// Echo requests to one address.
#[derive(Debug)]
pub(crate) struct Icmp {
    socket: OwnedFd,
    to: IpAddr,
    kind: Kind,
    mark: Mark,
    /// Of a raw socket; a datagram socket gets its own from the kernel.
    id: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Datagram,
    Raw,
}

impl Icmp {
    pub(crate) fn open(to: IpAddr) -> Result<Self> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = |kind| rustix::net::socket_with(family, kind, flags, Some(protocol));
        let (socket, kind) = match open(SocketType::DGRAM) {
            Ok(socket) => (socket, Kind::Datagram),
            Err(_) => (open(SocketType::RAW).context("open an ICMP socket")?, Kind::Raw),
        };
        let id = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        Ok(Self { socket, to, kind, mark: Mark::of_this_run(), id })
    }

    fn request(&self, number: u64) -> [u8; HEADER + Mark::LEN] {
        let mut message = [0; HEADER + Mark::LEN];
        message[0] = if self.to.is_ipv4() { 8 } else { 128 };
        message[4..6].copy_from_slice(&self.id.to_be_bytes());
        let sequence = u16::try_from(number & 0xffff).unwrap_or_default();
        message[6..8].copy_from_slice(&sequence.to_be_bytes());
        message[HEADER..].copy_from_slice(&self.mark.write(number));
        if self.to.is_ipv4() {
            let sum = checksum::finish(checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    /// The number of a reply of ours; `None` for anything else that a raw socket hears.
    fn number_of(&self, packet: &[u8]) -> Option<u64> {
        let message = match (self.kind, self.to) {
            // A raw IPv4 socket gets the IP header too; its length is in words of four octets.
            (Kind::Raw, IpAddr::V4(_)) => packet.get(usize::from(packet.first()? & 0x0f) * 4..)?,
            _ => packet,
        };
        let reply = if self.to.is_ipv4() { 0 } else { 129 };
        if message.first() != Some(&reply) {
            return None;
        }
        self.mark.read(message.get(HEADER..)?)
    }
}

impl Wire for Icmp {
    fn ask(&mut self, number: u64) -> io::Result<()> {
        let message = self.request(number);
        let to = SocketAddr::new(self.to, 0);
        rustix::net::sendto(&self.socket, &message, SendFlags::empty(), &to)?;
        Ok(())
    }

    fn answer(&mut self) -> io::Result<Option<u64>> {
        let mut buf = [0; 1_024];
        loop {
            match rustix::net::recv(&self.socket, &mut buf, RecvFlags::empty()) {
                Ok((len, _)) => {
                    if let Some(number) = buf.get(..len).and_then(|packet| self.number_of(packet)) {
                        return Ok(Some(number));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

const HEADER: usize = 8;
