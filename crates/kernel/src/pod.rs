//! The attach lane: a pod's veth, its ends and what is inside.
//!
//! ```text
//!      node                                    pod
//!   cni0 ── rst1a2b3c… ════════ veth ════════ eth0   10.50.7.9/24, default via 10.50.7.1
//!           rst1a2b3c… ════════ veth ════════ eth0   10.50.7.9/32, default via 169.254.1.1, whose MAC never changes
//! ```
//!
//! The veth is made in one message: both names and MAC addresses, MTU, link group, bridge if any, and the namespace
//! of its peer. Then the port's hairpin; then, through a socket that lives in the pod, `lo` and the peer up,
//! the addresses and the default routes, in two batches. If one step fails the veth goes, and with it all
//! that was done. What is inside is made once and only compared later ([`Lane::check`]).
//!
//! The alias is left to whoever keeps links: a link in our group without one is half made, which no sweep
//! takes, so a pod's link can never be swept before the calculation has heard of the pod.
//!
//! Removing a veth holds the kernel's lock for 16 to 24 ms, and a hundred of them in one message hardly
//! longer. So [`Lane::mark`] only moves a link into the group of what is to go, and
//! [`Lane::remove_marked`] removes them all.

mod message;
mod seen;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
};

use russet_desired::Flag;
use russet_net::{IfName, Mac, Mtu};

use self::seen::SeenLink;
use crate::{
    link::{GROUP, REAP_GROUP},
    netlink::{Batch, NetlinkError, Protocol, Socket},
};

/// What a pod's attachment should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// The host's end.
    pub host: IfName,
    pub host_mac: Mac,
    /// The pod's end.
    pub name: IfName,
    pub mac: Mac,
    pub mtu: Mtu,
    pub side: NodeSide,
    pub addresses: Vec<PodAddress>,
}

impl PodLink {
    pub const fn bridge(&self) -> Option<IfName> {
        match self.side {
            NodeSide::Bridge { bridge, .. } => Some(bridge),
            NodeSide::Routed { .. } => None,
        }
    }
}

/// What the host's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeSide {
    /// A port of a bridge that has the gateways' addresses.
    Bridge { bridge: IfName, hairpin: Flag },
    /// A link of its own. The gateways are nobody's addresses: the pod has them as neighbours for ever, with the host
    /// end's MAC, so that no packet waits for an answer that a node without a default route would not give. With
    /// `proxy_arp` it asks for the IPv4 gateway, as with Calico.
    Routed { proxy_arp: Flag },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodAddress {
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
    pub gateway: IpAddr,
}

/// Why a pod is not attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodError {
    /// The pod has an interface of that name, which is not of our making.
    #[error("interface {0} is there already, and not of our making")]
    Exists(IfName),
    /// The host has a link of the name that is the pod's; a DEL removes it if it is ours.
    #[error("host link {0} is there already; DEL the attachment first")]
    HostExists(IfName),
    #[error("bridge {0} is not there (yet)")]
    NoBridge(IfName),
    #[error("IPv6 is disabled in the pod's namespace")]
    Ipv6Disabled,
    #[error("attach pod")]
    Kernel(#[from] NetlinkError),
}

/// A pod's namespace as the plugin hands it over.
#[derive(Debug)]
pub struct Inside {
    netns: OwnedFd,
    socket: Socket,
}

impl Inside {
    /// `netlink` is a routing socket that was opened in `netns`.
    ///
    /// # Errors
    ///
    /// When it is no netlink socket.
    pub fn new(netns: OwnedFd, netlink: OwnedFd) -> Result<Self, NetlinkError> {
        Ok(Self { netns, socket: Socket::from_owned_fd(netlink)? })
    }

    /// Whether the pod has an interface of that name.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn has_link(&mut self, name: IfName) -> Result<bool, NetlinkError> {
        Ok(get_link(&mut self.socket, name)?.is_some())
    }
}

/// What stands on the host of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLink {
    pub mtu: Option<Mtu>,
    pub state: LinkState,
}

impl HostLink {
    fn of(link: &SeenLink) -> Self {
        let state = if link.group == GROUP { LinkState::InUse } else { LinkState::Marked };
        Self { mtu: Mtu::try_from(link.mtu).ok(), state }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    InUse,
    /// A DEL was served; the link is about to go.
    Marked,
}

/// Whether there was something to mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    Yes,
    /// The link is gone: its namespace was, or an earlier DEL removed it.
    Gone,
}

/// A routing socket on the node's side, for one thread.
#[derive(Debug)]
pub struct Lane {
    socket: Socket,
}

