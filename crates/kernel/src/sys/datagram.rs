//! UDP with segmentation offload (udp(7): `UDP_SEGMENT`, `UDP_GRO`), many messages to a call.
//!
//! Nothing in here allocates: what the kernel is shown lies on the stack for the length of the call.

use std::{
    ffi::{c_int, c_void},
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
};

use super::set_number;

/// How many messages [`send`] takes at once.
pub const MOST_MESSAGES: usize = 32;

/// One message: datagrams of one length one after the other, the last of which may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub to: SocketAddr,
    pub octets: &'a [u8],
    /// The length of a datagram; `None` when there is only one.
    pub segment: Option<u16>,
}

impl Outgoing<'_> {
    /// No message: to fill an array with.
    pub const NOTHING: Self = Self {
        to: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        octets: &[],
        segment: None,
    };
}

/// What one call received.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    pub from: SocketAddr,
    pub len: usize,
    /// The length of each datagram but the last, when there is more than one.
    pub segment: Option<u16>,
    /// Whether the buffer was too small for it.
    pub truncated: bool,
}

/// Lets the kernel hand over datagrams of one length together.
///
/// # Errors
///
/// When the kernel cannot (before Linux 5.0).
pub fn set_receive_offload(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_number(fd, libc::SOL_UDP, libc::UDP_GRO, on.into())
}

