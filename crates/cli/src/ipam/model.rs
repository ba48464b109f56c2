//! From the store's objects to plain facts, and from a block to one with fewer addresses taken.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use russet_api::calico::{Kind, Layout, Resource, Stored};
use russet_core::{
    addressing::blocks::block::{Release, Rest},
    model::calico::{BlockFacts, IpamBlock, IpamFacts, IpamHandle, Name, Node, TakenFacts},
};
use russet_net::Prefix;
use russet_store::Revision;

use crate::resources::{Datastore, Listed};

/// What the store says of addresses, all at one revision.
#[derive(Debug, Default)]
pub struct Seen {
    pub facts: IpamFacts,
    pub revision: Revision,
    /// What cannot be read, each with why.
    pub bad: Vec<String>,
}

impl Seen {
    pub async fn look(store: &Datastore) -> Result<Self> {
        let mut seen = Self::default();
        let mut at = None;
        for kind in [
            Kind::IpPool,
            Kind::IpamBlock,
            Kind::IpamHandle,
            Kind::BlockAffinity,
            Kind::Node,
            Kind::WorkloadEndpoint,
        ] {
            let listed = store.list_at(kind, None, at).await?;
            seen.revision = *at.get_or_insert(listed.revision);
            seen.add(listed);
        }
        Ok(seen)
    }

    fn add(&mut self, listed: Listed) {
        self.bad.extend(listed.bad);
        for found in listed.found {
            self.add_resource(&found.resource);
        }
    }

    fn add_resource(&mut self, resource: &Resource) {
        let facts = &mut self.facts;
        let name = resource.meta().map(|meta| meta.name.clone());
        match resource {
            Resource::IpPool(pool) => {
                facts.pools.extend(name.map(|name| (name, pool.value().cidr())));
            }
            Resource::IpamBlock(block) => facts.blocks.push(facts_of(block.value())),
            Resource::IpamHandle(handle) => {
                let blocks = handle.value().counts.blocks();
                facts.handles.extend(handle.id().map(|id| (id, blocks.collect())));
            }
            Resource::BlockAffinity(affinity) => {
                let state = affinity.value().state;
                facts.affinities.extend(affinity.claim().map(|claim| (claim, state)));
            }
            Resource::Node(node) => {
                let Some(name) = name else { return };
                for (what, addr) in tunnels(node.value()) {
                    self.use_of(addr, format!("the {what} of node {name}"));
                }
                self.facts.nodes.insert(name.to_string());
            }
            Resource::WorkloadEndpoint(workload) => {
                let namespace = workload.meta().and_then(|meta| meta.namespace.clone());
                let namespace = namespace.map(|name| format!("{name}/")).unwrap_or_default();
                let name = name.map(|name| name.to_string()).unwrap_or_default();
                let addresses: BTreeSet<_> = workload.value().addresses.iter().collect();
                for addr in addresses {
                    self.use_of(*addr, format!("workload {namespace}{name}"));
                }
            }
            _ => {}
        }
    }

    fn use_of(&mut self, addr: IpAddr, user: String) {
        self.facts.users.entry(addr).or_default().push(user);
    }
}

fn tunnels(node: &Node) -> impl Iterator<Item = (&'static str, IpAddr)> {
    let ends: [(_, Option<IpAddr>); 5] = [
        ("IPIP tunnel", node.ipip.map(Into::into)),
        ("VXLAN tunnel", node.vxlan_v4.addr.map(Into::into)),
        ("IPv6 VXLAN tunnel", node.vxlan_v6.addr.map(Into::into)),
        ("WireGuard device", node.wireguard_v4.addr.map(Into::into)),
        ("IPv6 WireGuard device", node.wireguard_v6.addr.map(Into::into)),
    ];
    ends.into_iter().filter_map(|(what, addr)| Some((what, addr?)))
}

/// The plain facts of a block.
pub fn facts_of(block: &IpamBlock) -> BlockFacts {
    let taken = block.allocated().map(|(given, by)| TakenFacts {
        addr: given.addr,
        handle: by.handle.clone(),
        attributes: by.secondary.clone(),
        sequence: given.sequence,
    });
    BlockFacts {
        cidr: block.cidr(),
        affinity: block.affinity().cloned(),
        taken: taken.collect(),
        lost: block.lost().collect(),
    }
}

/// Who has an address by what was noted when it was given, where no workload says it.
pub fn holder(taken: &TakenFacts) -> String {
    let noted = |name| taken.attributes.get(name).filter(|text| !text.is_empty());
    let node = noted("node").map(|node| format!("node {node}"));
    let pod = noted("pod").map(|pod| match noted("namespace") {
        Some(namespace) => format!("pod {namespace}/{pod}"),
        None => format!("pod {pod}"),
    });
    let of = noted("node").and_then(|node| node.parse().ok());
    let ahead = of.filter(|of| taken.handle.as_ref().is_some_and(|by| by.ahead_of(of).is_some()));
    if let Some(of) = ahead {
        return format!("nobody yet; claimed ahead by node {of}");
    }
    match (pod, node, &taken.handle) {
        (Some(pod), Some(node), _) => format!("{pod} on {node}"),
        (Some(one), None, _) | (None, Some(one), _) => one,
        (None, None, Some(handle)) => format!("handle {handle}"),
        (None, None, None) => "nobody that is noted".to_owned(),
    }
}

