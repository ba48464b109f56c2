//! Who we are: AS, identifier, addresses, cluster, and the settings that hold for this node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use russet_api::calico::Kind;
use russet_bgp::{
    fsm::LocalSpeaker,
    wire::{Attributes, ClusterId, RouterId},
};
use russet_core::model::calico::{
    BgpConfiguration, BindMode, Community, Name, Node, OnSubnet, Scope, Tag, hashed_router_id,
};
use russet_net::{Asn, Family, Port, Prefix};

use super::{AsNumbers, Grade, Reports, Resources};
use crate::{
    bgp::config::{BGP_PORT, Marks, OwnRoute},
    config::ConfigFaults,
};

/// This node as a speaker.
#[derive(Debug)]
pub(super) struct Ours<'a> {
    pub name: &'a Name,
    pub node: &'a Node,
    pub local: LocalSpeaker,
    pub asns: AsNumbers,
    /// Of a node that is a reflector.
    pub cluster_id: Option<Ipv4Addr>,
    /// The cluster's settings.
    pub cluster: &'a BgpConfiguration,
    /// This node's own; they go before the cluster's.
    node_settings: Option<&'a BgpConfiguration>,
}

impl<'a> Ours<'a> {
    /// # Errors
    ///
    /// When the node is not there, or has no address.
    pub fn of(
        resources: &'a Resources,
        in_force: Option<AsNumbers>,
        reports: &mut Reports,
    ) -> Result<Self, ConfigFaults> {
        let name = &resources.node;
        let fault = |what: &str| ConfigFaults(vec![format!("Node {name}: {what}")]);
        let node = resources.nodes.get(name).ok_or_else(|| fault("there is no such object"))?;
        let bgp = node.bgp.ok_or_else(|| fault("spec.bgp is missing: it takes no part in BGP"))?;
        let address = bgp.v4.or(bgp.v6);
        address.ok_or_else(|| fault("spec.bgp has neither ipv4Address nor ipv6Address"))?;
        let id = match bgp.v4.map(OnSubnet::addr) {
            Some(IpAddr::V4(v4)) => v4,
            _ => hashed_router_id(name),
        };
        let id = RouterId::try_from(id).map_err(|err| fault(&err.to_string()))?;
        note_settings_for_nobody(resources, reports);
        let cluster = settings(resources, &Scope::Cluster).unwrap_or(&NO_SETTINGS);
        let asns = asns(resources, bgp.asn, cluster, in_force, reports);
        Ok(Self {
            name,
            node,
            local: LocalSpeaker { asn: asns.ours, id },
            asns,
            cluster_id: bgp.cluster_id,
            cluster,
            node_settings: settings(resources, &Scope::Node(name.clone())),
        })
    }

    /// The AS of a node: its own, or the cluster's.
    pub fn asn_of(&self, node: &Node) -> Asn {
        node.bgp.and_then(|bgp| bgp.asn).unwrap_or(self.asns.others)
    }

    pub fn addr(&self, family: Family) -> Option<IpAddr> {
        self.node.underlay(family).map(OnSubnet::addr)
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster_id.map_or(self.local.id.into(), |id| ClusterId::new(id.into()))
    }

    pub fn listen(&self) -> Vec<SocketAddr> {
        let own = |of: fn(&BgpConfiguration) -> Option<BindMode>| {
            self.node_settings.and_then(of).or_else(|| of(self.cluster))
        };
        let port = self.node_settings.and_then(|settings| settings.listen_port);
        let port = port.or(self.cluster.listen_port).map_or(BGP_PORT_16, Port::get);
        let addrs = match own(|settings| settings.bind_mode).unwrap_or_default() {
            BindMode::None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            BindMode::NodeIp => {
                Family::BOTH.into_iter().filter_map(|family| self.addr(family)).collect()
            }
        };
        addrs.into_iter().map(|addr: IpAddr| SocketAddr::new(addr, port)).collect()
    }

    /// The prefixes that services' addresses come from are announced as ours, and these.
    pub fn routes(&self, more: &[Prefix]) -> Vec<OwnRoute> {
        let mut prefixes: Vec<_> = services(self.cluster).chain(more.iter().copied()).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let route = |prefix: Prefix| OwnRoute {
            key: prefix.into(),
            attributes: Attributes::default(),
            next_hop: prefix.family().unspecified().into(),
        };
        prefixes.into_iter().map(route).collect()
    }

