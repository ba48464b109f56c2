//! `IPAMBlock`: in etcd the value alone, in Kubernetes within an object.

mod glance;

use russet_core::{
    addressing::blocks::{
        Attributes, Timestamp,
        check::{BlockFault, RawBlock},
    },
    model::calico::{Affinity, IpamBlock, Name},
};
use russet_net::Prefix;
use serde_json::{Map, Value};

pub use self::glance::{Glance, Other};
use super::{
    at::{At, Notes},
    kind::Kind,
    moment,
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
        let raw = |cidr| RawBlock {
            cidr,
            affinity: affinity(&spec),
            allocations: allocations(&spec.at("allocations")),
            unallocated: unallocated(&spec.at("unallocated")),
            attributes: spec.at("attributes").items().iter().map(attributes).collect(),
            sequence: spec.at("sequenceNumber").number().unwrap_or_default(),
            given_at: given_at(&spec.at("sequenceNumberForAllocation")),
            deleted: spec.at("deleted").flag().unwrap_or(false),
        };
        // Without a prefix there is no block, but what else is wrong is told all the same.
        let raw = raw(cidr.unwrap_or(Prefix::host([0, 0, 0, 0].into())));
        cidr?;
        let block = IpamBlock::try_from(raw);
        block.map_err(|faults| faults.0.iter().for_each(|fault| refuse(&spec, fault))).ok()
    }
}

fn affinity(spec: &At<'_>) -> Option<String> {
    let affinity = spec.at("affinity");
    if affinity.is_there() {
        return affinity.owned();
    }
    // What it was called once.
    let host = spec.at("hostAffinity").parsed::<Name>()?;
    Some(Affinity::Host(host).to_string())
}

fn allocations(at: &At<'_>) -> Vec<Option<i64>> {
    let list = at.required().list().iter().enumerate();
    list.map(|(i, value)| {
        if value.is_null() {
            return None;
        }
        let index = value.as_i64().filter(|index| *index >= 0);
        if index.is_none() {
            at.item(i).wanted("an index into the attributes, or null");
        }
        index
    })
    .collect()
}

fn unallocated(at: &At<'_>) -> Vec<i64> {
    let list = at.list().iter().enumerate();
    list.filter_map(|(i, value)| {
        let ordinal = value.as_i64();
        if ordinal.is_none() {
            at.item(i).wanted("an ordinal");
        }
        ordinal
    })
    .collect()
}

/// An ordinal that is no number is -1, which no block has.
fn given_at(at: &At<'_>) -> Vec<(i64, u64)> {
    let entries = at.entries().into_iter();
    entries.filter_map(|(key, value)| Some((key.parse().unwrap_or(-1), value.number()?))).collect()
}

fn attributes(at: &At<'_>) -> Attributes {
    let texts = at.at("secondary").entries().into_iter().filter_map(|(key, value)| {
        let text = value.value().and_then(Value::as_str);
        if text.is_none() {
            value.wanted("a text");
        }
        Some((key.to_owned(), text?.to_owned()))
    });
    let released = at.at("releasedAt");
    let released_at = released.text().and_then(|text| {
        let moment = moment::read(text);
        if moment.is_none() {
            released.wanted("a moment such as 2026-03-01T08:00:00Z");
        }
        moment.map(Timestamp::from_nanos)
    });
    Attributes { secondary: texts.collect(), handle: at.at("handle_id").parsed(), released_at }
}

fn refuse(spec: &At<'_>, fault: &BlockFault) {
    let key = match fault {
        BlockFault::Size(_) => "cidr",
        BlockFault::Affinity(_) => "affinity",
        BlockFault::Length { .. } | BlockFault::Index { .. } => "allocations",
        BlockFault::FreeOutside(_) | BlockFault::FreeTwice(_) | BlockFault::Both(_) => {
            "unallocated"
        }
        BlockFault::NumberOutside(_) | BlockFault::NumberTwice(_) => "sequenceNumberForAllocation",
    };
    let at = spec.at(key);
    // What is not there was told already.
    if !matches!(fault, BlockFault::Length { .. }) || at.is_there() {
        at.refuse(fault.to_string());
    }
}

impl Written for IpamBlock {
    fn patch(&self, object: &mut Patch<'_>) {
        let raw = RawBlock::from(self);
        object.set(&["cidr"], raw.cidr.to_string());
        match object.layout {
            Layout::Bare => object.set(&["affinity"], raw.affinity),
            Layout::Resource => {
                object.set_or_remove(&["affinity"], raw.affinity);
                // Kubernetes will not take a block without it.
                if object.get(&["strictAffinity"]).is_none() {
                    object.set(&["strictAffinity"], false);
                }
            }
        }
        object.set(&["allocations"], raw.allocations);
        object.set(&["unallocated"], raw.unallocated);
        let attributes = merged(object.get(&["attributes"]), &raw.attributes);
        object.set(&["attributes"], attributes);
        object.set(&["sequenceNumber"], raw.sequence);
        let numbers = raw.given_at.iter().map(|(n, number)| (n.to_string(), (*number).into()));
        object.set(&["sequenceNumberForAllocation"], Value::Object(numbers.collect()));
        object.set(&["deleted"], raw.deleted);
        object.set_or_remove(&["hostAffinity"], None::<Value>);
    }
}

/// Attributes as they were written, where they were; their places change when one before them goes.
fn merged(there: Option<&Value>, wanted: &[Attributes]) -> Vec<Value> {
    let notes = Notes::default();
    let list = At::root(there.unwrap_or(&Value::Null), &notes);
    let mut there: Vec<_> = list.items().iter().map(|at| (attributes(at), at.value())).collect();
    let mut one = |wanted: &Attributes| {
        let at = there.iter().position(|(other, _)| other == wanted);
        let kept = at.and_then(|at| there.remove(at).1);
        kept.cloned().unwrap_or_else(|| written(wanted))
    };
    wanted.iter().map(&mut one).collect()
}

fn written(attributes: &Attributes) -> Value {
    let mut object = Map::new();
    if let Some(handle) = &attributes.handle {
        object.insert("handle_id".to_owned(), handle.as_str().into());
    }
    if !attributes.secondary.is_empty() {
        let texts = attributes.secondary.iter();
        let texts = texts.map(|(key, text)| (key.clone(), text.clone().into()));
        object.insert("secondary".to_owned(), Value::Object(texts.collect()));
    }
    if let Some(at) = attributes.released_at {
        object.insert("releasedAt".to_owned(), moment::text(at.nanos()).into());
    }
    Value::Object(object)
}
