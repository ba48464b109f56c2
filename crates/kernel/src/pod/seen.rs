//! What the kernel has of a pod, and how it differs from what it should be.

use std::{collections::BTreeSet, net::IpAddr};

use russet_net::{IfName, Mac};

use super::{PodLink, message, numbers};
use crate::{
    link::{GROUP, REAP_GROUP},
    netlink::{
        Batch, Message, NetlinkError, Socket,
        rt::{self, LINK_HEADER_LEN},
    },
};

/// One link, as far as this lane looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenLink {
    pub(super) index: u32,
    pub(super) name: IfName,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) group: u32,
    pub(super) kind: String,
    up: bool,
    master: Option<u32>,
    /// A veth's other end: its index in its own namespace.
    peer: Option<u32>,
}

impl SeenLink {
    pub(super) fn parse(message: &Message<'_>) -> Option<Self> {
        let attrs = || message.attrs(LINK_HEADER_LEN);
        let number = |kind| attrs().find(kind).map(|attr| attr.u32());
        let info = attrs().find(rt::IFLA_LINKINFO);
        let kind = info.and_then(|info| info.attrs().find(rt::IFLA_INFO_KIND));
        Some(Self {
            index: message.u32(4),
            name: attrs().find(rt::IFLA_IFNAME)?.str().parse().ok()?,
            mac: attrs().find(rt::IFLA_ADDRESS).and_then(|attr| Mac::try_from(attr.value).ok()),
            mtu: number(rt::IFLA_MTU).unwrap_or_default(),
            group: number(rt::IFLA_GROUP).unwrap_or_default(),
            kind: kind.map(|attr| attr.str()).unwrap_or_default().to_owned(),
            up: message.u32(8) & rt::IFF_UP != 0,
            master: number(rt::IFLA_MASTER),
            peer: number(numbers::IFLA_LINK),
        })
    }

    /// Whether it is the host's end of one of our pods.
    pub(super) fn is_pod_link(&self) -> bool {
        self.kind == "veth" && [GROUP, REAP_GROUP].contains(&self.group)
    }
}

/// Compares the two ends and the bridge.
pub(super) fn compare_ends(
    want: &PodLink,
    bridge: Option<&SeenLink>,
    host: Option<&SeenLink>,
    inside: Option<&SeenLink>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expect = |met: bool, fault: String| {
        if !met {
            faults.push(fault);
        }
    };
    match host {
        None => expect(false, format!("host link {} is gone", want.host)),
        Some(host) => {
            expect(
                host.is_pod_link() && host.group == GROUP,
                format!("host link {} is not ours", want.host),
            );
            expect(host.up, format!("host link {} is down", want.host));
            let on_bridge = bridge.is_some_and(|bridge| host.master == Some(bridge.index));
            match want.bridge() {
                Some(bridge) => {
                    expect(on_bridge, format!("host link {} is no port of {bridge}", want.host));
                }
                None => expect(
                    host.master.is_none(),
                    format!("host link {} is a port of a bridge", want.host),
                ),
            }
        }
    }
    match inside {
        None => expect(false, format!("interface {} is gone", want.name)),
        Some(inside) => {
            expect(inside.up, format!("interface {} is down", want.name));
            let joined = host.is_some_and(|host| are_ends(host, inside));
            expect(
                joined,
                format!("interface {} is not the other end of {}", want.name, want.host),
            );
        }
    }
    faults
}

fn are_ends(one: &SeenLink, other: &SeenLink) -> bool {
    one.peer == Some(other.index) && other.peer == Some(one.index)
}

/// Compares addresses and default routes.
pub(super) fn compare_inside(
    want: &PodLink,
    addresses: &BTreeSet<(IpAddr, u8)>,
    gateways: &BTreeSet<IpAddr>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for one in &want.addresses {
        if !addresses.contains(&(one.addr, one.len)) {
            faults.push(format!("interface {} has no address {}/{}", want.name, one.addr, one.len));
        }
        // Of several interfaces the first has the default route, so only a route through none is a fault.
        if gateways.is_empty() || !gateways.iter().any(|via| via.is_ipv4() == one.gateway.is_ipv4())
        {
            faults.push(format!("the pod has no default route via {}", one.gateway));
        }
    }
    faults
}

/// The addresses of a link.
pub(super) fn addresses(
    socket: &mut Socket,
    index: u32,
) -> Result<BTreeSet<(IpAddr, u8)>, NetlinkError> {
    let mut request = Batch::new();
    message::list_addresses(&mut request);
    socket.dump("pod addresses", &mut request, |found: &mut BTreeSet<_>, message| {
        let attrs = || message.attrs(rt::ADDR_HEADER_LEN);
        let addr = attrs().find(rt::IFA_LOCAL).or_else(|| attrs().find(rt::IFA_ADDRESS));
        if let Some(addr) = addr.and_then(|attr| attr.ip()).filter(|_| message.u32(4) == index) {
            found.insert((addr, message.u8(1)));
        }
    })
}

/// The gateways of all default routes; those of other interfaces count too.
pub(super) fn gateways(socket: &mut Socket) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut request = Batch::new();
    message::list_routes(&mut request);
    socket.dump("pod routes", &mut request, |found: &mut BTreeSet<_>, message| {
        let is_default = message.u8(1) == 0 && message.u8(4) == message::TABLE_MAIN;
        let via =
            message.attrs(rt::ROUTE_HEADER_LEN).find(rt::RTA_GATEWAY).and_then(|attr| attr.ip());
        found.extend(via.filter(|_| is_default));
    })
}
