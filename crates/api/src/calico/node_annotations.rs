//! A node as Kubernetes has it: its labels, its addresses, and what Calico adds in annotations.

use std::{collections::BTreeMap, fmt, str::FromStr};

use russet_core::model::calico::{
    Name, Node, NodeAddress, NodeBgp, OnSubnet, VxlanEnd, WireguardAddr,
};
use russet_net::{Family, Prefix};
use serde_json::Value;

use super::{
    at::{At, Notes},
    fault::ObjectFault,
    meta,
    node::on_subnet,
};

/// A Kubernetes node, as far as it concerns a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesNode {
    pub name: Name,
    pub node: Node,
    pub pod_cidrs: Vec<Prefix>,
}

const KIND: &str = "Kubernetes node";

/// Reads a Kubernetes node.
///
/// # Errors
///
/// Every fault of it at once.
pub fn read_kubernetes_node(bytes: &[u8]) -> Result<KubernetesNode, ObjectFault> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|err| ObjectFault::whole(KIND, err.to_string()))?;
    let notes = Notes::default();
    let root = At::root(&value, &notes);
    let name = root.at("metadata").at("name").required().parsed();
    let pod_cidrs = root.at("spec").at("podCIDRs").items().iter().filter_map(At::parsed).collect();
    let node = read(&root);
    match name {
        Some(name) if notes.is_empty() => Ok(KubernetesNode { name, node, pod_cidrs }),
        _ => Err(ObjectFault { kind: KIND, faults: notes.into_faults() }),
    }
}

fn read(root: &At<'_>) -> Node {
    let all = root.at("metadata").at("annotations");
    let all = Annotations(all.entries().into_iter().collect());
    let bgp = NodeBgp {
        asn: all.get(ASN).and_then(At::asn),
        v4: all.get(V4).and_then(|at| on_subnet(at, Family::V4)),
        v6: all.get(V6).and_then(|at| on_subnet(at, Family::V6)),
        cluster_id: all.parsed(CLUSTER_ID),
    };
    Node {
        labels: meta::labels(root),
        bgp: (bgp != NodeBgp::default()).then_some(bgp),
        ipip: all.parsed(IPIP),
        vxlan_v4: VxlanEnd { addr: all.parsed(VXLAN_V4), mac: all.parsed(VXLAN_MAC) },
        vxlan_v6: VxlanEnd { addr: all.parsed(VXLAN_V6), mac: all.parsed(VXLAN_MAC_V6) },
        wireguard_v4: WireguardAddr { addr: all.parsed(WG_V4), key: all.parsed(WG_KEY) },
        wireguard_v6: WireguardAddr { addr: all.parsed(WG_V6), key: all.parsed(WG_KEY_V6) },
        addresses: addresses(&root.at("status").at("addresses")),
    }
}

/// Host names are among them, and none of ours.
fn addresses(at: &At<'_>) -> Vec<NodeAddress> {
    let items = at.items().into_iter();
    let address = |at: At<'_>| {
        let kind = at.at("type").owned()?;
        let is_address = matches!(kind.as_str(), "InternalIP" | "ExternalIP");
        let addr = at.at("address");
        is_address
            .then(|| addr.parsed::<OnSubnet>())
            .flatten()
            .map(|addr| NodeAddress { addr, kind })
    };
    items.filter_map(address).collect()
}

struct Annotations<'a>(BTreeMap<&'a str, At<'a>>);

impl<'a> Annotations<'a> {
    fn get(&self, key: &str) -> Option<&At<'a>> {
        self.0.get(key)
    }

    fn parsed<T>(&self, key: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.get(key)?.parsed()
    }
}

/// Calico's annotations of a node; `None` is for one that must not be there. Others are nobody's business here.
pub fn node_annotations(node: &Node) -> BTreeMap<&'static str, Option<String>> {
    let bgp = node.bgp.unwrap_or_default();
    BTreeMap::from([
        (ASN, shown(bgp.asn)),
        (V4, shown(bgp.v4)),
        (V6, shown(bgp.v6)),
        (CLUSTER_ID, shown(bgp.cluster_id)),
        (IPIP, shown(node.ipip)),
        (VXLAN_V4, shown(node.vxlan_v4.addr)),
        (VXLAN_V6, shown(node.vxlan_v6.addr)),
        (VXLAN_MAC, shown(node.vxlan_v4.mac)),
        (VXLAN_MAC_V6, shown(node.vxlan_v6.mac)),
        (WG_V4, shown(node.wireguard_v4.addr)),
        (WG_V6, shown(node.wireguard_v6.addr)),
        (WG_KEY, shown(node.wireguard_v4.key)),
        (WG_KEY_V6, shown(node.wireguard_v6.key)),
    ])
}

fn shown(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

const ASN: &str = "projectcalico.org/ASNumber";
const V4: &str = "projectcalico.org/IPv4Address";
const V6: &str = "projectcalico.org/IPv6Address";
const CLUSTER_ID: &str = "projectcalico.org/RouteReflectorClusterID";
const IPIP: &str = "projectcalico.org/IPv4IPIPTunnelAddr";
const VXLAN_V4: &str = "projectcalico.org/IPv4VXLANTunnelAddr";
const VXLAN_V6: &str = "projectcalico.org/IPv6VXLANTunnelAddr";
const VXLAN_MAC: &str = "projectcalico.org/VXLANTunnelMACAddr";
const VXLAN_MAC_V6: &str = "projectcalico.org/VXLANTunnelMACAddrV6";
const WG_V4: &str = "projectcalico.org/IPv4WireguardInterfaceAddr";
const WG_V6: &str = "projectcalico.org/IPv6WireguardInterfaceAddr";
const WG_KEY: &str = "projectcalico.org/WireguardPublicKey";
const WG_KEY_V6: &str = "projectcalico.org/WireguardPublicKeyV6";
