//! A node's lease: which subnets it holds, and how it is reached.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use russet_net::{Family, Mac, Port, Prefix, PublicKey, Vni};

use super::Ends;

/// The subnets of one lease: one of IPv4, one of IPv6, or one of each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    v4: Option<Prefix>,
    v6: Option<Prefix>,
}

impl LeaseKey {
    /// Below every key; a bound for ranges, and no lease's.
    pub(crate) const LOWEST: Self = Self { v4: None, v6: None };

    /// Returns `None` when there is no subnet, or one of the other family.
    pub fn new(v4: Option<Prefix>, v6: Option<Prefix>) -> Option<Self> {
        let fits = |subnet: Option<Prefix>, family| subnet.is_none_or(|p| p.family() == family);
        let some = v4.is_some() || v6.is_some();
        (some && fits(v4, Family::V4) && fits(v6, Family::V6)).then_some(Self { v4, v6 })
    }

    pub const fn v4(self) -> Option<Prefix> {
        self.v4
    }

    pub const fn v6(self) -> Option<Prefix> {
        self.v6
    }

    pub const fn of(self, family: Family) -> Option<Prefix> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// IPv4 first.
    pub fn subnets(self) -> impl Iterator<Item = Prefix> {
        self.v4.into_iter().chain(self.v6)
    }

    /// Whether an address lies in one of the subnets.
    pub fn contains(self, addr: IpAddr) -> bool {
        self.subnets().any(|subnet| subnet.contains(addr))
    }

    /// Whether any subnet of the one overlaps any of the other.
    pub fn overlaps(self, other: Self) -> bool {
        self.subnets().any(|ours| other.subnets().any(|theirs| ours.overlaps(theirs)))
    }
}

/// As flannel names it in the store: `10.50.19.0-24&fd00:50:0:43::-64`.
impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, subnet) in self.subnets().enumerate() {
            let sep = if i == 0 { "" } else { "&" };
            write!(f, "{sep}{}-{}", subnet.addr(), subnet.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How the holder of a lease is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub public_ip: Option<Ipv4Addr>,
    pub public_ipv6: Option<Ipv6Addr>,
    pub backend: Backend,
}

impl Lease {
    /// The holder's underlay address of a family.
    pub fn public(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_ip.map(IpAddr::V4),
            Family::V6 => self.public_ipv6.map(IpAddr::V6),
        }
    }

    /// The holder's VTEP of a family, when it has one.
    pub fn vtep(&self, family: Family) -> Option<Vtep> {
        match (&self.backend, family) {
            (Backend::Vxlan { v4, .. }, Family::V4) => *v4,
            (Backend::Vxlan { v6, .. }, Family::V6) => *v6,
            _ => None,
        }
    }

    /// The holder's WireGuard end of a family, when it has one.
    pub fn wireguard(&self, family: Family) -> Option<WireguardEnd> {
        match (&self.backend, family) {
            (Backend::Wireguard { v4, .. }, Family::V4) => *v4,
            (Backend::Wireguard { v6, .. }, Family::V6) => *v6,
            // Every node listens on one port there.
            (Backend::Ends(ends), family) => {
                ends.wireguard(family).map(|key| WireguardEnd { key, port: None })
            }
            _ => None,
        }
    }
}

/// What the holder of a lease says of its transport. It overrides the pool for traffic to that holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Vxlan {
        v4: Option<Vtep>,
        v6: Option<Vtep>,
    },
    HostGw,
    Wireguard {
        v4: Option<WireguardEnd>,
        v6: Option<WireguardEnd>,
    },
    Ipip,
    /// It names none at all: `udp`, and also `alloc`, which looks the same.
    Udp,
    /// Commands of the operator's, with what theirs printed when the holder started.
    Extension(Option<Arc<str>>),
    /// One that this version does not speak.
    Foreign(Foreign),
    /// It takes packets by whatever the pool says, as far as its ends are there.
    Ends(Arc<Ends>),
}

/// A holder's tunnel end in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vtep {
    pub vni: Vni,
    pub mac: Mac,
}

/// A holder's key and port in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireguardEnd {
    pub key: PublicKey,
    /// `None` is our own: flannel did not say one before 0.26.
    pub port: Option<Port>,
}

/// Backends of flannel that this version does not speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    Alloc,
    Ipsec,
    /// `aws-vpc`, `gce`, `ali-vpc`, `tencent-vpc`: routes of a cloud's own.
    Cloud,
    Unknown,
}

impl Foreign {
    /// What an operator can do about it.
    pub const fn instead(self) -> &'static str {
        match self {
            Self::Ipsec => "use wireguard, which seals as well and needs no daemon beside it",
            Self::Cloud => {
                "use host-gw where the nodes share a link, else vxlan; or alloc, and let the cloud's own \
                 controller set its routes"
            }
            Self::Alloc | Self::Unknown => {
                "use vxlan, host-gw, udp, ipip, wireguard, alloc or extension"
            }
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alloc => "alloc",
            Self::Ipsec => "ipsec",
            Self::Cloud => "of a cloud",
            Self::Unknown => "of an unknown name",
        })
    }
}
