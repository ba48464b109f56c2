//! What is particular to our links as ports of a bridge.
//!
//! Nobody owns a port's settings: they are only required, and left as they are when no longer wanted.

use std::collections::BTreeMap;

use russet_desired::{Flag, Port, PortSpec, Table};
use russet_net::IfName;

use crate::{
    Host, KernelError,
    batch::{Tolerate, send_each},
    link::ObservedLink,
    netlink::{
        Message,
        rt::{self, LINK_HEADER_LEN},
    },
    reconcile::{Change, Driver, Events, Refused, Seen},
};

/// Keeps the settings of bridge ports.
#[derive(Debug, Default)]
pub struct PortDriver;

impl Driver<Port> for PortDriver {
    type Context = Host;
    type Actual = PortSpec;
    const EVENTS: Events = Events::Hint;

    /// What the links' listing says of them.
    fn list_owned(
        &mut self,
        host: &mut Host,
        desired: &Table<Port>,
    ) -> Result<BTreeMap<IfName, PortSpec>, KernelError> {
        host.links.refresh_if_old(&mut host.socket)?;
        let of = |name: &IfName| host.links.by_name(*name).and_then(spec_of);
        Ok(desired.keys().filter_map(|name| Some((*name, of(name)?))).collect())
    }

    fn is_met(&self, _: &Host, _: &IfName, wanted: &PortSpec, actual: &PortSpec) -> bool {
        wanted == actual
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<Port, PortSpec>],
    ) -> Vec<Refused<Port>> {
        let Host { socket, links, .. } = host;
        let items = changes.iter().map(|change| (change.key, change.wanted.hairpin));
        send_each::<Port, _>(socket, SET, Tolerate::Nothing, items, |batch, name, hairpin| {
            let index = links.need_ours(SET, name, *name)?;
            let mut header = rt::link_header(index, 0, 0);
            header[0] = rt::AF_BRIDGE;
            batch.push(rt::RTM_SETLINK, 0, &header).nest(rt::IFLA_PROTINFO, |port| {
                port.u8(rt::IFLA_BRPORT_MODE, hairpin.is_on().into());
            });
            Ok(())
        })
    }

    fn remove(&mut self, _: &mut Host, _: &[IfName]) -> Vec<Refused<Port>> {
        Vec::new()
    }

    fn settled(&self, _: &Host, _: &IfName, wanted: &PortSpec) -> Option<PortSpec> {
        Some(*wanted)
    }

    fn decode(&self, host: &Host, message: &Message<'_>) -> Option<Seen<Port, PortSpec>> {
        match (message.kind, message.u8(0)) {
            (rt::RTM_NEWLINK, rt::AF_UNSPEC) => {
                let link = ObservedLink::parse(message).filter(ObservedLink::is_ours)?;
                Some(match spec_of(&link) {
                    Some(spec) => Seen::Ours(link.name, spec),
                    None => Seen::Gone(link.name),
                })
            }
            (rt::RTM_NEWLINK, rt::AF_BRIDGE) => {
                let name = host.links.by_index(message.u32(4)).filter(|link| link.is_ours())?.name;
                let port = message.attrs(LINK_HEADER_LEN).find(rt::IFLA_PROTINFO)?;
                let mode = port.attrs().find(rt::IFLA_BRPORT_MODE)?;
                Some(Seen::Ours(name, PortSpec { hairpin: Flag::from(mode.u8() != 0) }))
            }
            (rt::RTM_DELLINK, _) => ObservedLink::parse(message).map(|link| Seen::Gone(link.name)),
            _ => None,
        }
    }
}

fn spec_of(link: &ObservedLink) -> Option<PortSpec> {
    link.hairpin.map(|hairpin| PortSpec { hairpin })
}

const SET: &str = "set bridge port";
