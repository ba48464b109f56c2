//! `Node`, as etcd has it. `node_annotations` is the same of Kubernetes.

use russet_core::model::calico::{Node, NodeAddress, NodeBgp, OnSubnet, VxlanEnd, WireguardAddr};
use russet_net::{Asn, Family, Labels};
use serde_json::{Value, json};

use super::{
    at::At,
    kind::Kind,
    meta,
    stored::{Form, Layout, Patch, Written},
};

impl Form for Node {
    const KIND: Kind = Kind::Node;
    const ORDER: &'static [&'static str] = &[
        "bgp",
        "asNumber",
        "ipv4Address",
        "ipv6Address",
        "ipv4IPIPTunnelAddr",
        "routeReflectorClusterID",
        "ipv4VXLANTunnelAddr",
        "vxlanTunnelMACAddr",
        "ipv6VXLANTunnelAddr",
        "vxlanTunnelMACAddrV6",
        "orchRefs",
        "nodeName",
        "orchestrator",
        "wireguard",
        "interfaceIPv4Address",
        "interfaceIPv6Address",
        "addresses",
        "address",
        "type",
        "interfaces",
        "name",
        "wireguardPublicKey",
        "wireguardPublicKeyV6",
        "podCIDRs",
    ];

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        let status = root.at("status");
        let wireguard = spec.at("wireguard");
        let bgp = spec.at("bgp");
        Some(Self {
            labels: meta::labels(root),
            bgp: bgp.is_there().then(|| read_bgp(&bgp)),
            ipip: bgp.at("ipv4IPIPTunnelAddr").parsed(),
            vxlan_v4: VxlanEnd {
                addr: spec.at("ipv4VXLANTunnelAddr").parsed(),
                mac: spec.at("vxlanTunnelMACAddr").parsed(),
            },
            vxlan_v6: VxlanEnd {
                addr: spec.at("ipv6VXLANTunnelAddr").parsed(),
                mac: spec.at("vxlanTunnelMACAddrV6").parsed(),
            },
            wireguard_v4: WireguardAddr {
                addr: wireguard.at("interfaceIPv4Address").parsed(),
                key: status.at("wireguardPublicKey").parsed(),
            },
            wireguard_v6: WireguardAddr {
                addr: wireguard.at("interfaceIPv6Address").parsed(),
                key: status.at("wireguardPublicKeyV6").parsed(),
            },
            addresses: addresses(&spec.at("addresses")),
        })
    }
}

fn read_bgp(bgp: &At<'_>) -> NodeBgp {
    NodeBgp {
        asn: bgp.at("asNumber").asn(),
        v4: on_subnet(&bgp.at("ipv4Address"), Family::V4),
        v6: on_subnet(&bgp.at("ipv6Address"), Family::V6),
        cluster_id: bgp.at("routeReflectorClusterID").parsed(),
    }
}

pub(super) fn on_subnet(at: &At<'_>, family: Family) -> Option<OnSubnet> {
    let read = at.parsed::<OnSubnet>()?;
    if Family::of(read.addr()) != family {
        at.wanted(&format!("an {family} address"));
        return None;
    }
    Some(read)
}

/// As many as there are, and no room for more: a cluster has thousands of nodes.
fn addresses(at: &At<'_>) -> Vec<NodeAddress> {
    let mut addresses: Vec<_> = at.items().iter().filter_map(address).collect();
    addresses.shrink_to_fit();
    addresses
}

fn address(at: &At<'_>) -> Option<NodeAddress> {
    let kind = at.at("type").owned().unwrap_or_default();
    Some(NodeAddress { addr: at.at("address").required().parsed()?, kind })
}

impl Written for Node {
    fn patch(&self, object: &mut Patch<'_>) {
        if meta_labels(object) != self.labels {
            meta::write_labels(object.document, &self.labels);
        }
        match &self.bgp {
            Some(bgp) => patch_bgp(object, bgp),
            None => object.set_or_remove(&["bgp"], None::<Value>),
        }
        if self.ipip.is_some() || object.get(&["bgp"]).is_some() {
            object.show(&["bgp", "ipv4IPIPTunnelAddr"], self.ipip);
        }
        object.show(&["ipv4VXLANTunnelAddr"], self.vxlan_v4.addr);
        object.show(&["vxlanTunnelMACAddr"], self.vxlan_v4.mac);
        object.show(&["ipv6VXLANTunnelAddr"], self.vxlan_v6.addr);
        object.show(&["vxlanTunnelMACAddrV6"], self.vxlan_v6.mac);
        if self.wireguard_v4.addr.is_some() || object.get(&["wireguard"]).is_some() {
            object.show(&["wireguard", "interfaceIPv4Address"], self.wireguard_v4.addr);
        }
        if self.wireguard_v6.addr.is_some() || object.get(&["wireguard"]).is_some() {
            object.show(&["wireguard", "interfaceIPv6Address"], self.wireguard_v6.addr);
        }
        object.list(&["addresses"], &self.addresses, address, |one| {
            if one.kind.is_empty() {
                json!({"address": one.addr.to_string()})
            } else {
                json!({"address": one.addr.to_string(), "type": one.kind})
            }
        });
        for (key, end) in [
            ("wireguardPublicKey", self.wireguard_v4.key),
            ("wireguardPublicKeyV6", self.wireguard_v6.key),
        ] {
            let key = ["status", key];
            object.document.set_or_remove(&key, end.map(|end| end.to_string()));
        }
        // Go has no way to leave it out.
        if object.document.get(&["status"]).is_none() {
            object.document.set(&["status"], json!({}));
        }
    }
}

fn patch_bgp(object: &mut Patch<'_>, bgp: &NodeBgp) {
    // Calico takes no object without anything in it, so none is made.
    if object.get(&["bgp"]).is_none() && *bgp == NodeBgp::default() {
        return;
    }
    object.set_or_remove(&["bgp", "asNumber"], bgp.asn.map(Asn::get));
    object.show(&["bgp", "ipv4Address"], bgp.v4);
    object.show(&["bgp", "ipv6Address"], bgp.v6);
    object.show(&["bgp", "routeReflectorClusterID"], bgp.cluster_id);
}

fn meta_labels(object: &Patch<'_>) -> Labels {
    let there = object.document.get(&["metadata", "labels"]).and_then(Value::as_object);
    let pairs = there.into_iter().flatten();
    pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())).collect()
}
