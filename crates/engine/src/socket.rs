//! The engine's UDP sockets: one for each thread, all on the one port that peers know.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
};

use russet_kernel::sys::datagram;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Opens a socket on an address. Several share it: the kernel gives each sender's datagrams to one of them.
///
/// # Errors
///
/// When the address is not this node's, or somebody else has the port.
pub fn open(at: SocketAddr, receive: ReceiveOffload) -> io::Result<OwnedFd> {
    let family = match at {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    datagram::forbid_fragments(fd.as_fd(), at.ip())?;
    datagram::set_buffers(fd.as_fd(), BUFFER);
    rustix::net::bind(&fd, &at)?;
    if receive == ReceiveOffload::On
        && let Err(error) = datagram::set_receive_offload(fd.as_fd(), true)
    {
        tracing::warn!(op = "set UDP_GRO", %error, "datagrams come one by one");
    }
    Ok(fd)
}

/// Whether datagrams may come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveOffload {
    Off,
    On,
}

/// The largest packet that the path from `from` to a peer carries, outer headers included.
///
/// # Errors
///
/// When there is no way to the peer.
pub fn path_mtu(from: IpAddr, to: SocketAddr) -> io::Result<u32> {
    let socket = std::net::UdpSocket::bind((from, 0))?;
    socket.connect(to)?;
    datagram::path_mtu(socket.as_fd(), to.ip())
}

/// Octets of each of a socket's buffers: a few of the largest batches.
const BUFFER: i32 = 4 << 20;
