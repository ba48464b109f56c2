//! Links as the kernel tells of them, and which number stands for which name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    net::IpAddr,
};

use russet_desired::{Flag, IpipSpec, VxlanSpec};
use russet_net::{IfName, Mac, Port, Vni};

use crate::netlink::{
    Attr, Batch, Message, NetlinkError, Socket,
    rt::{self, LINK_HEADER_LEN},
};

/// The link group of everything that is ours (`IFLA_GROUP`).
pub const GROUP: u32 = 0x5255;
/// The link group of what is about to be removed (see the reap lane).
pub const REAP_GROUP: u32 = 0x5256;
/// What our aliases begin with; the role follows.
pub const ALIAS_PREFIX: &str = "russet:";

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    pub index: u32,
    pub name: IfName,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: Flag,
    pub carrier: Flag,
    /// Whether the kernel has noticed the carrier: before that it drops what is sent (RFC 2863's `up`).
    pub operates: Flag,
    pub loopback: Flag,
    pub group: u32,
    pub alias: Option<Box<str>>,
    /// The index of the bridge that it is a port of.
    pub master: Option<u32>,
    pub kind: ObservedKind,
    /// As a bridge port.
    pub hairpin: Option<Flag>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedKind {
    Bridge,
    Vxlan(ObservedVxlan),
    Veth,
    /// A TUN device that outlives its queues and has many, with virtio headers: none other is of use to us.
    Tun,
    Wireguard,
    Ipip(ObservedIpip),
    /// Hardware has no kind at all: an empty text.
    Other(Box<str>),
}

impl ObservedKind {
    /// As `ip -d link` calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Bridge => "bridge",
            Self::Vxlan(_) => "vxlan",
            Self::Veth => "veth",
            Self::Tun => "tun",
            Self::Wireguard => "wireguard",
            Self::Ipip(_) => "ipip",
            Self::Other(kind) if kind.is_empty() => "device",
            Self::Other(kind) => kind,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservedVxlan {
    pub vni: u32,
    pub local: Option<IpAddr>,
    pub underlay: u32,
    pub port: u16,
    pub learning: bool,
    pub gbp: bool,
}

/// An address that is all zero is none: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservedIpip {
    pub local: Option<IpAddr>,
    pub remote: Option<IpAddr>,
}

impl ObservedIpip {
    /// Whether it sends from where it should, to whomever it is told to.
    pub fn meets(&self, spec: &IpipSpec) -> bool {
        self.local == spec.local.map(IpAddr::V4) && self.remote.is_none()
    }
}

impl ObservedVxlan {
    /// Whether nothing that cannot be changed in place differs. `underlay` is the index of the wanted one.
    pub fn meets(&self, spec: &VxlanSpec, underlay: u32) -> bool {
        Vni::try_from(self.vni) == Ok(spec.vni)
            && self.local == Some(spec.local)
            && self.underlay == underlay
            && Port::try_from(u32::from(self.port)) == Ok(spec.port)
            && self.learning == spec.learning.is_on()
            && self.gbp == spec.gbp.is_on()
    }
}

impl ObservedLink {
    /// Reads an `RTM_NEWLINK` or `RTM_DELLINK`.
    pub fn parse(message: &Message<'_>) -> Option<Self> {
        let flags = message.u32(8);
        let mut link = Self {
            index: message.u32(4),
            name: message.attrs(LINK_HEADER_LEN).find(rt::IFLA_IFNAME)?.str().parse().ok()?,
            mac: None,
            mtu: 0,
            up: (flags & rt::IFF_UP != 0).into(),
            carrier: (flags & rt::IFF_LOWER_UP != 0).into(),
            operates: Flag::Off,
            loopback: (flags & rt::IFF_LOOPBACK != 0).into(),
            group: 0,
            alias: None,
            master: None,
            kind: ObservedKind::Other("".into()),
            hairpin: None,
        };
        for attr in message.attrs(LINK_HEADER_LEN) {
            link.take(&attr);
        }
        Some(link)
    }

