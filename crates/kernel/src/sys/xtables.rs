//! How `iptables-legacy` reads a table: two socket options, of which the first tells how long the answer of the second is.
#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_void},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use russet_net::Family;
use rustix::net::{AddressFamily, SocketType, socket};

/// Reads the rules of a table, as they lie in the kernel. A table that is not in use yet is *made* by this, so ask
/// for one that is (`/proc/net/ip_tables_names`).
///
/// # Errors
///
/// When we may not (`EPERM`), or the kernel has no such tables.
pub fn read_table(family: Family, table: &str) -> io::Result<Vec<u8>> {
    let (domain, level) = match family {
        Family::V4 => (AddressFamily::INET, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::INET6, libc::IPPROTO_IPV6),
    };
    let socket = socket(domain, SocketType::DGRAM, None)?;
    let mut info = vec![0; INFO_LEN];
    write_name(&mut info, table)?;
    get(socket.as_fd(), level, GET_INFO, &mut info)?;
    let len = info.last_chunk().map_or(0, |octets| u32::from_ne_bytes(*octets));
    let len = usize::try_from(len).unwrap_or_default().min(MOST);
    let mut entries = vec![0; ENTRIES_HEAD + len];
    write_name(&mut entries, table)?;
    let said = u32::try_from(len).unwrap_or_default().to_ne_bytes();
    entries.iter_mut().skip(NAME_LEN).zip(said).for_each(|(to, from)| *to = from);
    get(socket.as_fd(), level, GET_ENTRIES, &mut entries)?;
    Ok(entries.split_off(ENTRIES_HEAD))
}

/// A name has its end within its field.
fn write_name(buffer: &mut [u8], name: &str) -> io::Result<()> {
    if name.len() >= NAME_LEN {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    buffer.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    Ok(())
}

fn get(fd: BorrowedFd<'_>, level: c_int, option: c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut len = libc::socklen_t::try_from(buffer.len()).unwrap_or_default();
    // SAFETY: `buffer` is live and exclusively ours for the length of the call, and `len` is not more than its size,
    // which the kernel does not write beyond; any octets are a valid `[u8]`. The descriptor is open, because it is
    // borrowed.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: c_int = 64;
/// `IPT_SO_GET_ENTRIES` and `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: c_int = 65;
/// `XT_TABLE_MAXNAMELEN`
const NAME_LEN: usize = 32;
/// `struct ipt_getinfo`: the name, twelve numbers, and the size of the entries.
const INFO_LEN: usize = NAME_LEN + 12 * 4 + 4;
/// `struct ipt_get_entries`: the name and the size, and then the entries, aligned to 8.
const ENTRIES_HEAD: usize = NAME_LEN + 8;
/// More rules than anybody has.
const MOST: usize = 64 * 1_024 * 1_024;
