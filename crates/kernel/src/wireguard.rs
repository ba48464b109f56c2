//! The kernel's own WireGuard: its devices' keys and ports, and their peers.
//!
//! A link of type `wireguard` is made as every link; all else of it goes by a protocol of its own, generic netlink's
//! family `wireguard`. The kernel tells of no change there, so what somebody else changes is found by the next
//! read-back. `wire` has the words, `device` keeps key and port, `peer` the peers.

mod device;
mod peer;
mod wire;

use self::wire::Device;
pub use self::{
    device::{DeviceActual, WireguardDeviceDriver, read_secret},
    peer::{PeerActual, WireguardPeerDriver},
};
use crate::{
    KernelError,
    link::{Links, ObservedKind},
    netlink::{Batch, NetlinkError, Protocol, Socket},
};

/// Whether this kernel has WireGuard; asking for it has the kernel load its module, where there is one.
pub fn is_spoken() -> bool {
    Talk::open().is_ok()
}

/// The socket of one network namespace, opened when there is something to say.
#[derive(Debug, Default)]
pub struct Generic {
    talk: Option<Talk>,
}

/// A socket and the number that the family has on this kernel.
#[derive(Debug)]
struct Talk {
    socket: Socket,
    family: u16,
}

impl Talk {
    fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(Protocol::Generic)?;
        let mut request = Batch::new();
        wire::ask_family(&mut request);
        let mut family = None;
        socket.request_with_reply(
            "find netlink family",
            wire::FAMILY,
            &mut request,
            |message| {
                family = wire::family_of(&message).or(family);
            },
        )?;
        let missing = || NetlinkError::missing("find netlink family", wire::FAMILY, "its number");
        family.map(|family| Self { socket, family }).ok_or_else(missing)
    }
}

impl Generic {
    fn talk(&mut self) -> Result<&mut Talk, NetlinkError> {
        if self.talk.is_none() {
            self.talk = Some(Talk::open()?);
        }
        // Just put there.
        self.talk.as_mut().ok_or_else(|| NetlinkError::missing("speak", wire::FAMILY, "a socket"))
    }

    /// Every WireGuard device of ours, as the kernel has it.
    fn devices(&mut self, links: &Links) -> Result<Vec<Device>, KernelError> {
        let ours = links
            .iter()
            .filter(|link| link.is_ours() && link.kind == ObservedKind::Wireguard)
            .map(|link| (link.index, link.name));
        let mut devices = Vec::new();
        for (index, name) in ours {
            let talk = self.talk()?;
            let mut request = Batch::new();
            wire::ask_device(&mut request, talk.family, index);
            let found = talk.socket.dump("WireGuard device", &mut request, Device::take);
            match found {
                Ok(device) => devices.push(Device { link: Some(name), ..device }),
                // It has gone since the links were listed.
                Err(err) if err.is_not_found() => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(devices)
    }
}
