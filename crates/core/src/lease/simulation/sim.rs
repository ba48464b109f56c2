//! The store, the nodes and the line between them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use russet_desired::Flag;

use super::super::*;
use crate::{
    addressing::node_subnet::Random,
    model::{Backend, Pool, Preset, Settings, TransportConfig, VxlanConfig},
};

pub(super) struct Sim {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) store: Store,
    pub(super) nodes: Vec<Node>,
    /// What is under way, by when it arrives.
    pub(super) queue: BTreeMap<(Instant, u64), Event>,
    pub(super) next: u64,
    pub(super) random: Random,
    pub(super) line: Line,
    pub(super) answers_late: Option<Duration>,
    /// How long after a cut the watch is back; writes are back at once.
    pub(super) watch_after: Duration,
    /// How often a plain put went over another node's claim.
    pub(super) overwritten: usize,
    pub(super) network: &'static str,
    pub(super) writes: Vec<(Instant, usize, StoreWrite)>,
    pub(super) outcomes: Vec<WriteOutcome>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Good,
    /// Loses one in five, doubles one in five, and is late by up to a minute.
    Bad,
}

pub(super) struct Node {
    pub(super) machine: LeaseMachine,
    pub(super) link: Link,
    pub(super) watching: Flag,
    /// Counts the machine's lives, so that nothing of an earlier one reaches it.
    pub(super) life: u64,
    pub(super) stopped: Flag,
    pub(super) said: Vec<LeaseOutput>,
    pub(super) ends: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    Cut,
}

pub(super) enum Event {
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
pub(super) struct Store {
    pub(super) rev: u64,
    pub(super) keys: BTreeMap<LeaseKey, Entry>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) lease: Option<Lease>,
    pub(super) create_rev: u64,
    pub(super) mod_rev: u64,
    pub(super) ends: Option<Instant>,
}

impl Sim {
    pub(super) fn new(nodes: usize, network: &'static str) -> Self {
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

    pub(super) fn add_node(&mut self) {
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

    pub(super) fn begin(&mut self, node: usize) {
        let number = u8::try_from(node + 1).unwrap();
        self.feed(node, LeaseInput::Config(config(self.network, None)));
        self.feed(node, LeaseInput::Underlay(underlay(number)));
        self.watch(node, WATCH);
    }

    pub(super) fn restart(&mut self, node: usize) {
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

    pub(super) fn run(&mut self, span: Duration) {
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

    pub(super) fn next_at(&self) -> Option<Instant> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        let timers = self.running().filter_map(|(_, node)| node.machine.poll_timeout());
        let ends = self.store.keys.values().filter_map(|entry| entry.ends);
        queued.into_iter().chain(timers).chain(ends).min()
    }

    pub(super) fn step(&mut self) {
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

    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| !node.stopped.is_on())
    }

    pub(super) fn feed(&mut self, node: usize, input: LeaseInput) {
        let now = self.now;
        if self.nodes[node].stopped.is_on() {
            return;
        }
        self.nodes[node].machine.handle(input, now);
        while let Some(output) = self.nodes[node].machine.poll_output() {
            match &output {
                LeaseOutput::Store { op, write } => {
                    self.writes.push((now, node, write.clone()));
                    self.send_write(node, *op, write.clone());
                }
                LeaseOutput::Acquired { expires, .. } => self.nodes[node].ends = *expires,
                LeaseOutput::Lost { .. } | LeaseOutput::Pending(_) => {}
            }
            self.nodes[node].said.push(output);
        }
    }

    /// The one thing that must never be.
    pub(super) fn nobody_holds_what_another_holds(&self) {
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
    pub(super) fn send_write(&mut self, node: usize, op: u64, write: StoreWrite) {
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

    pub(super) fn arrive(&mut self, node: usize, life: u64, op: u64, write: StoreWrite) {
        self.overwritten += usize::from(self.store.would_overwrite(&write));
        let key = write.key();
        let outcome = self.store.take(write, self.now);
        self.outcomes.push(outcome.clone());
        if let WriteOutcome::Done { .. } = outcome {
            self.tell(key);
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
    pub(super) fn tell(&mut self, key: LeaseKey) {
        let rev = self.store.rev;
        let input =
            self.store.claim(key).map_or(LeaseInput::Gone { key, rev }, LeaseInput::Claimed);
        let told = |(i, node): (usize, &Node)| node.watching.is_on().then_some((i, node.life));
        let told: Vec<_> = self.nodes.iter().enumerate().filter_map(told).collect();
        for (node, life) in told {
            self.post(WATCH, Event::Input { node, life, input: input.clone() });
        }
    }

    pub(super) fn watch(&mut self, node: usize, after: Duration) {
        let life = self.nodes[node].life;
        self.post(after, Event::Watch { node, life });
    }

    pub(super) fn begin_watch(&mut self, node: usize) {
        if self.nodes[node].link == Link::Up {
            self.nodes[node].watching = Flag::On;
            let claims = self.store.keys.keys().filter_map(|key| self.store.claim(*key)).collect();
            let input = LeaseInput::Snapshot { claims, rev: self.store.rev };
            self.feed(node, input);
        }
    }

    pub(super) fn post(&mut self, delay: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), event);
    }

    pub(super) fn delay(&mut self) -> Duration {
        let most = if self.line == Line::Bad { 60_000 } else { 100 };
        Duration::from_millis(u64::try_from(1 + self.random.below(most)).unwrap())
    }

    pub(super) fn chance(&mut self) -> bool {
        self.line == Line::Bad && self.random.below(5) == 0
    }

    pub(super) fn cut(&mut self, node: usize) {
        self.nodes[node].link = Link::Cut;
        self.nodes[node].watching = Flag::Off;
    }

    pub(super) fn join(&mut self, node: usize) {
        self.nodes[node].link = Link::Up;
        self.watch(node, self.watch_after);
    }

    pub(super) fn cut_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.cut(node));
    }

    pub(super) fn join_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.join(node));
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = Flag::On;
    }
}

