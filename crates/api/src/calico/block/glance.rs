//! A block of another node's at a glance: whose it is, how much of it is free, and who else has addresses in it.
//!
//! A node reads every block of the cluster, and of others' needs no more than that. So nothing is kept of the text while
//! it is read, which takes a tenth of the time of taking it in. A glance sees only a block without a fault, and sees of
//! it what [`Stored`](super::super::Stored) would say; whoever gets `None` takes the block in and is told why.

use std::{borrow::Cow, fmt, net::IpAddr};

use russet_core::{
    addressing::blocks::block::{NODE, size_of},
    model::calico::{Affinity, HandleId, Name},
};
use russet_net::Prefix;
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};

/// What is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    pub cidr: Prefix,
    pub affinity: Option<Affinity>,
    /// How many addresses are nobody's.
    pub free: usize,
    /// The addresses that are recorded for nodes to which the block has no affinity, in their order.
    pub others: Vec<Other>,
}

/// An address of another node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub addr: IpAddr,
    pub node: String,
    pub handle: Option<HandleId>,
}

impl Glance {
    /// Looks at a block as etcd has it. `None` when it has a fault, cools addresses down, or is written in an older way.
    pub fn at(value: &[u8]) -> Option<Self> {
        let raw: Raw<'_> = serde_json::from_slice(value).ok()?;
        let cidr: Prefix = raw.cidr.parse().ok()?;
        let affinity = raw.affinity.as_ref().map(|text| text.0.parse::<Affinity>()).transpose();
        let affinity = affinity.ok()?;
        let mut taken = Ordinals::new(size_of(cidr)?);
        if raw.host_affinity.is_some() || raw.allocations.len() != taken.size() {
            return None;
        }
        let attributes = &raw.attributes;
        attributes.iter().all(Attribute::is_plain).then_some(())?;
        let host = affinity.as_ref().and_then(Affinity::host).map(Name::as_str);
        let mut others = Vec::new();
        for (ordinal, index) in (0_u32..).zip(&raw.allocations) {
            let Some(index) = index else { continue };
            let attribute = attributes.get(usize::try_from(*index).ok()?)?;
            taken.add(ordinal)?;
            let node = attribute.secondary.node.as_ref().map(|node| node.0.as_ref());
            if let Some(node) = node.filter(|node| Some(*node) != host) {
                let handle = attribute.handle_id.as_ref().map(|text| text.0.parse());
                let handle = handle.transpose().ok()?;
                others.push(Other {
                    addr: cidr.nth(ordinal.into())?,
                    node: node.to_owned(),
                    handle,
                });
            }
        }
        // What is free is not taken, and not free twice.
        raw.unallocated.iter().try_for_each(|ordinal| taken.add(*ordinal))?;
        let mut numbered = Ordinals::new(taken.size());
        raw.numbers.0.iter().try_for_each(|ordinal| numbered.add(*ordinal))?;
        Some(Self { cidr, affinity, free: raw.unallocated.len(), others })
    }
}

/// A block as it is written, as far as it is looked at. What is unknown is passed over.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    cidr: Cow<'a, str>,
    #[serde(borrow)]
    affinity: Option<Text<'a>>,
    #[serde(borrow, rename = "hostAffinity")]
    host_affinity: Option<Text<'a>>,
    allocations: Vec<Option<u32>>,
    #[serde(default)]
    unallocated: Vec<u32>,
    #[serde(borrow, default)]
    attributes: Vec<Attribute<'a>>,
    #[serde(default, rename = "sequenceNumber")]
    _sequence: u64,
    #[serde(default, rename = "sequenceNumberForAllocation")]
    numbers: Numbers,
    #[serde(default, rename = "deleted")]
    _deleted: bool,
}

#[derive(Deserialize)]
struct Attribute<'a> {
    #[serde(borrow)]
    handle_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    secondary: Secondary<'a>,
    #[serde(borrow, rename = "releasedAt")]
    released_at: Option<Text<'a>>,
}

