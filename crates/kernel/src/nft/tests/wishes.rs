//! Wishes for tests, written short.

use russet_desired::{
    BaseChain, ChainKey, ChainSpec, ChainType, ElementKey, ElementSpec, Field, Flag,
    ForeignAcceptSpec, Hook, Item, Key, Match, Patches, Rule, SetKey, SetKind, SetSpec, Verdict,
};
use russet_net::{Family, Prefix};

use crate::nft::{Nft, Refused};

pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(super) fn set(family: Family, name: &'static str, kind: SetKind) -> Item {
    Item::Set(SetKey { family, name }, SetSpec { kind })
}

pub(super) fn element(name: &'static str, text: &str) -> Item {
    let prefix = prefix(text);
    let set = SetKey { family: prefix.family(), name };
    Item::Element(ElementKey { set, link: None, prefix }, ElementSpec)
}

pub(super) fn pair(name: &'static str, link: &str, text: &str) -> Item {
    let (prefix, link) = (prefix(text), Some(link.parse().unwrap()));
    let set = SetKey { family: prefix.family(), name };
    Item::Element(ElementKey { set, link, prefix }, ElementSpec)
}

pub(super) fn chain(family: Family, name: &'static str, spec: ChainSpec) -> Item {
    Item::Chain(ChainKey { family, name }, spec)
}

pub(super) fn accept(text: &str) -> Item {
    Item::ForeignAccept(prefix(text), ForeignAcceptSpec)
}

pub(super) const POSTROUTING: BaseChain =
    BaseChain { kind: ChainType::Nat, hook: Hook::Postrouting, priority: 100 };
pub(super) const FORWARD: BaseChain =
    BaseChain { kind: ChainType::Filter, hook: Hook::Forward, priority: 0 };

pub(super) fn in_set(field: Field, set: &'static str, negate: Flag) -> Match {
    Match::InSet { field, set, negate }
}

pub(super) fn within(field: Field, text: &str, negate: Flag) -> Match {
    Match::Within { field, prefix: prefix(text), negate }
}

pub(super) const MASQUERADE: Verdict = Verdict::Masquerade { fully_random: Flag::On };

/// The six rules of flannel for one family: the networks and this node's subnets are sets.
pub(super) fn masquerade(family: Family) -> Vec<Item> {
    let multicast = match family {
        Family::V4 => "224.0.0.0/4",
        Family::V6 => "ff00::/8",
    };
    let from = |set, negate| in_set(Field::Source, set, negate);
    let to = |set, negate| in_set(Field::Destination, set, negate);
    let (off, on) = (Flag::Off, Flag::On);
    let rule = |matches: Vec<Match>, verdict| Rule { matches, verdict };
    let rules = vec![
        rule(vec![Match::Mark { mask: 0x4000, value: 0x4000 }], Verdict::Return),
        rule(vec![from("subnets", off), to("networks", off)], Verdict::Return),
        rule(vec![from("networks", off), to("subnets", off)], Verdict::Return),
        rule(vec![from("networks", on), to("subnets", off)], Verdict::Return),
        rule(vec![from("networks", off), within(Field::Destination, multicast, on)], MASQUERADE),
        rule(vec![from("networks", on), to("networks", off)], MASQUERADE),
    ];
    let spec = ChainSpec { base: Some(POSTROUTING), rules };
    vec![
        set(family, "networks", SetKind::Prefixes),
        set(family, "subnets", SetKind::Prefixes),
        chain(family, "postrouting", spec),
    ]
}

pub(super) fn patches(items: impl IntoIterator<Item = Item>) -> Patches {
    let mut patches = Patches::default();
    items.into_iter().for_each(|item| patches.set(item));
    patches
}

pub(super) fn without(keys: impl IntoIterator<Item = Key>) -> Patches {
    let mut patches = Patches::default();
    keys.into_iter().for_each(|key| patches.unset(key));
    patches
}

/// Wishes, applies, and returns what was refused.
pub(super) fn apply(nft: &mut Nft, mut patches: Patches) -> Vec<Refused> {
    nft.update(&mut patches);
    nft.apply().expect("the socket works")
}

/// The same where nothing is refused.
pub(super) fn fulfil(nft: &mut Nft, patches: Patches) {
    assert_eq!(apply(nft, patches), []);
}
