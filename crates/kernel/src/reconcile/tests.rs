use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use russet_desired::{Flag, Patch, Port, PortSpec, Table};
use russet_net::IfName;

use super::{
    fake::{Act, Fake},
    *,
};

type Ports = Reconciler<Port, Fake<Port>>;

#[test]
fn one_refused_object_stays_pending_and_holds_back_no_other() {
    let mut ports = holding([]);
    ports.driver_mut().refuses = [key(1)].into();
    ports.update(wish([(1, ON), (2, ON)]));
    apply(&mut ports);
    assert_eq!(ports.driver().objects, table([(2, ON)]));
    assert_eq!(failed(&mut ports), [key(1)]);

    ports.driver_mut().refuses.clear();
    apply(&mut ports);
    assert_eq!(ports.driver().objects, table([(2, ON)]), "it waits for its time");
    ports.retry();
    apply(&mut ports);
    assert_eq!(ports.driver().objects, table([(1, ON), (2, ON)]));
    assert!(matches!(&ports.take_news()[..], [News::Cleared(cleared)] if *cleared == key(1)));
}

#[test]
fn the_same_refusal_is_told_once() {
    let mut ports = holding([]);
    ports.driver_mut().refuses = [key(1)].into();
    ports.update(wish([(1, ON)]));
    apply(&mut ports);
    assert_eq!(failed(&mut ports).len(), 1);
    ports.retry();
    apply(&mut ports);
    assert_eq!(failed(&mut ports).len(), 0);
}

#[test]
fn a_refused_wish_that_is_withdrawn_is_no_failure_any_more() {
    let mut ports = holding([]);
    ports.driver_mut().refuses = [key(1)].into();
    ports.update(wish([(1, ON)]));
    apply(&mut ports);
    ports.update([(key(1), None)].into());
    apply(&mut ports);
    assert!(ports.refused().is_empty());
}

#[test]
fn what_is_made_goes_before_what_is_removed() {
    let mut ports = holding([(1, ON), (2, ON)]);
    ports.complete();
    ports.update(wish([(9, ON)]));
    apply(&mut ports);
    let acts: Vec<Act> = ports.driver().log.iter().map(|(act, _)| *act).collect();
    assert_eq!(acts, [Act::Upsert, Act::Remove, Act::Remove]);
}

#[test]
fn a_kernel_that_cannot_be_listed_is_asked_again_and_nothing_is_sent() {
    let mut ports = holding([(1, ON)]);
    ports.driver_mut().is_deaf = true;
    ports.complete();
    assert!(ports.resync(&mut (), Instant::now()).is_err());
    assert!(ports.is_stale());
    ports.driver_mut().is_deaf = false;
    apply(&mut ports);
    assert!(ports.driver().objects.is_empty());
}

#[test]
fn drift_is_told_with_its_author_and_the_way_it_was_noticed() {
    let mut ports = settled([(1, ON), (2, ON)]);
    ports.driver_mut().objects.remove(&key(1));
    ports.observe(&(), Seen::Gone(key(1)), || Some("ip".into()), Instant::now());
    ports.driver_mut().objects.insert(key(2), OFF);
    ports.mark_stale(Path::Sweep);
    apply(&mut ports);

    let news = ports.take_news();
    let [News::Repaired(first, gone), News::Repaired(second, changed)] = &news[..] else {
        panic!("two repairs: {news:?}");
    };
    assert_eq!((first, second), (&key(1), &key(2)));
    assert_eq!(
        (gone.what, gone.path, gone.by.as_deref()),
        (DriftKind::Gone, Path::Event, Some("ip"))
    );
    assert_eq!((changed.what, changed.path), (DriftKind::Changed, Path::Sweep));
}

#[test]
fn an_author_is_not_looked_for_when_nothing_of_ours_is_concerned() {
    let mut ports = settled([(1, ON)]);
    let nobody = || -> Option<Arc<str>> { panic!("not asked for") };
    ports.observe(&(), Seen::Ours(key(1), ON), nobody, Instant::now());
    ports.observe(&(), Seen::Ours(key(7), ON), nobody, Instant::now());
    ports.observe(&(), Seen::Gone(key(7)), nobody, Instant::now());
    ports.observe(&(), Seen::Foreign(key(7)), nobody, Instant::now());
    assert!(!ports.is_pending());
    assert!(!ports.is_stale());
}

#[test]
fn whoever_reverts_three_times_in_ten_seconds_has_his_way_for_thirty() {
    let mut ports = settled([(1, ON)]);
    let start = Instant::now();
    for _ in 0..3 {
        revert(&mut ports, start);
    }
    assert_eq!(ports.driver().objects, table([(1, OFF)]));
    let err = ports.refused()[&key(1)].to_string();
    assert_eq!(err, "p1: reverted 3 times in 10 s by rival; left alone for a while");

    ports.retry();
    ports.upsert(&mut (), start + Duration::from_secs(29));
    assert_eq!(ports.driver().objects, table([(1, OFF)]));
    ports.retry();
    ports.upsert(&mut (), start + Duration::from_secs(31));
    assert_eq!(ports.driver().objects, table([(1, ON)]));
    assert!(ports.refused().is_empty());
}

