//! Every object of a namespace that Russet could have made, as text, so that two moments can be compared.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use russet_kernel::netlink::Message;

use super::{
    Rtnl,
    wire::{
        AF_BRIDGE, AF_INET, IFA_LOCAL, IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, IFLA_MTU, NDA_DST,
        NDA_LLADDR, NHA_GATEWAY, RTA_DST, RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH, RTM_GETNEXTHOP,
        RTM_GETROUTE,
    },
};

/// An object in words that outlive the number of its link; each kind is sorted.
pub type Objects = Vec<String>;

/// Lists links, addresses, next hops, routes, permanent neighbours and FDB entries.
pub fn list(rtnl: &mut Rtnl) -> Result<Objects> {
    let links = rtnl.list(RTM_GETLINK, &[0; 16], |message| Some(Link::read(message)))?;
    let names: Names = links.iter().map(|link| (link.index, link.name.clone())).collect();
    let mut all: Objects = links.iter().map(|link| link.show(&names)).collect();
    all.extend(rtnl.list(RTM_GETADDR, &[AF_INET, 0, 0, 0, 0, 0, 0, 0], |message| {
        let link = name(&names, message.u32(4));
        let addr = message.attrs(8).find(IFA_LOCAL)?.ip()?;
        Some(format!("address {addr}/{} dev {link}", message.u8(1)))
    })?);
    all.extend(rtnl.list(RTM_GETNEXTHOP, &[0; 8], |message| {
        let attrs = message.attrs(8);
        let gateway = attrs.clone().find(NHA_GATEWAY)?.ip()?;
        let link = name(&names, attrs.find(5)?.u32());
        Some(format!("next hop {gateway} dev {link} flags {:x}", message.u32(4) & RTNH_F_ONLINK))
    })?);
    all.extend(rtnl.list(RTM_GETROUTE, &of_family(AF_INET), |message| route(message, &names))?);
    for family in [AF_INET, AF_BRIDGE] {
        all.extend(rtnl.list(RTM_GETNEIGH, &of_family(family), |message| entry(message, &names))?);
    }
    all.sort();
    Ok(all)
}

type Names = BTreeMap<u32, String>;

struct Link {
    index: u32,
    name: String,
    mac: String,
    mtu: u32,
    up: bool,
    master: Option<u32>,
}

impl Link {
    fn read(message: Message<'_>) -> Self {
        let attrs = message.attrs(16);
        let find = |kind| attrs.clone().find(kind);
        Self {
            index: message.u32(4),
            name: find(IFLA_IFNAME).map(|attr| attr.str().to_owned()).unwrap_or_default(),
            mac: find(IFLA_ADDRESS).map(|attr| format!("{:02x?}", attr.value)).unwrap_or_default(),
            mtu: find(IFLA_MTU).map(|attr| attr.u32()).unwrap_or_default(),
            up: message.u32(8) & IFF_UP != 0,
            master: find(IFLA_MASTER).map(|attr| attr.u32()),
        }
    }

    fn show(&self, names: &Names) -> String {
        let Self { name: own, mac, mtu, up, .. } = self;
        let master = self.master.map_or("none", |index| name(names, index));
        format!("link {own} {mac} mtu {mtu} up {up} master {master}")
    }
}

fn route(message: Message<'_>, names: &Names) -> Option<String> {
    let attrs = message.attrs(12);
    let dst = attrs.clone().find(RTA_DST).and_then(|attr| attr.ip());
    let via = attrs.clone().find(5).and_then(|attr| attr.ip());
    let link = name(names, attrs.find(4)?.u32());
    // A route whose link has no carrier is there but not used.
    let flags = message.u32(8) & (RTNH_F_ONLINK | RTNH_F_LINKDOWN | RTNH_F_DEAD);
    let table = message.u8(4);
    Some(format!(
        "route {}/{} via {} dev {link} table {table} flags {flags:x}",
        show(dst),
        message.u8(1),
        show(via)
    ))
}

/// A permanent neighbour, or an FDB entry with a remote end.
fn entry(message: Message<'_>, names: &Names) -> Option<String> {
    let attrs = message.attrs(12);
    let (family, link) = (message.u8(0), name(names, message.u32(4)));
    let ip = attrs.clone().find(NDA_DST)?.ip()?;
    let mac = attrs.find(NDA_LLADDR)?.value;
    let permanent = message.u16(8) & NUD_PERMANENT != 0;
    permanent.then(|| format!("entry of family {family}: {ip} {mac:02x?} dev {link}"))
}

fn name(names: &Names, index: u32) -> &str {
    names.get(&index).map_or("?", String::as_str)
}

fn show(ip: Option<IpAddr>) -> String {
    ip.map_or_else(|| "none".to_owned(), |ip| ip.to_string())
}

fn of_family(family: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed
}

const IFF_UP: u32 = 1;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;
const NUD_PERMANENT: u16 = 0x80;