    fn take(&mut self, attr: &Attr<'_>) {
        match attr.kind {
            rt::IFLA_ADDRESS => self.mac = Mac::try_from(attr.value).ok(),
            rt::IFLA_MTU => self.mtu = attr.u32(),
            rt::IFLA_OPERSTATE => self.operates = (attr.value == [rt::IF_OPER_UP]).into(),
            rt::IFLA_GROUP => self.group = attr.u32(),
            rt::IFLA_IFALIAS => self.alias = Some(attr.str().into()),
            rt::IFLA_MASTER => self.master = Some(attr.u32()),
            rt::IFLA_LINKINFO => self.take_info(attr),
            _ => {}
        }
    }

    fn take_info(&mut self, info: &Attr<'_>) {
        let kind = info.attrs().find(rt::IFLA_INFO_KIND).map(|a| a.str()).unwrap_or_default();
        self.kind = match kind {
            "bridge" => ObservedKind::Bridge,
            "veth" => ObservedKind::Veth,
            "wireguard" => ObservedKind::Wireguard,
            "ipip" => ObservedKind::Ipip(ipip_of(info.attrs().find(rt::IFLA_INFO_DATA).as_ref())),
            "tun" if is_our_kind_of_tun(info) => ObservedKind::Tun,
            "vxlan" => {
                ObservedKind::Vxlan(vxlan_of(info.attrs().find(rt::IFLA_INFO_DATA).as_ref()))
            }
            other => ObservedKind::Other(other.into()),
        };
        let slave = info.attrs().find(rt::IFLA_INFO_SLAVE_KIND).map(|a| a.str());
        if slave == Some("bridge") {
            let data = info.attrs().find(rt::IFLA_INFO_SLAVE_DATA);
            let mode = data.and_then(|data| data.attrs().find(rt::IFLA_BRPORT_MODE));
            self.hairpin = mode.map(|mode| (mode.u8() != 0).into());
        }
    }

    /// The role that our alias names; `None` when it is not ours.
    pub fn role(&self) -> Option<&str> {
        if self.group != GROUP {
            return None;
        }
        self.alias.as_deref()?.strip_prefix(ALIAS_PREFIX)
    }

    pub fn is_ours(&self) -> bool {
        self.role().is_some()
    }

    /// Whether we began to make it and died before its alias was set, which comes right after.
    pub fn is_half_made(&self) -> bool {
        self.group == GROUP && self.alias.is_none()
    }

    /// Whether it bears nobody's mark: as the kernel makes it for whoever says nothing.
    pub fn is_unmarked(&self) -> bool {
        self.group == 0 && self.alias.is_none()
    }

    /// For an operator: what is there instead of ours.
    pub fn describe(&self) -> String {
        let alias = self.alias.as_deref().unwrap_or("none");
        format!("a {} in link group {} with alias {alias}", self.kind.name(), self.group)
    }
}

fn is_our_kind_of_tun(info: &Attr<'_>) -> bool {
    let Some(data) = info.attrs().find(rt::IFLA_INFO_DATA) else { return false };
    let has = |kind, value| data.attrs().find(kind).is_some_and(|attr| attr.u8() == value);
    has(rt::IFLA_TUN_TYPE, rt::TUN_TYPE_TUN)
        && [rt::IFLA_TUN_VNET_HDR, rt::IFLA_TUN_PERSIST, rt::IFLA_TUN_MULTI_QUEUE]
            .into_iter()
            .all(|kind| has(kind, 1))
}

fn vxlan_of(data: Option<&Attr<'_>>) -> ObservedVxlan {
    let mut vxlan = ObservedVxlan::default();
    for attr in data.into_iter().flat_map(Attr::attrs) {
        match attr.kind {
            rt::IFLA_VXLAN_ID => vxlan.vni = attr.u32(),
            rt::IFLA_VXLAN_LOCAL | rt::IFLA_VXLAN_LOCAL6 => vxlan.local = attr.ip(),
            rt::IFLA_VXLAN_LINK => vxlan.underlay = attr.u32(),
            rt::IFLA_VXLAN_PORT => vxlan.port = attr.u16_be(),
            rt::IFLA_VXLAN_LEARNING => vxlan.learning = attr.u8() != 0,
            rt::IFLA_VXLAN_GBP => vxlan.gbp = true,
            _ => {}
        }
    }
    vxlan
}

