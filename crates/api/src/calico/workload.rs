//! `WorkloadEndpoint`, as etcd has it.

use russet_core::model::calico::{NamedPort, WorkloadEndpoint};
use russet_net::Prefix;
use serde_json::{Value, json};

use super::{
    at::At,
    kind::Kind,
    meta,
    stored::{Form, Layout, Patch, Written},
};

impl Form for WorkloadEndpoint {
    const KIND: Kind = Kind::WorkloadEndpoint;
    const ORDER: &'static [&'static str] = &[
        "orchestrator",
        "workload",
        "node",
        "containerID",
        "pod",
        "endpoint",
        "serviceAccountName",
        "ipNetworks",
        "ipNATs",
        "internalIP",
        "externalIP",
        "ipv4Gateway",
        "ipv6Gateway",
        "profiles",
        "interfaceName",
        "mac",
        "ports",
        "protocol",
        "port",
        "hostPort",
        "hostIP",
        "allowSpoofedSourcePrefixes",
        "qosControls",
    ];

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        let required = |key| spec.at(key).required().owned().unwrap_or_default();
        let node = spec.at("node").required().parsed();
        let link = spec.at("interfaceName").required().parsed();
        let addresses = spec.at("ipNetworks").items();
        let prefixes = spec.at("allowSpoofedSourcePrefixes").items();
        let rest = |node, link| Self {
            labels: meta::labels(root),
            orchestrator: required("orchestrator"),
            workload: spec.at("workload").owned(),
            node,
            pod: spec.at("pod").owned(),
            container: spec.at("containerID").owned(),
            endpoint: required("endpoint"),
            service_account: spec.at("serviceAccountName").owned(),
            addresses: addresses.iter().filter_map(address).collect(),
            link,
            mac: spec.at("mac").parsed(),
            gateway_v4: spec.at("ipv4Gateway").parsed(),
            gateway_v6: spec.at("ipv6Gateway").parsed(),
            profiles: spec.at("profiles").items().iter().filter_map(At::owned).collect(),
            ports: spec.at("ports").items().iter().filter_map(port).collect(),
            spoofable: prefixes.iter().filter_map(At::prefix_or_address).collect(),
        };
        Some(rest(node?, link?))
    }
}

fn address(at: &At<'_>) -> Option<std::net::IpAddr> {
    let prefix = at.prefix_or_address()?;
    if !prefix.is_host() {
        at.wanted("one address, /32 or /128");
        return None;
    }
    Some(prefix.addr())
}

fn text(at: &At<'_>) -> Option<String> {
    at.owned()
}

fn prefix(at: &At<'_>) -> Option<Prefix> {
    at.prefix_or_address()
}

fn port(at: &At<'_>) -> Option<NamedPort> {
    let protocol = at.at("protocol");
    let protocol = match protocol.value() {
        Some(Value::Number(_)) => protocol.number().map(|number| number.to_string()),
        _ => protocol.required().owned(),
    };
    let port = at.at("port").required().ranged();
    Some(NamedPort {
        name: at.at("name").owned().unwrap_or_default(),
        protocol: protocol?,
        port: port?,
    })
}

impl Written for WorkloadEndpoint {
    fn patch(&self, object: &mut Patch<'_>) {
        meta::write_labels(object.document, &self.labels);
        object.set(&["orchestrator"], self.orchestrator.as_str());
        object.set_or_remove(&["workload"], self.workload.as_deref());
        object.set(&["node"], self.node.as_str());
        object.set_or_remove(&["containerID"], self.container.as_deref());
        object.set_or_remove(&["pod"], self.pod.as_deref());
        object.set(&["endpoint"], self.endpoint.as_str());
        object.set_or_remove(&["serviceAccountName"], self.service_account.as_deref());
        object.list(&["ipNetworks"], &self.addresses, address, |addr| {
            Prefix::host(*addr).to_string().into()
        });
        object.show(&["ipv4Gateway"], self.gateway_v4);
        object.show(&["ipv6Gateway"], self.gateway_v6);
        object.list(&["profiles"], &self.profiles, text, |name| name.as_str().into());
        object.set(&["interfaceName"], self.link.as_str());
        object.show(&["mac"], self.mac);
        object.list(&["ports"], &self.ports, port, |one| {
            let protocol = one.protocol.parse::<u8>().map_or_else(|_| one.protocol.as_str().into(), Value::from);
            json!({"name": one.name, "protocol": protocol, "port": one.port.get(), "hostPort": 0, "hostIP": ""})
        });
        let key = ["allowSpoofedSourcePrefixes"];
        object.list(&key, &self.spoofable, prefix, |prefix| prefix.to_string().into());
    }
}
