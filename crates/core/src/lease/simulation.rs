//! Lease machines of several nodes and one store, on a virtual clock.
//!
//! The store is the real one's rules and nothing more: revisions, compare on version, grants that run out,
//! a watch. Between it and a node lies a line that delays, loses and doubles what passes, and that can be
//! cut; after a cut the node gets a new snapshot.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use russet_desired::Flag;

use super::*;
use crate::{
    addressing::node_subnet::Random,
    model::{Backend, Pool, Preset, Settings, TransportConfig, VxlanConfig},
};

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
    let right = sim.store.keys[&key].lease;
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
    sim.put(key, Some(thief), Some(DAY));
    sim.run(Duration::from_mins(1));
    assert_ne!(sim.held(0), Some(key));
    assert!(sim.held(0).is_some());
    assert_eq!(sim.store.keys[&key].lease, Some(thief));
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
    assert_eq!(sim.store.keys[&key].lease.unwrap().public_ip, Some([192, 168, 77, 99].into()));
}

/// A machine that asks to be woken at a time that has passed would keep its owner busy for nothing.
#[test]
fn a_release_that_cannot_be_done_now_is_no_haste() {
    let start = Instant::now();
    let mut machine = machine(0, 0);
    let claim = |n: u8, who| LeaseClaim {
        key: key(&format!("10.50.{n}.0/24")),
        lease: Some(lease_at(who)),
        create_rev: n.into(),
        mod_rev: n.into(),
        life: Life::Leased,
    };
    machine.handle(LeaseInput::Config(config("10.50.0.0/16", None)), start);
    machine.handle(LeaseInput::Underlay(underlay(1)), start);
    let claims = vec![claim(8, 1), claim(9, 1)];
    machine.handle(LeaseInput::Snapshot { claims, rev: 10 }, start);
    machine.handle(LeaseInput::Wrote { op: 0, outcome: WriteOutcome::Done { rev: 11 } }, start);
    assert_eq!(machine.held(), Some(key("10.50.8.0/24")));
    // The other one is to be released, but the store does not answer any more, and ours is stolen.
    machine.handle(LeaseInput::Claimed(LeaseClaim { mod_rev: 12, ..claim(8, 77) }), start);
    assert_eq!(machine.held(), None);
    let mut now = start;
    for _ in 0..100 {
        let due = machine.poll_timeout().expect("it asks for a lease");
        assert!(due > now, "it would be asked again at once");
        now = due;
        machine.handle(LeaseInput::Timeout, now);
    }
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

// ---- the simulation

struct Sim {
    start: Instant,
    now: Instant,
    store: Store,
    nodes: Vec<Node>,
    /// What is under way, by when it arrives.
    queue: BTreeMap<(Instant, u64), Event>,
    next: u64,
    random: Random,
    line: Line,
    answers_late: Option<Duration>,
    /// How long after a cut the watch is back; writes are back at once.
    watch_after: Duration,
    /// How often a plain put went over another node's claim.
    overwritten: usize,
    network: &'static str,
    writes: Vec<(Instant, usize, StoreWrite)>,
    outcomes: Vec<WriteOutcome>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Good,
    /// Loses one in five, doubles one in five, and is late by up to a minute.
    Bad,
}

struct Node {
    machine: LeaseMachine,
    link: Link,
    watching: Flag,
    /// Counts the machine's lives, so that nothing of an earlier one reaches it.
    life: u64,
    stopped: Flag,
    said: Vec<LeaseOutput>,
    ends: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Cut,
}

enum Event {
    Write {
        node: usize,
        life: u64,
        op: u64,
        write: StoreWrite,
    },
    Input {
        node: usize,
        life: u64,
        input: LeaseInput,
    },
    /// The store's picture as it is then, and from then on every change.
    Watch {
        node: usize,
        life: u64,
    },
}

#[derive(Default)]
struct Store {
    rev: u64,
    keys: BTreeMap<LeaseKey, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    lease: Option<Lease>,
    create_rev: u64,
    mod_rev: u64,
    ends: Option<Instant>,
}

impl Sim {
    fn new(nodes: usize, network: &'static str) -> Self {
        let start = Instant::now();
        let mut sim = Self {
            start,
            now: start,
            store: Store::default(),
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            next: 0,
            random: Random::new(42),
            line: Line::Good,
            answers_late: None,
            watch_after: WATCH,
            overwritten: 0,
            network,
            writes: Vec::new(),
            outcomes: Vec::new(),
        };
        (0..nodes).for_each(|_| sim.add_node());
        sim
    }

    fn add_node(&mut self) {
        let node = self.nodes.len();
        self.nodes.push(Node {
            machine: machine(node, 0),
            link: Link::Up,
            watching: Flag::Off,
            life: 0,
            stopped: Flag::Off,
            said: Vec::new(),
            ends: None,
        });
        self.begin(node);
    }

    fn begin(&mut self, node: usize) {
        let number = u8::try_from(node + 1).unwrap();
        self.feed(node, LeaseInput::Config(config(self.network, None)));
        self.feed(node, LeaseInput::Underlay(underlay(number)));
        self.watch(node, WATCH);
    }

    fn restart(&mut self, node: usize) {
        let life = self.nodes[node].life + 1;
        let previous = self.held(node);
        self.nodes[node].life = life;
        self.nodes[node].ends = None;
        self.nodes[node].watching = Flag::Off;
        self.nodes[node].machine = machine(node, life);
        if let Some(key) = previous {
            self.feed(node, LeaseInput::Previous(key));
        }
        self.begin(node);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut steps = 0;
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step();
            self.nobody_holds_what_another_holds();
            steps += 1;
            assert!(steps < 200_000, "a hot loop");
        }
        self.now = end;
    }

    fn next_at(&self) -> Option<Instant> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let timers = self.running().filter_map(|(_, node)| node.machine.poll_timeout());
        let ends = self.store.keys.values().filter_map(|entry| entry.ends);
        queued.into_iter().chain(timers).chain(ends).min()
    }

    fn step(&mut self) {
        self.expire();
        while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
            match entry.remove() {
                Event::Write { node, life, op, write } => self.arrive(node, life, op, write),
                Event::Input { node, life, input } if self.nodes[node].life == life => {
                    self.feed(node, input);
                }
                Event::Watch { node, life } if self.nodes[node].life == life => {
                    self.begin_watch(node);
                }
                Event::Input { .. } | Event::Watch { .. } => {}
            }
        }
        let now = self.now;
        let due = |(i, node): (usize, &Node)| {
            node.machine.poll_timeout().is_some_and(|at| at <= now).then_some(i)
        };
        let due: Vec<_> = self.running().filter_map(due).collect();
        for node in due {
            self.feed(node, LeaseInput::Timeout);
        }
    }

    fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| !node.stopped.is_on())
    }

    fn feed(&mut self, node: usize, input: LeaseInput) {
        let now = self.now;
        if self.nodes[node].stopped.is_on() {
            return;
        }
        self.nodes[node].machine.handle(input, now);
        while let Some(output) = self.nodes[node].machine.poll_output() {
            match output {
                LeaseOutput::Store { op, write } => {
                    self.writes.push((now, node, write));
                    self.send_write(node, op, write);
                }
                LeaseOutput::Acquired { expires, .. } => self.nodes[node].ends = expires,
                LeaseOutput::Lost { .. } | LeaseOutput::Pending(_) => {}
            }
            self.nodes[node].said.push(output);
        }
    }

    /// The one thing that must never be.
    fn nobody_holds_what_another_holds(&self) {
        let valid = |node: &Node| {
            node.machine.held().filter(|_| node.ends.is_none_or(|end| self.now < end))
        };
        let held: Vec<_> = self.running().filter_map(|(_, node)| valid(node)).collect();
        for (i, one) in held.iter().enumerate() {
            for other in &held[i + 1..] {
                assert!(!one.overlaps(*other), "{one:?} is held twice");
            }
        }
    }
}