#[test]
fn a_newer_wish_ends_the_truce() {
    let mut ports = settled([(1, ON)]);
    let start = Instant::now();
    for _ in 0..3 {
        revert(&mut ports, start);
    }
    ports.update([(key(1), None)].into());
    ports.update(wish([(1, ON)]));
    ports.upsert(&mut (), start);
    assert_eq!(ports.driver().objects, table([(1, ON)]));
}

#[test]
fn three_reverts_in_a_minute_are_no_fight() {
    let mut ports = settled([(1, ON)]);
    let start = Instant::now();
    for n in 0..6 {
        revert(&mut ports, start + Duration::from_secs(6) * n);
    }
    assert_eq!(ports.driver().objects, table([(1, ON)]));
}

proptest! {
    /// From any start, through any wishes and refusals: what is wanted and not refused is there; what is
    /// unwished is gone if all was told, and untouched if not; and then there is nothing more to send.
    #[test]
    fn any_start_and_any_wishes_end_in_what_is_wanted(
        start in objects(),
        rounds in prop::collection::vec((patches(), keys(), prop::option::of(objects())), 1..6),
        told in any::<bool>(),
    ) {
        let mut ports = Reconciler::new(Fake::holding(start.clone()));
        let mut wanted = Table::<Port>::new();
        if told {
            ports.complete();
        }
        for (patch, refuses, tampered) in rounds {
            for (key, value) in &patch {
                match value {
                    Some(value) => wanted.insert(*key, *value),
                    None => wanted.remove(key),
                };
            }
            ports.update(patch);
            ports.driver_mut().refuses = refuses.clone();
            if let Some(tampered) = tampered {
                ports.driver_mut().objects = tampered;
                ports.mark_stale(Path::Own);
            }
            let before = ports.driver().objects.clone();
            ports.retry();
            apply(&mut ports);
            check(&ports, &wanted, &before, &refuses, told)?;

            let sent = ports.driver().log.len();
            apply(&mut ports);
            prop_assert_eq!(ports.driver().log.len(), sent, "nothing is left to send");
        }
        ports.driver_mut().refuses.clear();
        ports.complete();
        ports.retry();
        apply(&mut ports);
        prop_assert_eq!(&ports.driver().objects, &wanted);
        prop_assert_eq!(ports.actual(), &wanted);
        prop_assert!(ports.refused().is_empty());
    }
}

fn check(
    ports: &Ports,
    wanted: &Table<Port>,
    before: &Table<Port>,
    refuses: &BTreeSet<IfName>,
    told: bool,
) -> Result<(), TestCaseError> {
    let objects = &ports.driver().objects;
    prop_assert_eq!(ports.actual(), objects, "we know what is there");
    for (key, value) in wanted {
        let there = objects.get(key);
        let met = there == Some(value);
        prop_assert!(met || refuses.contains(key), "{key} is not there");
        prop_assert_eq!(ports.refused().contains_key(key), !met);
    }
    for key in before.keys().filter(|key| !wanted.contains_key(key)) {
        let stays = !told || refuses.contains(key);
        prop_assert_eq!(objects.contains_key(key), stays, "unwished {}", key);
    }
    Ok(())
}

const ON: PortSpec = PortSpec { hairpin: Flag::On };
const OFF: PortSpec = PortSpec { hairpin: Flag::Off };

/// Somebody turns it off, we hear of it and act.
fn revert(ports: &mut Ports, now: Instant) {
    ports.driver_mut().objects.insert(key(1), OFF);
    ports.observe(&(), Seen::Ours(key(1), OFF), || Some("rival".into()), now);
    ports.upsert(&mut (), now);
}

fn holding<const N: usize>(objects: [(u8, PortSpec); N]) -> Ports {
    Reconciler::new(Fake::holding(table(objects)))
}

/// A reconciler that has all it wants.
fn settled<const N: usize>(objects: [(u8, PortSpec); N]) -> Ports {
    let mut ports = holding([]);
    ports.complete();
    ports.update(wish(objects));
    apply(&mut ports);
    ports
}

fn apply(ports: &mut Ports) {
    let now = Instant::now();
    ports.resync(&mut (), now).unwrap();
    ports.upsert(&mut (), now);
    ports.remove(&mut ());
}

fn failed(ports: &mut Ports) -> Vec<IfName> {
    let news = ports.take_news().into_iter();
    news.filter_map(|news| match news {
        News::Failed(key, _) => Some(key),
        _ => None,
    })
    .collect()
}

fn key(n: u8) -> IfName {
    format!("p{n}").parse().unwrap()
}

fn table<const N: usize>(objects: [(u8, PortSpec); N]) -> Table<Port> {
    objects.into_iter().map(|(n, spec)| (key(n), spec)).collect()
}

fn wish<const N: usize>(objects: [(u8, PortSpec); N]) -> Patch<Port> {
    objects.into_iter().map(|(n, spec)| (key(n), Some(spec))).collect()
}

fn spec() -> impl Strategy<Value = PortSpec> {
    prop_oneof![Just(ON), Just(OFF)]
}

fn objects() -> impl Strategy<Value = Table<Port>> {
    prop::collection::btree_map((0_u8..8).prop_map(key), spec(), 0..8)
}

fn patches() -> impl Strategy<Value = Patch<Port>> {
    prop::collection::btree_map((0_u8..8).prop_map(key), prop::option::of(spec()), 0..8)
}

fn keys() -> impl Strategy<Value = BTreeSet<IfName>> {
    prop::collection::btree_set((0_u8..8).prop_map(key), 0..4)
}
