//! What has to be sent so that a link is as it should be. Pure.

use russet_desired::{LinkKind, LinkSpec};
use russet_net::IfName;

use super::observed::{Links, ObservedKind, ObservedLink};
use crate::netlink::NetlinkError;

/// How to get from what is there to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    /// Make it; the kernel has none of this name.
    Create,
    /// Change in place what can be.
    Alter(Vec<Aspect>),
    /// Remove ours and make it again: something differs that cannot be changed.
    Replace,
}

/// What can be changed in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    Alias,
    Mac,
    Mtu,
    Master,
    Up,
}

/// Plans one link.
pub(super) fn plan(name: IfName, wanted: &LinkSpec, links: &Links) -> Result<Step, NetlinkError> {
    if let LinkKind::Vxlan(spec) = wanted.kind {
        links.need("add link", name, spec.underlay)?;
    }
    let Some(there) = links.by_name(name) else {
        return match wanted.kind {
            LinkKind::PodVeth => Err(NetlinkError::Missing {
                op: "keep link",
                subject: name.to_string(),
                missing: "the veth, which only the pod's ADD can make,".to_owned(),
            }),
            _ => Ok(Step::Create),
        };
    };
    let inherited = wanted.inherits.is_on() && there.is_unmarked();
    if !there.is_ours() && !there.is_half_made() && !inherited {
        return Err(NetlinkError::foreign("add link", name, there.describe()));
    }
    if !is_same_kind(wanted, there, links) {
        return match wanted.kind {
            _ if inherited => Err(NetlinkError::foreign("add link", name, there.describe())),
            LinkKind::PodVeth => Err(NetlinkError::foreign("keep link", name, there.describe())),
            _ => Ok(Step::Replace),
        };
    }
    let differs = differences(wanted, there, links);
    Ok(if differs.is_empty() { Step::Keep } else { Step::Alter(differs) })
}

/// Whether nothing differs that the kernel cannot change in place.
fn is_same_kind(wanted: &LinkSpec, there: &ObservedLink, links: &Links) -> bool {
    match (&wanted.kind, &there.kind) {
        (LinkKind::Bridge, ObservedKind::Bridge)
        | (LinkKind::PodVeth, ObservedKind::Veth)
        | (LinkKind::Tun, ObservedKind::Tun)
        | (LinkKind::Wireguard, ObservedKind::Wireguard) => true,
        (LinkKind::Ipip(spec), ObservedKind::Ipip(ipip)) => ipip.meets(spec),
        (LinkKind::Vxlan(spec), ObservedKind::Vxlan(vxlan)) => {
            links.index(spec.underlay).is_some_and(|underlay| vxlan.meets(spec, underlay))
        }
        _ => false,
    }
}

fn differences(wanted: &LinkSpec, there: &ObservedLink, links: &Links) -> Vec<Aspect> {
    let master = there.master.map(|index| links.name(index));
    [
        (Aspect::Alias, there.role() != Some(wanted.role)),
        (Aspect::Mac, wanted.mac.is_some() && there.mac != wanted.mac),
        (Aspect::Mtu, there.mtu != wanted.mtu.get()),
        (Aspect::Master, master != wanted.master.map(Some)),
        (Aspect::Up, !there.up.is_on()),
    ]
    .into_iter()
    .filter_map(|(aspect, differs)| differs.then_some(aspect))
    .collect()
}

/// What the making of a link leaves to be done. A bridge takes its MTU from its ports, and anew with each
/// that comes or goes, until somebody has changed it; what it was made with does not count as that.
pub(super) fn after_creation(wanted: &LinkSpec) -> Vec<Aspect> {
    let mut rest = vec![Aspect::Alias];
    if wanted.kind == LinkKind::Bridge {
        rest.push(Aspect::Mtu);
    }
    rest.extend(wanted.master.map(|_| Aspect::Master));
    rest
}

/// Whether a link is as it should be.
pub(super) fn is_met(wanted: &LinkSpec, there: &ObservedLink, links: &Links) -> bool {
    there.is_ours()
        && is_same_kind(wanted, there, links)
        && differences(wanted, there, links).is_empty()
}
