//! Lease machines of several nodes and one store, on a virtual clock.
//!
//! The store is the real one's rules and nothing more: revisions, compare on version, grants that run out,
//! a watch. Between it and a node lies a line that delays, loses and doubles what passes, and that can be
//! cut; after a cut the node gets a new snapshot. `sim` has all three, here is what comes of them.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use russet_desired::Flag;

use super::*;
use crate::{addressing::node_subnet::Random, model::Backend};

mod sim;

use self::sim::*;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

#[test]
fn a_lease_is_renewed_an_hour_before_its_end_with_a_new_grant() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_secs(5));
    let key = sim.held(0).expect("a lease");
    let written = sim.writes.len();

    sim.run(DAY * 3);

    assert_eq!(sim.held(0), Some(key));
    let renewals = &sim.writes[written..];
    assert_eq!(renewals.len(), 3, "{renewals:?}");
    for (i, (at, _, write)) in renewals.iter().enumerate() {
        assert!(matches!(write, StoreWrite::Renew { .. }), "{write:?}");
        let due = HOUR * 23 * u32::try_from(i + 1).unwrap();
        let early = at.duration_since(sim.start).checked_sub(due).expect("not before it is due");
        assert!(early < Duration::from_secs(10), "{early:?}");
    }
}

#[test]
fn two_nodes_that_race_for_the_last_subnets_get_one_each() {
    // Three subnets for three nodes that all start at once.
    let mut sim = Sim::new(3, "10.50.0.0/22");
    sim.run(Duration::from_mins(1));

    let held: std::collections::BTreeSet<_> = (0..3).map(|n| sim.held(n).unwrap()).collect();
    assert_eq!(held.len(), 3);
    let exists = sim.outcomes.iter().filter(|o| **o == WriteOutcome::Exists).count();
    assert!(exists > 0, "nobody raced");
}

#[test]
fn a_node_without_a_subnet_left_says_so_and_gets_the_next_that_is_freed() {
    let mut sim = Sim::new(4, "10.50.0.0/22");
    sim.run(Duration::from_mins(1));
    let poor = (0..4).find(|n| sim.held(*n).is_none()).expect("three subnets for four nodes");
    assert!(sim.said(poor).contains(&LeaseOutput::Pending(LeaseFault::Exhausted)));

    let rich = (poor + 1) % 4;
    let freed = sim.held(rich).unwrap();
    sim.stop(rich);
    sim.delete(freed);
    sim.run(Duration::from_mins(2));
    assert_eq!(sim.held(poor), Some(freed));
}

