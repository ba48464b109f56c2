//! With whom this node has sessions, and by which object: the mesh, and every `BGPPeer` that chooses us at either end.
//!
//! One address has one session. Where several say one, the more specific wins, and the others are told so: a node's own
//! before one by a selector, that before one for all, and the mesh last; of two alike the first by name.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use russet_api::calico::Kind;
use russet_bgp::speaker::PeerAddr;
use russet_core::model::calico::{Between, BgpPeer, Name, Node, OnSubnet, PeerKind, Remote};
use russet_net::{Asn, Family};

use super::{
    super::config::BGP_PORT,
    Grade, Reports, Resources,
    ours::{Ours, port_of},
};

/// A session that somebody wishes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub addr: PeerAddr,
    pub rank: Rank,
    /// Its `BGPPeer`; none is the mesh.
    pub object: Option<(&'a Name, &'a BgpPeer)>,
    /// The node at the other end, if it is one.
    pub node: Option<&'a Name>,
    pub asn: Asn,
    pub port: u32,
    /// Of a peer that is a reflector itself.
    pub cluster_id: Option<Ipv4Addr>,
}

/// The more specific is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Mesh,
    Global,
    Selector,
    Node,
}

impl Rank {
    /// As Calico calls it.
    pub const fn kind(self) -> PeerKind {
        match self {
            Self::Mesh => PeerKind::NodeMesh,
            Self::Global => PeerKind::GlobalPeer,
            Self::Selector | Self::Node => PeerKind::NodePeer,
        }
    }

    const fn of(between: &Between) -> Self {
        match between {
            Between::EveryNode => Self::Global,
            Between::Nodes(_) => Self::Selector,
            Between::Node(_) => Self::Node,
        }
    }
}

/// One wish for each address.
pub(super) fn chosen<'a>(
    resources: &'a Resources,
    ours: &Ours<'a>,
    reports: &mut Reports,
) -> Vec<Wish<'a>> {
    let mut wishes = mesh(resources, ours);
    for (name, peer) in &resources.peers {
        wishes.extend(by_object(resources, ours, name, peer, reports));
    }
    // The winner of each address is the first: the highest rank, then the first by name.
    wishes.sort_by_key(|wish| (wish.addr, std::cmp::Reverse(wish.rank), wish.object.map(|o| o.0)));
    let mut lost = BTreeMap::<(&Name, Option<&Name>), Vec<IpAddr>>::new();
    let mut chosen: Vec<Wish<'a>> = Vec::new();
    for wish in wishes {
        match chosen.last() {
            Some(winner) if winner.addr == wish.addr => {
                let (Some((by, _)), loser) = (winner.object, wish.object.map(|o| o.0)) else {
                    continue;
                };
                // At both ends of one peering.
                if loser != Some(by) {
                    lost.entry((by, loser)).or_default().push(wish.addr.ip);
                }
            }
            _ => chosen.push(wish),
        }
    }
    for ((by, loser), addrs) in lost {
        note_lost(by, loser, &addrs, reports);
    }
    chosen
}

fn note_lost(by: &Name, loser: Option<&Name>, addrs: &[IpAddr], reports: &mut Reports) {
    let shown = match addrs {
        [one] => one.to_string(),
        [first, ..] => format!("{first} and {} more", addrs.len() - 1),
        [] => return,
    };
    let (name, reason) = match loser {
        Some(loser) => {
            (loser, format!("{shown}: {by} is as specific or more so, and has the session"))
        }
        None => (by, format!("{shown}: it has the session in the place of the mesh")),
    };
    reports.tell(Kind::BgpPeer, name, Grade::Note, reason);
}

/// Every other node that is no reflector, unless we are one.
fn mesh<'a>(resources: &'a Resources, ours: &Ours<'a>) -> Vec<Wish<'a>> {
    if !ours.cluster.has_mesh() || ours.cluster_id.is_some() {
        return Vec::new();
    }
    let is_in = |node: &Node| node.bgp.is_some_and(|bgp| bgp.cluster_id.is_none());
    let others = resources.nodes.iter().filter(|(_, node)| is_in(node));
    others
        .flat_map(|(name, node)| with_node(resources, ours, name, node, Rank::Mesh, None))
        .collect()
}

