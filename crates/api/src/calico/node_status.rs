//! `CalicoNodeStatus`: somebody writes the wish, and the node its report beside it.

use std::num::NonZeroU32;

use russet_core::model::calico::{
    CalicoNodeStatus, NodeReport, PeerKind, ReportClass, ReportedPeer, ReportedRoute, RouteSource,
    RouteUse, SessionState,
};
use russet_net::Family;
use serde_json::{Value, json};

use super::{
    at::At,
    kind::Kind,
    pool::word,
    stored::{Form, Layout, Stored},
};

impl Form for CalicoNodeStatus {
    const KIND: Kind = Kind::CalicoNodeStatus;
    const ORDER: &'static [&'static str] = &[
        "node",
        "classes",
        "updatePeriodSeconds",
        "lastUpdated",
        "agent",
        "birdV4",
        "birdV6",
        "bgp",
        "routes",
        "numberEstablishedV4",
        "numberNotEstablishedV4",
        "numberEstablishedV6",
        "numberNotEstablishedV6",
        "peersV4",
        "peersV6",
        "routesV4",
        "routesV6",
        "sourceType",
        "peerIP",
        "type",
        "state",
        "since",
        "destination",
        "gateway",
        "interface",
        "learnedFrom",
        "version",
        "routerID",
        "lastBootTime",
        "lastReconfigurationTime",
    ];

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        let classes = spec.at("classes");
        let read = classes.items().iter().filter_map(|item| item.one_of(CLASSES)).collect();
        if classes.required().list().is_empty() {
            classes.wanted("a list of Agent, BGP or Routes");
        }
        let period = spec.at("updatePeriodSeconds");
        let seconds = match period.number() {
            None => Some(Self::USUAL_SECONDS),
            Some(seconds) => u32::try_from(seconds).ok().filter(|s| *s <= Self::MOST_SECONDS),
        };
        if seconds.is_none() {
            period.wanted("a number from 0 to 86400");
        }
        Some(Self {
            node: spec.at("node").required().parsed()?,
            classes: read,
            period_seconds: seconds.and_then(NonZeroU32::new),
        })
    }
}

/// Writes a node's report: the classes that are asked for, and nothing of the rest.
pub fn write_report(object: &mut Stored<CalicoNodeStatus>, report: &NodeReport) {
    let classes = object.value().classes.clone();
    object.patch_whole(|document| {
        document.set(&["status", "lastUpdated"], report.updated.as_str());
        if classes.contains(&ReportClass::Agent) {
            let daemon = json!({
                "state": if report.ready { "Ready" } else { "NotReady" },
                "version": report.version,
                "routerID": report.router_id,
            });
            document.set(&["status", "agent", "birdV4"], daemon.clone());
            document.set(&["status", "agent", "birdV6"], daemon);
        }
        if classes.contains(&ReportClass::Bgp) {
            document.set(&["status", "bgp"], bgp(&report.peers));
        }
        if classes.contains(&ReportClass::Routes) {
            document.set(&["status", "routes"], routes(&report.routes));
        }
    });
}

fn bgp(peers: &[ReportedPeer]) -> Value {
    let of = |family| peers.iter().filter(move |peer| Family::of(peer.ip) == family);
    let count = |family, up| {
        of(family).filter(|peer| (peer.state == SessionState::Established) == up).count()
    };
    let list = |family| of(family).map(peer).collect::<Vec<_>>();
    json!({
        "numberEstablishedV4": count(Family::V4, true),
        "numberNotEstablishedV4": count(Family::V4, false),
        "numberEstablishedV6": count(Family::V6, true),
        "numberNotEstablishedV6": count(Family::V6, false),
        "peersV4": list(Family::V4),
        "peersV6": list(Family::V6),
    })
}

fn peer(peer: &ReportedPeer) -> Value {
    json!({
        "peerIP": peer.ip.to_string(),
        "type": word(PEER_KINDS, peer.kind),
        "state": word(STATES, peer.state),
        "since": peer.since,
    })
}

/// Go leaves an empty list out.
fn routes(routes: &[ReportedRoute]) -> Value {
    let mut object = serde_json::Map::new();
    for (key, family) in [("routesV4", Family::V4), ("routesV6", Family::V6)] {
        let list: Vec<_> =
            routes.iter().filter(|one| one.dst.family() == family).map(route).collect();
        if !list.is_empty() {
            object.insert(key.into(), list.into());
        }
    }
    object.into()
}

fn route(route: &ReportedRoute) -> Value {
    let (source, peer) = match route.source {
        RouteSource::Kernel => ("Kernel", None),
        RouteSource::Static => ("Static", None),
        RouteSource::Direct => ("Direct", None),
        RouteSource::NodeMesh(peer) => ("NodeMesh", Some(peer)),
        RouteSource::BgpPeer(peer) => ("BGPPeer", Some(peer)),
    };
    let mut object = json!({
        "type": match route.used {
            RouteUse::Forwarding => "FIB",
            RouteUse::Known => "RIB",
        },
        "destination": route.dst.to_string(),
        "learnedFrom": {"sourceType": source},
    });
    for (key, value) in [
        ("gateway", route.via.map(|via| via.to_string())),
        ("interface", route.link.map(|link| link.to_string())),
    ] {
        if let Some(value) = value {
            object[key] = value.into();
        }
    }
    if let Some(peer) = peer {
        object["learnedFrom"]["peerIP"] = peer.to_string().into();
    }
    object
}

const CLASSES: &[(&str, ReportClass)] =
    &[("Agent", ReportClass::Agent), ("BGP", ReportClass::Bgp), ("Routes", ReportClass::Routes)];

const PEER_KINDS: &[(&str, PeerKind)] = &[
    ("NodeMesh", PeerKind::NodeMesh),
    ("NodePeer", PeerKind::NodePeer),
    ("GlobalPeer", PeerKind::GlobalPeer),
];

const STATES: &[(&str, SessionState)] = &[
    ("Idle", SessionState::Idle),
    ("Connect", SessionState::Connect),
    ("Active", SessionState::Active),
    ("OpenSent", SessionState::OpenSent),
    ("OpenConfirm", SessionState::OpenConfirm),
    ("Established", SessionState::Established),
];