// ---- the line
impl Sim {
    fn send_write(&mut self, node: usize, op: u64, write: StoreWrite) {
        let life = self.nodes[node].life;
        if self.nodes[node].link == Link::Cut {
            let outcome = WriteOutcome::Failed("no route to the store".to_owned());
            self.post(
                Duration::ZERO,
                Event::Input { node, life, input: LeaseInput::Wrote { op, outcome } },
            );
            return;
        }
        let delay = self.delay();
        if !self.chance() {
            self.post(delay, Event::Write { node, life, op, write });
        }
    }

    fn arrive(&mut self, node: usize, life: u64, op: u64, write: StoreWrite) {
        self.overwritten += usize::from(self.store.would_overwrite(write));
        let outcome = self.store.take(write, self.now);
        self.outcomes.push(outcome.clone());
        if let WriteOutcome::Done { .. } = outcome {
            self.tell(write.key());
        }
        let copies = match (self.chance(), self.chance()) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        for _ in 0..copies {
            let delay = self.answers_late.unwrap_or_else(|| self.delay());
            let input = LeaseInput::Wrote { op, outcome: outcome.clone() };
            self.post(delay, Event::Input { node, life, input });
        }
    }

    /// The watch: never lost and never out of order while the line holds, as the store's client promises.
    fn tell(&mut self, key: LeaseKey) {
        let rev = self.store.rev;
        let input =
            self.store.claim(key).map_or(LeaseInput::Gone { key, rev }, LeaseInput::Claimed);
        let told = |(i, node): (usize, &Node)| node.watching.is_on().then_some((i, node.life));
        let told: Vec<_> = self.nodes.iter().enumerate().filter_map(told).collect();
        for (node, life) in told {
            self.post(WATCH, Event::Input { node, life, input: input.clone() });
        }
    }

