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
        "name",
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
        // All is read before anything is missed, for the sake of its faults.
        let (orchestrator, endpoint) = (required("orchestrator"), required("endpoint"));
        let node = spec.at("node").required().parsed();
        let link = spec.at("interfaceName").required().parsed();
        let mac = spec.at("mac").parsed();
        let (gateway_v4, gateway_v6) =
            (spec.at("ipv4Gateway").parsed(), spec.at("ipv6Gateway").parsed());
        let addresses = spec.at("ipNetworks").items().iter().filter_map(address).collect();
        let prefixes = spec.at("allowSpoofedSourcePrefixes").items();
        let spoofable = prefixes.iter().filter_map(prefix).collect();
        let profiles = spec.at("profiles").items().iter().filter_map(text).collect();
        let ports = spec.at("ports").items().iter().filter_map(port).collect();
        let labels = meta::labels(root);
        let texts = ["workload", "pod", "containerID", "serviceAccountName"];
        let [workload, pod, container, service_account] = texts.map(|key| spec.at(key).owned());
        Some(Self {
            labels,
            orchestrator,
            workload,
            node: node?,
            pod,
            container,
            endpoint,
            service_account,
            addresses,
            link: link?,
            mac,
            gateway_v4,
            gateway_v6,
            profiles,
            ports,
            spoofable,
        })
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
