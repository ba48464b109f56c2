//! Random rules and random states.

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};
use russet_desired::{
    BaseChain, ChainSpec, ChainType, Field, Flag, Hook, Item, Match, Patches, Rule, SetKind,
    Verdict,
};
use russet_net::{Family, Prefix};

use super::{
    in_netns, run, try_run,
    wishes::{FORWARD, MASQUERADE, POSTROUTING, chain, element, fulfil, pair, patches, set},
};
use crate::{
    netlink::{Batch, Messages},
    nft::{
        Nft,
        kernel::{Kernel, Ruleset},
        object::{self, TableRef},
        plan::{Plan, Wanted, plan},
        rule::write_rule,
    },
    reconcile::Sync,
};

const SETS: [&str; 3] = ["alpha", "beta", "gamma"];
/// The one of them that holds pairs.
const PAIRS: &str = "gamma";
const CHAINS: [&str; 3] = ["one", "two", "three"];

fn any_flag() -> impl Strategy<Value = Flag> {
    any::<bool>().prop_map(Flag::from)
}

fn any_field() -> impl Strategy<Value = Field> {
    select(vec![Field::Source, Field::Destination])
}

/// Mostly near each other, so that they cover and touch one another, and at the edges of the family.
fn any_prefix(family: Family) -> BoxedStrategy<Prefix> {
    match family {
        Family::V4 => (select(vec![0_u32, 0x0a32_0000, 0xffff_0000]), any::<u16>(), 0..=32_u8)
            .prop_map(|(high, low, len)| {
                Prefix::around(std::net::Ipv4Addr::from(high | u32::from(low)).into(), len).unwrap()
            })
            .boxed(),
        Family::V6 => {
            (select(vec![0_u128, 0xfd00 << 112, u128::MAX << 16]), any::<u16>(), 0..=128_u8)
                .prop_map(|(high, low, len)| {
                    let addr = std::net::Ipv6Addr::from(high | u128::from(low));
                    Prefix::around(addr.into(), len).unwrap()
                })
                .boxed()
        }
    }
}

fn any_match(family: Family, sets: Vec<&'static str>) -> BoxedStrategy<Match> {
    let mark = (any::<u32>(), any::<u32>()).prop_map(|(mask, value)| Match::Mark { mask, value });
    let within = (any_field(), any_prefix(family), any_flag())
        .prop_map(|(field, prefix, negate)| Match::Within { field, prefix, negate });
    let link = ("[a-z][a-z0-9.-]{0,14}", any_flag())
        .prop_map(|(name, negate)| Match::InputLink { name: name.parse().unwrap(), negate });
    if sets.is_empty() {
        return prop_oneof![mark, within, link].boxed();
    }
    let in_set = (any_field(), select(sets), any_flag()).prop_map(|(field, set, negate)| {
        // The kernel refuses a look-up with a key of another length.
        if set == PAIRS {
            Match::InputLinkAndSource { set, negate }
        } else {
            Match::InSet { field, set, negate }
        }
    });
    prop_oneof![mark, within, link, in_set].boxed()
}

fn any_rule(family: Family, sets: Vec<&'static str>, nat: Flag) -> impl Strategy<Value = Rule> {
    let mut verdicts = vec![Verdict::Accept, Verdict::Drop, Verdict::Return];
    if nat.is_on() {
        verdicts.extend([MASQUERADE, Verdict::Masquerade { fully_random: Flag::Off }]);
    }
    (vec(any_match(family, sets), 0..4), select(verdicts))
        .prop_map(|(matches, verdict)| Rule { matches, verdict })
}

proptest! {
    #[test]
    fn what_is_written_of_a_rule_is_read_back(
        rules in (
            any_rule(Family::V4, SETS.into(), Flag::On),
            any_rule(Family::V6, SETS.into(), Flag::On),
        ),
    ) {
        for (family, rule) in [(Family::V4, rules.0), (Family::V6, rules.1)] {
            let exprs = write_rule(family, &rule);
            let mut batch = Batch::new();
            object::append_rule(&mut batch, TableRef::ours(family), "one", &exprs);
            // The kernel tells a handle besides.
            let message = Messages::new(batch.bytes()).next().unwrap();
            let attrs = message.attrs(crate::nft::wire::NFGEN_LEN);
            let list = attrs.find(crate::nft::number::NFTA_RULE_EXPRESSIONS).unwrap();
            prop_assert_eq!(crate::nft::expr::read_exprs(list.attrs()), exprs);
        }
    }
}

/// The wishes of one family: sets with elements that fit them, chains with rules on those sets.
fn any_family(family: Family) -> impl Strategy<Value = Vec<Item>> {
    let sets = proptest::sample::subsequence(SETS.to_vec(), 0..=SETS.len());
    sets.prop_flat_map(move |sets| {
        let elements: Vec<_> = sets.iter().map(|name| any_set(family, name)).collect();
        let names = proptest::sample::subsequence(CHAINS.to_vec(), 0..=CHAINS.len());
        let chains = names.prop_flat_map(move |names| {
            names.into_iter().map(|name| any_chain(family, name, sets.clone())).collect::<Vec<_>>()
        });
        (elements, chains)
    })
    .prop_map(|(sets, chains)| sets.into_iter().flatten().chain(chains).collect())
}