impl Attribute<'_> {
    /// Whether nothing of it needs a second look.
    fn is_plain(&self) -> bool {
        let handle = self.handle_id.as_ref();
        self.released_at.is_none() && handle.is_none_or(|text| HandleId::within(&text.0).is_ok())
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Texts by name, of which one is looked at.
#[derive(Default)]
struct Secondary<'a> {
    node: Option<Text<'a>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Secondary<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Secondary<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("texts by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Secondary::default();
                while let Some((key, text)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    if key.0 == NODE {
                        found.node = Some(text);
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

/// The ordinals that have numbers.
#[derive(Default)]
struct Numbers(Vec<u32>);

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("numbers by ordinal")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Numbers, A::Error> {
                let mut found = Vec::new();
                while let Some((ordinal, _)) = map.next_entry::<Text<'de>, u64>()? {
                    // No block has so many.
                    found.push(ordinal.0.parse().unwrap_or(u32::MAX));
                }
                Ok(Numbers(found))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Ordinals of a block, each at most once.
struct Ordinals(Vec<bool>);

impl Ordinals {
    fn new(size: usize) -> Self {
        Self(vec![false; size])
    }

    const fn size(&self) -> usize {
        self.0.len()
    }

    /// `None` for one that is there, or is no address of the block.
    fn add(&mut self, ordinal: u32) -> Option<()> {
        let slot = self.0.get_mut(usize::try_from(ordinal).ok()?)?;
        (!std::mem::replace(slot, true)).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use russet_core::{
        addressing::blocks::{Reserved, Timestamp},
        model::calico::IpamBlock,
    };
    use serde_json::{Value, json};

    use super::{
        super::super::{Layout, Stored},
        *,
    };

    #[test]
    fn a_glance_sees_whose_a_block_is_what_is_free_and_who_borrows() {
        let seen = Glance::at(block().to_string().as_bytes()).unwrap();
        assert_eq!(seen.affinity.unwrap().to_string(), "host:n1");
        assert_eq!(seen.free, 2);
        let [other] = &seen.others[..] else { panic!("{:?}", seen.others) };
        assert_eq!((other.addr.to_string().as_str(), other.node.as_str()), ("10.0.0.2", "n2"));
        assert_eq!(other.handle.as_ref().unwrap().as_str(), "h\u{e9}2");
    }

    #[test]
    fn whatever_is_written_in_a_place_a_glance_sees_what_is_read_or_nothing() {
        let mut seen = 0;
        for path in paths(&block(), String::new()) {
            for value in odd_values() {
                let mut text = block();
                *text.pointer_mut(&path).unwrap() = value.clone();
                seen += usize::from(agree(&text));
            }
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn a_block_that_cools_an_address_down_or_names_its_node_in_the_old_way_is_not_for_a_glance() {
        let mut cooling = block();
        cooling["attributes"][0]["releasedAt"] = json!("2026-03-01T08:00:00Z");
        let mut old = block();
        old["hostAffinity"] = json!("n3");
        for text in [cooling, old] {
            assert_eq!(Glance::at(text.to_string().as_bytes()), None, "{text}");
        }
    }

    /// Whether something was seen; then it is what is read.
    fn agree(text: &Value) -> bool {
        let bytes = text.to_string();
        let Some(seen) = Glance::at(bytes.as_bytes()) else { return false };
        let read = Stored::<IpamBlock>::read(bytes.as_bytes(), Layout::Bare);
        let read = read.unwrap_or_else(|err| panic!("{err} in {bytes}")).into_value();
        let host = read.affinity().and_then(Affinity::host).map(Name::as_str);
        let others =
            read.allocated().filter(|(_, of)| of.node().is_some_and(|it| Some(it) != host));
        let others = others.map(|(given, of)| Other {
            addr: given.addr,
            node: of.node().unwrap().to_owned(),
            handle: of.handle.clone(),
        });
        let free = read.free(&Reserved::default(), Timestamp::default());
        let (cidr, affinity) = (read.cidr(), read.affinity().cloned());
        assert_eq!(seen, Glance { cidr, affinity, free, others: others.collect() }, "{bytes}");
        true
    }

    fn block() -> Value {
        json!({
            "cidr": "10.0.0.0/30", "affinity": "host:n1", "allocations": [0, null, 1, null],
            "unallocated": [3, 1], "sequenceNumber": 7, "deleted": false, "whim": [1, {"a": 1}],
            "sequenceNumberForAllocation": {"0": 5, "2": 6},
            "attributes": [
                {"handle_id": "h1", "secondary": {"node": "n1", "pod": "p"}},
                {"handle_id": "h\u{e9}2", "secondary": {"node": "n2"}, "alternate": {"pod": "q"}},
            ],
        })
    }

    fn odd_values() -> Vec<Value> {
        vec![
            json!(null),
            json!(0),
            json!(1),
            json!(3),
            json!(-1),
            json!(4),
            json!(1.5),
            json!(true),
            json!(""),
            json!("n1"),
            json!("host:n2"),
            json!("virtual:lb"),
            json!("a/b"),
            json!("10.0.0.0/29"),
            json!("10.0.0.0/12"),
            json!("fd00::/126"),
            json!("10.0.0.1/30"),
            json!("a\rb"),
            json!([]),
            json!([1]),
            json!({}),
            json!({"1": 2}),
            json!({"01": 2}),
            json!({"x": 2}),
            json!({"node": "n2"}),
            json!({"node": 7}),
            json!({"secondary": {"node": "n9"}}),
            json!([null, 0, 0, 1]),
            json!(u64::MAX),
        ]
    }

    /// Every place of a document.
    fn paths(value: &Value, at: String) -> Vec<String> {
        let below: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(list) => {
                list.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect()
            }
            _ => Vec::new(),
        };
        let deeper = below.into_iter().flat_map(|(key, value)| paths(value, format!("{at}/{key}")));
        let deeper: Vec<_> = deeper.collect();
        std::iter::once(at).chain(deeper).collect()
    }
}