    fn watch(&mut self, node: usize, after: Duration) {
        let life = self.nodes[node].life;
        self.post(after, Event::Watch { node, life });
    }

    fn begin_watch(&mut self, node: usize) {
        if self.nodes[node].link == Link::Up {
            self.nodes[node].watching = Flag::On;
            let claims = self.store.keys.keys().filter_map(|key| self.store.claim(*key)).collect();
            let input = LeaseInput::Snapshot { claims, rev: self.store.rev };
            self.feed(node, input);
        }
    }

    fn post(&mut self, delay: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), event);
    }

    fn delay(&mut self) -> Duration {
        let most = if self.line == Line::Bad { 60_000 } else { 100 };
        Duration::from_millis(u64::try_from(1 + self.random.below(most)).unwrap())
    }

    fn chance(&mut self) -> bool {
        self.line == Line::Bad && self.random.below(5) == 0
    }

    fn cut(&mut self, node: usize) {
        self.nodes[node].link = Link::Cut;
        self.nodes[node].watching = Flag::Off;
    }

    fn join(&mut self, node: usize) {
        self.nodes[node].link = Link::Up;
        self.watch(node, self.watch_after);
    }

    fn cut_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.cut(node));
    }

    fn join_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.join(node));
    }

    fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = Flag::On;
    }
}

// ---- the store
impl Sim {
    fn expire(&mut self) {
        let now = self.now;
        let ended = self.store.keys.iter().filter(|(_, e)| e.ends.is_some_and(|end| end <= now));
        for key in ended.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.delete(key);
        }
    }

    fn delete(&mut self, key: LeaseKey) {
        self.store.rev += 1;
        self.store.keys.remove(&key);
        self.tell(key);
    }

    fn put(&mut self, key: LeaseKey, lease: Option<Lease>, ttl: Option<Duration>) {
        let ends = ttl.map(|ttl| self.now + ttl);
        self.store.put(key, lease, ends);
        self.tell(key);
    }

    fn held(&self, node: usize) -> Option<LeaseKey> {
        self.nodes[node].machine.held()
    }

    fn said(&self, node: usize) -> &[LeaseOutput] {
        &self.nodes[node].said
    }
}

