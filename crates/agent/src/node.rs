//! What the node observes of itself, turned into the one fact that the calculation wants.
//!
//! `uplink` chooses the link to the other nodes as flannel does, `detect` the node's own addresses as calico/node does.

mod detect;
mod uplink;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use russet_core::{
    attachment::routed::HOST_MAC,
    model::{Attachment, ForeignRoute, GatewayRoute, NodeFact, UnderlayFact, calico::OnSubnet},
};
use russet_kernel::{
    KernelError,
    link::GROUP,
    observe::{self, LinkView, NodeView},
};
use russet_net::{Family, IfName, Mac, Mtu, Prefix};
use tokio::sync::{mpsc, watch};

pub use self::detect::{Found, OwnAddresses, detect};
use crate::{StartError, config::Uplink, owner::Input};

/// Tells the owner how the node is, and again whenever that has changed. It ends when dropped.
#[derive(Debug)]
pub struct Observer {
    _watch: observe::Observer,
}

impl Observer {
    /// Starts the thread. `addresses` hears what addresses the node has, for whoever registers it.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listened to.
    pub fn start(
        uplink: Uplink,
        inputs: &mpsc::Sender<Input>,
        addresses: Option<watch::Sender<Option<OwnAddresses>>>,
    ) -> Result<Self, StartError> {
        let inputs = inputs.downgrade();
        let tell = move |view: NodeView| {
            if let Some(addresses) = &addresses {
                let own = registered(&view, &uplink).ok();
                addresses.send_if_modified(|told| {
                    // What is not found any more stays told: a link that flaps does not change who a node is.
                    let changed = own.is_some() && *told != own;
                    if changed {
                        *told = own;
                    }
                    changed
                });
            }
            // After the owner's end there is nobody to tell.
            if let Some(inputs) = inputs.upgrade() {
                let _ = inputs.blocking_send(Input::Node(fact(&view, &uplink)));
            }
        };
        Ok(Self { _watch: observe::Observer::start(tell).map_err(StartError::Observe)? })
    }
}

/// Looks once which link is the uplink, in the thread's network namespace.
///
/// # Errors
///
/// When there is none, or the kernel cannot be asked.
pub fn look_for(wanted: &Uplink) -> Result<(), String> {
    let view = observe::observe().map_err(|err| crate::one_line(&err))?;
    fact(&view, wanted).map(drop)
}

/// Looks once at the thread's network namespace.
pub fn look() -> Result<NodeView, KernelError> {
    observe::observe()
}

/// The MAC addresses of the bridges and tunnels that are there.
pub fn macs(view: &NodeView) -> BTreeMap<IfName, Mac> {
    let keeps = |link: &&LinkView| matches!(link.kind.as_str(), "bridge" | "vxlan");
    view.links.iter().filter(keeps).filter_map(|link| Some((link.name, link.mac?))).collect()
}

/// The nodes' ends of pods that are attached in another way than is wanted now. One that somebody has meddled with may
/// be either, and is none of them.
pub fn attached_otherwise(view: &NodeView, wanted: Attachment) -> Vec<IfName> {
    let of_pods = view.links.iter().filter(|link| link.group == GROUP && link.kind == "veth");
    let otherwise = |link: &&LinkView| {
        let bears_routed_mac = link.mac == Some(HOST_MAC);
        match wanted {
            Attachment::Bridge => bears_routed_mac && link.master.is_none(),
            Attachment::Routed => !bears_routed_mac && link.master.is_some(),
        }
    };
    of_pods.filter(otherwise).map(|link| link.name).collect()
}

/// Reads the node's fact out of what the kernel shows: which link is the uplink, and what is others'.
pub fn fact(view: &NodeView, wanted: &Uplink) -> Result<NodeFact, String> {
    let own = own_addresses(view, wanted)?;
    let link = uplink::uplink(view, wanted, &own)?;
    let mtu = Mtu::try_from(link.mtu).map_err(|err| format!("uplink {}: {err}", link.name))?;
    let address = |family| match &wanted.detection {
        Some(_) => own.addr(family),
        None => wanted.public(family).or_else(|| link.best_address(family)),
    };
    let underlay = UnderlayFact {
        link: link.name,
        mtu,
        v4: v4(address(Family::V4)),
        v6: v6(address(Family::V6)),
        onlink: link.connected().collect(),
        gateways: gateways(view, link.name),
        router_advertised: link.router_advertised.is_on(),
        // Nobody sees that by looking; the prober finds out.
        spoils_checksums: Vec::new(),
        prepared: BTreeMap::new(),
    };
    Ok(NodeFact { underlay, foreign: foreign(view) })
}

