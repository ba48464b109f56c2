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

impl WorkloadEndpoint {
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
}
