//! `IPAMBlock`: in etcd the value alone, in Kubernetes within an object.

use std::collections::BTreeMap;

use russet_core::model::calico::{
    Affinity, Allocation, BlockFault, BlockParts, IpamBlock, Ordinal, Owner,
};
use russet_net::Prefix;
use serde_json::{Map, Value};

use super::{
    at::{At, Notes},
    kind::Kind,
    stored::{Form, Layout, Patch, Written, spec},
};

impl Form for IpamBlock {
    const KIND: Kind = Kind::IpamBlock;
    const ORDER: &'static [&'static str] = &[
        "cidr",
        "affinity",
        "affinity_claim_time",
        "affinityClaimTime",
        "allocations",
        "unallocated",
        "attributes",
        "handle_id",
        "secondary",
        "alternate",
        "alternateOwnerAttrs",
        "releasedAt",
        "sequenceNumber",
        "sequenceNumberForAllocation",
        "deleted",
        "hostAffinity",
        "strictAffinity",
    ];

    fn read(root: &At<'_>, layout: Layout) -> Option<Self> {
        let spec = spec(root, layout);
        let cidr = spec.at("cidr").required().parsed::<Prefix>();
        let parts = |cidr| BlockParts {
            cidr,
            affinity: affinity(&spec),
            taken: taken(&spec, cidr),
            free: free(&spec),
            owners: spec.at("attributes").items().iter().map(owner).collect(),
            sequence: spec.at("sequenceNumber").number().unwrap_or_default(),
            deleted: spec.at("deleted").flag().unwrap_or(false),
        };
        // Without a prefix there is no block, but what else is wrong is told all the same.
        let parts = parts(cidr.unwrap_or(Prefix::host([0, 0, 0, 0].into())));
        cidr?;
        let block = IpamBlock::new(parts);
        block.map_err(|faults| faults.iter().for_each(|fault| refuse(&spec, fault))).ok()
    }
}

fn affinity(spec: &At<'_>) -> Option<Affinity> {
    let affinity = spec.at("affinity");
    if affinity.is_there() {
        return affinity.parsed();
    }
    // What it was called once.
    spec.at("hostAffinity").parsed().map(Affinity::Host)
}

fn taken(spec: &At<'_>, cidr: Prefix) -> BTreeMap<Ordinal, Allocation> {
    let sequences = sequences(&spec.at("sequenceNumberForAllocation"));
    let at = spec.at("allocations");
    let list = at.required().list();
    let wanted = cidr.offset_of(cidr.last()).map(|last| last.saturating_add(1));
    if at.is_there() && u128::try_from(list.len()).ok() != wanted && cidr.len() >= SHORTEST {
        let count = wanted.unwrap_or_default();
        at.refuse(format!("{} elements are not the {count} addresses of {cidr}", list.len()));
    }
    let mut taken = BTreeMap::new();
    for (i, value) in list.iter().enumerate().filter(|(_, value)| !value.is_null()) {
        let owner = value.as_u64().and_then(|owner| usize::try_from(owner).ok());
        let (Some(owner), Ok(i)) = (owner, u16::try_from(i)) else {
            at.item(i).wanted("an index into the attributes, or null");
            continue;
        };
        let ordinal = Ordinal::from(i);
        let sequence = sequences.get(&ordinal).copied();
        taken.insert(ordinal, Allocation { owner, sequence });
    }
    taken
}

/// The shortest prefix of a block of any family; a shorter one is told by itself.
const SHORTEST: u8 = 20;

fn sequences(at: &At<'_>) -> BTreeMap<Ordinal, u64> {
    let entries = at.entries().into_iter();
    entries
        .filter_map(|(key, value)| {
            let Ok(ordinal) = key.parse::<u16>() else {
                value.refuse("its name is no ordinal");
                return None;
            };
            Some((ordinal.into(), value.number()?))
        })
        .collect()
}