/// What a `BGPPeer` says of us, as its own end or as the other.
fn by_object<'a>(
    resources: &'a Resources,
    ours: &Ours<'a>,
    name: &'a Name,
    peer: &'a BgpPeer,
    reports: &mut Reports,
) -> Vec<Wish<'a>> {
    let here = is_between(&peer.between, ours.name, ours.node);
    match &peer.remote {
        Remote::Router { .. } if here => router(resources, ours, name, peer, reports),
        Remote::Nodes(chosen) => {
            let there = chosen.matches(&ours.node.labels);
            let is_other_end = |other: &Name, node: &Node| {
                (here && chosen.matches(&node.labels))
                    || (there && is_between(&peer.between, other, node))
            };
            let others = resources.nodes.iter().filter(|(other, node)| is_other_end(other, node));
            let rank = Rank::of(&peer.between);
            let session =
                |(other, node)| with_node(resources, ours, other, node, rank, Some((name, peer)));
            let wishes: Vec<_> = others.flat_map(session).collect();
            if wishes.is_empty() && (here || there) {
                let reason = "it chooses no other node that this one shares an address family with";
                reports.tell(Kind::BgpPeer, name, Grade::Note, reason);
            }
            wishes
        }
        Remote::Workloads { .. } if here => {
            let reason = "localWorkloadSelector: no session with a pod is opened";
            reports.tell(Kind::BgpPeer, name, Grade::NoEffect, reason);
            Vec::new()
        }
        Remote::Router { .. } | Remote::Workloads { .. } => Vec::new(),
    }
}

/// A router by its address, unless that is ours.
fn router<'a>(
    resources: &'a Resources,
    ours: &Ours<'a>,
    name: &'a Name,
    peer: &'a BgpPeer,
    reports: &mut Reports,
) -> Vec<Wish<'a>> {
    let Remote::Router { ip, port, asn } = peer.remote else { return Vec::new() };
    let family = Family::of(ip);
    match ours.addr(family) {
        Some(own) if own == ip => return Vec::new(),
        Some(_) => {}
        None => {
            let reason = format!("this node has no {family} address to reach {ip} by");
            reports.tell(Kind::BgpPeer, name, Grade::Note, reason);
            return Vec::new();
        }
    }
    let at = |node: &Node| node.underlay(family).map(OnSubnet::addr) == Some(ip);
    let port = port.map(|port| u32::from(port.get())).or_else(|| {
        let node = resources.nodes.iter().find(|(_, node)| at(node));
        node.map(|(name, _)| port_of(resources, name))
    });
    vec![Wish {
        addr: ip.into(),
        rank: Rank::of(&peer.between),
        object: Some((name, peer)),
        // An address is what is named, whoever has it.
        node: None,
        asn,
        port: port.unwrap_or(BGP_PORT),
        cluster_id: None,
    }]
}

/// A session by each family that both have an address of.
fn with_node<'a>(
    resources: &'a Resources,
    ours: &Ours<'a>,
    name: &'a Name,
    node: &'a Node,
    rank: Rank,
    object: Option<(&'a Name, &'a BgpPeer)>,
) -> Vec<Wish<'a>> {
    if name == ours.name {
        return Vec::new();
    }
    let wish = |ip: IpAddr| Wish {
        addr: ip.into(),
        rank,
        object,
        node: Some(name),
        asn: ours.asn_of(node),
        port: port_of(resources, name),
        cluster_id: node.bgp.and_then(|bgp| bgp.cluster_id),
    };
    let addrs = Family::BOTH.into_iter().filter_map(|family| {
        let own = ours.addr(family)?;
        node.underlay(family).map(OnSubnet::addr).filter(|ip| *ip != own)
    });
    addrs.map(wish).collect()
}

fn is_between(between: &Between, name: &Name, node: &Node) -> bool {
    match between {
        Between::EveryNode => true,
        Between::Node(one) => one == name,
        Between::Nodes(chosen) => chosen.matches(&node.labels),
    }
}