fn ipip_of(data: Option<&Attr<'_>>) -> ObservedIpip {
    let said = |kind| {
        let ip = data?.attrs().find(kind)?.ip()?;
        Some(ip).filter(|ip| !ip.is_unspecified())
    };
    ObservedIpip { local: said(rt::IFLA_IPTUN_LOCAL), remote: said(rt::IFLA_IPTUN_REMOTE) }
}

/// All links of a network namespace, kept up to date by listing and by events.
#[derive(Debug, Default)]
pub struct Links {
    by_index: BTreeMap<u32, ObservedLink>,
    by_name: HashMap<IfName, u32>,
    /// Links behind which something may have changed, by whatever way that was noticed.
    changed: BTreeSet<IfName>,
    /// Links that are wanted of us and refused.
    refused: BTreeSet<IfName>,
    freshness: Freshness,
}

/// Whether the links have been listed since somebody last may have changed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Freshness {
    #[default]
    Old,
    Fresh,
}

/// What an event changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Nothing that we look at.
    Nothing,
    /// Something that concerns the link alone: MTU, alias, master.
    Itself,
    /// Whether it is there, under this name, up, and with a carrier: all that lies behind it may have
    /// changed with it, and the kernel does not say so.
    Behind(IfName),
}

impl Links {
    /// Lists all links.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listed; what is known stays as it was.
    pub fn refresh(&mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let mut request = Batch::new();
        get_request(&mut request, 0);
        let links = socket.dump("links", &mut request, |links: &mut Vec<_>, message| {
            links.extend(ObservedLink::parse(&message));
        })?;
        let before = self.standing();
        self.by_name = links.iter().map(|link| (link.name, link.index)).collect();
        self.by_index = links.into_iter().map(|link| (link.index, link)).collect();
        let after = self.standing();
        self.changed.extend(before.symmetric_difference(&after).map(|(_, name, ..)| *name));
        self.freshness = Freshness::Fresh;
        Ok(())
    }

    /// Lists all links unless that was done since the last [`Self::grow_old`].
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listed.
    pub fn refresh_if_old(&mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        match self.freshness {
            Freshness::Fresh => Ok(()),
            Freshness::Old => self.refresh(socket),
        }
    }

    /// Says that the links may have changed since they were listed.
    pub fn grow_old(&mut self) {
        self.freshness = Freshness::Old;
    }

    /// What decides whether anything behind a link may have changed.
    fn standing(&self) -> BTreeSet<(u32, IfName, bool, bool, bool)> {
        let of = |l: &ObservedLink| (l.index, l.name, l.up.is_on(), l.carrier.is_on(), l.is_ours());
        self.by_index.values().map(of).collect()
    }

