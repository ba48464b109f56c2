//! A workload's attachment: which node it is on, and which addresses are its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use russet_net::{IfName, Labels, Mac, Port, Prefix};

use super::Name;

/// One attachment of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEndpoint {
    pub labels: Labels,
    /// `k8s`, `cni`, `openstack`.
    pub orchestrator: String,
    /// What the orchestrator calls it, where that is not a pod.
    pub workload: Option<String>,
    pub node: Name,
    pub pod: Option<String>,
    pub container: Option<String>,
    /// The link inside the workload: `eth0`.
    pub endpoint: String,
    pub service_account: Option<String>,
    /// Whole addresses only.
    pub addresses: Vec<IpAddr>,
    /// The node's end.
    pub link: IfName,
    pub mac: Option<Mac>,
    pub gateway_v4: Option<Ipv4Addr>,
    pub gateway_v6: Option<Ipv6Addr>,
    pub profiles: Vec<String>,
    pub ports: Vec<NamedPort>,
    /// Sources that it may send from although they are not its own.
    pub spoofable: Vec<Prefix>,
}

/// A port of a workload that rules may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    /// As it is written: `TCP`, or a number.
    pub protocol: String,
    pub port: Port,
}

/// What a node knows of a pod that it has attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The network's name, by its configuration.
    pub network: String,
    pub container: String,
    /// The link inside: `eth0`.
    pub endpoint: IfName,
    /// Namespace and name, where Kubernetes has named it.
    pub kubernetes: Option<(String, String)>,
    /// The node's end.
    pub link: IfName,
    pub mac: Option<Mac>,
    pub addresses: Vec<IpAddr>,
    pub spoofable: Vec<Prefix>,
}

impl Workload {
    /// Namespace and name of its endpoint (cni-plugin: `pkg/plugin`; libcalico-go: `CalculateWorkloadEndpointName`).
    pub fn names(&self, node: &Name) -> (String, String) {
        let (namespace, pod) = match &self.kubernetes {
            Some((namespace, pod)) => (namespace.as_str(), pod),
            None => (NO_NAMESPACE, &self.container),
        };
        let endpoint = self.endpoint.as_str();
        let name = WorkloadEndpoint::name(node.as_str(), self.orchestrator(), pod, endpoint);
        (namespace.to_owned(), name)
    }

    /// What Calico's plugin writes of it. Labels of the pod and its service account only Kubernetes knows; the profile is the
    /// namespace's then, and without Kubernetes the network's, to whose pods its rules let each other through.
    pub fn endpoint(&self, node: &Name) -> WorkloadEndpoint {
        let (namespace, _) = self.names(node);
        let profile = match &self.kubernetes {
            Some((namespace, _)) => format!("kns.{namespace}"),
            None => self.network.clone(),
        };
        WorkloadEndpoint {
            labels: Labels::new(),
            orchestrator: self.orchestrator().to_owned(),
            workload: None,
            node: node.clone(),
            pod: self.kubernetes.as_ref().map(|(_, pod)| pod.clone()),
            container: Some(self.container.clone()),
            endpoint: self.endpoint.to_string(),
            service_account: None,
            addresses: self.addresses.clone(),
            link: self.link,
            mac: self.mac,
            gateway_v4: None,
            gateway_v6: None,
            profiles: vec![profile],
            ports: Vec::new(),
            spoofable: self.spoofable.clone(),
        }
        .labelled(&namespace)
    }

    const fn orchestrator(&self) -> &'static str {
        if self.kubernetes.is_some() { "k8s" } else { "cni" }
    }
}

/// Where Calico's plugin puts what no orchestrator has named.
const NO_NAMESPACE: &str = "default";
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";

impl WorkloadEndpoint {
    /// With the labels that every endpoint has (libcalico-go: `updateLabelsForStorage`).
    #[must_use]
    pub fn labelled(mut self, namespace: &str) -> Self {
        self.labels.insert(NAMESPACE_LABEL, namespace);
        self.labels.insert(ORCHESTRATOR_LABEL, self.orchestrator.as_str());
        self
    }

    /// The name of the endpoint of a workload on a node. Dashes of each part are doubled, so that it can be cut
    /// again: `node--1-k8s-web--7d4-eth0`.
    pub fn name(node: &str, orchestrator: &str, workload: &str, endpoint: &str) -> String {
        [node, orchestrator, workload, endpoint].map(|part| part.replace('-', "--")).join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_dashes_doubled() {
        let name = WorkloadEndpoint::name("node-1", "k8s", "web-7d4", "eth0");
        assert_eq!(name, "node--1-k8s-web--7d4-eth0");
    }

    #[test]
    fn a_pod_s_endpoint_is_what_calico_s_plugin_makes_of_it() {
        let node = "node-1".parse().unwrap();
        let plain = Workload {
            network: "k8s-pod-network".into(),
            container: "c0-1".into(),
            endpoint: "eth0".parse().unwrap(),
            kubernetes: None,
            link: "calic0".parse().unwrap(),
            mac: None,
            addresses: vec![[10, 244, 0, 1].into()],
            spoofable: Vec::new(),
        };
        let names = |one: &Workload| one.names(&node);
        assert_eq!(names(&plain), ("default".into(), "node--1-cni-c0--1-eth0".into()));
        assert_eq!(plain.endpoint(&node).profiles, ["k8s-pod-network"]);
        let kubernetes = Some(("shop".into(), "web-7d4".into()));
        let pod = Workload { kubernetes, ..plain };
        assert_eq!(names(&pod), ("shop".into(), "node--1-k8s-web--7d4-eth0".into()));
        let endpoint = pod.endpoint(&node);
        assert_eq!(endpoint.profiles, ["kns.shop"]);
        assert_eq!(endpoint.pod.as_deref(), Some("web-7d4"));
        assert_eq!(endpoint.labels.get("projectcalico.org/namespace"), Some("shop"));
        assert_eq!(endpoint.labels.get("projectcalico.org/orchestrator"), Some("k8s"));
    }
}
