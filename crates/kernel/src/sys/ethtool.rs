//! What a link leaves to the hardware (`SIOCETHTOOL`, `linux/ethtool.h`).

use std::{
    ffi::{c_char, c_int},
    io, mem,
    os::fd::{AsFd, AsRawFd},
};

use russet_net::IfName;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Tells whether checksums of what the link sends are left to a later link.
///
/// # Errors
///
/// When there is no such link (`ENODEV`), or its kind knows nothing of it (`EOPNOTSUPP`).
pub fn tx_checksum(link: IfName) -> io::Result<bool> {
    ask(link, ETHTOOL_GTXCSUM, 0).map(|value| value != 0)
}

/// Sets it.
///
/// # Errors
///
/// As [`tx_checksum`]; `EPERM` when we may not.
pub fn set_tx_checksum(link: IfName, on: bool) -> io::Result<()> {
    ask(link, ETHTOOL_STXCSUM, on.into()).map(drop)
}

fn ask(link: IfName, command: u32, data: u32) -> io::Result<u32> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    let mut value = Value { command, data };
    // SAFETY: `ifreq` is made of numbers, pointers and arrays of numbers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(link.as_str().bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the two commands that come here read and write an `ethtool_value`, which `value` is laid out
    // as, and it lives through the call, as does `request`. The descriptor is open.
    let done: c_int =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;
