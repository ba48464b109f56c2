//! `BGPConfiguration`.

use std::collections::BTreeMap;

use russet_core::model::{
    Flag,
    calico::{BgpConfiguration, BindMode, Community, PrefixAdvertisement, SecretRef, Tag},
};
use russet_net::Prefix;

use super::{
    at::At,
    kind::Kind,
    stored::{Form, Layout},
};

impl Form for BgpConfiguration {
    const KIND: Kind = Kind::BgpConfiguration;
    const ORDER: &'static [&'static str] = &[
        "logSeverityScreen",
        "nodeToNodeMeshEnabled",
        "asNumber",
        "serviceLoadBalancerIPs",
        "serviceExternalIPs",
        "serviceClusterIPs",
        "cidr",
        "communities",
        "name",
        "value",
        "prefixAdvertisements",
        "listenPort",
        "nodeMeshPassword",
        "key",
        "nodeMeshMaxRestartTime",
        "bindMode",
        "ignoredInterfaces",
    ];

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        let communities = communities(&spec.at("communities"));
        let advertisements = spec.at("prefixAdvertisements").items();
        let advertisement = |at: &At<'_>| advertisement(at, &communities);
        Some(Self {
            asn: spec.at("asNumber").asn(),
            mesh: spec.at("nodeToNodeMeshEnabled").flag().map(Flag::from),
            listen_port: spec.at("listenPort").above_zero(),
            bind_mode: spec
                .at("bindMode")
                .one_of(&[("None", BindMode::None), ("NodeIP", BindMode::NodeIp)]),
            service_cluster: cidrs(&spec.at("serviceClusterIPs")),
            service_external: cidrs(&spec.at("serviceExternalIPs")),
            service_load_balancer: cidrs(&spec.at("serviceLoadBalancerIPs")),
            advertisements: advertisements.iter().filter_map(advertisement).collect(),
            mesh_password: secret(&spec.at("nodeMeshPassword")),
            mesh_restart_time: spec.at("nodeMeshMaxRestartTime").span(),
            ignored_links: spec
                .at("ignoredInterfaces")
                .items()
                .iter()
                .filter_map(At::owned)
                .collect(),
            communities,
        })
    }
}

fn cidrs(at: &At<'_>) -> Vec<Prefix> {
    at.items().iter().filter_map(|item| item.at("cidr").prefix_or_address()).collect()
}

fn communities(at: &At<'_>) -> BTreeMap<String, Community> {
    let items = at.items();
    let pair = |item: &At<'_>| {
        let name = item.at("name").required().owned();
        let value = item.at("value").required().parsed();
        name.zip(value)
    };
    items.iter().filter_map(pair).collect()
}

fn advertisement(at: &At<'_>, known: &BTreeMap<String, Community>) -> Option<PrefixAdvertisement> {
    let tag = |item: &At<'_>| {
        let text = item.text()?;
        match text.parse() {
            Ok(value) => Some(Tag::Value(value)),
            Err(_) if known.contains_key(text) => Some(Tag::Named(text.to_owned())),
            Err(_) => {
                item.wanted("a community such as 64512:100, or a name of spec.communities");
                None
            }
        }
    };
    let communities = at.at("communities").items().iter().filter_map(tag).collect();
    Some(PrefixAdvertisement { cidr: at.at("cidr").required().prefix_or_address()?, communities })
}

/// Where a password lies.
pub(super) fn secret(at: &At<'_>) -> Option<SecretRef> {
    if !at.is_there() {
        return None;
    }
    let at = at.at("secretKeyRef");
    let name = at.at("name").required().owned();
    let key = at.at("key").required().owned();
    Some(SecretRef { name: name?, key: key? })
}