#[test]
fn a_store_that_is_away_for_30_hours_costs_no_subnet() {
    let mut sim = Sim::new(2, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let before = [sim.held(0), sim.held(1)];

    sim.cut_all();
    sim.run(HOUR * 30);
    assert!(sim.store.keys.is_empty(), "the grants have run out");
    assert_eq!([sim.held(0), sim.held(1)], before, "forwarding goes on");
    assert!(sim.said(0).contains(&LeaseOutput::Pending(LeaseFault::RunOut)));

    sim.join_all();
    sim.run(Duration::from_mins(5));
    assert_eq!([sim.held(0), sim.held(1)], before);
    assert_eq!(sim.store.keys.len(), 2);
    assert!(!sim.said(0).iter().any(|output| matches!(output, LeaseOutput::Lost { .. })));
}

#[test]
fn a_node_that_comes_back_after_its_subnet_was_taken_gets_another() {
    // Three subnets; the third node finds one only when the cut one's lease has run out.
    let mut sim = Sim::new(4, "10.50.0.0/22");
    sim.run(Duration::from_mins(1));
    let poor = (0..4).find(|n| sim.held(*n).is_none()).unwrap();
    let away = (poor + 1) % 4;
    let lost = sim.held(away).unwrap();

    sim.cut(away);
    sim.run(HOUR * 25);
    assert_eq!(sim.held(poor), Some(lost));
    // Writes pass before the watch is back, so that what it knows is a day old.
    sim.watch_after = Duration::from_mins(10);
    sim.stop((poor + 2) % 4);
    let freed = sim.held((poor + 2) % 4).unwrap();
    sim.delete(freed);
    sim.join(away);
    sim.run(Duration::from_mins(15));

    let gone = LeaseOutput::Lost { key: lost, reason: LostReason::Taken };
    assert!(sim.said(away).contains(&gone));
    assert_eq!(sim.held(away), Some(freed));
    assert_eq!(sim.held(poor), Some(lost));
    assert_eq!(sim.overwritten, 0);
}

#[test]
fn a_restarted_node_takes_its_own_lease_again() {
    let mut sim = Sim::new(2, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let before = sim.held(0);
    sim.restart(0);
    sim.run(Duration::from_mins(1));
    assert_eq!(sim.held(0), before);
    assert!(matches!(sim.writes.last(), Some((_, 0, StoreWrite::Renew { .. }))));
}

#[test]
fn a_deleted_key_is_taken_again_and_nothing_is_lost() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let before = sim.held(0).unwrap();
    sim.delete(before);
    sim.run(Duration::from_mins(1));

    assert_eq!(sim.held(0), Some(before));
    assert!(sim.store.keys.contains_key(&before));
    assert!(matches!(sim.writes.last(), Some((_, 0, StoreWrite::Create { .. }))));
    assert!(!sim.said(0).iter().any(|output| matches!(output, LeaseOutput::Lost { .. })));
}

#[test]
fn a_store_that_lost_its_history_gets_the_lease_again() {
    let mut sim = Sim::new(2, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let before = [sim.held(0).unwrap(), sim.held(1).unwrap()];

    // Its revisions begin anew, below those that the nodes have seen.
    sim.store = Store::default();
    for node in 0..2 {
        sim.feed(node, LeaseInput::OtherHistory);
        sim.watch(node, WATCH);
    }
    sim.run(Duration::from_mins(1));

    assert_eq!([sim.held(0).unwrap(), sim.held(1).unwrap()], before);
    assert!(before.iter().all(|key| sim.store.keys.contains_key(key)));
}

#[test]
fn a_spoilt_value_is_written_again() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let key = sim.held(0).unwrap();
    let right = sim.store.keys[&key].lease.clone();
    sim.put(key, None, Some(DAY));
    sim.run(Duration::from_mins(1));
    assert_eq!(sim.store.keys[&key].lease, right);
}

#[test]
fn a_stolen_subnet_is_left_to_the_thief() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let key = sim.held(0).unwrap();
    let thief = Lease { public_ip: Some([192, 168, 77, 200].into()), ..lease_at(200) };
    sim.put(key, Some(thief.clone()), Some(DAY));
    sim.run(Duration::from_mins(1));
    assert_ne!(sim.held(0), Some(key));
    assert!(sim.held(0).is_some());
    assert_eq!(sim.store.keys[&key].lease, Some(thief));
}

#[test]
fn of_two_nodes_with_one_address_the_later_gives_way_and_both_say_so() {
    let mut sim = Sim::new(2, "10.50.0.0/16");
    // The second one starts when the first holds its lease.
    sim.cut(1);
    sim.run(Duration::from_mins(1));
    let first = sim.held(0).unwrap();
    sim.feed(1, LeaseInput::Underlay(underlay(1)));
    sim.join(1);
    sim.run(Duration::from_mins(5));
    assert_eq!(sim.held(0), Some(first));
    let second = sim.held(1).unwrap();
    assert!(!second.overlaps(first), "{second}");
    let lost =
        |out: &LeaseOutput| matches!(out, LeaseOutput::Lost { reason: LostReason::Shared(_), .. });
    assert!(sim.said(1).iter().any(lost), "{:?}", sim.said(1));
    let told = LeaseOutput::Pending(LeaseFault::SharedAddress([192, 168, 77, 1].into()));
    assert!(sim.said(0).contains(&told), "{:?}", sim.said(0));
    let writes = sim.writes.len();
    sim.run(Duration::from_hours(1));
    assert_eq!(sim.writes.len(), writes, "they are at peace");
}

#[test]
fn a_value_that_another_keeps_writing_is_said_again_ever_more_slowly() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(5));
    let key = sim.held(0).unwrap();
    let before = sim.writes.len();
    let theirs = Lease { backend: Backend::Ipip, ..lease_at(1) };
    for _ in 0..600 {
        sim.put(key, Some(theirs.clone()), Some(DAY));
        sim.run(Duration::from_secs(1));
    }
    let writes = sim.writes.len() - before;
    assert!((10..80).contains(&writes), "{writes} writes in ten minutes");
    assert_eq!(sim.held(0), Some(key));
}