/// A block as etcd has it, with one address given back: its new octets, and what had the address.
pub fn give_back(value: &[u8], addr: IpAddr) -> Result<Option<(String, TakenFacts)>> {
    let mut stored = Stored::<IpamBlock>::read(value, Layout::Bare)?;
    let block = stored.value();
    let Some(had) = facts_of(block).taken.into_iter().find(|taken| taken.addr == addr) else {
        return Ok(None);
    };
    let what = Release { addr, sequence: Some(had.sequence), handle: had.handle.clone() };
    let Some(fewer) = block.release(&what, Rest::None)? else { return Ok(None) };
    stored.set(fewer);
    Ok(Some((stored.text(), had)))
}

/// A handle as etcd has it, with one address of a block less; `None` when it holds no other.
pub fn count_down(value: &[u8], block: Prefix) -> Result<Option<String>> {
    let mut stored = Stored::<IpamHandle>::read(value, Layout::Bare)?;
    let mut handle = stored.value().clone();
    handle.counts = handle.counts.with(block, handle.counts.count(block).saturating_sub(1));
    if handle.counts.is_empty() {
        return Ok(None);
    }
    stored.set(handle);
    Ok(Some(stored.text()))
}

/// Who has which addresses of whose blocks, where the two differ.
pub fn borrowed(facts: &IpamFacts) -> impl Iterator<Item = (&BlockFacts, &TakenFacts)> {
    facts.blocks.iter().flat_map(|block| {
        let home = block.affinity.as_ref().and_then(|affinity| affinity.host());
        let home = home.map(Name::as_str);
        let elsewhere = move |taken: &&TakenFacts| {
            let node = taken.attributes.get("node").map(String::as_str);
            node.is_some() && home.is_some() && node != home
        };
        block.taken.iter().filter(elsewhere).map(move |taken| (block, taken))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use russet_core::model::calico::HandleId;

    use super::*;

    const BLOCK: &str = r#"{"cidr":"10.0.0.0/30","affinity":"host:n","allocations":[0,1,0,null],"unallocated":[3],"attributes":[{"handle_id":"a","secondary":{"node":"n"}},{"handle_id":"b","secondary":{"node":"m"},"zeal":1}],"sequenceNumber":7,"sequenceNumberForAllocation":{"0":1,"1":2,"2":3},"deleted":false,"zeal":true}"#;

    #[test]
    fn an_address_that_comes_back_goes_last_and_takes_its_owner_along() {
        let (text, had) = give_back(BLOCK.as_bytes(), [10, 0, 0, 1].into()).unwrap().unwrap();
        assert_eq!((had.sequence, had.handle.unwrap().as_str()), (2, "b"));
        assert_eq!(
            text,
            BLOCK
                .replace("[0,1,0,null]", "[0,null,0,null]")
                .replace("[3]", "[3,1]")
                .replace(r#",{"handle_id":"b","secondary":{"node":"m"},"zeal":1}"#, "")
                .replace(":7,", ":8,")
                .replace(r#""1":2,"#, "")
        );
        // The first owner has two addresses: it stays, and the second keeps its place.
        let (text, _) = give_back(BLOCK.as_bytes(), [10, 0, 0, 0].into()).unwrap().unwrap();
        assert!(text.contains("[null,1,0,null]") && text.contains("\"zeal\":1"), "{text}");
        let again = Stored::<IpamBlock>::read(text.as_bytes(), Layout::Bare).unwrap();
        let left = counts(&facts_of(again.value()));
        assert_eq!(left.values().copied().collect::<Vec<_>>(), [1, 1]);
        assert_eq!(give_back(text.as_bytes(), [10, 0, 0, 0].into()).unwrap(), None);
        assert_eq!(give_back(text.as_bytes(), [10, 9, 0, 0].into()).unwrap(), None);
    }

    #[test]
    fn a_handle_of_nothing_goes() {
        let handle = br#"{"block":{"10.0.0.0/30":2,"10.0.0.4/30":1},"deleted":false}"#;
        let (a, b) = ("10.0.0.0/30".parse().unwrap(), "10.0.0.4/30".parse().unwrap());
        let fewer = count_down(handle, a).unwrap().unwrap();
        assert_eq!(fewer, r#"{"block":{"10.0.0.0/30":1,"10.0.0.4/30":1},"deleted":false}"#);
        let fewer = count_down(fewer.as_bytes(), a).unwrap().unwrap();
        assert_eq!(fewer, r#"{"block":{"10.0.0.4/30":1},"deleted":false}"#);
        assert_eq!(count_down(fewer.as_bytes(), b).unwrap(), None);
    }

    /// How many addresses each handle has.
    fn counts(facts: &BlockFacts) -> BTreeMap<HandleId, u32> {
        let mut counts = BTreeMap::new();
        for handle in facts.taken.iter().filter_map(|taken| taken.handle.clone()) {
            *counts.entry(handle).or_default() += 1;
        }
        counts
    }
}