fn free(spec: &At<'_>) -> Vec<Ordinal> {
    let at = spec.at("unallocated");
    let mut free = Vec::new();
    for (i, value) in at.list().iter().enumerate() {
        match value.as_u64().and_then(|n| u16::try_from(n).ok()) {
            Some(ordinal) => free.push(ordinal.into()),
            None => at.item(i).wanted("an ordinal"),
        }
    }
    free
}

fn owner(at: &At<'_>) -> Owner {
    let texts = at.at("secondary").entries().into_iter().filter_map(|(key, value)| {
        let text = value.value().and_then(Value::as_str);
        if text.is_none() {
            value.wanted("a text");
        }
        Some((key.to_owned(), text?.to_owned()))
    });
    Owner { attributes: texts.collect(), handle: at.at("handle_id").parsed() }
}

fn refuse(spec: &At<'_>, fault: &BlockFault) {
    let key = match fault {
        BlockFault::Len(_) => "cidr",
        BlockFault::Beyond { .. } | BlockFault::FreeTwice(_) | BlockFault::TakenAndFree(_) => {
            "unallocated"
        }
        BlockFault::NoOwner { .. } => "allocations",
    };
    spec.at(key).refuse(fault.to_string());
}

impl Written for IpamBlock {
    fn patch(&self, object: &mut Patch<'_>) {
        let parts = self.parts();
        object.set(&["cidr"], parts.cidr.to_string());
        let affinity = parts.affinity.as_ref().map(ToString::to_string);
        match object.layout {
            Layout::Bare => object.set(&["affinity"], affinity),
            Layout::Resource => {
                object.set_or_remove(&["affinity"], affinity);
                // Kubernetes will not take a block without it.
                if object.get(&["strictAffinity"]).is_none() {
                    object.set(&["strictAffinity"], false);
                }
            }
        }
        let owner = |i| parts.taken.get(&Ordinal::from(i)).map(|taken| taken.owner);
        let allocations: Vec<Value> = (0..self.size()).map(|i| owner(i).into()).collect();
        object.set(&["allocations"], allocations);
        let free: Vec<Value> = parts.free.iter().map(|ordinal| ordinal.get().into()).collect();
        object.set(&["unallocated"], free);
        let owners = merged(object.get(&["attributes"]), &parts.owners);
        object.set(&["attributes"], owners);
        object.set(&["sequenceNumber"], parts.sequence);
        let sequences = parts.taken.iter().filter_map(|(ordinal, taken)| {
            taken.sequence.map(|sequence| (ordinal.to_string(), sequence.into()))
        });
        object.set(&["sequenceNumberForAllocation"], Value::Object(sequences.collect()));
        object.set(&["deleted"], parts.deleted);
        object.set_or_remove(&["hostAffinity"], None::<Value>);
    }
}

/// Owners as they were written, where they were; their places change when one before them goes.
fn merged(there: Option<&Value>, owners: &[Owner]) -> Vec<Value> {
    let notes = Notes::default();
    let list = At::root(there.unwrap_or(&Value::Null), &notes);
    let mut there: Vec<_> = list.items().iter().map(|at| (owner(at), at.value())).collect();
    let mut one = |owner: &Owner| {
        let at = there.iter().position(|(other, _)| other == owner);
        let kept = at.and_then(|at| there.remove(at).1);
        kept.cloned().unwrap_or_else(|| written(owner))
    };
    owners.iter().map(&mut one).collect()
}

fn written(owner: &Owner) -> Value {
    let mut object = Map::new();
    if let Some(handle) = &owner.handle {
        object.insert("handle_id".to_owned(), handle.as_str().into());
    }
    if !owner.attributes.is_empty() {
        let texts = owner.attributes.iter().map(|(key, text)| (key.clone(), text.clone().into()));
        object.insert("secondary".to_owned(), Value::Object(texts.collect()));
    }
    Value::Object(object)
}