#[test]
fn a_reservation_is_honoured_and_never_made_to_expire() {
    let mut sim = Sim::new(0, "10.50.0.0/16");
    let (ours, theirs) = (key("10.50.9.0/24"), key("10.50.10.0/24"));
    sim.put(ours, Some(lease_at(1)), None);
    sim.put(theirs, Some(lease_at(77)), None);
    sim.add_node();
    sim.run(DAY * 4);

    assert_eq!(sim.held(0), Some(ours));
    assert_eq!(sim.said(0).last(), Some(&LeaseOutput::Acquired { key: ours, expires: None }));
    assert!(sim.writes.iter().all(|(.., write)| matches!(write, StoreWrite::Update { .. })));
    assert_eq!(sim.store.keys[&ours].ends, None);
    assert_eq!(sim.store.keys[&theirs].lease, Some(lease_at(77)));
}

#[test]
fn the_previous_subnet_is_asked_for_when_the_store_has_forgotten() {
    let mut sim = Sim::new(0, "10.50.0.0/16");
    sim.add_node();
    let previous = key("10.50.222.0/24");
    sim.feed(0, LeaseInput::Previous(previous));
    sim.run(Duration::from_mins(1));
    assert_eq!(sim.held(0), Some(previous));
}

#[test]
fn a_network_that_moves_away_makes_the_node_move_and_tidy_up() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let old = sim.held(0).unwrap();
    sim.feed(0, LeaseInput::Config(config("10.60.0.0/16", None)));
    sim.run(Duration::from_mins(5));

    let new = sim.held(0).unwrap();
    assert!(config("10.60.0.0/16", None).fits(new));
    let lost = LeaseOutput::Lost { key: old, reason: LostReason::OutsideNetwork };
    assert!(sim.said(0).contains(&lost));
    assert_eq!(sim.store.keys.keys().collect::<Vec<_>>(), [&new]);
}

#[test]
fn a_second_family_is_added_to_the_subnet_that_is_held() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let old = sim.held(0).unwrap();
    sim.feed(0, LeaseInput::Config(config("10.50.0.0/16", Some("fd00:50::/48"))));
    sim.run(Duration::from_mins(5));

    let new = sim.held(0).unwrap();
    assert_eq!(new.v4(), old.v4());
    assert!(new.v6().is_some());
    assert_eq!(sim.store.keys.keys().collect::<Vec<_>>(), [&new]);
}

#[test]
fn a_node_whose_address_changes_says_so_in_its_lease() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let key = sim.held(0).unwrap();
    sim.feed(0, LeaseInput::Underlay(underlay(99)));
    sim.run(Duration::from_mins(1));
    assert_eq!(sim.held(0), Some(key));
    assert_eq!(
        sim.store.keys[&key].lease.as_ref().unwrap().public_ip,
        Some([192, 168, 77, 99].into())
    );
}

#[test]
fn what_is_made_a_reservation_while_it_is_held_stays_one() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let key = sim.held(0).unwrap();
    let value = sim.store.keys[&key].lease.clone();
    sim.put(key, value, None);
    sim.run(Duration::from_mins(1));
    assert_eq!(sim.store.keys[&key].ends, None);
    assert_eq!(sim.said(0).last(), Some(&LeaseOutput::Acquired { key, expires: None }));

    // Another value is put right, and still it has no end.
    sim.put(key, Some(lease_at(1)), None);
    sim.run(DAY * 3);
    assert_eq!(sim.store.keys[&key].ends, None);
    assert_ne!(sim.store.keys[&key].lease, Some(lease_at(1)));
    assert!(!sim.said(0).iter().any(|output| matches!(output, LeaseOutput::Pending(_))));

    // One that is deleted is none any more, and is kept alive as a lease is.
    sim.delete(key);
    sim.run(DAY * 3);
    assert!(sim.store.keys[&key].ends.is_some());
    assert!(matches!(sim.writes.last(), Some((_, 0, StoreWrite::Renew { .. }))));
}

