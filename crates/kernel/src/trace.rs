//! Which way a packet would go now, asked of the kernel itself: route, neighbour, FDB entry, underlay route.
//!
//! Nothing is sent and nothing is changed. Each answer is the kernel's own (`RTM_GETROUTE` resolves as the
//! forwarding path does, policy rules included), so what is shown is what would happen, whoever set it.

use std::net::IpAddr;

use russet_net::{Family, IfIndex, IfName, Mac, Vni};

use crate::netlink::{Attr, Attrs, Batch, NetlinkError, Protocol, Socket};

/// One step of a packet on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// What is looked up.
    pub dst: IpAddr,
    /// The gateway, when there is one.
    pub via: Option<IpAddr>,
    /// Where the packet leaves.
    pub link: LinkView,
    /// Where the gateway (or the destination itself) is on that link, when the kernel knows it already.
    pub mac: Option<Mac>,
    /// The tunnel that the link puts the packet into.
    pub tunnel: Option<Tunnel>,
}

/// An encapsulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub vni: Vni,
    /// The VTEPs; the remote one is `None` when no FDB entry says where the MAC is.
    pub local: Option<IpAddr>,
    pub remote: Option<IpAddr>,
    /// Destination port (UDP).
    pub port: u16,
}

/// What a hop needs of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    pub index: IfIndex,
    pub name: IfName,
    pub mtu: u32,
    /// `vxlan`, `bridge`, `veth`; empty for hardware.
    pub kind: String,
    vxlan: Option<(Vni, Option<IpAddr>, u16)>,
}

/// Follows a packet from this node to `dst`: through a tunnel, its outer packet is followed as well. At
/// most [`MAX_HOPS`] steps.
///
/// # Errors
///
/// What the kernel says when there is no route: `ENETUNREACH`, `EHOSTUNREACH`.
pub fn trace(dst: IpAddr) -> Result<Vec<Hop>, NetlinkError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut hops = Vec::new();
    let mut next = Some(dst);
    while let Some(dst) = next.take().filter(|_| hops.len() < MAX_HOPS) {
        let hop = step(&mut socket, dst)?;
        next = hop.tunnel.and_then(|tunnel| tunnel.remote);
        hops.push(hop);
    }
    Ok(hops)
}

fn step(socket: &mut Socket, dst: IpAddr) -> Result<Hop, NetlinkError> {
    let route = route(socket, dst)?;
    let link = link(socket, route.link)?;
    let mac = neighbour(socket, route.link, route.via.unwrap_or(dst))?;
    let mut tunnel = None;
    if let Some((vni, local, port)) = link.vxlan {
        let remote = match mac {
            Some(mac) => fdb(socket, route.link, mac)?,
            None => None,
        };
        tunnel = Some(Tunnel { vni, local, remote, port });
    }
    Ok(Hop { dst, via: route.via, link, mac, tunnel })
}

struct Resolved {
    via: Option<IpAddr>,
    link: IfIndex,
}

fn route(socket: &mut Socket, dst: IpAddr) -> Result<Resolved, NetlinkError> {
    let family = Family::of(dst);
    let mut request = Batch::new();
    let mut header = [0; RTMSG_LEN];
    header[0] = af(family);
    header[1] = family.bits();
    request.push(libc::RTM_GETROUTE, 0, &header).ip(libc::RTA_DST, dst);
    let (mut via, mut index) = (None, None);
    socket.request_with_reply("look up route to", dst, &mut request, |reply| {
        let attrs = reply.attrs(RTMSG_LEN);
        let find = |kind| attrs.clone().find(kind);
        index = find(libc::RTA_OIF).and_then(|attr| IfIndex::new(attr.u32()));
        via = find(libc::RTA_GATEWAY)
            .and_then(|attr| attr.ip())
            .or_else(|| find(RTA_VIA).and_then(via_of));
    })?;
    let link = index.ok_or_else(|| NetlinkError::missing("look up route to", dst, "a device"))?;
    Ok(Resolved { via, link })
}

/// An IPv4 route's IPv6 gateway: `struct rtvia` is a family and the address.
fn via_of(attr: Attr<'_>) -> Option<IpAddr> {
    Attr { kind: attr.kind, value: attr.value.get(2..)? }.ip()
}

