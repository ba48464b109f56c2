//! What the node observes of itself, turned into the one fact that the calculation wants.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use russet_core::{
    attachment::routed::HOST_MAC,
    model::{Attachment, ForeignRoute, GatewayRoute, NodeFact, UnderlayFact},
};
use russet_kernel::{
    KernelError,
    link::GROUP,
    observe::{self, LinkView, NodeView},
};
use russet_net::{Family, IfName, Mac, Mtu, Prefix};
use tokio::sync::mpsc;

use crate::{
    StartError,
    config::{LinkChoice, Uplink},
    owner::Input,
};

/// Tells the owner how the node is, and again whenever that has changed. It ends when dropped.
#[derive(Debug)]
pub struct Observer {
    _watch: observe::Observer,
}

impl Observer {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listened to.
    pub fn start(uplink: Uplink, inputs: &mpsc::Sender<Input>) -> Result<Self, StartError> {
        let inputs = inputs.downgrade();
        let tell = move |view: NodeView| {
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
    let link = uplink(view, wanted)?;
    let mtu = Mtu::try_from(link.mtu).map_err(|err| format!("uplink {}: {err}", link.name))?;
    let underlay = UnderlayFact {
        link: link.name,
        mtu,
        v4: wanted.public_ip.or_else(|| v4(link.best_address(Family::V4))),
        v6: wanted.public_ipv6.or_else(|| v6(link.best_address(Family::V6))),
        onlink: link.connected().collect(),
        gateways: gateways(view, link.name),
        router_advertised: link.router_advertised.is_on(),
        // Nobody sees that by looking; the prober finds out.
        spoils_checksums: Vec::new(),
        prepared: BTreeMap::new(),
    };
    Ok(NodeFact { underlay, foreign: foreign(view) })
}

fn uplink<'a>(view: &'a NodeView, wanted: &Uplink) -> Result<&'a LinkView, String> {
    if !wanted.choices.is_empty() {
        let found = wanted.choices.iter().find_map(|choice| chosen(view, choice));
        return found.ok_or_else(|| {
            let asked: Vec<_> = wanted.choices.iter().map(ToString::to_string).collect();
            format!("there is no {}, as configured", asked.join(", nor "))
        });
    }
    let addressed = [wanted.public_ip.map(IpAddr::V4), wanted.public_ipv6.map(IpAddr::V6)];
    let bearer = addressed.into_iter().flatten().find_map(|ip| bearer_of(view, ip));
    let default = || Family::BOTH.into_iter().find_map(|family| view.default_link(family));
    match bearer.or_else(default) {
        Some(link) => Ok(link),
        None => only_candidate(view),
    }
}

fn chosen<'a>(view: &'a NodeView, choice: &LinkChoice) -> Option<&'a LinkView> {
    // Nothing of ours leads to another node but through the uplink.
    let links = || view.links.iter().filter(|link| link.group != GROUP);
    match choice {
        LinkChoice::Name(name) => view.link(*name),
        LinkChoice::Address(addr) => bearer_of(view, *addr),
        LinkChoice::Pattern(pattern) => {
            let has = |link: &&LinkView| {
                link.addresses.iter().any(|address| pattern.is_like(&address.addr.to_string()))
            };
            links().find(has).or_else(|| links().find(|link| pattern.is_like(link.name.as_str())))
        }
        LinkChoice::Reaches(addr) => view.link_to(*addr),
    }
}

/// Without a default route there is no doubt either when just one link can be meant.
fn only_candidate(view: &NodeView) -> Result<&LinkView, String> {
    let is_candidate = |link: &&LinkView| {
        link.group != GROUP
            && !link.loopback.is_on()
            && Family::BOTH.iter().any(|f| link.best_address(*f).is_some())
    };
    let candidates: Vec<_> = view.links.iter().filter(is_candidate).collect();
    match candidates.as_slice() {
        [link] => Ok(link),
        [] => Err("no link has an address, so there is no uplink".into()),
        several => {
            let names: Vec<_> = several.iter().map(|link| link.name.to_string()).collect();
            let names = names.join(", ");
            Err(format!(
                "there is no default route to tell the uplink by; name one of {names} with --interface"
            ))
        }
    }
}

fn bearer_of(view: &NodeView, ip: IpAddr) -> Option<&LinkView> {
    view.links.iter().find(|link| link.addresses.iter().any(|address| address.addr == ip))
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
mod tests {
    use russet_desired::Flag;
    use russet_kernel::observe::{AddressView, RouteView, Scope};

    use super::*;

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

    fn uplink_of(choices: &[LinkChoice]) -> Uplink {
        Uplink { choices: choices.to_vec(), ..Uplink::default() }
    }

    #[test]
    fn without_a_default_route_the_node_says_what_to_do() {
        let view = NodeView { routes: Vec::new(), ..node() };
        let err = fact(&view, &Uplink::default()).unwrap_err();
        assert!(err.contains("eth0, eth1") && err.contains("--interface"), "{err}");
    }

    #[test]
    fn without_a_default_route_the_only_link_with_an_address_is_the_uplink() {
        let links = vec![
            link(2, "eth0", 0, [192, 168, 77, 1], 24),
            link(4, "cni0", GROUP, [10, 50, 7, 1], 24),
        ];
        let view = NodeView { routes: Vec::new(), links };
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
        NodeView { links, routes: vec![via] }
    }

    fn link(index: u32, name: &str, group: u32, addr: [u8; 4], len: u8) -> LinkView {
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