impl Lane {
    /// Opens a socket in the thread's network namespace.
    ///
    /// # Errors
    ///
    /// When there is none to be had.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// Attaches a pod, and returns the bridge's MAC address where there is one.
    ///
    /// # Errors
    ///
    /// When a step is refused. All steps before it are undone then.
    pub fn attach(&mut self, pod: &mut Inside, want: &PodLink) -> Result<Option<Mac>, PodError> {
        let bridge = want.bridge().map(|name| self.bridge(name)).transpose()?;
        let index = self.create(pod, want, bridge.as_ref().map(|bridge| bridge.index))?;
        let rest = self.set_port(want, index).and_then(|()| fit_out(&mut pod.socket, want));
        if let Err(err) = rest {
            // The error that is told is the first; this one would only hide it.
            let undone = self.remove_index(want.host, index);
            if let Err(error) = undone {
                tracing::warn!(link = %want.host, %error, "remove half-made pod link");
            }
            return Err(err);
        }
        Ok(bridge.and_then(|bridge| bridge.mac))
    }

    /// Compares an attachment with what it should be, and tells each difference. The pod's MAC address and
    /// MTU are not compared: chained plugins change them.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn check(&mut self, pod: &mut Inside, want: &PodLink) -> Result<Vec<String>, NetlinkError> {
        let bridge = want.bridge().map(|name| self.link(name)).transpose()?.flatten();
        let host = self.link(want.host)?;
        let inside = get_link(&mut pod.socket, want.name)?;
        let mut faults = seen::compare_ends(want, bridge.as_ref(), host.as_ref(), inside.as_ref());
        if let Some(inside) = inside {
            let addresses = seen::addresses(&mut pod.socket, inside.index)?;
            let gateways = seen::gateways(&mut pod.socket)?;
            faults.extend(seen::compare_inside(want, &addresses, &gateways));
        }
        Ok(faults)
    }

    /// Moves a pod's link into the group of what is to go. A link that is not ours is left alone.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn mark(&mut self, host: IfName) -> Result<Marked, NetlinkError> {
        let Some(link) = self.link(host)? else { return Ok(Marked::Gone) };
        if !link.is_pod_link() {
            return Err(NetlinkError::foreign("remove link", host, "somebody else"));
        }
        let mut batch = Batch::new();
        message::set_group(&mut batch, link.index, REAP_GROUP);
        match self.socket.request("mark link", host, &mut batch) {
            Ok(()) => Ok(Marked::Yes),
            Err(err) if err.is_not_found() => Ok(Marked::Gone),
            Err(err) => Err(err),
        }
    }

    /// Removes every marked link, in one message.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. That none is marked is no error.
    pub fn remove_marked(&mut self) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        message::remove_group(&mut batch, REAP_GROUP);
        match self.socket.request("remove links of group", REAP_GROUP, &mut batch) {
            Err(err) if !err.is_not_found() => Err(err),
            _ => Ok(()),
        }
    }

    /// The bridge's MAC address, where there is a bridge of that name.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn mac_of(&mut self, name: IfName) -> Result<Option<Mac>, NetlinkError> {
        Ok(self.link(name)?.and_then(|link| link.mac))
    }

    /// A pod's link.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub fn host_link(&mut self, name: IfName) -> Result<Option<HostLink>, NetlinkError> {
        Ok(self.link(name)?.filter(SeenLink::is_pod_link).map(|link| HostLink::of(&link)))
    }

    /// The pods' links: every veth in our group, and those that are marked.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listed.
    pub fn links(&mut self) -> Result<BTreeMap<IfName, HostLink>, NetlinkError> {
        let mut request = Batch::new();
        message::list_links(&mut request);
        self.socket.dump("pod links", &mut request, |links: &mut BTreeMap<_, _>, message| {
            let Some(link) = SeenLink::parse(&message).filter(SeenLink::is_pod_link) else {
                return;
            };
            links.insert(link.name, HostLink::of(&link));
        })
    }

    fn bridge(&mut self, name: IfName) -> Result<SeenLink, PodError> {
        let link = self.link(name)?.filter(|link| link.kind == "bridge");
        link.ok_or(PodError::NoBridge(name))
    }

    fn link(&mut self, name: IfName) -> Result<Option<SeenLink>, NetlinkError> {
        get_link(&mut self.socket, name)
    }

    /// Makes the veth, and returns the index of the host's end.
    fn create(
        &mut self,
        pod: &mut Inside,
        want: &PodLink,
        bridge: Option<u32>,
    ) -> Result<u32, PodError> {
        let mut batch = Batch::new();
        message::create(&mut batch, want, bridge, pod.netns.as_fd());
        let mut made = None;
        let result = self.socket.request_with_reply("add link", want.host, &mut batch, |message| {
            made = SeenLink::parse(&message).filter(|link| link.name == want.host);
        });
        match result {
            Err(err) if err.is_already_exists() => {
                let inside = get_link(&mut pod.socket, want.name)?;
                Err(match inside {
                    Some(_) => PodError::Exists(want.name),
                    None => PodError::HostExists(want.host),
                })
            }
            Err(err) => Err(err.into()),
            // Kernels before 6.1 do not echo what they made.
            Ok(()) => Ok(match made {
                Some(link) => link.index,
                None => self
                    .link(want.host)?
                    .map(|link| link.index)
                    .ok_or_else(|| NetlinkError::missing("add link", want.host, "the new link"))?,
            }),
        }
    }

    fn set_port(&mut self, want: &PodLink, index: u32) -> Result<(), PodError> {
        let NodeSide::Bridge { hairpin: Flag::On, .. } = want.side else { return Ok(()) };
        let mut batch = Batch::new();
        message::set_hairpin(&mut batch, index, Flag::On);
        Ok(self.socket.request("set bridge port", want.host, &mut batch)?)
    }

    fn remove_index(&mut self, name: IfName, index: u32) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        message::remove(&mut batch, index);
        match self.socket.request("remove link", name, &mut batch) {
            Err(err) if !err.is_not_found() => Err(err),
            _ => Ok(()),
        }
    }
}

