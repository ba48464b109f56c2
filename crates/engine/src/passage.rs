//! What an engine passes on to the one before it: datagrams that are sealed for sessions which only that one has.
//!
//! ```text
//!   0        1         3      5         21
//!   ┌────────┬─────────┬──────┬─────────┬──────────────────────┐
//!   │ family │ segment │ port │ address │ datagrams of one     │   one message of a SOCK_SEQPACKET pair
//!   │ 4, 6   │ or 0    │      │         │ sender, as they came │
//!   └────────┴─────────┴──────┴─────────┴──────────────────────┘
//! ```
//!
//! What does not fit is dropped: whoever passes on never waits, so that nothing that is sent to the one can hold up the
//! other.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use russet_kernel::sys::datagram::{self, Incoming};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// One end.
#[derive(Debug)]
pub struct Passage {
    fd: OwnedFd,
    closed: AtomicBool,
}

impl Passage {
    /// Both ends.
    ///
    /// # Errors
    ///
    /// When no descriptor is to be had.
    pub fn pair() -> io::Result<[Self; 2]> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok([one, other].map(Self::from_fd))
    }

    /// An end that came from another process.
    pub fn from_fd(fd: OwnedFd) -> Self {
        // A sender's buffer bounds what is under way.
        datagram::set_buffers(fd.as_fd(), BUFFER);
        Self { fd, closed: AtomicBool::new(false) }
    }

    /// Whether somebody may still be at the other end.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Relaxed)
    }

    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Passes on what one sender sent, several datagrams of one length or only one.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there is no room, and what the socket says when nobody is there any more.
    pub fn pass(&self, from: SocketAddr, segment: Option<u16>, octets: &[u8]) -> io::Result<()> {
        let header = header(from, segment);
        let slices = [IoSlice::new(&header), IoSlice::new(octets)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.fd, &slices, &mut SendAncillaryBuffer::default(), flags) {
            Ok(_) => Ok(()),
            Err(errno) => {
                if errno != rustix::io::Errno::AGAIN {
                    self.close();
                }
                Err(errno.into())
            }
        }
    }

    /// Takes what was passed on, without waiting.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there is nothing, and the end of the file when there never will be.
    pub fn take(&self, buffer: &mut [u8]) -> io::Result<Incoming> {
        let mut header = [0; HEADER];
        let mut slices = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
        let flags = RecvFlags::DONTWAIT;
        let got = recvmsg(&self.fd, &mut slices, &mut RecvAncillaryBuffer::default(), flags)?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = got.bytes.checked_sub(HEADER).ok_or(io::ErrorKind::InvalidData)?;
        let (from, segment) = parse(&header).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Incoming { from, len, segment, truncated: got.flags.contains(ReturnFlags::TRUNC) })
    }
}

impl AsFd for Passage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn header(from: SocketAddr, segment: Option<u16>) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[1..3].copy_from_slice(&segment.unwrap_or_default().to_be_bytes());
    header[3..5].copy_from_slice(&from.port().to_be_bytes());
    match from.ip() {
        IpAddr::V4(ip) => {
            header[0] = 4;
            header[5..9].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            header[0] = 6;
            header[5..].copy_from_slice(&ip.octets());
        }
    }
    header
}

fn parse(header: &[u8; HEADER]) -> Option<(SocketAddr, Option<u16>)> {
    let [family, s0, s1, p0, p1, address @ ..] = *header;
    let ip: IpAddr = match family {
        4 => Ipv4Addr::from(*address.first_chunk::<4>()?).into(),
        6 => Ipv6Addr::from(address).into(),
        _ => return None,
    };
    let segment = Some(u16::from_be_bytes([s0, s1])).filter(|segment| *segment > 0);
    Some((SocketAddr::new(ip, u16::from_be_bytes([p0, p1])), segment))
}

const HEADER: usize = 21;
/// Octets that may be under way: as many as a socket's buffer holds.
const BUFFER: i32 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_comes_out_with_its_sender() {
        let [one, other] = Passage::pair().unwrap();
        let mut buffer = vec![0; 65_536];
        let train = vec![7; 60_000];
        for (from, segment, octets) in [
            ("192.168.77.1:51820", None, &b"x"[..]),
            ("[fd77::1]:9", Some(1_452), &train[..]),
            ("192.168.77.1:51820", None, &[][..]),
        ] {
            let from = from.parse().unwrap();
            one.pass(from, segment, octets).unwrap();
            let got = other.take(&mut buffer).unwrap();
            assert_eq!((got.from, got.segment, got.truncated), (from, segment, false));
            assert_eq!(&buffer[..got.len], octets);
        }
        assert_eq!(other.take(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        one.pass(([10, 0, 0, 1], 1).into(), None, &train).unwrap();
        assert!(other.take(&mut buffer[..9]).unwrap().truncated);
    }

    #[test]
    fn whoever_passes_on_never_waits_and_notices_when_nobody_is_there() {
        let [one, other] = Passage::pair().unwrap();
        let from = ([10, 0, 0, 1], 1).into();
        let mut passed = 0_usize;
        let refused = loop {
            match one.pass(from, None, &[0; 1_000]) {
                Ok(()) => passed += 1,
                Err(err) => break err,
            }
            assert!(passed < 100_000, "it has no bound");
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(one.is_open());
        // With room again it goes on.
        for _ in 0..passed {
            other.take(&mut [0; 1_000]).unwrap();
        }
        one.pass(from, None, &[0; 1_000]).unwrap();

        drop(other);
        assert!(one.pass(from, None, b"x").is_err());
        assert!(!one.is_open());
    }

    #[test]
    fn octets_of_no_form_are_refused() {
        let [one, other] = Passage::pair().unwrap();
        for octets in [&[4; 7][..], &[5; 40], &[0; HEADER]] {
            rustix::net::send(&one.fd, octets, SendFlags::empty()).unwrap();
            let err = other.take(&mut [0; 100]).unwrap_err();
            assert_eq!(err.kind(), io::ErrorKind::InvalidData);
        }
        drop(one);
        assert_eq!(other.take(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