/// Tells whether the kernel can cut datagrams (since Linux 4.18).
pub fn has_send_offload(fd: BorrowedFd<'_>) -> bool {
    set_number(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Never lets the kernel send a packet in fragments: what is larger than the path is refused.
///
/// # Errors
///
/// When the socket is none of the family.
pub fn forbid_fragments(fd: BorrowedFd<'_>, of: IpAddr) -> io::Result<()> {
    match of {
        IpAddr::V4(_) => {
            set_number(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
        }
        IpAddr::V6(_) => {
            set_number(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
        }
    }
}

/// Never lets the kernel send a packet in fragments, whatever it has been told of the path: what is too large gets lost
/// on its way.
///
/// # Errors
///
/// When the socket is none of the family.
pub fn probe_path(fd: BorrowedFd<'_>, of: IpAddr) -> io::Result<()> {
    match of {
        IpAddr::V4(_) => {
            set_number(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
        }
        IpAddr::V6(_) => {
            set_number(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
            set_number(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        }
    }
}

/// Asks for buffers of this many octets, past the system's bound where we may.
pub fn set_buffers(fd: BorrowedFd<'_>, octets: c_int) {
    for (force, polite) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Without the right to more, what the system allows will do.
        let _ = set_number(fd, libc::SOL_SOCKET, force, octets)
            .or_else(|_| set_number(fd, libc::SOL_SOCKET, polite, octets));
    }
}

/// The largest packet that the path of a connected socket carries, its IP header included.
///
/// # Errors
///
/// When the socket is not connected.
pub fn path_mtu(fd: BorrowedFd<'_>, of: IpAddr) -> io::Result<u32> {
    let (level, option) = match of {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut value: c_int = 0;
    let mut len = length_of::<c_int>();
    // SAFETY: `value` is a live `c_int` and `len` says its size; the kernel writes no more than that. The
    // descriptor is open, because it is borrowed.
    let done = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(value).unwrap_or_default())
}

/// Sends up to [`MOST_MESSAGES`] messages without waiting, and tells how many went. An error is the first
/// message's; when some went, the error comes with the next call.
///
/// # Errors
///
/// `EAGAIN` when the socket's buffer is full, `EMSGSIZE` when a datagram is larger than the path, `EIO` when
/// the way out cannot cut datagrams.
pub fn send(fd: BorrowedFd<'_>, messages: &[Outgoing<'_>]) -> io::Result<usize> {
    // SAFETY: all three are made of numbers, pointers and arrays of numbers, for which all zeroes is a value.
    let (mut headers, mut names, mut slices) = unsafe {
        (
            mem::zeroed::<[libc::mmsghdr; MOST_MESSAGES]>(),
            mem::zeroed::<[Name; MOST_MESSAGES]>(),
            mem::zeroed::<[libc::iovec; MOST_MESSAGES]>(),
        )
    };
    let mut controls = [Control::default(); MOST_MESSAGES];
    let count = messages.len().min(MOST_MESSAGES);
    for (i, message) in messages.iter().take(count).enumerate() {
        slices[i].iov_base = message.octets.as_ptr().cast_mut().cast::<c_void>();
        slices[i].iov_len = message.octets.len();
        let header = &mut headers[i].msg_hdr;
        header.msg_namelen = names[i].set(message.to);
        header.msg_name = (&raw mut names[i]).cast::<c_void>();
        header.msg_iov = &raw mut slices[i];
        header.msg_iovlen = 1;
        if let Some(segment) = message.segment {
            controls[i].set_segment(segment);
            header.msg_control = (&raw mut controls[i]).cast::<c_void>();
            header.msg_controllen = CONTROL_SEGMENT;
        }
    }
    let count = u32::try_from(count).unwrap_or_default();
    // SAFETY: the first `count` headers point to names, slices, controls and octets that all live through the
    // call, each with its length; the kernel only reads them, and writes `msg_len`. The descriptor is open,
    // because it is borrowed.
    let sent =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives datagrams of one sender without waiting.
///
/// # Errors
///
/// `EAGAIN` when there is none.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Incoming> {
    let mut slice =
        libc::iovec { iov_base: buffer.as_mut_ptr().cast::<c_void>(), iov_len: buffer.len() };
    let mut control = Control::default();
    // SAFETY: both are made of numbers, pointers and arrays of numbers, for which all zeroes is a value.
    let (mut header, mut name) = unsafe { (mem::zeroed::<libc::msghdr>(), mem::zeroed::<Name>()) };
    header.msg_name = (&raw mut name).cast::<c_void>();
    header.msg_namelen = length_of::<Name>();
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast::<c_void>();
    header.msg_controllen = mem::size_of::<Control>();
    // SAFETY: the header points to a name, a slice of `buffer` and a control buffer that all live through the
    // call, each with its length; the kernel writes no more than that. The descriptor is open, because it
    // is borrowed.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let from = name.get().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    Ok(Incoming {
        from,
        len,
        segment: control.segment(header.msg_controllen),
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// A socket address of either family.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    fn set(&mut self, to: SocketAddr) -> libc::socklen_t {
        // SAFETY: both addresses are made of numbers, for which all zeroes is a value.
        let (mut v4, mut v6) =
            unsafe { (mem::zeroed::<libc::sockaddr_in>(), mem::zeroed::<libc::sockaddr_in6>()) };
        match to {
            SocketAddr::V4(to) => {
                v4.sin_family = family(libc::AF_INET);
                v4.sin_port = to.port().to_be();
                v4.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
                self.v4 = v4;
                length_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(to) => {
                v6.sin6_family = family(libc::AF_INET6);
                v6.sin6_port = to.port().to_be();
                v6.sin6_addr.s6_addr = to.ip().octets();
                v6.sin6_scope_id = to.scope_id();
                self.v6 = v6;
                length_of::<libc::sockaddr_in6>()
            }
        }
    }

    pub(super) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: the union was zeroed before the kernel wrote an address into it, so every octet of both
        // variants is set, and numbers may have any value. The family stands in the same place in both.
        let (v4, v6) = unsafe { (self.v4, self.v6) };
        if v4.sin_family == family(libc::AF_INET) {
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            return Some((ip, u16::from_be(v4.sin_port)).into());
        }
        if v6.sin6_family == family(libc::AF_INET6) {
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            return Some((ip, u16::from_be(v6.sin6_port)).into());
        }
        None
    }
}

/// Room for one control message with a segment's length, as cmsg(3) lays it out: the header, then the value.
/// Sent, it is 16 bits (`UDP_SEGMENT`); received, it is an `int` (`UDP_GRO`).
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    value: [u8; 8],
}

/// `CMSG_SPACE(sizeof(u16))`.
const CONTROL_SEGMENT: usize = HEADER + 8;
/// `sizeof(struct cmsghdr)`: a length and two numbers.
const HEADER: usize = mem::size_of::<usize>() + 2 * mem::size_of::<c_int>();

impl Control {
    fn set_segment(&mut self, segment: u16) {
        self.len = HEADER + mem::size_of::<u16>();
        self.level = libc::SOL_UDP;
        self.kind = libc::UDP_SEGMENT;
        self.value[..2].copy_from_slice(&segment.to_ne_bytes());
    }

    fn segment(&self, written: usize) -> Option<u16> {
        let there = written >= HEADER + 4 && self.len >= HEADER + 4;
        if !there || (self.level, self.kind) != (libc::SOL_UDP, libc::UDP_GRO) {
            return None;
        }
        let [a, b, c, d, ..] = self.value;
        u16::try_from(c_int::from_ne_bytes([a, b, c, d])).ok().filter(|segment| *segment > 0)
    }
}

fn family(number: c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(number).unwrap_or_default()
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_train_of_datagrams_crosses_in_one_call_each_way() {
        for ip in ["127.0.0.1", "::1"] {
            let (ours, theirs) = (socket(ip), socket(ip));
            set_receive_offload(theirs.as_fd(), true).unwrap();
            assert!(has_send_offload(ours.as_fd()));
            let octets: Vec<u8> = (0..=255).cycle().take(4_500).collect();
            let to = theirs.local_addr().unwrap();
            let train = Outgoing { to, octets: &octets, segment: Some(1_000) };
            let lone = Outgoing { to, octets: &octets[..7], segment: None };
            assert_eq!(send(ours.as_fd(), &[train, lone]).unwrap(), 2);

            let mut buffer = vec![0; 65_536];
            let got = receive(theirs.as_fd(), &mut buffer).unwrap();
            assert_eq!((got.len, got.segment, got.truncated), (4_500, Some(1_000), false));
            assert_eq!(got.from, ours.local_addr().unwrap());
            assert_eq!(buffer[..4_500], octets);
            let got = receive(theirs.as_fd(), &mut buffer).unwrap();
            assert_eq!((got.len, got.segment), (7, None));
            let none = receive(theirs.as_fd(), &mut buffer).unwrap_err();
            assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_datagram_larger_than_the_path_is_refused_and_the_path_can_be_asked_for() {
        let (ours, theirs) = (socket("127.0.0.1"), socket("127.0.0.1"));
        let to = theirs.local_addr().unwrap();
        forbid_fragments(ours.as_fd(), to.ip()).unwrap();
        ours.connect(to).unwrap();
        let mtu = path_mtu(ours.as_fd(), to.ip()).unwrap();
        assert_eq!(mtu, 65_535);
        let octets = vec![0; 65_530];
        let err = send(ours.as_fd(), &[Outgoing { to, octets: &octets, segment: None }]);
        assert_eq!(err.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    }

    fn socket(ip: &str) -> UdpSocket {
        UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap()
    }
}
