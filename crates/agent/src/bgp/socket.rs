//! How the speaker's sockets are made: backlog, signatures, hops, source address, link.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use russet_bgp::speaker::PeerAddr;
use russet_kernel::sys;
use russet_net::{Family, IfName, Prefix};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, sockopt};
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

/// Listens on all of these. A machine without IPv6 is listened on by IPv4 where an address of either would do.
///
/// # Errors
///
/// With the address that cannot be listened on.
pub fn listen_on(addrs: &[SocketAddr]) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    for addr in addrs {
        match listen(*addr) {
            Ok(listener) => listeners.push(listener),
            Err(err) => match instead(*addr, &err, addrs) {
                Instead::Nothing => {}
                Instead::V4(v4) => listeners.push(listen(v4).map_err(|err| (v4, err))?),
                Instead::Fault => return Err((*addr, err)),
            },
        }
    }
    Ok(listeners)
}

/// What is done about an address that cannot be listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    Nothing,
    V4(SocketAddr),
    Fault,
}

fn instead(addr: SocketAddr, err: &io::Error, all: &[SocketAddr]) -> Instead {
    let v4 = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), addr.port());
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() && is_family_missing(err) => {
            if all.contains(&v4) { Instead::Nothing } else { Instead::V4(v4) }
        }
        _ => Instead::Fault,
    }
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
pub fn prepare(stream: &TcpStream, peer: PeerAddr, config: &PeerConfig) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_hops(stream.as_fd(), peer.ip, config.hops)
}

/// Connects to a peer. Cancelled when it is dropped.
pub async fn dial(peer: PeerAddr, config: &PeerConfig) -> io::Result<TcpStream> {
    let link = peer.link.map(|link| index_of(&link)).transpose()?;
    let peer = at(peer.ip, link, config.port.get());
    let socket = new(peer.ip())?;
    if let Some(password) = &config.password {
        let len = Family::of(peer.ip()).bits();
        sys::set_tcp_signature(socket.as_fd(), peer.ip(), len, password.reveal().as_bytes())?;
    }
    set_hops(socket.as_fd(), peer.ip(), config.hops)?;
    if let Some(source) = config.source {
        socket.bind(at(source, link, 0))?;
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

fn set_hops(fd: BorrowedFd<'_>, peer: IpAddr, hops: Hops) -> io::Result<()> {
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

/// How far what is sent goes.
pub fn set_hops_out(fd: BorrowedFd<'_>, peer: IpAddr, hops: u8) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => sockopt::set_ip_ttl(fd, hops.into())?,
        IpAddr::V6(_) => sockopt::set_ipv6_unicast_hops(fd, Some(hops))?,
    }
    Ok(())
}

/// A UDP socket that does not wait. One for IPv6 has nothing of IPv4.
pub fn bind_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &addr)?;
    Ok(socket.into())
}

/// The address with a port, on a link where it holds only there.
pub fn at(ip: IpAddr, link: Option<u32>, port: u16) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, link.unwrap_or(0)).into(),
        IpAddr::V4(_) => SocketAddr::new(ip, port),
    }
}

/// The number that a link has now.
pub fn index_of(link: &IfName) -> io::Result<u32> {
    Ok(netdevice::name_to_index(any_socket()?, link.as_str())?)
}

/// Whose connection it is; none where its link is gone.
pub fn peer_of(from: SocketAddr) -> Option<PeerAddr> {
    let ip = from.ip().to_canonical();
    let link = match from {
        SocketAddr::V6(from) if from.ip().is_unicast_link_local() => {
            let name = netdevice::index_to_name(any_socket().ok()?, from.scope_id()).ok()?;
            Some(name.parse().ok()?)
        }
        _ => None,
    };
    Some(PeerAddr { ip, link })
}

/// The kernel is asked about links by way of any socket.
fn any_socket() -> io::Result<std::os::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?)
}

/// Whether the machine does without the family, so that there is nothing to listen on.
pub fn is_family_missing(err: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(err).is_some_and(|errno| {
        matches!(errno, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT)
    })
}

/// As many as the machine allows: peers that all start at once are to find a place.
fn backlog() -> u32 {
    let told = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    told.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL_BACKLOG)
}

const USUAL_BACKLOG: u32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_everybody_is_listened_for_by_ipv4_and_nothing_else_is_let_pass() {
        let missing = io::Error::from(rustix::io::Errno::AFNOSUPPORT);
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (all, v4) = (addr("[::]:179"), addr("0.0.0.0:179"));
        assert_eq!(instead(all, &missing, &[all]), Instead::V4(v4));
        assert_eq!(instead(all, &missing, &[v4, all]), Instead::Nothing);
        assert_eq!(instead(addr("[fd00::1]:179"), &missing, &[]), Instead::Fault);
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        assert_eq!(instead(all, &taken, &[all]), Instead::Fault);
    }

    #[test]
    fn the_owner_of_a_link_local_connection_has_its_link() {
        let from = |text: &str, scope| match text.parse().unwrap() {
            IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, 1_000, 0, scope)),
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, 1_000),
        };
        // The loopback is the first link of every namespace.
        let there = peer_of(from("fe80::1", 1)).unwrap();
        assert_eq!(there.to_string(), "fe80::1%lo");
        assert_eq!(peer_of(from("fe80::1", 4_000_000)), None);
        assert_eq!(peer_of(from("::ffff:10.0.0.1", 0)).unwrap().to_string(), "10.0.0.1");
    }
}
