//! The columns of each kind's table: calicoctl's, in its order.

use russet_api::calico::{Kind, Resource};
use serde_json::Value;

/// How wide a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    Usual,
    Wide,
    /// With the namespace in front.
    Namespaces,
    /// Both.
    WideNamespaces,
}

impl Width {
    const fn is_wide(self) -> bool {
        matches!(self, Self::Wide | Self::WideNamespaces)
    }

    /// Whether a table of this kind begins with the namespace.
    const fn has_namespace(self, kind: Kind) -> bool {
        matches!(self, Self::Namespaces | Self::WideNamespaces) && kind.is_namespaced()
    }
}

/// A column: its title, and whether only a wide table has it.
type Column = (&'static str, bool, fn(&At<'_>) -> String);

/// The titles of a kind's table.
pub fn titles(kind: Kind, width: Width) -> Vec<&'static str> {
    let namespace = width.has_namespace(kind).then_some("namespace");
    let own = shown(kind, width).map(|(title, ..)| *title);
    namespace.into_iter().chain(own).collect()
}

/// The cells of an object.
pub fn cells(resource: &Resource, width: Width) -> Vec<String> {
    let at = At(resource.object());
    let kind = resource.kind();
    let namespace = width.has_namespace(kind).then(|| at.text("metadata.namespace"));
    namespace.into_iter().chain(shown(kind, width).map(|(.., read)| read(&at))).collect()
}

fn shown(kind: Kind, width: Width) -> impl Iterator<Item = &'static Column> {
    columns(kind).iter().filter(move |(_, wide, _)| !wide || width.is_wide())
}

/// An object whose fields are asked for by path.
struct At<'a>(&'a Value);

impl At<'_> {
    fn value(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self.0, |value, key| value.get(key)).filter(|v| !v.is_null())
    }

    fn text(&self, path: &str) -> String {
        self.value(path).map(shown_value).unwrap_or_default()
    }

    fn or(&self, path: &str, usual: &str) -> String {
        let text = self.text(path);
        if text.is_empty() { usual.to_owned() } else { text }
    }

    fn flag(&self, path: &str) -> String {
        self.or(path, "false")
    }

    fn count(&self, path: &str) -> String {
        self.value(path).and_then(Value::as_array).map_or(0, Vec::len).to_string()
    }
}

fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown_value).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

const NAME: Column = ("name", false, |at| at.text("metadata.name"));

const fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::IpPool => POOL,
        Kind::IpReservation => &[NAME, ("cidrs", false, |at| at.text("spec.reservedCIDRs"))],
        Kind::IpamConfiguration => IPAM_CONFIGURATION,
        Kind::IpamBlock => BLOCK,
        Kind::IpamHandle => &[NAME, ("blocks", false, handle_blocks)],
        Kind::BlockAffinity => AFFINITY,
        Kind::Node => NODE,
        Kind::WorkloadEndpoint => WORKLOAD,
        Kind::BgpConfiguration => BGP_CONFIGURATION,
        Kind::BgpPeer => BGP_PEER,
        Kind::BgpFilter => BGP_FILTER,
        Kind::FelixConfiguration => FELIX,
        Kind::ClusterInformation => CLUSTER,
        Kind::CalicoNodeStatus => NODE_STATUS,
        _ => &[NAME],
    }
}

const POOL: &[Column] = &[
    NAME,
    ("cidr", false, |at| at.text("spec.cidr")),
    ("nat", true, |at| at.flag("spec.natOutgoing")),
    ("ipipmode", true, |at| at.or("spec.ipipMode", "Never")),
    ("vxlanmode", true, |at| at.or("spec.vxlanMode", "Never")),
    ("disabled", true, |at| at.flag("spec.disabled")),
    ("disablebgpexport", true, |at| at.flag("spec.disableBGPExport")),
    ("selector", false, |at| at.or("spec.nodeSelector", "all()")),
];

const IPAM_CONFIGURATION: &[Column] = &[
    NAME,
    ("strictaffinity", false, |at| at.flag("spec.strictAffinity")),
    ("autoallocateblocks", false, |at| at.flag("spec.autoAllocateBlocks")),
    ("maxblocksperhost", true, |at| at.or("spec.maxBlocksPerHost", "20")),
];