/// The node's addresses with their subnets, for others to read: those that are looked for, or those of the uplink that is
/// named.
fn registered(view: &NodeView, wanted: &Uplink) -> Result<OwnAddresses, String> {
    if wanted.detection.is_some() {
        return own_addresses(view, wanted);
    }
    let link = uplink::uplink(view, wanted, &OwnAddresses::default())?;
    let found = |family| {
        let addr = wanted.public(family).or_else(|| link.best_address(family))?;
        let on = link.addresses.iter().find(|on| on.addr == addr);
        let len = on.map_or(family.bits(), |on| on.len);
        Some(Found { link: on.map(|_| link.name), addr: OnSubnet::new(addr, len).ok()? })
    };
    Ok(OwnAddresses { v4: found(Family::V4), v6: found(Family::V6) })
}

/// The node's addresses with their subnets, where they are looked for as calico/node does; else none.
fn own_addresses(view: &NodeView, wanted: &Uplink) -> Result<OwnAddresses, String> {
    match &wanted.detection {
        // Kubernetes' word of the node comes with Kubernetes as a store.
        Some(detection) => detect(view, detection, &[]),
        None => Ok(OwnAddresses::default()),
    }
}

/// What others' routes reach by a gateway on the uplink: of each destination the one that the kernel takes. A node with
/// very many is told of the widest only, for each change of them is a change of the node.
fn gateways(view: &NodeView, uplink: IfName) -> Vec<GatewayRoute> {
    let on_uplink = view.routes.iter().filter(|route| route.link == Some(uplink));
    let mut routes: Vec<_> = on_uplink.filter_map(|r| Some((r.dst, r.metric, r.via?))).collect();
    routes.sort_unstable();
    routes.dedup_by_key(|(dst, ..)| *dst);
    routes.sort_by_key(|(dst, ..)| dst.len());
    routes.truncate(MOST_GATEWAYS);
    let mut routes: Vec<_> =
        routes.into_iter().map(|(dst, _, via)| GatewayRoute { dst, via }).collect();
    routes.sort_unstable();
    routes
}

/// Routes that others set, and the subnets of links that others made.
fn foreign(view: &NodeView) -> Vec<ForeignRoute> {
    let routes = view.routes.iter();
    let routes = routes.map(|r| ForeignRoute { dst: r.dst, link: r.link, protocol: r.protocol });
    let links = view.links.iter().filter(|link| link.group != GROUP);
    let connected = links.flat_map(|link| {
        let on =
            move |dst: Prefix| ForeignRoute { dst, link: Some(link.name), protocol: RTPROT_KERNEL };
        link.connected().map(on)
    });
    routes.chain(connected).collect()
}

fn v4(ip: Option<IpAddr>) -> Option<Ipv4Addr> {
    match ip {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    }
}

fn v6(ip: Option<IpAddr>) -> Option<Ipv6Addr> {
    match ip {
        Some(IpAddr::V6(ip)) => Some(ip),
        _ => None,
    }
}

const MOST_GATEWAYS: usize = 64;
/// The kernel's own routes, those of a link's addresses among them.
const RTPROT_KERNEL: u8 = 2;

#[cfg(test)]
pub(crate) mod tests {
    use russet_desired::Flag;
    use russet_kernel::observe::{AddressView, RouteView, Scope};

    use super::*;
    use crate::config::{Detection, LinkChoice, Wish};

    #[test]
    fn a_named_uplink_is_registered_with_its_subnet() {
        let uplink = Uplink { choices: vec!["eth1".parse().unwrap()], ..Uplink::default() };
        let own = registered(&node(), &uplink).unwrap();
        assert_eq!(own.v4.unwrap().addr.to_string(), "172.17.0.1/16");
        assert_eq!(own.v6, None);
        let told = Uplink { public_ip: Some([203, 0, 113, 9].into()), ..uplink };
        let own = registered(&node(), &told).unwrap();
        assert_eq!(own.v4.unwrap().addr.to_string(), "203.0.113.9/32");
    }

    #[test]
    fn the_default_route_tells_the_uplink_and_its_address() {
        let fact = fact(&node(), &Uplink::default()).unwrap();
        assert_eq!(fact.underlay.link.as_str(), "eth0");
        assert_eq!(fact.underlay.v4, Some([192, 168, 77, 1].into()));
        assert_eq!(fact.underlay.onlink, ["192.168.77.0/24".parse().unwrap()]);
        let gateway =
            GatewayRoute { dst: "0.0.0.0/0".parse().unwrap(), via: [192, 168, 77, 254].into() };
        assert_eq!(fact.underlay.gateways, [gateway]);
    }

