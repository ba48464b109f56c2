//! Datagrams with what the network says of them: the hops that they had left and the link that they came in by
//! (ip(7): `IP_RECVTTL`, `IP_PKTINFO`; RFC 3542 §6).

use std::{
    ffi::{c_int, c_void},
    io, mem,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::{datagram::Name, set_number, set_option};

/// One datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The sender; without a scope, which is the link's.
    pub from: SocketAddr,
    pub len: usize,
    /// TTL or hop limit; `None` where the kernel did not say.
    pub hops: Option<u8>,
    /// The index of the link; `None` where the kernel did not say.
    pub link: Option<u32>,
}

/// Has the kernel say of each datagram how many hops it had left and by which link it came.
///
/// # Errors
///
/// When the socket is none of that family.
pub fn tell_arrivals(fd: BorrowedFd<'_>, family_of: IpAddr) -> io::Result<()> {
    let options = match family_of {
        IpAddr::V4(_) => [libc::IP_RECVTTL, libc::IP_PKTINFO].map(|o| (libc::IPPROTO_IP, o)),
        IpAddr::V6(_) => {
            [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVPKTINFO].map(|o| (libc::IPPROTO_IPV6, o))
        }
    };
    options.into_iter().try_for_each(|(level, option)| set_number(fd, level, option, 1))
}

/// Has a raw socket of `ICMPv6` receive only messages of these types.
///
/// # Errors
///
/// When the socket is no such one.
pub fn receive_only(fd: BorrowedFd<'_>, types: &[u8]) -> io::Result<()> {
    // A bit that is set blocks its type (RFC 3542 §3.2).
    let mut filter = [u32::MAX; 8];
    for kind in types {
        filter[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    }
    set_option(fd, (libc::IPPROTO_ICMPV6, ICMPV6_FILTER), &filter)
}

/// Has a raw socket of `ICMP` receive only messages of these types, all below 32 (raw(7)).
///
/// # Errors
///
/// When the socket is no such one.
pub fn receive_only_v4(fd: BorrowedFd<'_>, types: &[u8]) -> io::Result<()> {
    let filter = types.iter().fold(u32::MAX, |filter, kind| filter & !(1 << (kind & 31)));
    set_option(fd, (libc::SOL_RAW, ICMP_FILTER), &filter)
}

/// Receives one datagram without waiting; what is longer than the buffer is cut off.
///
/// # Errors
///
/// `EAGAIN` when there is none.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Arrival> {
    let mut slice =
        libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    let mut control = Control([0; CONTROL]);
    // SAFETY: both are made of numbers, pointers and arrays of numbers, for which all zeroes is a value.
    let (mut header, mut name) = unsafe { (mem::zeroed::<libc::msghdr>(), mem::zeroed::<Name>()) };
    header.msg_name = (&raw mut name).cast::<c_void>();
    header.msg_namelen = libc::socklen_t::try_from(mem::size_of::<Name>()).unwrap_or_default();
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast::<c_void>();
    header.msg_controllen = CONTROL;
    // SAFETY: the header points to a name, a slice of `buffer` and a control buffer that all live through the
    // call, each with its length; the kernel writes no more than that. The descriptor is open, because it
    // is borrowed.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let from = name.get().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    let mut arrival = Arrival { from, len, hops: None, link: None };
    let written = control.0.get(..header.msg_controllen).unwrap_or_default();
    for (kind, value) in Messages(written) {
        arrival.note(kind, value);
    }
    Ok(arrival)
}

impl Arrival {
    /// Takes a control message: level and type, value.
    fn note(&mut self, kind: (c_int, c_int), value: &[u8]) {
        let number =
            |at: usize| value.get(at..)?.first_chunk().map(|octets| c_int::from_ne_bytes(*octets));
        match kind {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                self.hops = number(0).and_then(|hops| u8::try_from(hops).ok());
            }
            // `struct in_pktinfo` begins with the index, `struct in6_pktinfo` has it behind the address.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => self.set_link(number(0)),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                self.set_link(number(mem::size_of::<Ipv6Addr>()));
            }
            _ => {}
        }
    }

    fn set_link(&mut self, index: Option<c_int>) {
        self.link = index.and_then(|index| u32::try_from(index).ok()).filter(|index| *index > 0);
    }
}

/// The control messages in a buffer that the kernel has filled, each as cmsg(3) lays it out.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = ((c_int, c_int), &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.0.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let len = usize::from_ne_bytes(*len);
        let value = self.0.get(HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(((c_int::from_ne_bytes(*level), c_int::from_ne_bytes(*kind)), value))
    }
}

/// Room for the control messages of one datagram.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Two messages of at most 20 octets are all that is asked for.
const CONTROL: usize = 128;
/// `sizeof(struct cmsghdr)`: a length and two numbers.
const HEADER: usize = mem::size_of::<usize>() + 2 * mem::size_of::<c_int>();
const ALIGN: usize = mem::size_of::<usize>();
/// linux/icmpv6.h.
/// `linux/icmp.h`.
const ICMP_FILTER: c_int = 1;
const ICMPV6_FILTER: c_int = 1;

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_datagram_comes_with_its_hops_and_its_link() {
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let (ours, theirs) =
                (UdpSocket::bind((ip, 0)).unwrap(), UdpSocket::bind((ip, 0)).unwrap());
            match ip {
                IpAddr::V4(_) => ours.set_ttl(37).unwrap(),
                IpAddr::V6(_) => {
                    rustix::net::sockopt::set_ipv6_unicast_hops(&ours, Some(37)).unwrap();
                }
            }
            let mut buffer = [0; 16];
            // The control: a socket that was not asked to says nothing.
            ours.send_to(b"one", theirs.local_addr().unwrap()).unwrap();
            let got = receive(theirs.as_fd(), &mut buffer).unwrap();
            assert_eq!((got.len, got.hops, got.link), (3, None, None));

            tell_arrivals(theirs.as_fd(), ip).unwrap();
            ours.send_to(b"four", theirs.local_addr().unwrap()).unwrap();
            let got = receive(theirs.as_fd(), &mut buffer).unwrap();
            assert_eq!((&buffer[..got.len], got.hops), (&b"four"[..], Some(37)));
            // The loopback is the first link of every namespace.
            assert_eq!((got.from, got.link), (ours.local_addr().unwrap(), Some(1)));
        }
    }

    #[test]
    fn control_messages_that_are_cut_off_are_no_messages() {
        let whole = [
            &24_usize.to_ne_bytes()[..],
            &libc::IPPROTO_IP.to_ne_bytes(),
            &libc::IP_TTL.to_ne_bytes(),
            &255_i32.to_ne_bytes(),
            &[0; 4],
        ]
        .concat();
        assert_eq!(Messages(&whole).count(), 1);
        for len in 0..20 {
            assert_eq!(Messages(&whole[..len]).count(), 0, "{len}");
        }
        let endless = 0_usize.to_ne_bytes().repeat(4);
        assert_eq!(Messages(&endless).count(), 0);
    }
}
