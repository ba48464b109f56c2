//! What is sent to learn how a path treats packets.
//!
//! [`Echo`] asks with requests of any size that may not be cut up (RFC 792, RFC 4443 §4), [`closed_port`] with a
//! datagram to a port where nobody listens, whose checksum is left to the hardware or not.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto},
};

use russet_net::checksum;

use crate::sys::{arrival, datagram};

/// Echo requests to one address, never in fragments.
#[derive(Debug)]
pub struct Echo {
    socket: OwnedFd,
    to: IpAddr,
    id: u16,
    sequence: u16,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echoed {
    Yes,
    No,
    /// It is larger than our own link takes.
    TooLarge,
}

impl Echo {
    /// Opens a socket in the thread's network namespace.
    ///
    /// # Errors
    ///
    /// When we may not (`EPERM`), or there is no way to the address.
    pub fn open(to: IpAddr) -> io::Result<Self> {
        let protocol = if to.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
        let socket = raw(to, protocol)?;
        if to.is_ipv4() {
            arrival::receive_only_v4(socket.as_fd(), &[ECHO_REPLY_V4])?;
        } else {
            arrival::receive_only(socket.as_fd(), &[ECHO_REPLY_V6])?;
        }
        datagram::probe_path(socket.as_fd(), to)?;
        rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
        let id = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        Ok(Self { socket, to, id, sequence: 0 })
    }

    /// Sends one request as a packet of `octets`, its IP header included, and waits for the answer.
    ///
    /// # Errors
    ///
    /// When it cannot be sent at all.
    pub fn ask(&mut self, octets: u16, patience: Duration) -> io::Result<Echoed> {
        self.sequence = self.sequence.wrapping_add(1);
        let headers = if self.to.is_ipv4() { 20 } else { 40 };
        let request = self.request(usize::from(octets.saturating_sub(headers)));
        match rustix::net::send(&self.socket, &request, SendFlags::empty()) {
            Ok(_) => {}
            Err(Errno::MSGSIZE) => return Ok(Echoed::TooLarge),
            // What an earlier request met.
            Err(err) if is_unreachable(err) => return Ok(Echoed::No),
            Err(err) => return Err(err.into()),
        }
        let until = Instant::now() + patience;
        let mut packet = [0; 128];
        while wait(self.socket.as_fd(), until)? {
            match rustix::net::recv(&self.socket, &mut packet[..], RecvFlags::empty()) {
                Ok((len, _)) if self.is_answer(packet.get(..len).unwrap_or(&packet)) => {
                    return Ok(Echoed::Yes);
                }
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                // A router on the way says that it is too large.
                Err(Errno::MSGSIZE) => return Ok(Echoed::No),
                Err(err) if is_unreachable(err) => return Ok(Echoed::No),
                Err(err) => return Err(err.into()),
            }
        }
        Ok(Echoed::No)
    }

    /// The largest packet that the kernel has been told the path carries. A socket that was connected before knows
    /// only of what was told before.
    pub fn told(&self) -> Option<u32> {
        let socket = Self::open(self.to).ok()?.socket;
        datagram::path_mtu(socket.as_fd(), self.to).ok()
    }

    fn request(&self, len: usize) -> Vec<u8> {
        let mut message = vec![0; len.max(HEADER)];
        message[0] = if self.to.is_ipv4() { ECHO_V4 } else { ECHO_V6 };
        message[4..6].copy_from_slice(&self.id.to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        if self.to.is_ipv4() {
            let sum = checksum::finish(checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    fn is_answer(&self, packet: &[u8]) -> bool {
        // A raw IPv4 socket gets the IP header too; its length is in words of four octets.
        let skipped = match (self.to, packet.first()) {
            (IpAddr::V4(_), Some(first)) => usize::from(first & 0x0f) * 4,
            _ => 0,
        };
        let Some(message) = packet.get(skipped..skipped + HEADER) else { return false };
        let number = [self.id.to_be_bytes(), self.sequence.to_be_bytes()].concat();
        message[4..8] == number
    }
}

/// Who works out the checksum of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The kernel, or whatever it leaves that to.
    Offloaded,
    /// We, so that nobody touches it any more.
    Ours,
}

/// Sends one datagram to [`CLOSED_PORT`] of `to` and tells whether it was refused, which a host does only when
/// it has arrived undamaged (RFC 1122 §3.2.2.1, §4.1.3.1).
///
/// # Errors
///
/// When it cannot be sent.
pub fn closed_port(from: IpAddr, to: IpAddr, by: Checksum, patience: Duration) -> io::Result<bool> {
    let target = SocketAddr::new(to, CLOSED_PORT);
    let socket = match by {
        Checksum::Offloaded => open(to, SocketType::DGRAM, ipproto::UDP)?,
        Checksum::Ours => raw(to, ipproto::UDP)?,
    };
    rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    match by {
        Checksum::Offloaded => rustix::net::connect(&socket, &target)?,
        Checksum::Ours => rustix::net::connect(&socket, &SocketAddr::new(to, 0))?,
    }
    let message = match by {
        Checksum::Offloaded => PAYLOAD.to_vec(),
        Checksum::Ours => datagram_with_checksum(from, to),
    };
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let until = Instant::now() + patience;
    let mut packet = [0; 128];
    while wait(socket.as_fd(), until)? {
        match rustix::net::recv(&socket, &mut packet[..], RecvFlags::empty()) {
            Err(Errno::CONNREFUSED) => return Ok(true),
            Err(err) if is_unreachable(err) => return Ok(false),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(false)
}

fn datagram_with_checksum(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let len = u16::try_from(HEADER + PAYLOAD.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(usize::from(len));
    message.extend(CLOSED_PORT.to_be_bytes());
    message.extend(CLOSED_PORT.to_be_bytes());
    message.extend(len.to_be_bytes());
    message.extend([0, 0]);
    message.extend(PAYLOAD);
    let ends = checksum::pseudo(from, to, UDP, message.len());
    let sum = checksum::finish(ends + checksum::sum(&message));
    // A sum of zero is sent as all ones: zero says that there is none (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

fn raw(to: IpAddr, protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    open(to, SocketType::RAW, protocol)
}

fn open(to: IpAddr, kind: SocketType, protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, Some(protocol))?)
}

/// Whether the socket can be read before `until`.
fn wait(socket: BorrowedFd<'_>, until: Instant) -> io::Result<bool> {
    let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(false) };
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&left)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(err) => Err(err.into()),
    }
}

fn is_unreachable(err: Errno) -> bool {
    matches!(
        err,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNREFUSED | Errno::ACCESS | Errno::PROTO
    )
}

/// The port that traceroute begins with: nobody listens there.
pub const CLOSED_PORT: u16 = 33_434;
const PAYLOAD: &[u8] = b"russet probe";
const HEADER: usize = 8;
const UDP: u8 = 17;
const ECHO_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_with_its_pseudo_header_adds_up() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let message = datagram_with_checksum(from, to);
            let ends = checksum::pseudo(from, to, UDP, message.len());
            assert_eq!(checksum::finish(ends + checksum::sum(&message)), 0);
        }
    }
}
