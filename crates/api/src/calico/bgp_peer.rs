//! `BGPPeer`.

use std::net::{IpAddr, SocketAddr};

use russet_core::model::calico::{
    Between, BgpPeer, FailureDetection, NextHopMode, Remote, SourceAddress,
};
use russet_net::Port;

use super::{
    at::At,
    bgp_configuration::secret,
    kind::Kind,
    stored::{Form, Layout},
};

impl Form for BgpPeer {
    const KIND: Kind = Kind::BgpPeer;
    const ORDER: &'static [&'static str] = &[
        "node",
        "nodeSelector",
        "peerIP",
        "asNumber",
        "localASNumber",
        "peerSelector",
        "keepOriginalNextHop",
        "password",
        "name",
        "key",
        "sourceAddress",
        "maxRestartTime",
        "keepaliveTime",
        "numAllowedLocalASNumbers",
        "ttlSecurity",
        "reachableBy",
        "filters",
        "localWorkloadSelector",
        "nextHopMode",
        "failureDetectionMode",
    ];

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        let remote = remote(&spec);
        let rest = |remote| Self {
            between: between(&spec),
            remote,
            next_hop: next_hop(&spec),
            password: secret(&spec.at("password")),
            source: spec.at("sourceAddress").one_of(SOURCES).unwrap_or_default(),
            restart_time: spec.at("maxRestartTime").span(),
            keepalive: spec.at("keepaliveTime").span(),
            allowed_own_as: octet(&spec.at("numAllowedLocalASNumbers")).unwrap_or_default(),
            ttl_hops: octet(&spec.at("ttlSecurity")).and_then(std::num::NonZeroU8::new),
            reachable_by: spec.at("reachableBy").parsed(),
            filters: spec.at("filters").items().iter().filter_map(At::parsed).collect(),
            local_asn: spec.at("localASNumber").asn(),
            failure_detection: spec
                .at("failureDetectionMode")
                .one_of(DETECTION)
                .unwrap_or_default(),
        };
        // All else is read first, for the sake of its faults.
        let all = rest(Remote::Nodes(russet_net::Selector::all()));
        let remote = remote?;
        check_gateway(&spec.at("reachableBy"), all.reachable_by, &remote);
        Some(Self { remote, ..all })
    }
}

fn between(spec: &At<'_>) -> Between {
    let (node, nodes) = (spec.at("node"), spec.at("nodeSelector"));
    if node.text().is_some() && nodes.text().is_some() {
        nodes.refuse("node names the nodes already; leave one of the two out");
    }
    match (node.parsed(), nodes.parsed()) {
        (Some(node), _) => Between::Node(node),
        (None, Some(nodes)) => Between::Nodes(nodes),
        (None, None) => Between::EveryNode,
    }
}

fn remote(spec: &At<'_>) -> Option<Remote> {
    let ip = spec.at("peerIP");
    let asn = spec.at("asNumber");
    let (nodes, pods) = (spec.at("peerSelector"), spec.at("localWorkloadSelector"));
    let said = [&ip, &nodes, &pods].into_iter().filter(|at| at.text().is_some()).count();
    if said > 1 {
        ip.refuse("one of peerIP, peerSelector and localWorkloadSelector is wanted, not several");
        return None;
    }
    if nodes.text().is_some() {
        if asn.is_there() && asn.asn().is_some_and(|asn| asn.get() > 0) {
            asn.refuse("nodes have their own AS numbers; leave it out with peerSelector");
        }
        return nodes.parsed().map(Remote::Nodes);
    }
    let number = asn.required().asn();
    if pods.text().is_some() {
        let chosen = pods.parsed();
        return Some(Remote::Workloads { chosen: chosen?, asn: number? });
    }
    let ip = address(ip.required());
    let (ip, port) = ip?;
    Some(Remote::Router { ip, port, asn: number? })
}

/// `192.0.2.1`, `192.0.2.1:1790`, `2001:db8::1`, `[2001:db8::1]:1790`.
fn address(at: &At<'_>) -> Option<(IpAddr, Option<Port>)> {
    let text = at.text()?;
    if let Ok(ip) = text.parse() {
        return Some((ip, None));
    }
    let socket = text.parse::<SocketAddr>().ok();
    let read = socket.and_then(|s| Some((s.ip(), Some(Port::try_from(u32::from(s.port())).ok()?))));
    if read.is_none() {
        at.wanted("ADDRESS, IPv4:PORT or [IPv6]:PORT");
    }
    read
}

/// A gateway leads to one address, of its own family.
fn check_gateway(at: &At<'_>, gateway: Option<IpAddr>, remote: &Remote) {
    match (gateway, remote) {
        (Some(gateway), Remote::Router { ip, .. }) if gateway.is_ipv4() != ip.is_ipv4() => {
            at.refuse(format!("{gateway} is not of the family of peerIP {ip}"));
        }
        (Some(_), Remote::Nodes(_) | Remote::Workloads { .. }) => {
            at.refuse("it says nothing without peerIP");
        }
        _ => {}
    }
}

fn next_hop(spec: &At<'_>) -> NextHopMode {
    let keep = spec.at("keepOriginalNextHop").flag().unwrap_or(false);
    let mode = spec.at("nextHopMode");
    match (mode.one_of(MODES), keep) {
        (Some(NextHopMode::Keep) | None, true) => NextHopMode::Keep,
        (Some(other), true) => {
            mode.refuse("keepOriginalNextHop says Keep; leave one of the two out");
            other
        }
        (said, false) => said.unwrap_or_default(),
    }
}

fn octet(at: &At<'_>) -> Option<u8> {
    let read = u8::try_from(at.number()?);
    if read.is_err() {
        at.wanted("a number from 0 to 255");
    }
    read.ok()
}

/// Calico's commercial sibling has this field; Calico keeps it unread in etcd.
const DETECTION: &[(&str, FailureDetection)] = &[
    ("None", FailureDetection::None),
    ("BFDIfDirectlyConnected", FailureDetection::BfdIfDirectlyConnected),
];

const MODES: &[(&str, NextHopMode)] =
    &[("Auto", NextHopMode::Auto), ("Self", NextHopMode::Own), ("Keep", NextHopMode::Keep)];

const SOURCES: &[(&str, SourceAddress)] =
    &[("UseNodeIP", SourceAddress::UseNodeIp), ("None", SourceAddress::None)];