// ---- the store
impl Sim {
    pub(super) fn expire(&mut self) {
        let now = self.now;
        let ended = self.store.keys.iter().filter(|(_, e)| e.ends.is_some_and(|end| end <= now));
        for key in ended.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.delete(key);
        }
    }

    pub(super) fn delete(&mut self, key: LeaseKey) {
        self.store.rev += 1;
        self.store.keys.remove(&key);
        self.tell(key);
    }

    pub(super) fn put(&mut self, key: LeaseKey, lease: Option<Lease>, ttl: Option<Duration>) {
        let ends = ttl.map(|ttl| self.now + ttl);
        self.store.put(key, lease, ends);
        self.tell(key);
    }

    pub(super) fn held(&self, node: usize) -> Option<LeaseKey> {
        self.nodes[node].machine.held()
    }

    pub(super) fn said(&self, node: usize) -> &[LeaseOutput] {
        &self.nodes[node].said
    }
}

impl Store {
    pub(super) fn take(&mut self, write: StoreWrite, now: Instant) -> WriteOutcome {
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
    pub(super) fn would_overwrite(&self, write: &StoreWrite) -> bool {
        let (StoreWrite::Renew { key, lease, .. } | StoreWrite::Update { key, lease }) = write
        else {
            return false;
        };
        let there = self.keys.get(key).and_then(|entry| entry.lease.as_ref());
        there.is_some_and(|there| there.public_ip != lease.public_ip)
    }

    pub(super) fn put(
        &mut self,
        key: LeaseKey,
        lease: Option<Lease>,
        ends: Option<Instant>,
    ) -> WriteOutcome {
        self.rev += 1;
        let create_rev = self.keys.get(&key).map_or(self.rev, |entry| entry.create_rev);
        self.keys.insert(key, Entry { lease, create_rev, mod_rev: self.rev, ends });
        WriteOutcome::Done { rev: self.rev }
    }

    pub(super) fn claim(&self, key: LeaseKey) -> Option<LeaseClaim> {
        let Entry { lease, create_rev, mod_rev, ends } = self.keys.get(&key)?.clone();
        let life = if ends.is_some() { Life::Leased } else { Life::Reserved };
        Some(LeaseClaim { key, lease, create_rev, mod_rev, life })
    }
}

pub(super) const WATCH: Duration = Duration::from_millis(20);

pub(super) fn machine(node: usize, life: u64) -> LeaseMachine {
    // The same seed everywhere: a start in step is the worst case.
    let settings = Settings::new(format!("n{node}"), Preset::Flannel, "cni0".parse().unwrap());
    let seed = if life == 0 { 7 } else { life };
    LeaseMachine::new(settings, Term::default(), seed)
}

pub(super) fn config(v4: &str, v6: Option<&str>) -> NetworkConfig {
    let pool = |text: &str| Pool::new(text.parse().unwrap(), None, None, None).unwrap();
    let transport = TransportConfig::Vxlan(VxlanConfig::default());
    NetworkConfig::new(Some(pool(v4)), v6.map(pool), transport).unwrap()
}

pub(super) fn underlay(n: u8) -> UnderlayFact {
    UnderlayFact {
        link: "eth0".parse().unwrap(),
        mtu: russet_net::Mtu::ETHERNET,
        v4: Some([192, 168, 77, n].into()),
        v6: Some([0xfd77, 0, 0, 0, 0, 0, 0, n.into()].into()),
        onlink: vec!["192.168.77.0/24".parse().unwrap()],
        gateways: Vec::new(),
        router_advertised: false,
        spoils_checksums: Vec::new(),
        prepared: BTreeMap::new(),
    }
}

/// What somebody at `192.168.77.n` wrote by hand.
pub(super) fn lease_at(n: u8) -> Lease {
    Lease { public_ip: Some([192, 168, 77, n].into()), public_ipv6: None, backend: Backend::HostGw }
}

pub(super) fn key(v4: &str) -> LeaseKey {
    LeaseKey::new(v4.parse().ok(), None).unwrap()
}
