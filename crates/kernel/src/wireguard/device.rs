//! The key and the port of a WireGuard link of ours.
//!
//! The private key goes from the node's file to the kernel and nowhere else. Whether it is the right one is told by the
//! public key that the kernel makes of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use russet_desired::{Table, WireguardDevice, WireguardDeviceSpec};
use russet_net::{IfName, PresharedKey, PublicKey};

use super::wire;
use crate::{
    Host, KernelError,
    batch::{Tolerate, send_each},
    netlink::{Message, NetlinkError},
    reconcile::{Change, Driver, Events, Refused, Seen, refuse_all},
};

/// Keeps keys and ports.
#[derive(Debug)]
pub struct WireguardDeviceDriver {
    /// Where the node's key is kept.
    file: Option<PathBuf>,
}

/// What the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceActual {
    /// `None` before it has got one.
    pub key: Option<PublicKey>,
    pub port: u16,
}

impl DeviceActual {
    fn meets(self, wanted: &WireguardDeviceSpec) -> bool {
        self == Self { key: Some(wanted.key), port: wanted.port.get() }
    }
}

impl WireguardDeviceDriver {
    /// Without a file there is no key, and no device gets one.
    pub const fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    fn secret(&self) -> Result<PresharedKey, KernelError> {
        let path = self.file.as_deref().unwrap_or(Path::new("the node's key"));
        let read = File::open(path).and_then(read_secret);
        read.map_err(|err| KernelError::file("read", path.display(), &err))
    }
}

/// Reads a private key, as `wg genkey` writes it; it has the form of every other key, and like a preshared one it is never
/// shown.
///
/// # Errors
///
/// When the file cannot be read, or holds something else. What it holds is never told.
pub fn read_secret(file: File) -> io::Result<PresharedKey> {
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    text.trim().parse().map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

impl Driver<WireguardDevice> for WireguardDeviceDriver {
    type Context = Host;
    type Actual = DeviceActual;
    const EVENTS: Events = Events::Hint;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _: &Table<WireguardDevice>,
    ) -> Result<BTreeMap<IfName, DeviceActual>, KernelError> {
        let devices = host.wireguard.devices(&host.links)?.into_iter();
        let row = |device: wire::Device| {
            Some((device.link?, DeviceActual { key: device.key, port: device.port }))
        };
        Ok(devices.filter_map(row).collect())
    }

    fn is_met(
        &self,
        _: &Host,
        _: &IfName,
        wanted: &WireguardDeviceSpec,
        actual: &DeviceActual,
    ) -> bool {
        actual.meets(wanted)
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<WireguardDevice, DeviceActual>],
    ) -> Vec<Refused<WireguardDevice>> {
        let keys = || changes.iter().map(|change| change.key);
        let secret = match self.secret() {
            Ok(secret) => secret,
            Err(err) => return refuse_all::<WireguardDevice>(keys(), &err),
        };
        let Host { wireguard, links, .. } = host;
        let talk = match wireguard.talk() {
            Ok(talk) => talk,
            Err(err) => return refuse_all::<WireguardDevice>(keys(), &err.into()),
        };
        let family = talk.family;
        let items = changes.iter().map(|change| (change.key, change.wanted));
        let mut refused = send_each::<WireguardDevice, _>(
            &mut talk.socket,
            SET,
            Tolerate::Nothing,
            items,
            |batch, link, wanted| {
                let index = links.need_ours(SET, link, *link)?;
                wire::set_device(batch, family, index, &secret, wanted.port.get());
                Ok(())
            },
        );
        if refused.is_empty() {
            refused = self.look_again(host, changes);
        }
        refused
    }

    /// It goes with its link.
    fn remove(&mut self, _: &mut Host, _: &[IfName]) -> Vec<Refused<WireguardDevice>> {
        Vec::new()
    }

    fn settled(&self, _: &Host, _: &IfName, wanted: &WireguardDeviceSpec) -> Option<DeviceActual> {
        Some(DeviceActual { key: Some(wanted.key), port: wanted.port.get() })
    }

    fn decode(&self, _: &Host, _: &Message<'_>) -> Option<Seen<WireguardDevice, DeviceActual>> {
        None
    }
}

impl WireguardDeviceDriver {
    /// A key that is not the one that our lease says would be set again and again.
    fn look_again(
        &mut self,
        host: &mut Host,
        changes: &[Change<WireguardDevice, DeviceActual>],
    ) -> Vec<Refused<WireguardDevice>> {
        let Ok(actual) = self.list_owned(host, &Table::<WireguardDevice>::new()) else {
            return Vec::new();
        };
        let other = |change: &&Change<WireguardDevice, DeviceActual>| {
            actual.get(&change.key).is_some_and(|actual| actual.key != Some(change.wanted.key))
        };
        let refuse = |change: &Change<WireguardDevice, DeviceActual>| {
            let subject = change.key.to_string();
            let err = NetlinkError::Impossible { op: SET, subject, reason: OTHER_KEY };
            (change.key, err.into())
        };
        changes.iter().filter(other).map(refuse).collect()
    }
}

const SET: &str = "set WireGuard device";
const OTHER_KEY: &str =
    "the key on disk is not the one that this node began with; restart the agent";
/// Octets of the file at most.
const MOST: u64 = 100;