    /// The links behind which something may have changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<IfName> {
        mem::take(&mut self.changed)
    }

    /// Reads one link anew by its name.
    ///
    /// # Errors
    ///
    /// The socket's failure. A link that is not there is no error; it is forgotten.
    pub fn refresh_one(&mut self, socket: &mut Socket, name: IfName) -> Result<(), NetlinkError> {
        let mut request = Batch::new();
        let header = rt::link_header(0, 0, 0);
        request
            .push(rt::RTM_GETLINK, 0, &header)
            .u32(rt::IFLA_EXT_MASK, rt::SKIP_STATS)
            .str(rt::IFLA_IFNAME, name.as_str());
        let mut found = None;
        let result = socket.request_with_reply("get link", name, &mut request, |message| {
            found = ObservedLink::parse(&message);
        });
        match (result, found) {
            (Ok(()), Some(link)) => {
                self.insert(link);
            }
            (Err(err), _) if !err.is_not_found() => return Err(err),
            _ => {
                self.forget(name);
            }
        }
        Ok(())
    }

    /// Takes in an `RTM_NEWLINK` or `RTM_DELLINK`.
    pub fn observe(&mut self, message: &Message<'_>) -> LinkChange {
        // A bridge's own messages tell of ports; their removal is not the link's.
        if message.u8(0) != rt::AF_UNSPEC {
            return LinkChange::Nothing;
        }
        let Some(link) = ObservedLink::parse(message) else { return LinkChange::Nothing };
        match message.kind {
            rt::RTM_NEWLINK => self.insert(link),
            rt::RTM_DELLINK if self.index(link.name) == Some(link.index) => self.forget(link.name),
            _ => LinkChange::Nothing,
        }
    }

    fn insert(&mut self, link: ObservedLink) -> LinkChange {
        let (name, index) = (link.name, link.index);
        let (up, carrier, ours) = (link.up, link.carrier, link.is_ours());
        if self.by_index.get(&index) == Some(&link) {
            return LinkChange::Nothing;
        }
        let before = self.by_index.insert(index, link);
        if let Some(old) = before.as_ref().filter(|old| old.name != name)
            && self.by_name.get(&old.name) == Some(&index)
        {
            self.by_name.remove(&old.name);
        }
        self.by_name.insert(name, index);
        match before {
            // What is behind a link becomes ours with it.
            Some(before)
                if (before.name, before.up, before.carrier, before.is_ours())
                    == (name, up, carrier, ours) =>
            {
                LinkChange::Itself
            }
            _ => {
                self.changed.insert(name);
                LinkChange::Behind(name)
            }
        }
    }

    fn forget(&mut self, name: IfName) -> LinkChange {
        match self.by_name.remove(&name) {
            Some(index) => {
                self.by_index.remove(&index);
                self.changed.insert(name);
                LinkChange::Behind(name)
            }
            None => LinkChange::Nothing,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &ObservedLink> {
        self.by_index.values()
    }

    pub fn by_name(&self, name: IfName) -> Option<&ObservedLink> {
        self.by_index.get(&self.index(name)?)
    }

    pub fn by_index(&self, index: u32) -> Option<&ObservedLink> {
        self.by_index.get(&index)
    }

    pub fn index(&self, name: IfName) -> Option<u32> {
        self.by_name.get(&name).copied()
    }

    pub fn name(&self, index: u32) -> Option<IfName> {
        self.by_index.get(&index).map(|link| link.name)
    }

    /// Says which links are wanted of us and refused: what somebody else has in the place of one is not it.
    pub fn refuse<'a>(&mut self, refused: impl Iterator<Item = &'a IfName>) {
        self.refused = refused.copied().collect();
    }

    /// The index of a link, unless another's stands where ours should be.
    pub fn usable(&self, name: IfName) -> Option<u32> {
        self.by_name(name).filter(|link| !self.is_in_the_way(link)).map(|link| link.index)
    }

    fn is_in_the_way(&self, link: &ObservedLink) -> bool {
        self.refused.contains(&link.name) && !link.is_ours()
    }

    /// The index of a link that must be there.
    ///
    /// # Errors
    ///
    /// When it is not, or another's stands in its place.
    pub fn need(
        &self,
        op: &'static str,
        subject: impl std::fmt::Display,
        name: IfName,
    ) -> Result<u32, NetlinkError> {
        match self.by_name(name) {
            Some(link) if !self.is_in_the_way(link) => Ok(link.index),
            Some(link) => Err(NetlinkError::foreign(op, subject, link.describe())),
            None => Err(NetlinkError::missing(op, subject, format_args!("link {name}"))),
        }
    }

    /// The index of a link that must be there and ours.
    ///
    /// # Errors
    ///
    /// When it is not there, or not ours.
    pub fn need_ours(
        &self,
        op: &'static str,
        subject: impl std::fmt::Display,
        name: IfName,
    ) -> Result<u32, NetlinkError> {
        match self.by_name(name) {
            Some(link) if link.is_ours() => Ok(link.index),
            Some(link) => Err(NetlinkError::foreign(op, subject, link.describe())),
            None => Err(NetlinkError::missing(op, subject, format_args!("link {name}"))),
        }
    }
}

/// The request for one link, or for all when `index` is 0.
fn get_request(request: &mut Batch, index: u32) {
    let header = rt::link_header(index, 0, 0);
    request.push(rt::RTM_GETLINK, 0, &header).u32(rt::IFLA_EXT_MASK, rt::SKIP_STATS);
}
