//! Peers without a number: on a link that is configured, whoever sends router advertisements is the peer, by its
//! link-local address; and we send them, so that it finds us (RFC 4861 §6, as FRR and its like do it).
//!
//! What we send offers no route: a host that hears it takes us for no default router (a lifetime of 0).

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use russet_kernel::sys::arrival;
use russet_net::IfName;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with, sockopt,
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::socket;

/// A router that was heard on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub link: IfName,
    pub router: Ipv6Addr,
}

/// The task of one link. It ends with this.
#[derive(Debug)]
pub struct Attended(JoinHandle<()>);

impl Attended {
    /// Advertises ourselves on a link and listens for others, as soon and as long as the link is there.
    pub fn start(link: IfName, heard: mpsc::Sender<Heard>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                let ended = match Line::open(link) {
                    Ok(line) => line.run(&heard).await,
                    Err(err) => Some(err),
                };
                let Some(error) = ended else { return };
                tracing::debug!(op = "advertise", ifname = %link, %error);
                sleep(AGAIN).await;
            }
        }))
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Line {
    link: IfName,
    index: u32,
    /// A raw one; what the runtime does with it is the same.
    socket: UdpSocket,
}

impl Line {
    fn open(link: IfName) -> io::Result<Self> {
        let index = socket::index_of(&link)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let icmp = Some(ipproto::ICMPV6);
        let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, icmp)?;
        arrival::receive_only(socket.as_fd(), &[SOLICITATION, ADVERTISEMENT])?;
        arrival::tell_arrivals(socket.as_fd(), IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
        sockopt::set_ipv6_add_membership(&socket, &ALL_ROUTERS, index)?;
        sockopt::set_ipv6_multicast_hops(&socket, u8::MAX.into())?;
        sockopt::set_ipv6_multicast_loop(&socket, false)?;
        Ok(Self { link, index, socket: UdpSocket::from_std(socket.into())? })
    }

    /// Runs until the link fails, or nobody listens: then there is no error.
    async fn run(self, heard: &mpsc::Sender<Heard>) -> Option<io::Error> {
        let mut sent = 0;
        let mut next = Instant::now();
        if let Err(err) = self.send(&solicitation(), ALL_ROUTERS) {
            return Some(err);
        }
        loop {
            tokio::select! {
                () = sleep_until(next) => {
                    if let Err(err) = self.send(&advertisement(), ALL_NODES) {
                        return Some(err);
                    }
                    sent += 1;
                    next = Instant::now() + if sent < QUICK { AGAIN } else { INTERVAL };
                }
                message = self.receive() => match message {
                    Ok(Some(Message::Solicitation)) => next = next.min(Instant::now() + AGAIN),
                    Ok(Some(Message::Advertisement(router))) => {
                        if heard.send(Heard { link: self.link, router }).await.is_err() {
                            return None;
                        }
                    }
                    Ok(None) => {}
                    Err(err) => return Some(err),
                }
            }
        }
    }

    fn send(&self, octets: &[u8], to: Ipv6Addr) -> io::Result<()> {
        let to = socket::at(to.into(), Some(self.index), 0);
        match sendto(&self.socket, octets, SendFlags::empty(), &to) {
            // A full queue loses this one, and there will be more.
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }

    async fn receive(&self) -> io::Result<Option<Message>> {
        let mut buffer = [0; MOST_OCTETS];
        let receive = || arrival::receive(self.socket.as_fd(), &mut buffer);
        let arrived = self.socket.async_io(Interest::READABLE, receive).await?;
        let octets = buffer.get(..arrived.len).unwrap_or_default();
        let here = arrived.link == Some(self.index);
        Ok(Message::read(octets, &arrived).filter(|_| here))
    }
}

/// What a neighbour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Solicitation,
    /// With the router's address.
    Advertisement(Ipv6Addr),
}

impl Message {
    /// Reads what is valid: sent on this link, with code 0 (RFC 4861 §6.1.1, §6.1.2). The kernel has looked at the
    /// checksum.
    fn read(octets: &[u8], arrived: &arrival::Arrival) -> Option<Self> {
        if arrived.hops != Some(u8::MAX) {
            return None;
        }
        let SocketAddr::V6(from) = arrived.from else { return None };
        match *octets {
            [SOLICITATION, 0, ..] if octets.len() >= SOLICITATION_OCTETS => {
                Some(Self::Solicitation)
            }
            [ADVERTISEMENT, 0, ..]
                if octets.len() >= ADVERTISEMENT_OCTETS && from.ip().is_unicast_link_local() =>
            {
                Some(Self::Advertisement(*from.ip()))
            }
            _ => None,
        }
    }
}

/// The kernel writes the checksum.
const fn solicitation() -> [u8; SOLICITATION_OCTETS] {
    let mut octets = [0; SOLICITATION_OCTETS];
    octets[0] = SOLICITATION;
    octets
}

/// No hop limit, no flags, no lifetime as a default router, no times (RFC 4861 §4.2).
const fn advertisement() -> [u8; ADVERTISEMENT_OCTETS] {
    let mut octets = [0; ADVERTISEMENT_OCTETS];
    octets[0] = ADVERTISEMENT;
    octets
}

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const SOLICITATION_OCTETS: usize = 8;
const ADVERTISEMENT_OCTETS: usize = 16;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What is behind the fixed part is not looked at.
const MOST_OCTETS: usize = 1_500;
/// As FRR does for such peers.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between the first ones, before an answer, and until a link that failed is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// So many come quickly (RFC 4861 §6.2.4: `MAX_INITIAL_RTR_ADVERTISEMENTS`).
const QUICK: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_neighbour_on_the_link_is_a_router() {
        let from = |ip: &str, hops| arrival::Arrival {
            from: SocketAddr::new(ip.parse().unwrap(), 0),
            len: 0,
            hops: Some(hops),
            link: Some(1),
        };
        let router: Ipv6Addr = "fe80::1".parse().unwrap();
        let read = |octets: &[u8], ip, hops| Message::read(octets, &from(ip, hops));
        let there = Some(Message::Advertisement(router));
        assert_eq!(read(&advertisement(), "fe80::1", 255), there);
        // It has passed a router, or its sender could have.
        assert_eq!(read(&advertisement(), "fe80::1", 254), None);
        assert_eq!(read(&advertisement(), "2001:db8::1", 255), None);
        assert_eq!(read(&advertisement()[..15], "fe80::1", 255), None);
        let mut with_code = advertisement();
        with_code[1] = 1;
        assert_eq!(read(&with_code, "fe80::1", 255), None);
        assert_eq!(read(&solicitation(), "::", 255), Some(Message::Solicitation));
    }
}