impl Store {
    fn take(&mut self, write: StoreWrite, now: Instant) -> WriteOutcome {
        let ends = |ttl_s: u32| Some(now + Duration::from_secs(ttl_s.into()));
        match write {
            StoreWrite::Create { key, .. } if self.keys.contains_key(&key) => WriteOutcome::Exists,
            StoreWrite::Create { key, lease, ttl_s } | StoreWrite::Renew { key, lease, ttl_s } => {
                self.put(key, Some(lease), ends(ttl_s))
            }
            StoreWrite::Update { key, lease } => self.put(key, Some(lease), None),
            StoreWrite::Release { key, mod_rev } => {
                if self.keys.get(&key).is_none_or(|entry| entry.mod_rev != mod_rev) {
                    return WriteOutcome::Exists;
                }
                self.rev += 1;
                self.keys.remove(&key);
                WriteOutcome::Done { rev: self.rev }
            }
        }
    }

    /// Whether a plain put would go over what another node has written.
    fn would_overwrite(&self, write: StoreWrite) -> bool {
        let (StoreWrite::Renew { key, lease, .. } | StoreWrite::Update { key, lease }) = write
        else {
            return false;
        };
        let there = self.keys.get(&key).and_then(|entry| entry.lease);
        there.is_some_and(|there| there.public_ip != lease.public_ip)
    }

    fn put(&mut self, key: LeaseKey, lease: Option<Lease>, ends: Option<Instant>) -> WriteOutcome {
        self.rev += 1;
        let create_rev = self.keys.get(&key).map_or(self.rev, |entry| entry.create_rev);
        self.keys.insert(key, Entry { lease, create_rev, mod_rev: self.rev, ends });
        WriteOutcome::Done { rev: self.rev }
    }

    fn claim(&self, key: LeaseKey) -> Option<LeaseClaim> {
        let Entry { lease, create_rev, mod_rev, ends } = *self.keys.get(&key)?;
        let life = if ends.is_some() { Life::Leased } else { Life::Reserved };
        Some(LeaseClaim { key, lease, create_rev, mod_rev, life })
    }
}

const WATCH: Duration = Duration::from_millis(20);

fn machine(node: usize, life: u64) -> LeaseMachine {
    // The same seed everywhere: a start in step is the worst case.
    let settings = Settings::new(format!("n{node}"), Preset::Flannel, "cni0".parse().unwrap());
    let seed = if life == 0 { 7 } else { life };
    LeaseMachine::new(settings, Term::default(), seed)
}

fn config(v4: &str, v6: Option<&str>) -> NetworkConfig {
    let pool = |text: &str| Pool::new(text.parse().unwrap(), None, None, None).unwrap();
    let transport = TransportConfig::Vxlan(VxlanConfig::default());
    NetworkConfig::new(Some(pool(v4)), v6.map(pool), transport).unwrap()
}

fn underlay(n: u8) -> UnderlayFact {
    UnderlayFact {
        link: "eth0".parse().unwrap(),
        mtu: russet_net::Mtu::ETHERNET,
        v4: Some([192, 168, 77, n].into()),
        v6: Some([0xfd77, 0, 0, 0, 0, 0, 0, n.into()].into()),
        onlink: vec!["192.168.77.0/24".parse().unwrap()],
        router_advertised: false,
    }
}

/// What somebody at `192.168.77.n` wrote by hand.
fn lease_at(n: u8) -> Lease {
    Lease { public_ip: Some([192, 168, 77, n].into()), public_ipv6: None, backend: Backend::HostGw }
}

fn key(v4: &str) -> LeaseKey {
    LeaseKey::new(v4.parse().ok(), None).unwrap()
}
