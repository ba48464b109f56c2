//! The reconciler over a kernel in memory.

use russet_desired::{ChainSpec, Flag, Item, Key, Match, Rule, SetKind, Verdict};
use russet_net::Family;

use super::wishes::{FORWARD, chain, element, patches, prefix, set, without};
use crate::{
    nft::{
        Refused,
        fake::Fake,
        plan::{ELEMENTS_PER_STEP, Op, Step},
        reconcile::Reconciler,
    },
    reconcile::DriftKind,
};

fn address(n: u32) -> Item {
    element("pods", &format!("10.50.{}.{}/32", n / 256, n % 256))
}

fn pods(count: u32) -> Vec<Item> {
    let set = set(Family::V4, "pods", SetKind::Addresses);
    std::iter::once(set).chain((0..count).map(address)).collect()
}

fn forward(name: &'static str) -> Item {
    let link = Match::InputLink { name: "cni0".parse().unwrap(), negate: Flag::Off };
    let rules = vec![Rule { matches: vec![link], verdict: Verdict::Accept }];
    chain(Family::V4, name, ChainSpec { base: Some(FORWARD), rules })
}

fn wish(driver: &mut Reconciler<Fake>, mut patches: russet_desired::Patches) -> Vec<Refused> {
    use std::mem::take;
    driver.update(take(&mut patches.sets), take(&mut patches.elements), take(&mut patches.chains));
    driver.apply().unwrap()
}

fn keys(refused: &[Refused]) -> Vec<Key> {
    refused.iter().filter_map(|refused| refused.key.clone()).collect()
}

#[test]
fn all_that_fits_travels_in_one_transaction() {
    let mut driver = Reconciler::new(Fake::default());
    let mut items = pods(3_000);
    items.push(forward("forward"));
    assert_eq!(wish(&mut driver, patches(items)), []);
    assert_eq!(driver.ruleset().tried.len(), 1);

    assert_eq!(wish(&mut driver, patches([address(4_000)])), []);
    let last = driver.ruleset().tried.last().unwrap();
    let added = Op::Add(SetKind::Addresses, vec![prefix("10.50.15.160/32").into()]);
    assert_eq!(*last, [Step::new(Family::V4, "pods", added)], "a change costs its own size");
}

#[test]
fn what_does_not_fit_is_cut_between_elements_and_never_within_the_rules() {
    let mut driver = Reconciler::new(Fake { room: Some(40_000), ..Fake::default() });
    let mut items = pods(10_000);
    items.extend([forward("one"), forward("two")]);
    assert_eq!(wish(&mut driver, patches(items)), []);
    let tried = &driver.ruleset().tried;
    assert!(tried.len() > 3, "{}", tried.len());
    let with_rules = |steps: &&Vec<Step>| {
        steps.iter().any(|step| matches!(step.op, Op::NewChain(_) | Op::AddRule(_)))
    };
    assert_eq!(tried.iter().filter(with_rules).count(), 1);
    assert_eq!(driver.ruleset().held.set(Family::V4, "pods").unwrap().elements.len(), 10_000);
}

#[test]
fn one_bad_element_among_thousands_is_found_by_halving() {
    let bad = prefix("10.50.3.7/32");
    let fake = Fake { bad_elements: [bad].into(), ..Fake::default() };
    let mut driver = Reconciler::new(fake);
    let refused = wish(&mut driver, patches(pods(3_000)));
    assert_eq!(keys(&refused), [element("pods", "10.50.3.7/32").key()]);
    assert_eq!(driver.ruleset().held.set(Family::V4, "pods").unwrap().elements.len(), 2_999);
    let halvings = ELEMENTS_PER_STEP.ilog2() as usize + 3;
    assert!(driver.ruleset().tried.len() <= halvings, "{}", driver.ruleset().tried.len());

    driver.ruleset_mut().bad_elements.clear();
    assert_eq!(wish(&mut driver, patches([])), []);
    assert_eq!(driver.ruleset().held.set(Family::V4, "pods").unwrap().elements.len(), 3_000);
}

#[test]
fn a_bad_chain_is_told_once_and_holds_back_no_other() {
    let mut driver = Reconciler::new(Fake { bad_objects: ["bad"].into(), ..Fake::default() });
    let refused = wish(&mut driver, patches([forward("bad"), forward("good")]));
    assert_eq!(keys(&refused), [forward("bad").key()]);
    assert!(driver.ruleset().held.chain(Family::V4, "good").is_some());
    assert!(driver.ruleset().held.chain(Family::V4, "bad").is_none());
}

#[test]
fn removing_what_is_gone_is_success() {
    let mut driver = Reconciler::new(Fake::default());
    wish(&mut driver, patches(pods(3)));
    wish(&mut driver, patches([forward("old")]));
    driver.complete();
    driver.ruleset_mut().gone = ["pods", "old"].into();
    let mut keys = vec![forward("old").key()];
    keys.extend(pods(3).iter().map(Item::key));
    assert_eq!(wish(&mut driver, without(keys)), []);
}

#[test]
fn drift_is_told_with_its_kind_and_only_of_what_had_been_right() {
    let mut driver = Reconciler::new(Fake::default());
    let mut items = pods(2);
    items.extend([forward("one"), forward("two")]);
    wish(&mut driver, patches(items));
    assert_eq!(driver.take_repaired(), [], "what was never there has not drifted");

    let held = &mut driver.ruleset_mut().held;
    held.note(Step::new(Family::V4, "one", Op::DelChain));
    held.note(Step::new(Family::V4, "two", Op::Flush));
    let lost = Op::Remove(SetKind::Addresses, vec![prefix("10.50.0.1/32").into()]);
    held.note(Step::new(Family::V4, "pods", lost));
    driver.resync().unwrap();
    assert_eq!(driver.apply().unwrap(), []);
    assert_eq!(
        driver.take_repaired(),
        [
            (address(1).key(), DriftKind::Gone),
            (forward("one").key(), DriftKind::Gone),
            (forward("two").key(), DriftKind::Changed),
        ]
    );
    driver.resync().unwrap();
    driver.apply().unwrap();
    assert_eq!(driver.take_repaired(), []);
}