fn link(socket: &mut Socket, index: IfIndex) -> Result<LinkView, NetlinkError> {
    let mut request = Batch::new();
    let mut header = [0; IFINFO_LEN];
    header[4..8].copy_from_slice(&index.get().to_ne_bytes());
    request.push(libc::RTM_GETLINK, 0, &header);
    let mut view = None;
    socket.request_with_reply("look up link", index, &mut request, |reply| {
        view = link_view(index, &reply.attrs(IFINFO_LEN));
    })?;
    view.ok_or_else(|| NetlinkError::missing("look up link", index, "its name"))
}

fn link_view(index: IfIndex, attrs: &Attrs<'_>) -> Option<LinkView> {
    let find = |kind| attrs.clone().find(kind);
    let info = find(libc::IFLA_LINKINFO);
    let within = |kind| info.as_ref().and_then(|info| info.attrs().find(kind));
    let kind = within(IFLA_INFO_KIND).map(|attr| attr.str().to_owned()).unwrap_or_default();
    let vxlan =
        within(IFLA_INFO_DATA).filter(|_| kind == "vxlan").and_then(|data| vxlan_view(&data));
    Some(LinkView {
        index,
        name: find(libc::IFLA_IFNAME)?.str().parse().ok()?,
        mtu: find(libc::IFLA_MTU).map_or(0, |attr| attr.u32()),
        kind,
        vxlan,
    })
}

fn vxlan_view(data: &Attr<'_>) -> Option<(Vni, Option<IpAddr>, u16)> {
    let find = |kind| data.attrs().find(kind);
    let vni = Vni::try_from(find(IFLA_VXLAN_ID)?.u32()).ok()?;
    let local =
        find(IFLA_VXLAN_LOCAL).or_else(|| find(IFLA_VXLAN_LOCAL6)).and_then(|attr| attr.ip());
    Some((vni, local, find(IFLA_VXLAN_PORT).map_or(0, |attr| attr.u16_be())))
}

fn neighbour(socket: &mut Socket, link: IfIndex, ip: IpAddr) -> Result<Option<Mac>, NetlinkError> {
    let mut request = Batch::new();
    request.push(libc::RTM_GETNEIGH, 0, &ndmsg(af(Family::of(ip)), link, 0)).ip(libc::NDA_DST, ip);
    let mut mac = None;
    let asked = socket.request_with_reply("look up neighbour", ip, &mut request, |reply| {
        mac = reply
            .attrs(NDMSG_LEN)
            .find(libc::NDA_LLADDR)
            .and_then(|attr| Mac::try_from(attr.value).ok());
    });
    found(asked).map(|()| mac)
}

fn fdb(socket: &mut Socket, link: IfIndex, mac: Mac) -> Result<Option<IpAddr>, NetlinkError> {
    let mut request = Batch::new();
    let header = ndmsg(AF_BRIDGE, link, libc::NTF_SELF);
    request.push(libc::RTM_GETNEIGH, 0, &header).bytes(libc::NDA_LLADDR, &mac.octets());
    let mut remote = None;
    let asked = socket.request_with_reply("look up FDB entry", mac, &mut request, |reply| {
        remote = reply.attrs(NDMSG_LEN).find(libc::NDA_DST).and_then(|attr| attr.ip());
    });
    found(asked).map(|()| remote)
}

/// What is not there is an answer here, not an error.
fn found(asked: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match asked {
        Err(err) if !err.is_not_found() => Err(err),
        _ => Ok(()),
    }
}

fn ndmsg(family: u8, link: IfIndex, ntf: u8) -> [u8; NDMSG_LEN] {
    let mut header = [0; NDMSG_LEN];
    header[0] = family;
    header[4..8].copy_from_slice(&link.get().to_ne_bytes());
    header[10] = ntf;
    header
}

const fn af(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// The tunnel's packet is followed too; a tunnel in a tunnel in a tunnel is somebody's mistake.
pub const MAX_HOPS: usize = 4;
const RTMSG_LEN: usize = 12;
const IFINFO_LEN: usize = 16;
const NDMSG_LEN: usize = 12;
const AF_BRIDGE: u8 = 7;
const RTA_VIA: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
