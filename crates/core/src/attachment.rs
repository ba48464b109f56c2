//! How a pod meets its node. What is inside the pod is built once, elsewhere; here is the node's side, which is
//! reconciled for ever.
//!
//! A value of this choice is a file with the three functions below, and a variant of [`Attachment`].

pub mod bridge;
pub mod routed;

use russet_desired::{Emit, Flag, Item, SysctlKey, SysctlSpec};
use russet_net::{Family, Prefix};

use crate::{
    model::{Attachment, PodFact, PodNetwork, PodSide},
    transport::Me,
};

/// What a pod that is added now is given.
pub fn pod_network(me: &Me<'_>) -> PodNetwork {
    let side = match me.settings.attachment {
        Attachment::Bridge => {
            PodSide::Bridge { bridge: me.settings.bridge, hairpin: me.settings.hairpin }
        }
        Attachment::Routed => PodSide::Routed { proxy_arp: me.settings.proxy_arp },
    };
    let (mtu, subnets) = (me.footing.pod_mtu, subnets(me).collect());
    PodNetwork { side, links: me.settings.pod_links, mtu, subnets, own: me.own }
}

/// Emits what is there whether or not there is any pod.
pub fn local(me: &Me<'_>, out: &mut Emit) {
    for subnet in subnets(me) {
        forwarding(me, subnet.family(), out);
    }
    match me.settings.attachment {
        Attachment::Bridge => bridge::local(me, out),
        Attachment::Routed => routed::local(me, out),
    }
}

/// Emits the node's side of one pod.
pub fn pod(me: &Me<'_>, pod: &PodFact, out: &mut Emit) {
    match me.settings.attachment {
        Attachment::Bridge => bridge::pod(me, pod, out),
        Attachment::Routed => routed::pod(me, pod, out),
    }
}

/// The node's subnets in the families of the network, IPv4 first.
fn subnets(me: &Me<'_>) -> impl Iterator<Item = Prefix> {
    me.footing.config.families().filter_map(|family| me.own.of(family))
}

/// Forwarding of a family, and what must come before it: a node whose default route comes from router
/// advertisements loses it the moment it forwards, unless `accept_ra` is 2.
fn forwarding(me: &Me<'_>, family: Family, out: &mut Emit) {
    let underlay = &me.footing.underlay;
    match family {
        Family::V4 => require(RANK_FORWARDING, "net/ipv4/ip_forward".into(), "1", Flag::Off, out),
        Family::V6 => {
            if underlay.router_advertised {
                let path = format!("net/ipv6/conf/{}/accept_ra", underlay.link);
                require(RANK_BEFORE_FORWARDING, path, "2", Flag::Off, out);
            }
            let path = "net/ipv6/conf/all/forwarding".to_owned();
            require(RANK_FORWARDING, path, "1", Flag::Off, out);
        }
    }
}

fn require(rank: u8, path: String, value: &'static str, optional: Flag, out: &mut Emit) {
    out.push(Item::Sysctl(SysctlKey { rank, path }, SysctlSpec { value, optional }));
}

/// Ranks of the sysctls, lowest first: what must be set before forwarding is turned on.
const RANK_BEFORE_FORWARDING: u8 = 0;
const RANK_FORWARDING: u8 = 10;
pub(crate) const RANK_DEVICE: u8 = 20;
