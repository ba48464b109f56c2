//! How the speaker's sockets are made: backlog, signatures, hops, source address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
};

use russet_kernel::sys;
use russet_net::{Family, Prefix};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::config::{Hops, PeerConfig};

/// Listens. What is sent from here has all hops left, so that a peer that counts them is content; an accepted
/// connection gets the hops of its peer.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = new(addr.ip())?;
    socket.set_reuseaddr(true)?;
    if addr.is_ipv6() {
        // IPv4 has a listener of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    set_hops_out(socket.as_fd(), addr.ip(), u8::MAX)?;
    socket.bind(addr)?;
    socket.listen(backlog())
}

/// Has a listener take only connections of these peers that are signed with the password; an empty one takes
/// the signature away.
pub fn sign(listener: &TcpListener, peers: Prefix, password: &str) -> io::Result<()> {
    let done =
        sys::set_tcp_signature(listener.as_fd(), peers.addr(), peers.len(), password.as_bytes());
    match done {
        // There was none to take away.
        Err(err) if password.is_empty() && err.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes a connection what its peer's configuration asks for.
pub fn prepare(stream: &TcpStream, peer: IpAddr, config: &PeerConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_hops(stream.as_fd(), peer, config.hops)
}

/// Connects to a peer. Cancelled when it is dropped.
pub async fn dial(peer: SocketAddr, config: &PeerConfig) -> io::Result<TcpStream> {
    let socket = new(peer.ip())?;
    if let Some(password) = &config.password {
        let len = Family::of(peer.ip()).bits();
        sys::set_tcp_signature(socket.as_fd(), peer.ip(), len, password.reveal().as_bytes())?;
    }
    set_hops(socket.as_fd(), peer.ip(), config.hops)?;
    if let Some(source) = config.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(peer).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn new(family_of: IpAddr) -> io::Result<TcpSocket> {
    match family_of {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }
}

fn set_hops(fd: std::os::fd::BorrowedFd<'_>, peer: IpAddr, hops: Hops) -> io::Result<()> {
    match hops {
        Hops::Usual => Ok(()),
        Hops::AtMost(hops) => set_hops_out(fd, peer, hops),
        // What arrives has lost one hop less than it passed routers (RFC 5082 §3).
        Hops::Counted(hops) => {
            set_hops_out(fd, peer, u8::MAX)?;
            sys::set_least_hops(fd, peer, u8::MAX - (hops.saturating_sub(1)))
        }
    }
}

fn set_hops_out(fd: std::os::fd::BorrowedFd<'_>, peer: IpAddr, hops: u8) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => sockopt::set_ip_ttl(fd, hops.into())?,
        IpAddr::V6(_) => sockopt::set_ipv6_unicast_hops(fd, Some(hops))?,
    }
    Ok(())
}

/// As many as the machine allows: peers that all start at once are to find a place.
fn backlog() -> u32 {
    let told = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    told.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL_BACKLOG)
}

const USUAL_BACKLOG: u32 = 4_096;
