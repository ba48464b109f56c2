//! Calico's objects as they lie in etcd.

use std::net::Ipv4Addr;

use russet_net::Mac;

/// A key and its value.
pub type Object = (String, String);

/// How the pool's packets cross the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Vxlan,
    Direct,
}

/// The pool of all blocks of the cluster.
pub fn pool(mode: Mode) -> Object {
    let mode = match mode {
        Mode::Vxlan => "Always",
        Mode::Direct => "Never",
    };
    let spec = format!(
        r#"{{"cidr":"{POOL}","vxlanMode":"{mode}","ipipMode":"Never","natOutgoing":true,"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"]}}"#
    );
    resource("IPPool", "default-ipv4-ippool", &spec)
}

pub fn cluster() -> Object {
    let spec = r#"{"clusterGUID":"9b7f1c3e8a4d4f6b8f0f8f3f0f5a6d11","clusterType":"k8s","calicoVersion":"v3.32.0","datastoreReady":true}"#;
    resource("ClusterInformation", "default", spec)
}

/// An object of Calico's API that lies in no namespace.
pub fn resource(kind: &str, name: &str, spec: &str) -> Object {
    let plural = kind.to_lowercase() + "s";
    let value = format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","uid":"5c0c52a1-4f8b-4b8e-9f5a-2f4f4d1f9a01","creationTimestamp":"2026-03-01T08:00:00Z"}},"spec":{spec}}}"#
    );
    (format!("/calico/resources/v3/projectcalico.org/{plural}/{name}"), value)
}

/// A node that exists in the store alone, numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote(pub u16);

impl Remote {
    pub fn name(self) -> String {
        format!("node-{}", self.0)
    }

    pub fn public(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(172, 16 + (high >> 5), high & 31, low)
    }

    /// The MAC address of its VTEP.
    pub fn mac(self) -> Mac {
        let [high, low] = self.0.to_be_bytes();
        Mac::new([0x66, 0, 0, 1, high, low])
    }

    /// Its tunnel's address, the second of its first block.
    pub fn tunnel(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base(0).to_bits() + 1)
    }

    /// The first address of a block of its, a /26; a node has room for [`MOST_BLOCKS`].
    pub fn base(self, nth: u16) -> Ipv4Addr {
        let place = u32::from(self.0) * u32::from(MOST_BLOCKS) + u32::from(nth);
        Ipv4Addr::from_bits(FIRST.to_bits() + (place << 6))
    }

    /// The node's own object; one with blocks has its tunnel's end in the first.
    pub fn object(self, blocks: u16) -> Object {
        let (name, public) = (self.name(), self.public());
        let tunnel = if blocks == 0 {
            String::new()
        } else {
            format!(
                r#","ipv4VXLANTunnelAddr":"{}","vxlanTunnelMACAddr":"{}""#,
                self.tunnel(),
                self.mac()
            )
        };
        let spec = format!(
            r#"{{"bgp":{{"ipv4Address":"{public}/16"}}{tunnel},"orchRefs":[{{"nodeName":"{name}","orchestrator":"k8s"}}],"addresses":[{{"address":"{public}/16","type":"CalicoNodeIP"}},{{"address":"{public}","type":"InternalIP"}}]}}"#
        );
        resource("Node", &name, &spec)
    }

    /// A block of its with 20 to 60 addresses that pods have; the second of its first is its tunnel's.
    pub fn block(self, nth: u16) -> Object {
        let place = usize::from(self.0) * 7 + usize::from(nth) * 13;
        let (name, base) = (self.name(), self.base(nth));
        block_with(&name, base, 20 + place % 41, |ordinal| match (nth, ordinal) {
            (0, 1) => tunnel_attribute(&name),
            _ => pod_attribute(&name, base, ordinal),
        })
    }
}

/// A block of a node's of which the first addresses are pods'.
pub fn block_of(node: &str, base: Ipv4Addr, taken: usize) -> Object {
    block_with(node, base, taken, |ordinal| pod_attribute(node, base, ordinal))
}

fn block_with(
    node: &str,
    base: Ipv4Addr,
    taken: usize,
    attribute: impl Fn(usize) -> String,
) -> Object {
    let join = |items: Vec<String>| items.join(",");
    let allocation = |n: usize| if n < taken { n.to_string() } else { "null".to_owned() };
    let allocations = join((0..SIZE).map(allocation).collect());
    let free = join((taken..SIZE).map(|n| n.to_string()).collect());
    let attributes = join((0..taken).map(attribute).collect());
    let number = |n| format!(r#""{n}":{}"#, 1_734_567_890_123_456_789 + n);
    let numbers = join((0..taken).map(number).collect());
    let value = format!(
        r#"{{"cidr":"{base}/26","affinity":"host:{node}","affinityClaimTime":"2026-03-01T08:00:00Z","allocations":[{allocations}],"unallocated":[{free}],"attributes":[{attributes}],"sequenceNumber":1734567890123456900,"sequenceNumberForAllocation":{{{numbers}}},"deleted":false}}"#
    );
    (format!("/calico/ipam/v2/assignment/ipv4/block/{base}-26"), value)
}

fn tunnel_attribute(node: &str) -> String {
    format!(
        r#"{{"handle_id":"vxlan-tunnel-addr-{node}","secondary":{{"node":"{node}","type":"vxlanTunnelAddress"}}}}"#
    )
}

/// What Calico's plugin writes of a pod, whose container has an id of 64 digits.
fn pod_attribute(node: &str, base: Ipv4Addr, ordinal: usize) -> String {
    let id = base.to_bits().wrapping_mul(2_654_435_761);
    format!(
        r#"{{"handle_id":"k8s-pod-network.{id:08x}{ordinal:056x}","secondary":{{"namespace":"team-{}","node":"{node}","pod":"web-frontend-{id:08x}-{ordinal:05}","timestamp":"2026-03-01 08:01:02.345678901 +0000 UTC"}}}}"#,
        id % 97
    )
}

pub const POOL: &str = "10.64.0.0/10";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const MOST_BLOCKS: u16 = 8;
/// Addresses of a /26.
const SIZE: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use russet_api::calico::{Layout, Stored};
    use russet_core::model::calico::{IpPool, IpamBlock, Node};

    use super::*;

    #[test]
    fn every_object_is_one_that_is_read_without_a_fault() {
        let block = Remote(4_711).block(3);
        assert_eq!(block.0, "/calico/ipam/v2/assignment/ipv4/block/10.100.206.192-26");
        let read = Stored::<IpamBlock>::read(block.1.as_bytes(), Layout::Bare).unwrap();
        let taken = read.value().allocated().count();
        assert!((20..=60).contains(&taken), "{taken}");
        Stored::<Node>::read(Remote(1).object(1).1.as_bytes(), Layout::Resource).unwrap();
        Stored::<IpPool>::read(pool(Mode::Vxlan).1.as_bytes(), Layout::Resource).unwrap();
    }

    #[test]
    fn nodes_and_their_blocks_are_all_different() {
        let nodes = (1..=5_000).map(Remote);
        let keys: BTreeSet<_> =
            nodes.clone().flat_map(|node| (0..4).map(move |nth| node.base(nth))).collect();
        assert_eq!(keys.len(), 20_000);
        assert_eq!(nodes.map(Remote::public).collect::<BTreeSet<_>>().len(), 5_000);
    }
}
