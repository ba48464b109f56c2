//! The messages that make, change and remove a link.

use russet_desired::{LinkKind, LinkSpec, VxlanSpec};
use russet_net::{IfName, Mac};

use super::{
    observed::{ALIAS_PREFIX, GROUP, Links},
    plan::Aspect,
};
use crate::netlink::{Batch, NetlinkError, Writer, flags, rt};

/// Writes the making of a link: up, in our group. Its alias, which the kernel does not take here, and its
/// master follow with [`alter`], because the bridge may be made in the same batch.
pub(super) fn create(
    batch: &mut Batch,
    name: IfName,
    wanted: &LinkSpec,
    links: &Links,
) -> Result<(), NetlinkError> {
    let underlay = match wanted.kind {
        LinkKind::Vxlan(spec) => links.need("add link", name, spec.underlay)?,
        LinkKind::Bridge
        | LinkKind::Ipip(_)
        | LinkKind::Tun
        | LinkKind::Wireguard
        | LinkKind::PodVeth => 0,
    };
    if wanted.kind == LinkKind::Tun {
        mark(batch, name, wanted);
        return Ok(());
    }
    let header = rt::link_header(0, rt::IFF_UP, rt::IFF_UP);
    let mut message = batch.push(rt::RTM_NEWLINK, flags::CREATE | flags::EXCL, &header);
    message.str(rt::IFLA_IFNAME, name.as_str()).u32(rt::IFLA_GROUP, GROUP);
    if wanted.kind != LinkKind::Bridge {
        message.u32(rt::IFLA_MTU, wanted.mtu.get());
    }
    if let Some(mac) = wanted.mac {
        message.bytes(rt::IFLA_ADDRESS, &mac.octets());
    }
    message.nest(rt::IFLA_LINKINFO, |info| match &wanted.kind {
        LinkKind::Bridge => {
            info.str(rt::IFLA_INFO_KIND, "bridge");
        }
        LinkKind::Vxlan(spec) => {
            info.str(rt::IFLA_INFO_KIND, "vxlan");
            info.nest(rt::IFLA_INFO_DATA, |data| vxlan(data, spec, underlay));
        }
        LinkKind::Wireguard => {
            info.str(rt::IFLA_INFO_KIND, "wireguard");
        }
        LinkKind::Ipip(spec) => {
            info.str(rt::IFLA_INFO_KIND, "ipip");
            info.nest(rt::IFLA_INFO_DATA, |data| {
                if let Some(local) = spec.local {
                    data.ip(rt::IFLA_IPTUN_LOCAL, local.into());
                }
            });
        }
        // Never made here: the plan refuses the one, a control call has made the other.
        LinkKind::PodVeth | LinkKind::Tun => {}
    });
    Ok(())
}

/// Writes into our group, and up, what a control call has just made.
fn mark(batch: &mut Batch, name: IfName, wanted: &LinkSpec) {
    let header = rt::link_header(0, rt::IFF_UP, rt::IFF_UP);
    let mut message = batch.push(rt::RTM_SETLINK, 0, &header);
    message
        .str(rt::IFLA_IFNAME, name.as_str())
        .u32(rt::IFLA_GROUP, GROUP)
        .u32(rt::IFLA_MTU, wanted.mtu.get());
}

/// As flannel makes it: UDP checksums on, the kernel's range of source ports, TTL by the route.
fn vxlan(data: &mut Writer<'_>, spec: &VxlanSpec, underlay: u32) {
    let local = match spec.local {
        std::net::IpAddr::V4(_) => rt::IFLA_VXLAN_LOCAL,
        std::net::IpAddr::V6(_) => rt::IFLA_VXLAN_LOCAL6,
    };
    data.u32(rt::IFLA_VXLAN_ID, spec.vni.get())
        .u32(rt::IFLA_VXLAN_LINK, underlay)
        .ip(local, spec.local)
        .u8(rt::IFLA_VXLAN_LEARNING, spec.learning.is_on().into())
        .u16_be(rt::IFLA_VXLAN_PORT, spec.port.get())
        .u8(rt::IFLA_VXLAN_UDP_CSUM, 1);
    if spec.gbp.is_on() {
        data.flag(rt::IFLA_VXLAN_GBP);
    }
}

/// Writes the change of a link, by its name.
pub(super) fn alter(
    batch: &mut Batch,
    name: IfName,
    wanted: &LinkSpec,
    what: &[Aspect],
    links: &Links,
) -> Result<(), NetlinkError> {
    let master = match wanted.master.filter(|_| what.contains(&Aspect::Master)) {
        Some(master) => links.need("set link", name, master)?,
        None => 0,
    };
    let up = if what.contains(&Aspect::Up) { rt::IFF_UP } else { 0 };
    let mut message = batch.push(rt::RTM_SETLINK, 0, &rt::link_header(0, up, up));
    message.str(rt::IFLA_IFNAME, name.as_str());
    for aspect in what {
        match aspect {
            Aspect::Alias => {
                let alias = format!("{ALIAS_PREFIX}{}", wanted.role);
                message.bytes(rt::IFLA_IFALIAS, alias.as_bytes()).u32(rt::IFLA_GROUP, GROUP);
            }
            Aspect::Mtu => {
                message.u32(rt::IFLA_MTU, wanted.mtu.get());
            }
            Aspect::Mac => {
                let mac = wanted.mac.unwrap_or(Mac::ZERO);
                message.bytes(rt::IFLA_ADDRESS, &mac.octets());
            }
            Aspect::Master => {
                message.u32(rt::IFLA_MASTER, master);
            }
            Aspect::Up => {}
        }
    }
    Ok(())
}

/// Writes the giving back of a link that the kernel itself has made: it cannot be removed, but it can be left.
pub(super) fn give_back(batch: &mut Batch, index: u32) {
    let mut message = batch.push(rt::RTM_SETLINK, 0, &rt::link_header(index, 0, rt::IFF_UP));
    message.u32(rt::IFLA_GROUP, 0).bytes(rt::IFLA_IFALIAS, &[]);
}

pub(super) fn remove(batch: &mut Batch, index: u32) {
    batch.push(rt::RTM_DELLINK, 0, &rt::link_header(index, 0, 0));
}
