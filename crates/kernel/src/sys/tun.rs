//! The calls of a TUN device (tun(4), `Documentation/networking/tuntap.rst`).

use std::{
    ffi::{c_char, c_int, c_uint, c_ulong, c_void},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
};

use russet_net::IfName;

/// Flags of a device or of one of its queues.
pub const IFF_TUN: c_int = libc::IFF_TUN;
pub const IFF_NO_PI: c_int = libc::IFF_NO_PI;
pub const IFF_VNET_HDR: c_int = libc::IFF_VNET_HDR;
pub const IFF_MULTI_QUEUE: c_int = libc::IFF_MULTI_QUEUE;
pub const IFF_ATTACH_QUEUE: c_int = libc::IFF_ATTACH_QUEUE;
pub const IFF_DETACH_QUEUE: c_int = libc::IFF_DETACH_QUEUE;
/// What the reader of a device takes without being told the details.
pub const TUN_F_CSUM: c_uint = libc::TUN_F_CSUM;
pub const TUN_F_TSO4: c_uint = libc::TUN_F_TSO4;
pub const TUN_F_TSO6: c_uint = libc::TUN_F_TSO6;
pub const TUN_F_USO4: c_uint = libc::TUN_F_USO4;
pub const TUN_F_USO6: c_uint = libc::TUN_F_USO6;

/// Makes the descriptor a queue of the device of this name, which is made when there is none (`TUNSETIFF`).
///
/// # Errors
///
/// When we may not (`EPERM`), the name is another kind's, or its flags differ (`EINVAL`).
pub fn set_interface(fd: BorrowedFd<'_>, name: IfName, flags: c_int) -> io::Result<()> {
    let mut request = request(flags);
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    control(fd, libc::TUNSETIFF, (&raw mut request).cast())
}

/// Takes the queue out of those that the device sends by, or puts it back (`TUNSETQUEUE`).
///
/// # Errors
///
/// When the device has one queue only, or is gone.
pub fn set_queue(fd: BorrowedFd<'_>, flags: c_int) -> io::Result<()> {
    let mut request = request(flags);
    control(fd, libc::TUNSETQUEUE, (&raw mut request).cast())
}

/// Has the device outlive its last queue (`TUNSETPERSIST`).
///
/// # Errors
///
/// When the device is gone.
pub fn set_persistent(fd: BorrowedFd<'_>) -> io::Result<()> {
    value(fd, libc::TUNSETPERSIST, 1)
}

/// Tells whether the queue's device outlives its last queue (`TUNGETIFF`).
///
/// # Errors
///
/// When the device is gone.
pub fn is_persistent(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut request = request(0);
    control(fd, libc::TUNGETIFF, (&raw mut request).cast())?;
    // SAFETY: the kernel has written the flags, and any 16 bits are a number.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags) & libc::IFF_PERSIST != 0)
}

/// Says what the reader takes: `TUN_F_…` (`TUNSETOFFLOAD`).
///
/// # Errors
///
/// When the kernel does not know one of them (`EINVAL`).
pub fn set_offload(fd: BorrowedFd<'_>, offload: c_uint) -> io::Result<()> {
    value(fd, libc::TUNSETOFFLOAD, offload.into())
}

fn request(flags: c_int) -> libc::ifreq {
    // SAFETY: `ifreq` is made of numbers, pointers and arrays of numbers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_ifru.ifru_flags =
        i16::from_ne_bytes(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    request
}

/// A control call that takes a number in the place of a pointer.
fn value(fd: BorrowedFd<'_>, op: libc::Ioctl, value: c_ulong) -> io::Result<()> {
    // SAFETY: the operations that come here take their argument by value; nothing is read or written
    // behind it. The descriptor is open, because it is borrowed.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), op, value) })
}

/// A control call that reads and writes an `ifreq`.
fn control(fd: BorrowedFd<'_>, op: libc::Ioctl, request: *mut c_void) -> io::Result<()> {
    // SAFETY: the operations that come here take a pointer to an `ifreq`, and the callers above give one to
    // a live value of theirs. The descriptor is open, because it is borrowed.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), op, request) })
}

fn done(returned: c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
