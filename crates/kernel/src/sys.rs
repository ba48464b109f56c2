//! The system calls that no safe crate wraps. The only unsafe code of the workspace is here and in the folder
//! beside it: `sys/tun` has the calls of a TUN device, `sys/datagram` those of UDP with segmentation offload, `sys/arrival`
//! what a datagram arrived with, `sys/ethtool` what a link leaves to the hardware, `sys/text` what of the program is mapped,
//! `sys/xtables` those by which `iptables-legacy` reads.
#![allow(unsafe_code)]

pub mod arrival;
pub mod datagram;
pub mod ethtool;
pub mod text;
pub mod tun;
pub mod xtables;

use std::{
    ffi::{c_int, c_void},
    io, mem,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Sets an option of level `SOL_NETLINK` whose value is a number.
///
/// # Errors
///
/// When the kernel does not know the option or refuses the value.
pub fn set_netlink_option(fd: BorrowedFd<'_>, option: c_int, value: c_int) -> io::Result<()> {
    set_number(fd, libc::SOL_NETLINK, option, value)
}

/// Sets a socket option whose value is a number.
fn set_number(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let len = mem::size_of::<c_int>();
    // SAFETY: `value` is a live `c_int` for the length of the call and `len` is its size; the descriptor
    // is open, because it is borrowed.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast::<c_void>(),
            libc::socklen_t::try_from(len).unwrap_or_default(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling thread, and no other, into a fresh network namespace.
///
/// # Errors
///
/// When we may not (`EPERM`), or the kernel has no memory.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: only `UnshareFlags::FILES` can harm another thread, and it is not among the flags.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?)
}

/// Lets a netlink socket pass over the messages that a request from `port` caused.
///
/// # Errors
///
/// When the kernel refuses the filter.
pub fn pass_over_port(fd: BorrowedFd<'_>, port: u32) -> io::Result<()> {
    // The filter loads in network order what lies in memory in the host's.
    let wanted = u32::from_be_bytes(port.to_ne_bytes());
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NLMSG_PID_AT),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, wanted)
        },
        statement(libc::BPF_RET | libc::BPF_K, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ];
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_mut_ptr(),
    };
    let len = mem::size_of::<libc::sock_fprog>();
    // SAFETY: `filter` is a live `sock_fprog` of size `len`, and its pointer leads to `program`, which lives
    // through the call and has as many statements as it says; the kernel copies them. The descriptor is
    // open, because it is borrowed.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast::<c_void>(),
            libc::socklen_t::try_from(len).unwrap_or_default(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt: 0, jf: 0, k }
}

/// Where `nlmsghdr` has `nlmsg_pid`.
const NLMSG_PID_AT: u32 = 12;

/// Binds a packet socket to the link with this index: from then on it gets every packet of that link, in
/// either direction (packet(7)). The socket is to be made with protocol 0, so that none came before.
///
/// # Errors
///
/// When the link is gone, or the descriptor is no packet socket.
pub fn bind_packet_socket(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let number = |wide: c_int| u16::try_from(wide).unwrap_or_default();
    // SAFETY: `sockaddr_ll` is made of numbers and arrays of numbers, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = number(libc::AF_PACKET);
    address.sll_protocol = number(libc::ETH_P_ALL).to_be();
    address.sll_ifindex = ifindex.cast_signed();
    let len = mem::size_of::<libc::sockaddr_ll>();
    // SAFETY: `address` is a live `sockaddr_ll` for the length of the call and `len` is its size; the
    // descriptor is open, because it is borrowed.
    let done = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast::<libc::sockaddr>(),
            libc::socklen_t::try_from(len).unwrap_or_default(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has all threads allocate from one heap. glibc gives each thread one of its own otherwise, and a process of a
/// dozen threads that are mostly asleep pays for them with memory that it never needs. Call it before the
/// first thread.
pub fn share_one_heap() {
    // SAFETY: `mallopt` only sets a number of the allocator, and no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives memory that was freed back to the kernel. glibc keeps it for the next allocation, which a process that
/// allocates only when it is told something may never make.
pub fn give_memory_back() {
    // SAFETY: it only looks for free pages in the allocator's heap, under the allocator's own lock.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has TCP sign what passes between this socket and the peers in a prefix (RFC 2385), and drop what is not signed
/// so. On a listener it may be called for many prefixes. An empty key takes the signature away.
///
/// # Errors
///
/// When the key is longer than 80 octets, the kernel has no signatures, or there was no key to take away
/// (`ENOENT`).
pub fn set_tcp_signature(fd: BorrowedFd<'_>, peer: IpAddr, len: u8, key: &[u8]) -> io::Result<()> {
    let mut value = TcpSignature {
        peer: socket_address(peer),
        flags: TCP_MD5SIG_FLAG_PREFIX,
        len,
        key_len: u16::try_from(key.len()).unwrap_or(u16::MAX),
        ifindex: 0,
        key: [0; 80],
    };
    let place = value.key.get_mut(..key.len());
    place.ok_or(io::Error::from(io::ErrorKind::InvalidInput))?.copy_from_slice(key);
    set_option(fd, (libc::IPPROTO_TCP, TCP_MD5SIG_EXT), &value)
}

/// Has the kernel drop what arrives with fewer hops left than this (RFC 5082).
///
/// # Errors
///
/// When the socket is not one of the peer's family.
pub fn set_least_hops(fd: BorrowedFd<'_>, peer: IpAddr, hops: u8) -> io::Result<()> {
    let option = match peer {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
    };
    set_option(fd, option, &c_int::from(hops))
}

/// `struct tcp_md5sig` (linux/tcp.h).
#[repr(C)]
struct TcpSignature {
    peer: libc::sockaddr_storage,
    flags: u8,
    len: u8,
    key_len: u16,
    ifindex: c_int,
    key: [u8; 80],
}

/// An address without a port in the form that fits every family.
fn socket_address(addr: IpAddr) -> libc::sockaddr_storage {
    // SAFETY: `sockaddr_storage` is made of numbers and arrays of numbers, for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let at = (&raw mut storage).cast::<u8>();
    let family = |family: c_int| libc::sa_family_t::try_from(family).unwrap_or_default();
    match addr {
        IpAddr::V4(addr) => {
            storage.ss_family = family(libc::AF_INET);
            // SAFETY: `sockaddr_storage` has 128 octets; those of the address in `sockaddr_in` are 4 to 7.
            unsafe { at.add(4).copy_from_nonoverlapping(addr.octets().as_ptr(), 4) };
        }
        IpAddr::V6(addr) => {
            storage.ss_family = family(libc::AF_INET6);
            // SAFETY: as above; those of the address in `sockaddr_in6` are 8 to 23.
            unsafe { at.add(8).copy_from_nonoverlapping(addr.octets().as_ptr(), 16) };
        }
    }
    storage
}

/// Sets an option, named by level and number, whose value the kernel reads as a whole.
fn set_option<T>(fd: BorrowedFd<'_>, (level, option): (c_int, c_int), value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>();
    // SAFETY: `value` is a live `T` for the length of the call and `len` is its size; the kernel only reads it.
    // The descriptor is open, because it is borrowed.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast::<c_void>(),
            libc::socklen_t::try_from(len).unwrap_or_default(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// linux/tcp.h: with a prefix and more.
const TCP_MD5SIG_EXT: c_int = 32;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
/// linux/in6.h.
const IPV6_MINHOPCOUNT: c_int = 73;
