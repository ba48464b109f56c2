//! What our links leave to the hardware.
//!
//! Nobody owns these settings: they are only required, and left as they are when no longer wanted.

use std::collections::BTreeMap;

use russet_desired::{Flag, Offload, OffloadSpec, Table};
use russet_net::IfName;

use crate::{
    Host, KernelError,
    link::ObservedLink,
    netlink::{Message, rt},
    reconcile::{Change, Driver, Events, Refused, Seen},
    sys::ethtool,
};

/// Keeps what links of ours leave to the hardware.
#[derive(Debug, Default)]
pub struct OffloadDriver;

impl Driver<Offload> for OffloadDriver {
    type Context = Host;
    type Actual = OffloadSpec;
    const EVENTS: Events = Events::Hint;

    fn list_owned(
        &mut self,
        host: &mut Host,
        desired: &Table<Offload>,
    ) -> Result<BTreeMap<IfName, OffloadSpec>, KernelError> {
        host.links.refresh_if_old(&mut host.socket)?;
        let ours = |name: &&IfName| host.links.by_name(**name).is_some_and(ObservedLink::is_ours);
        Ok(desired.keys().filter(ours).filter_map(|name| Some((*name, read(*name)?))).collect())
    }

    fn is_met(&self, _: &Host, _: &IfName, wanted: &OffloadSpec, actual: &OffloadSpec) -> bool {
        wanted == actual
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<Offload, OffloadSpec>],
    ) -> Vec<Refused<Offload>> {
        let mut refused = Vec::new();
        for change in changes {
            let done = host.links.need_ours(SET, change.key, change.key).map_err(KernelError::from);
            let set = |_| {
                let result =
                    ethtool::set_tx_checksum(change.key, change.wanted.tx_checksum.is_on());
                result.map_err(|err| KernelError::file(SET, change.key, &err))
            };
            if let Err(err) = done.and_then(set) {
                refused.push((change.key, err));
            }
        }
        refused
    }

    fn remove(&mut self, _: &mut Host, _: &[IfName]) -> Vec<Refused<Offload>> {
        Vec::new()
    }

    fn settled(&self, _: &Host, key: &IfName, _: &OffloadSpec) -> Option<OffloadSpec> {
        read(*key)
    }

    /// The kernel tells that a link's features changed, and not which: a hint to look.
    fn decode(&self, _: &Host, message: &Message<'_>) -> Option<Seen<Offload, OffloadSpec>> {
        let of_link = matches!(message.kind, rt::RTM_NEWLINK | rt::RTM_DELLINK);
        of_link.then(|| ObservedLink::parse(message)).flatten().map(|link| Seen::Gone(link.name))
    }
}

fn read(link: IfName) -> Option<OffloadSpec> {
    let on = ethtool::tx_checksum(link).ok()?;
    Some(OffloadSpec { tx_checksum: Flag::from(on) })
}

const SET: &str = "set offload of";