    #[test]
    fn a_configured_interface_or_address_wins() {
        let by_address = Uplink { public_ip: Some([172, 17, 0, 1].into()), ..Uplink::default() };
        let choices = [
            "eth1".parse().unwrap(),
            "172.17.0.1".parse().unwrap(),
            LinkChoice::Pattern(r"^172\.17\.".parse().unwrap()),
            LinkChoice::Pattern("^e.*1$".parse().unwrap()),
            LinkChoice::Reaches([172, 17, 9, 9].into()),
        ];
        let uplinks = choices.map(|choice| uplink_of(&[choice])).into_iter().chain([by_address]);
        for uplink in uplinks {
            let fact = fact(&node(), &uplink).unwrap();
            assert_eq!(fact.underlay.link.as_str(), "eth1", "{uplink:?}");
        }
        let far = uplink_of(&[LinkChoice::Reaches([9, 9, 9, 9].into())]);
        assert_eq!(fact(&node(), &far).unwrap().underlay.link.as_str(), "eth0");
    }

    #[test]
    fn the_first_choice_that_is_there_counts_and_without_any_the_node_says_what_it_looked_for() {
        let name = |text: &str| text.parse::<LinkChoice>().unwrap();
        let second = uplink_of(&[name("eth9"), name("eth1"), name("eth0")]);
        assert_eq!(fact(&node(), &second).unwrap().underlay.link.as_str(), "eth1");
        // A link of ours is none that a pattern can mean.
        let ours = LinkChoice::Pattern("cni".parse().unwrap());
        let told = fact(&node(), &uplink_of(&[name("eth9"), ours])).unwrap_err();
        assert!(told.contains("interface eth9, nor an interface like \"cni\""), "{told}");
    }

    #[test]
    fn addresses_that_are_looked_for_tell_the_uplink_too() {
        let method = "interface=eth1".parse().unwrap();
        let detection = Detection { v4: Wish::Detected(method), v6: Wish::Nothing };
        let wanted = Uplink { detection: Some(detection), ..Uplink::default() };
        let fact = fact(&node(), &wanted).unwrap();
        assert_eq!(fact.underlay.link.as_str(), "eth1");
        assert_eq!((fact.underlay.v4, fact.underlay.v6), (Some([172, 17, 0, 1].into()), None));
    }

    fn uplink_of(choices: &[LinkChoice]) -> Uplink {
        Uplink { choices: choices.to_vec(), ..Uplink::default() }
    }

    #[test]
    fn without_a_default_route_the_node_says_what_to_do() {
        let view = NodeView { routes: std::sync::Arc::default(), ..node() };
        let err = fact(&view, &Uplink::default()).unwrap_err();
        assert!(err.contains("eth0, eth1") && err.contains("--interface"), "{err}");
    }

    #[test]
    fn without_a_default_route_the_only_link_with_an_address_is_the_uplink() {
        let links = vec![
            link(2, "eth0", 0, [192, 168, 77, 1], 24),
            link(4, "cni0", GROUP, [10, 50, 7, 1], 24),
        ];
        let view = NodeView { routes: std::sync::Arc::default(), links };
        assert_eq!(fact(&view, &Uplink::default()).unwrap().underlay.link.as_str(), "eth0");
    }

    #[test]
    fn what_others_made_is_foreign_and_what_is_ours_is_not() {
        let fact = fact(&node(), &Uplink::default()).unwrap();
        let dsts: Vec<_> = fact.foreign.iter().map(|route| route.dst.to_string()).collect();
        assert_eq!(dsts, ["0.0.0.0/0", "192.168.77.0/24", "172.17.0.0/16"]);
    }

    fn node() -> NodeView {
        let via = RouteView {
            dst: "0.0.0.0/0".parse().unwrap(),
            metric: 0,
            protocol: 3,
            link: Some("eth0".parse().unwrap()),
            via: Some([192, 168, 77, 254].into()),
        };
        let links = vec![
            link(2, "eth0", 0, [192, 168, 77, 1], 24),
            link(3, "eth1", 0, [172, 17, 0, 1], 16),
            link(4, "cni0", GROUP, [10, 50, 7, 1], 24),
        ];
        NodeView { links, routes: [via].into() }
    }

    pub(crate) fn link(index: u32, name: &str, group: u32, addr: [u8; 4], len: u8) -> LinkView {
        let address = AddressView {
            addr: addr.into(),
            len,
            scope: Scope::Global,
            lasting: Flag::On,
            second_choice: Flag::Off,
        };
        LinkView {
            name: name.parse().unwrap(),
            index,
            mtu: 1_500,
            mac: None,
            kind: "device".into(),
            up: Flag::On,
            carrier: Flag::On,
            loopback: Flag::Off,
            group,
            alias: None,
            master: None,
            addresses: vec![address],
            router_advertised: Flag::Off,
        }
    }
}