/// It has an end again for as long as it takes to write it once more.
#[test]
fn a_renewal_that_crosses_a_new_reservation_does_not_undo_it() {
    let start = Instant::now();
    let mut machine = holding(start, &[]);
    let key = machine.held().unwrap();
    let renewal = start + HOUR * 23;
    machine.handle(LeaseInput::Timeout, renewal);
    let (op, StoreWrite::Renew { lease, .. }) = last_write(&mut machine).unwrap() else {
        panic!("a renewal is due")
    };
    let claim = |mod_rev, life| LeaseClaim {
        key,
        lease: Some(lease.clone()),
        create_rev: 11,
        mod_rev,
        life,
    };
    machine.handle(LeaseInput::Claimed(claim(12, Life::Reserved)), renewal);
    machine.handle(LeaseInput::Claimed(claim(13, Life::Leased)), renewal);
    machine.handle(LeaseInput::Wrote { op, outcome: WriteOutcome::Done { rev: 13 } }, renewal);
    assert!(matches!(last_write(&mut machine), Some((_, StoreWrite::Update { .. }))));
}

#[test]
fn a_write_that_failed_and_is_there_is_ours() {
    let start = Instant::now();
    let mut machine = holding(start, &[]);
    let key = machine.held().unwrap();
    let renewal = start + HOUR * 23;
    machine.handle(LeaseInput::Timeout, renewal);
    let (op, StoreWrite::Renew { lease, .. }) = last_write(&mut machine).unwrap() else {
        panic!("a renewal is due")
    };
    let outcome = WriteOutcome::Failed("timed out".into());
    machine.handle(LeaseInput::Wrote { op, outcome }, renewal);
    while machine.poll_output().is_some() {}

    let claim =
        LeaseClaim { key, lease: Some(lease), create_rev: 11, mod_rev: 12, life: Life::Leased };
    machine.handle(LeaseInput::Claimed(claim), renewal);
    let said: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
    assert_eq!(said, [LeaseOutput::Acquired { key, expires: Some(renewal + DAY) }]);
    assert_eq!(machine.poll_timeout(), Some(renewal + HOUR * 23));
}

#[test]
fn an_operator_who_touches_the_value_is_not_another_node() {
    let mut sim = Sim::new(1, "10.50.0.0/16");
    sim.run(Duration::from_mins(1));
    let key = sim.held(0).unwrap();
    let value = sim.store.keys[&key].lease.clone();
    sim.put(key, value, Some(HOUR));
    sim.run(DAY);
    let rewritten = LeaseFault::Rewritten([192, 168, 77, 1].into());
    let faults = sim.said(0).iter().filter(|said| matches!(said, LeaseOutput::Pending(_)));
    assert_eq!(faults.collect::<Vec<_>>(), [&LeaseOutput::Pending(rewritten)]);
    assert!(sim.store.keys.contains_key(&key));
}

/// What no reader understands although we wrote it so would be written again without end.
#[test]
fn our_own_write_is_not_written_again_because_it_cannot_be_read() {
    let start = Instant::now();
    let mut machine = holding(start, &[]);
    let key = machine.held().unwrap();
    let claim = LeaseClaim { key, lease: None, create_rev: 11, mod_rev: 11, life: Life::Leased };
    machine.handle(LeaseInput::Claimed(claim), start);
    assert_eq!(last_write(&mut machine), None);
}

/// With most backends nothing tells an earlier life's lease from another node's with the same address.
#[test]
fn a_lease_that_no_earlier_life_is_known_to_have_had_is_left_to_its_end() {
    let start = Instant::now();
    let mut machine = holding(start, &[claim(9, 1)]);
    machine.handle(LeaseInput::Timeout, start + Duration::from_mins(5));
    assert_eq!(last_write(&mut machine), None);
}

/// A machine that asks to be woken at a time that has passed would keep its owner busy for nothing.
#[test]
fn a_release_that_cannot_be_done_now_is_no_haste() {
    let start = Instant::now();
    let mut machine = holding(start, &[]);
    machine.handle(LeaseInput::Config(config("10.60.0.0/16", None)), start);
    let (op, StoreWrite::Create { key, .. }) = last_write(&mut machine).unwrap() else {
        panic!("it asks for a subnet of the new network")
    };
    machine.handle(LeaseInput::Wrote { op, outcome: WriteOutcome::Done { rev: 12 } }, start);
    assert!(matches!(last_write(&mut machine), Some((_, StoreWrite::Release { .. }))));
    // The store does not answer any more, and ours is stolen.
    let stolen = LeaseClaim { key, create_rev: 12, mod_rev: 13, ..claim(8, 77) };
    machine.handle(LeaseInput::Claimed(stolen), start);
    assert_eq!(machine.held(), None);
    let mut now = start;
    for _ in 0..100 {
        let due = machine.poll_timeout().expect("it asks for a lease");
        assert!(due > now, "it would be asked again at once");
        now = due;
        machine.handle(LeaseInput::Timeout, now);
    }
}