fn any_set(family: Family, name: &'static str) -> impl Strategy<Value = Vec<Item>> {
    let links = select(vec!["rst0", "rst1234567890ab"]);
    let elements = vec((any_prefix(family), links), 0..12);
    let kinds = if name == PAIRS {
        vec![SetKind::LinkPrefixes]
    } else {
        vec![SetKind::Addresses, SetKind::Prefixes]
    };
    (select(kinds), elements).prop_map(move |(kind, elements)| {
        let elements = elements.into_iter().map(|(prefix, link)| match kind {
            SetKind::Addresses => element(name, &Prefix::host(prefix.addr()).to_string()),
            SetKind::Prefixes => element(name, &prefix.to_string()),
            SetKind::LinkPrefixes => pair(name, link, &prefix.to_string()),
        });
        std::iter::once(set(family, name, kind)).chain(elements).collect()
    })
}

fn any_chain(
    family: Family,
    name: &'static str,
    sets: Vec<&'static str>,
) -> impl Strategy<Value = Item> {
    let late = BaseChain { kind: ChainType::Filter, hook: Hook::Input, priority: -7 };
    let bases = vec![None, Some(FORWARD), Some(POSTROUTING), Some(late)];
    select(bases).prop_flat_map(move |base| {
        let nat = Flag::from(base == Some(POSTROUTING));
        vec(any_rule(family, sets.clone(), nat), 0..5)
            .prop_map(move |rules| chain(family, name, ChainSpec { base, rules }))
    })
}

fn any_state() -> impl Strategy<Value = Vec<Item>> {
    (any_family(Family::V4), any_family(Family::V6))
        .prop_map(|(v4, v6)| v4.into_iter().chain(v6).collect())
}

/// The patch that leads from one state to another.
fn between(old: &[Item], new: &[Item]) -> Patches {
    let mut patches = Patches::default();
    for item in old {
        patches.unset(item.key());
    }
    for item in new {
        patches.set(item.clone());
    }
    patches
}

fn wanted(items: &[Item]) -> Wanted {
    let mut all = russet_desired::Tables::default();
    for item in items {
        all.insert(item.clone());
    }
    Wanted { sets: all.sets, elements: all.elements.into_keys().collect(), chains: all.chains }
}

/// Asserts that the kernel holds just what is wanted, by reading it afresh.
fn assert_holds(items: &[Item]) {
    let found = Kernel::open().unwrap().list_owned().unwrap();
    let wanted = wanted(items);
    let held = found.elements();
    let pending = wanted.elements.iter().copied().chain(held).collect();
    assert_eq!(plan(&wanted, &found, &pending, Sync::Complete), Plan::default());
}

const SOME: u32 = 40;

fn for_some<T: std::fmt::Debug + Send>(
    cases: &(impl Strategy<Value = T> + std::marker::Sync),
    test: impl Fn(T) + std::marker::Sync,
) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: SOME,
        max_shrink_iters: 200,
        ..Default::default()
    });
    let result = runner.run(cases, |case| {
        in_netns(|| test(case));
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn any_state_becomes_any_other() {
    for_some(&(any_state(), any_state()), |(first, second)| {
        let mut driver = Nft::open().unwrap();
        driver.complete();
        fulfil(&mut driver, patches(first.clone()));
        assert_holds(&first);
        fulfil(&mut driver, between(&first, &second));
        assert_holds(&second);
    });
}

#[test]
fn a_restarted_agent_makes_its_state_of_whatever_it_finds() {
    for_some(&(any_state(), any_state()), |(before, wanted)| {
        fulfil(&mut Nft::open().unwrap(), patches(before));
        // Its owner is gone, so anyone may add to it; of these some fail, as the state has it.
        try_run("nft add table ip russet");
        run("nft add chain ip russet stranger");
        try_run("nft add rule ip russet stranger ip saddr @alpha drop");
        try_run("nft add rule ip russet one counter drop");
        try_run("nft flush set ip russet beta");
        try_run("nft add set ip russet gamma { type mark; }");

        let mut driver = Nft::open().unwrap();
        fulfil_partly(&mut driver, &wanted);
        driver.complete();
        fulfil(&mut driver, patches([]));
        assert_holds(&wanted);
    });
}

/// Before all is told, strangers may hold back a set that has to be made anew; nothing else is refused.
fn fulfil_partly(driver: &mut Nft, wanted: &[Item]) {
    let refused = super::wishes::apply(driver, patches(wanted.to_vec()));
    assert!(refused.iter().all(|refused| refused.error.is_busy()), "{refused:?}");
}