const BLOCK: &[Column] = &[
    NAME,
    ("cidr", false, |at| at.text("spec.cidr")),
    ("affinity", false, |at| at.text("spec.affinity")),
    ("free", false, |at| at.count("spec.unallocated")),
    ("sequence", true, |at| at.text("spec.sequenceNumber")),
];

const AFFINITY: &[Column] = &[
    NAME,
    ("cidr", false, |at| at.text("spec.cidr")),
    ("node", false, |at| at.text("spec.node")),
    ("state", false, |at| at.text("spec.state")),
    ("type", true, |at| at.or("spec.type", "host")),
];

const NODE: &[Column] = &[
    NAME,
    ("asn", true, |at| at.text("spec.bgp.asNumber")),
    ("ipv4", true, |at| at.text("spec.bgp.ipv4Address")),
    ("ipv6", true, |at| at.text("spec.bgp.ipv6Address")),
];

const WORKLOAD: &[Column] = &[
    ("name", true, |at| at.text("metadata.name")),
    ("workload", false, |at| {
        let pod = at.text("spec.pod");
        at.or("spec.workload", &pod)
    }),
    ("node", false, |at| at.text("spec.node")),
    ("networks", false, |at| at.text("spec.ipNetworks")),
    ("interface", false, |at| at.text("spec.interfaceName")),
    ("profiles", true, |at| at.text("spec.profiles")),
    ("nats", true, |at| at.text("spec.ipNATs")),
];

const BGP_CONFIGURATION: &[Column] = &[
    NAME,
    ("logseverity", false, |at| at.text("spec.logSeverityScreen")),
    ("meshenabled", false, |at| at.or("spec.nodeToNodeMeshEnabled", "true")),
    ("asnumber", false, |at| at.or("spec.asNumber", "64512")),
];

const BGP_PEER: &[Column] = &[
    NAME,
    ("peerip", false, |at| at.text("spec.peerIP")),
    ("node", false, |at| {
        let selector = at.or("spec.nodeSelector", "(global)");
        at.or("spec.node", &selector)
    }),
    ("asn", false, |at| at.or("spec.asNumber", "0")),
];

const BGP_FILTER: &[Column] = &[
    NAME,
    ("exportv4", false, |at| at.count("spec.exportV4")),
    ("importv4", false, |at| at.count("spec.importV4")),
    ("exportv6", false, |at| at.count("spec.exportV6")),
    ("importv6", false, |at| at.count("spec.importV6")),
];

const FELIX: &[Column] = &[
    NAME,
    ("logseverity", true, |at| at.text("spec.logSeverityScreen")),
    ("reportinginterval", true, |at| at.text("spec.reportingInterval")),
];

const CLUSTER: &[Column] = &[
    NAME,
    ("clusterguid", false, |at| at.text("spec.clusterGUID")),
    ("clustertype", false, |at| at.text("spec.clusterType")),
    ("calicoversion", false, |at| at.text("spec.calicoVersion")),
    ("datastoreready", false, |at| at.or("spec.datastoreReady", "true")),
];

const NODE_STATUS: &[Column] = &[
    NAME,
    ("node", false, |at| at.text("spec.node")),
    ("classes", true, |at| at.text("spec.classes")),
];

fn handle_blocks(at: &At<'_>) -> String {
    let blocks = at.value("spec.block").and_then(Value::as_object);
    let pairs = blocks.into_iter().flatten();
    pairs.map(|(cidr, count)| format!("{cidr} ({count})")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_columns_and_a_cell_for_each() {
        let pool = Resource::read(
            Kind::IpPool,
            json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "web"},
                   "spec": {"cidr": "10.0.0.0/16", "natOutgoing": true}}),
        )
        .unwrap();
        assert_eq!(cells(&pool, Width::Usual), ["web", "10.0.0.0/16", "all()"]);
        assert_eq!(
            cells(&pool, Width::Wide),
            ["web", "10.0.0.0/16", "true", "Never", "Never", "false", "false", "all()"]
        );
        for kind in Kind::HANDLED {
            assert!(!titles(kind, Width::Usual).is_empty(), "{kind}");
        }
        assert_eq!(titles(Kind::WorkloadEndpoint, Width::Namespaces)[0], "namespace");
        let wide = titles(Kind::WorkloadEndpoint, Width::WideNamespaces);
        assert_eq!((wide[0], wide[1], wide.len()), ("namespace", "name", 8));
    }
}