    /// Communities of what is announced. This node's list takes the place of the cluster's.
    pub fn marks(&self) -> Vec<Marks> {
        let own = self.node_settings.filter(|settings| !settings.advertisements.is_empty());
        let settings = own.unwrap_or(self.cluster);
        let value = |tag: &Tag| match tag {
            Tag::Value(value) => Some(*value),
            Tag::Named(name) => settings.communities.get(name).copied(),
        };
        let marks = |advertisement: &russet_core::model::calico::PrefixAdvertisement| {
            let mut marks =
                Marks { within: advertisement.cidr, communities: Vec::new(), large: Vec::new() };
            for community in advertisement.communities.iter().filter_map(value) {
                match wire(community) {
                    Wire::Standard(one) => marks.communities.push(one),
                    Wire::Large(one) => marks.large.push(one),
                }
            }
            marks
        };
        settings.advertisements.iter().map(marks).collect()
    }
}

/// All that service addresses come from.
pub(super) fn services(settings: &BgpConfiguration) -> impl Iterator<Item = Prefix> {
    [&settings.service_cluster, &settings.service_external, &settings.service_load_balancer]
        .into_iter()
        .flatten()
        .copied()
}

/// The settings for all, or for one node.
pub(super) fn settings<'a>(
    resources: &'a Resources,
    scope: &Scope,
) -> Option<&'a BgpConfiguration> {
    name_of_settings(resources, scope).and_then(|name| resources.configurations.get(name))
}

pub(super) fn name_of_settings<'a>(resources: &'a Resources, scope: &Scope) -> Option<&'a Name> {
    resources.configurations.keys().find(|name| Scope::of(name) == *scope)
}

/// Where a node's speaker listens.
pub(super) fn port_of(resources: &Resources, node: &Name) -> u32 {
    let of = |scope| settings(resources, &scope).and_then(|settings| settings.listen_port);
    let port = of(Scope::Node(node.clone())).or_else(|| of(Scope::Cluster));
    port.map_or(BGP_PORT, |port| port.get().into())
}

/// The AS numbers that are said, or those in force: each session says ours in its OPEN, and the routes are judged by it.
/// While ours is the cluster's and stays, the others' stays with it: they keep theirs as long as we do.
fn asns(
    resources: &Resources,
    own: Option<Asn>,
    cluster: &BgpConfiguration,
    in_force: Option<AsNumbers>,
    reports: &mut Reports,
) -> AsNumbers {
    let said = AsNumbers { ours: own.unwrap_or(cluster.asn()), others: cluster.asn() };
    let Some(in_force) = in_force else { return said };
    if said.ours != in_force.ours {
        let reason = format!(
            "asNumber {} needs a restart of the agent; AS {} holds until then",
            said.ours, in_force.ours
        );
        let configured = name_of_settings(resources, &Scope::Cluster).filter(|_| own.is_none());
        match configured {
            Some(name) => reports.tell(Kind::BgpConfiguration, name, Grade::Fault, reason),
            None => reports.tell(Kind::Node, &resources.node, Grade::Fault, reason),
        }
    }
    let others = if own.is_none() { in_force.others } else { said.others };
    AsNumbers { ours: in_force.ours, others }
}

fn note_settings_for_nobody(resources: &Resources, reports: &mut Reports) {
    for (name, settings) in &resources.configurations {
        let mut idle = |what: &str| {
            reports.tell(Kind::BgpConfiguration, name, Grade::NoEffect, what);
        };
        match Scope::of(name) {
            Scope::Nobody => idle("it is for nobody: the name default, or node.NODE, is wanted"),
            Scope::Node(node) if node == resources.node => {
                let common = settings.asn.is_some()
                    || settings.mesh.is_some()
                    || settings.mesh_password.is_some()
                    || services(settings).next().is_some();
                if common {
                    idle(
                        "of one node's settings, only listenPort, bindMode, communities and \
                         prefixAdvertisements count; the AS of a node is its spec.bgp.asNumber",
                    );
                }
            }
            Scope::Cluster if !settings.ignored_links.is_empty() => {
                idle("ignoredInterfaces: no addresses of links are announced anyway");
            }
            Scope::Cluster | Scope::Node(_) => {}
        }
    }
}

/// A community as the speaker has it.
pub(super) enum Wire {
    Standard(russet_bgp::wire::Community),
    Large(russet_bgp::wire::LargeCommunity),
}

pub(super) fn wire(community: Community) -> Wire {
    match community {
        Community::Standard(high, low) => {
            let raw = u32::from(high) << 16 | u32::from(low);
            Wire::Standard(russet_bgp::wire::Community::new(raw))
        }
        Community::Large(global, one, two) => {
            Wire::Large(russet_bgp::wire::LargeCommunity { global, local: [one, two] })
        }
    }
}

static NO_SETTINGS: BgpConfiguration = BgpConfiguration::NONE;
const BGP_PORT_16: u16 = 179;