/// Does what is to be done inside the pod.
fn fit_out(socket: &mut Socket, want: &PodLink) -> Result<(), PodError> {
    let mut first = Batch::new();
    message::lo_up(&mut first);
    message::up(&mut first, want.name);
    message::get_link(&mut first, want.name);
    let mut inside = None;
    socket.request_with_reply("set up link", want.name, &mut first, |message| {
        inside = SeenLink::parse(&message);
    })?;
    let inside = inside.ok_or_else(|| NetlinkError::missing("get link", want.name, "the link"))?;

    let mut batch = Batch::new();
    let mut steps = Vec::new();
    for address in &want.addresses {
        message::add_address(&mut batch, inside.index, address);
        steps.push(Step::Address(address.addr));
    }
    for gateway in want.addresses.iter().map(|address| address.gateway) {
        if let NodeSide::Routed { proxy_arp } = want.side {
            // Of IPv6 the gateway is the node's own address on the link, and still need not be asked for.
            if gateway.is_ipv6() || !proxy_arp.is_on() {
                message::add_neighbour(&mut batch, inside.index, gateway, want.host_mac);
                steps.push(Step::Neighbour(gateway));
            }
            message::add_link_route(&mut batch, inside.index, gateway);
            steps.push(Step::Gateway(gateway));
        }
        message::add_default_route(&mut batch, inside.index, gateway);
        steps.push(Step::Route(gateway));
    }
    let outcomes = socket.batch(&mut batch)?;
    let mut elsewhere = Vec::new();
    for (step, outcome) in steps.into_iter().zip(outcomes) {
        match (step, outcome) {
            (_, Ok(())) => {}
            // Its first interface leads to the gateway, and has the default route.
            (Step::Route(via), Err(_)) if elsewhere.contains(&via) => {}
            (step, Err(refusal)) => {
                step.refused(refusal)?;
                elsewhere.extend(step.gateway());
            }
        }
    }
    Ok(())
}

/// A message of the second batch, for what its refusal means.
#[derive(Clone, Copy, Debug)]
enum Step {
    Address(IpAddr),
    Neighbour(IpAddr),
    /// The way to a gateway that is in no prefix.
    Gateway(IpAddr),
    Route(IpAddr),
}

impl Step {
    const fn gateway(self) -> Option<IpAddr> {
        match self {
            Self::Gateway(ip) => Some(ip),
            _ => None,
        }
    }

    fn refused(self, refusal: crate::netlink::Refusal) -> Result<(), PodError> {
        let err = match self {
            Self::Address(addr) => NetlinkError::refused("add pod address", addr, refusal),
            Self::Neighbour(ip) => NetlinkError::refused("add pod neighbour", ip, refusal),
            Self::Gateway(ip) => NetlinkError::refused("add pod route to", ip, refusal),
            Self::Route(via) => NetlinkError::refused("add pod default route via", via, refusal),
        };
        match self {
            // The kernel's word for an interface whose IPv6 is off.
            Self::Address(IpAddr::V6(_)) if err.is_denied() => Err(PodError::Ipv6Disabled),
            // A pod's second interface: the first one keeps the default route.
            Self::Gateway(_) | Self::Route(_) if err.is_already_exists() => Ok(()),
            _ => Err(err.into()),
        }
    }
}

fn get_link(socket: &mut Socket, name: IfName) -> Result<Option<SeenLink>, NetlinkError> {
    let mut batch = Batch::new();
    message::get_link(&mut batch, name);
    let mut link = None;
    let result = socket.request_with_reply("get link", name, &mut batch, |message| {
        link = SeenLink::parse(&message);
    });
    match result {
        Err(err) if err.is_not_found() => Ok(None),
        Err(err) => Err(err),
        Ok(()) => Ok(link),
    }
}

/// `VETH_INFO_PEER`, and what else only this lane speaks of.
mod numbers {
    pub(super) const VETH_INFO_PEER: u16 = 1;
    pub(super) const IFLA_LINK: u16 = 5;
    pub(super) const IFLA_NET_NS_FD: u16 = 28;
    pub(super) const RTPROT_BOOT: u8 = 3;
    pub(super) const LO: u32 = 1;
}