/// A machine that holds `10.50.8.0/24`, as in its earlier life, written at revision 11.
fn holding(start: Instant, others: &[LeaseClaim]) -> LeaseMachine {
    let mut machine = machine(0, 0);
    machine.handle(LeaseInput::Config(config("10.50.0.0/16", None)), start);
    machine.handle(LeaseInput::Underlay(underlay(1)), start);
    machine.handle(LeaseInput::Previous(key("10.50.8.0/24")), start);
    let mut claims = vec![claim(8, 1)];
    claims.extend_from_slice(others);
    machine.handle(LeaseInput::Snapshot { claims, rev: 10 }, start);
    machine.handle(LeaseInput::Wrote { op: 0, outcome: WriteOutcome::Done { rev: 11 } }, start);
    assert_eq!(machine.held(), Some(key("10.50.8.0/24")));
    last_write(&mut machine).expect("the lease was renewed");
    machine
}

/// `10.50.n.0/24`, held by `192.168.77.who`.
fn claim(n: u8, who: u8) -> LeaseClaim {
    LeaseClaim {
        key: key(&format!("10.50.{n}.0/24")),
        lease: Some(lease_at(who)),
        create_rev: n.into(),
        mod_rev: n.into(),
        life: Life::Leased,
    }
}

/// Drains what the machine says.
fn last_write(machine: &mut LeaseMachine) -> Option<(u64, StoreWrite)> {
    let said = std::iter::from_fn(|| machine.poll_output());
    let writes = said.filter_map(|output| match output {
        LeaseOutput::Store { op, write } => Some((op, write)),
        _ => None,
    });
    writes.last()
}

#[test]
fn a_create_that_succeeds_after_it_was_given_up_is_released() {
    let mut sim = Sim::new(0, "10.50.0.0/16");
    sim.add_node();
    // The first write reaches the store, its answer comes an hour late, and the watch is dumb.
    sim.answers_late = Some(HOUR);
    sim.run(Duration::from_millis(25));
    sim.nodes[0].watching = Flag::Off;
    sim.run(Duration::from_secs(20));
    let first = *sim.store.keys.keys().next().expect("the first write has arrived");
    sim.answers_late = None;
    sim.run(Duration::from_mins(1));
    let held = sim.held(0).expect("a second one was asked for");
    assert_ne!(held, first);
    assert_eq!(sim.store.keys.len(), 2);

    sim.run(HOUR * 2);
    assert_eq!(sim.store.keys.keys().collect::<Vec<_>>(), [&held]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    /// Lost, doubled, late and re-ordered outcomes, cuts for hours, restarts: no two nodes ever hold
    /// the same subnet with a lease that has not run out, and when the line is good all hold one.
    #[test]
    fn no_subnet_is_held_twice_whatever_the_line_does(
        seed in any::<u64>(),
        faults in prop::collection::vec((0..5_usize, 0..4_u8, 1..30_u64), 0..12),
    ) {
        let mut sim = Sim::new(5, "10.50.0.0/21");
        sim.line = Line::Bad;
        sim.random = Random::new(seed);
        for (node, what, hours) in faults {
            match what {
                0 => sim.cut(node),
                1 => sim.join(node),
                2 => sim.restart(node),
                _ => {}
            }
            sim.run(HOUR * u32::try_from(hours).unwrap());
        }
        sim.line = Line::Good;
        sim.join_all();
        sim.run(HOUR * 2);

        let held: std::collections::BTreeSet<_> = (0..5).filter_map(|n| sim.held(n)).collect();
        prop_assert_eq!(held.len(), 5);
        for key in &held {
            prop_assert!(sim.store.keys.contains_key(key), "{:?} is not in the store", key);
        }
    }
}
