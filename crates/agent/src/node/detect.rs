//! Finds a node's own addresses as calico/node does (`autodetection_methods.go`, `filtered.go`), from what is seen of the
//! node and nothing else.
//!
//! Links are looked at from the highest index down, as calico/node does; what bears our group is none of the node's. Of the
//! addresses of a link one that is about to go, or is only temporary, is taken last. The subnet is that of the link.

use std::net::IpAddr;

use regex::RegexSet;
use russet_core::model::calico::OnSubnet;
use russet_kernel::{
    link::GROUP,
    observe::{AddressView, LinkView, NodeView},
};
use russet_net::{Family, IfName};

use crate::config::{Detection, Given, Method, Pattern, Wish};

/// An address, its subnet and its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// `None` for an address that is told and that no link bears.
    pub link: Option<IfName>,
    pub addr: OnSubnet,
}

/// The node's addresses. What is not wanted of a family is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    pub v4: Option<Found>,
    pub v6: Option<Found>,
}

impl OwnAddresses {
    pub const fn of(&self, family: Family) -> Option<Found> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// The address alone.
    pub fn addr(&self, family: Family) -> Option<IpAddr> {
        self.of(family).map(|found| found.addr.addr())
    }
}

/// Finds the addresses that are wanted. `internal` is what Kubernetes says of the node, where it says anything.
///
/// # Errors
///
/// With the family and the method that found none, for a person.
pub fn detect(
    view: &NodeView,
    wanted: &Detection,
    internal: &[IpAddr],
) -> Result<OwnAddresses, String> {
    let find = |family| match wanted.of(family) {
        Wish::Nothing => Ok(None),
        Wish::Given(given) => Ok(Some(told(view, *given))),
        Wish::Detected(method) => by_method(view, family, method, internal).map(Some),
    };
    let found = OwnAddresses { v4: find(Family::V4)?, v6: find(Family::V6)? };
    if found == OwnAddresses::default() {
        return Err("no address is wanted of either family, so no node can reach this one".into());
    }
    Ok(found)
}

fn told(view: &NodeView, given: Given) -> Found {
    let bearer = borne(view, given.addr());
    match given {
        Given::OnSubnet(addr) => Found { link: bearer.and_then(|found| found.link), addr },
        Given::Alone(addr) => bearer.unwrap_or(Found { link: None, addr: alone(addr) }),
    }
}

fn by_method(
    view: &NodeView,
    family: Family,
    method: &Method,
    internal: &[IpAddr],
) -> Result<Found, String> {
    let of_nodes = |link: &LinkView| !is_excluded(link.name);
    let like = |link: &LinkView, patterns: &[Pattern]| {
        patterns.iter().any(|pattern| pattern.is_like(link.name.as_str()))
    };
    let found = match method {
        Method::FirstFound => first(view, family, of_nodes, |_| true),
        Method::Interface(patterns) => first(view, family, |link| like(link, patterns), |_| true),
        Method::SkipInterface(patterns) => {
            first(view, family, |link| of_nodes(link) && !like(link, patterns), |_| true)
        }
        Method::Cidr(prefixes) => {
            let within = |addr| prefixes.iter().any(|prefix| prefix.contains(addr));
            first(view, family, |_| true, within)
        }
        Method::CanReach(dest) => reaching(view, family, *dest),
        Method::KubernetesInternalIp => {
            let addr = internal.iter().find(|addr| Family::of(**addr) == family);
            addr.map(|addr| told(view, Given::Alone(*addr)))
        }
    };
    found.ok_or_else(|| format!("no {family} address of this node is found by {method}"))
}

/// The first address of a link that is meant, the highest index first.
fn first(
    view: &NodeView,
    family: Family,
    is_meant: impl Fn(&LinkView) -> bool,
    is_good: impl Fn(IpAddr) -> bool,
) -> Option<Found> {
    let links = view.links.iter().rev().filter(|link| link.group != GROUP && is_meant(link));
    links.into_iter().find_map(|link| {
        let good = link.addresses.iter().filter(|address| {
            Family::of(address.addr) == family && is_global(address.addr) && is_good(address.addr)
        });
        good.min_by_key(|address| address.second_choice.is_on())
            .and_then(|address| found(link, address))
    })
}

/// The address that a packet to there would be sent from.
fn reaching(view: &NodeView, family: Family, dest: IpAddr) -> Option<Found> {
    let link = view.link_to(dest).filter(|_| Family::of(dest) == family)?;
    let addr = link.best_address(family)?;
    link.addresses.iter().find(|address| address.addr == addr).and_then(|one| found(link, one))
}

fn borne(view: &NodeView, addr: IpAddr) -> Option<Found> {
    view.links.iter().find_map(|link| {
        let address = link.addresses.iter().find(|address| address.addr == addr)?;
        found(link, address)
    })
}

fn found(link: &LinkView, address: &AddressView) -> Option<Found> {
    let addr = OnSubnet::new(address.addr, address.len).ok()?;
    Some(Found { link: Some(link.name), addr })
}

fn alone(addr: IpAddr) -> OnSubnet {
    // A family's own length fits it.
    OnSubnet::new(addr, Family::of(addr).bits()).unwrap_or_else(|_| unreachable!("a whole address"))
}

/// Go's `IsGlobalUnicast`: private addresses too.
fn is_global(addr: IpAddr) -> bool {
    let (link_local, broadcast) = match addr {
        IpAddr::V4(addr) => (addr.is_link_local(), addr.is_broadcast()),
        IpAddr::V6(addr) => (addr.is_unicast_link_local(), false),
    };
    !(link_local || broadcast || addr.is_loopback() || addr.is_multicast() || addr.is_unspecified())
}

/// Tunnels, bridges and pods' links by their names (calico/node: `DEFAULT_INTERFACES_TO_EXCLUDE`), ours among them.
fn is_excluded(link: IfName) -> bool {
    thread_local! {
        static EXCLUDED: RegexSet = RegexSet::new(EXCLUDED_NAMES).unwrap_or_default();
    }
    EXCLUDED.with(|set| set.is_match(link.as_str()))
}

const EXCLUDED_NAMES: [&str; 18] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^podman.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    r"^vxlan\.calico.*",
    r"^vxlan-v6\.calico.*",
    r"^wireguard\.cali.*",
    r"^wg-v6\.cali.*",
    "^rst.*",
];

#[cfg(test)]
mod tests;
