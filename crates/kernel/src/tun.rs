//! TUN devices: one queue of one, with virtio headers.
//!
//! A device is made without a life of its own and given one only when it bears our mark ([`Tun::persist`]): whoever
//! dies in between leaves nothing behind. Afterwards it outlives every queue. The kernel takes a device's
//! carrier away, and with it all next hops behind it, when its last queue goes; a queue that is held apart
//! ([`Tun::anchor`]) carries no packet and keeps the carrier.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use russet_net::IfName;
use rustix::fs::{Mode, OFlags};

use crate::sys::tun as sys;

/// One queue of a device.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
}

/// What a reader of the device takes off the kernel's hands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offload {
    /// Whole packets, each with its checksum.
    #[default]
    None,
    /// Checksums are left to the reader.
    Checksum,
    /// TCP comes in one piece, to be cut by the reader.
    Tcp,
    /// UDP does too (since Linux 6.2).
    TcpUdp,
}

impl Tun {
    /// Makes the device, which goes again with this unless [`Self::persist`] is called.
    ///
    /// # Errors
    ///
    /// When there is no `/dev/net/tun`, we may not, or the name is another kind of link's.
    pub fn create(name: IfName) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(DEVICE, flags, Mode::empty())?;
        sys::set_interface(fd.as_fd(), name, FLAGS)?;
        Ok(Self { fd })
    }

    /// Opens one more queue of a device that is there.
    ///
    /// # Errors
    ///
    /// As [`Self::create`], and `ENODEV` when it is not there.
    pub fn open(name: IfName) -> io::Result<Self> {
        // The kernel would make it, and nobody would know whose it is.
        let tun = Self::create(name)?;
        if sys::is_persistent(tun.fd.as_fd())? {
            Ok(tun)
        } else {
            Err(rustix::io::Errno::NODEV.into())
        }
    }

    /// A queue that came from another process.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Has the device outlive its queues.
    ///
    /// # Errors
    ///
    /// When the device is gone.
    pub fn persist(&self) -> io::Result<()> {
        sys::set_persistent(self.fd.as_fd())
    }

    /// Opens a queue that carries no packet. To be called before other queues carry some: for a moment the
    /// kernel counts it among them.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn anchor(name: IfName) -> io::Result<Self> {
        let anchor = Self::open(name)?;
        sys::set_queue(anchor.fd.as_fd(), sys::IFF_DETACH_QUEUE)?;
        Ok(anchor)
    }

    /// Asks for as much of `wanted` as the kernel has, and tells what that is. It holds for the whole device.
    ///
    /// # Errors
    ///
    /// When the kernel refuses even to do all by itself.
    pub fn offload(&self, wanted: Offload) -> io::Result<Offload> {
        let falling = [Offload::TcpUdp, Offload::Tcp, Offload::Checksum, Offload::None];
        let mut last = Ok(Offload::None);
        for offload in falling.into_iter().skip_while(|offload| *offload > wanted) {
            last = sys::set_offload(self.fd.as_fd(), offload.bits()).map(|()| offload);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Reads one packet behind its virtio header.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there is none, `EBADFD` when the device is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, buffer)?)
    }

    /// Writes one packet behind its virtio header.
    ///
    /// # Errors
    ///
    /// `EIO` when the device is down, `EINVAL` when the header does not fit the packet.
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.fd, packet)?)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Offload {
    const fn bits(self) -> u32 {
        let tcp = sys::TUN_F_CSUM | sys::TUN_F_TSO4 | sys::TUN_F_TSO6;
        match self {
            Self::None => 0,
            Self::Checksum => sys::TUN_F_CSUM,
            Self::Tcp => tcp,
            Self::TcpUdp => tcp | sys::TUN_F_USO4 | sys::TUN_F_USO6,
        }
    }
}

const DEVICE: &str = "/dev/net/tun";
const FLAGS: i32 = sys::IFF_TUN | sys::IFF_NO_PI | sys::IFF_VNET_HDR | sys::IFF_MULTI_QUEUE;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Namespace;

    #[test]
    fn a_device_goes_with_its_maker_until_it_is_given_a_life_of_its_own() {
        in_namespace(|| {
            drop(Tun::create(name()).unwrap());
            assert!(!exists(), "it was not persistent");
            assert!(Tun::open(name()).is_err());
            assert!(!exists(), "opening makes nothing");
            Tun::create(name()).unwrap().persist().unwrap();
            assert!(exists());
        });
    }

    #[test]
    fn an_anchor_keeps_the_carrier_when_the_last_queue_goes() {
        in_namespace(|| {
            Tun::create(name()).unwrap().persist().unwrap();
            assert_eq!(carrier(), "0", "nobody is there");
            let anchor = Tun::anchor(name()).unwrap();
            let queue = Tun::open(name()).unwrap();
            assert_eq!(carrier(), "1");
            drop(queue);
            assert_eq!(carrier(), "1");
            drop(anchor);
            assert_eq!(carrier(), "0");
        });
    }

    #[test]
    fn this_kernel_leaves_the_cutting_of_tcp_and_udp_to_the_reader() {
        in_namespace(|| {
            let tun = Tun::create(name()).unwrap();
            assert_eq!(tun.offload(Offload::None).unwrap(), Offload::None);
            assert_eq!(tun.offload(Offload::Tcp).unwrap(), Offload::Tcp);
            assert_eq!(tun.offload(Offload::TcpUdp).unwrap(), Offload::TcpUdp);
        });
    }

    fn in_namespace(work: impl FnOnce() + Send) {
        Namespace::create().unwrap().run(work).unwrap();
    }

    fn name() -> IfName {
        "rst.test".parse().unwrap()
    }

    fn exists() -> bool {
        std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("rst.test")
    }

    /// `/sys` shows the namespace that it was mounted in, so the flags are asked of the kernel.
    fn carrier() -> &'static str {
        let mut host = crate::Host::open().unwrap();
        let index = host.links.index(name()).unwrap();
        let mut batch = crate::netlink::Batch::new();
        let header = crate::netlink::rt::link_header(
            index,
            crate::netlink::rt::IFF_UP,
            crate::netlink::rt::IFF_UP,
        );
        batch.push(crate::netlink::rt::RTM_SETLINK, 0, &header);
        host.socket.batch(&mut batch).unwrap();
        host.links.refresh(&mut host.socket).unwrap();
        let up = host.links.by_name(name()).unwrap().carrier.is_on();
        if up { "1" } else { "0" }
    }
}
