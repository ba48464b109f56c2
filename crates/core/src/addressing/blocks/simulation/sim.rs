//! The nodes with their runtimes, the line to the store, the collector, and time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use russet_net::Family;

use super::{
    super::{
        BlockMachine, Claimant, Collector, HandleId, Name, Outcome, StoreOp, Timestamp,
        gc::{Living, Report, Rules},
        machine::{Answer, Ask, BlockConfig, Input, Now, Output, Want},
    },
    ahead::Ahead,
    check::Owners,
    store::Store,
};
use crate::addressing::node_subnet::Random;

/// What kind of run it is.
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) config: BlockConfig,
    /// How many pods a node has at most.
    pub(super) pods: usize,
    pub(super) seed: u64,
    /// One in so many ticks of a node, its agent dies.
    pub(super) crash: usize,
    /// One in so many operations or answers is lost, and as many are late by seconds.
    pub(super) loss: usize,
    /// How long pods come and go, and when the store is away meanwhile.
    pub(super) churn: Duration,
    pub(super) away: (Duration, Duration),
    /// How many nodes go for good half way.
    pub(super) gone: usize,
    /// How many addresses a node claims ahead.
    pub(super) ahead: usize,
}

pub(super) struct Sim {
    pub(super) plan: Plan,
    start: Instant,
    now: Instant,
    random: Random,
    queue: BTreeMap<(Instant, u64), Event>,
    next: u64,
    pub(super) store: Store,
    pub(super) nodes: Vec<Node>,
    pub(super) owners: Owners,
    collector: Collector,
    pub(super) quiet: bool,
    pub(super) tally: Tally,
}

/// What has happened, so that a test knows that it tested something.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) given: usize,
    pub(super) refused: usize,
    pub(super) released: usize,
    pub(super) conflicts: usize,
    /// Transactions of several operations.
    pub(super) together: usize,
    pub(super) crashes: usize,
    /// Pods that had what was claimed ahead, and those of them while the store was away.
    pub(super) ahead: usize,
    pub(super) ahead_away: usize,
    pub(super) lost: usize,
    pub(super) collected: usize,
    pub(super) steps: usize,
}

pub(super) struct Node {
    pub(super) name: Name,
    /// None while the agent is down.
    machine: Option<BlockMachine>,
    life: u64,
    /// How far of the log it has seen, and how far it will see with the next news.
    seen: usize,
    coming: usize,
    timer: Option<Instant>,
    pub(super) pods: BTreeMap<HandleId, Pod>,
    requests: BTreeMap<u64, HandleId>,
    pub(super) ahead: Ahead,
    report: Option<Report>,
    gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pod {
    Starting,
    Running,
    /// It uses nothing any more; the release is asked for until it is granted.
    Stopping,
}

impl Node {
    pub(super) fn is_asked(&self, handle: &HandleId) -> bool {
        self.requests.values().any(|asked| asked == handle)
    }
}

enum Event {
    /// An operation, or several as one transaction.
    Arrives {
        from: Option<(usize, u64)>,
        ops: Vec<(u64, StoreOp)>,
    },
    Answered {
        node: usize,
        life: u64,
        op: u64,
        outcome: Outcome,
    },
    News {
        node: usize,
        life: u64,
    },
    Timer {
        node: usize,
        life: u64,
    },
    Tick {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Collect,
}

impl Sim {
    pub(super) fn new(plan: Plan) -> Self {
        let start = Instant::now();
        let mut sim = Self {
            start,
            now: start,
            random: Random::new(plan.seed),
            queue: BTreeMap::new(),
            next: 0,
            store: Store::default(),
            nodes: Vec::new(),
            owners: Owners::default(),
            collector: Collector::default(),
            quiet: false,
            tally: Tally::default(),
            plan,
        };
        for n in 0..sim.plan.nodes {
            let name = format!("node-{n}").parse().unwrap();
            sim.nodes.push(Node {
                name,
                machine: None,
                life: 0,
                seen: 0,
                coming: 0,
                timer: None,
                pods: BTreeMap::new(),
                requests: BTreeMap::new(),
                ahead: Ahead::default(),
                report: None,
                gone: false,
            });
            sim.boot(n);
            let at = sim.chance_ms(0, 3_000);
            sim.at(at, Event::Tick { node: n });
        }
        sim.at(LOOK, Event::Collect);
        sim
    }

    /// Pods come and go among faults; then all comes to rest, and is looked at.
    pub(super) fn run(&mut self) {
        let half = self.start + self.plan.churn / 2;
        self.until(half);
        for n in 0..self.plan.gone {
            self.vanish(n);
        }
        self.until(self.start + self.plan.churn);
        self.quiet = true;
        self.until(self.now + REST);
        let waiting =
            self.nodes.iter().filter(|n| !n.gone).map(|n| n.requests.len()).sum::<usize>();
        assert_eq!(waiting, 0, "somebody waits for ever");
        self.give_back_ahead();
        self.owners.at_rest(&self.store.picture());
    }

    /// Lets what was begun come to its end.
    pub(super) fn settle(&mut self) {
        self.until(self.now + SETTLE);
    }

    fn until(&mut self, end: Instant) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = entry.key().0;
            let event = entry.remove();
            self.step(event);
            self.tally.steps += 1;
            assert!(self.tally.steps < 5_000_000, "a hot loop");
        }
        self.now = end;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Arrives { from, ops } => self.arrives(from, &ops),
            Event::Answered { node, life, op, outcome } => {
                self.feed(node, life, Input::Wrote { op, outcome });
            }
            Event::News { node, life } => self.news(node, life),
            Event::Timer { node, life } => {
                if self.nodes[node].life == life {
                    self.nodes[node].timer = None;
                    self.feed(node, life, Input::Timeout);
                }
            }
            Event::Tick { node } => self.tick(node),
            Event::Restart { node } => self.boot(node),
            Event::Collect => self.collect(),
        }
    }
}

// ---- the line and the store
impl Sim {
    fn send(&mut self, from: Option<(usize, u64)>, ops: Vec<(u64, StoreOp)>) {
        if self.is_lost() {
            self.tally.lost += 1;
            return;
        }
        let delay = self.delay();
        self.at(delay, Event::Arrives { from, ops });
    }

    fn arrives(&mut self, from: Option<(usize, u64)>, ops: &[(u64, StoreOp)]) {
        let outcomes = if self.is_away() || (ops.len() > 1 && self.one_in(NO_TRANSACTION)) {
            vec![Outcome::Failed("the store is away".to_owned()); ops.len()]
        } else {
            let all: Vec<_> = ops.iter().map(|(_, op)| op.clone()).collect();
            self.take(&all)
        };
        let Some((node, life)) = from else { return };
        // One answer for all, of which each is heard or not, and sooner or later.
        for ((op, _), outcome) in ops.iter().zip(outcomes) {
            if self.is_lost() {
                self.tally.lost += 1;
            } else {
                let delay = self.delay();
                self.at(delay, Event::Answered { node, life, op: *op, outcome });
            }
        }
    }

    fn take(&mut self, ops: &[StoreOp]) -> Vec<Outcome> {
        let log = self.store.log.len();
        let outcomes = match ops {
            [one] => vec![self.store.take(one)],
            all => self.store.take_together(all),
        };
        if self.store.log.len() > log {
            for op in ops {
                self.owners.written(op, &self.store);
            }
            self.tally.together += usize::from(ops.len() > 1);
        }
        let is_conflict = matches!(ops, [StoreOp::Swap { .. }, ..])
            && outcomes.iter().any(|outcome| matches!(outcome, Outcome::Present { .. }));
        self.tally.conflicts += usize::from(is_conflict);
        outcomes
    }

    pub(super) fn is_away(&self) -> bool {
        let since = self.now - self.start;
        !self.quiet && self.plan.away.0 <= since && since < self.plan.away.1
    }

    fn is_lost(&mut self) -> bool {
        !self.quiet && self.one_in(self.plan.loss)
    }

    /// Mostly some milliseconds, sometimes longer than an operation is waited for.
    fn delay(&mut self) -> Duration {
        if !self.quiet && self.one_in(self.plan.loss) {
            self.chance_ms(1_000, 15_000)
        } else {
            self.chance_ms(1, 20)
        }
    }

    fn news(&mut self, node: usize, life: u64) {
        let Node { name, seen, coming, life: is, .. } = &mut self.nodes[node];
        if *is != life {
            return;
        }
        // What was there at the last news: so it is late by the time between two.
        let changes = self.store.changes(*seen, *coming, name);
        (*seen, *coming) = (*coming, self.store.log.len());
        if !changes.is_empty() {
            self.feed(node, life, Input::Changed(changes));
        }
        let after = self.pace(300, 2_500);
        self.at(after, Event::News { node, life });
    }

    fn collect(&mut self) {
        let nodes = self.nodes.iter().filter(|node| !node.gone);
        let report = |node: &Node| node.report.clone().filter(|_| node.machine.is_some());
        let living = Living {
            nodes: nodes
                .map(|node| (node.name.clone(), report(node).unwrap_or(Report::Silent)))
                .collect(),
            ..Living::default()
        };
        let BlockConfig { pools, reserved, cooldown, .. } = self.plan.config.clone();
        let rules = Rules { grace: GRACE, pools, reserved, cooldown };
        let picture = self.store.picture();
        let (next, ops) = self.collector.look(&picture, &living, &rules, self.wall());
        self.collector = next;
        self.tally.collected += ops.len();
        for op in ops {
            self.send(None, vec![(0, op)]);
        }
        self.at(LOOK, Event::Collect);
    }
}

// ---- the agents
impl Sim {
    fn boot(&mut self, n: usize) {
        if self.nodes[n].gone {
            return;
        }
        let life = self.nodes[n].life + 1;
        let seed = self.random.next();
        let node = &mut self.nodes[n];
        node.life = life;
        node.machine = Some(BlockMachine::new(node.name.clone(), seed));
        node.timer = None;
        (node.seen, node.coming) = (self.store.log.len(), self.store.log.len());
        let objects = self.store.snapshot(&node.name);
        let rev = self.store.rev;
        self.feed(n, life, Input::Config(self.plan.config.clone()));
        self.feed(n, life, Input::Snapshot { objects, rev });
        self.at(Duration::from_secs(1), Event::News { node: n, life });
        // The runtime has had no answer, and asks again: for the same, or for its release.
        let unanswered = std::mem::take(&mut self.nodes[n].requests);
        self.recover_ahead(n);
        for handle in unanswered.into_values().collect::<BTreeSet<_>>() {
            match self.nodes[n].pods.get(&handle).copied() {
                Some(Pod::Starting) if self.one_in(2) => self.start(n, handle),
                Some(_) => self.stop(n, handle),
                None => {}
            }
        }
    }

    fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.machine.take().is_some() {
            node.life += 1;
            self.tally.crashes += 1;
            let after = self.chance_ms(100, 20_000);
            self.at(after, Event::Restart { node: n });
        }
    }

    /// The node and all its pods are gone for good.
    fn vanish(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.gone = true;
        node.machine = None;
        node.life += 1;
        node.ahead = Ahead::default();
        for handle in std::mem::take(&mut node.pods).into_keys() {
            self.owners.left(&handle);
        }
    }

    fn feed(&mut self, n: usize, life: u64, input: Input) {
        if self.nodes[n].life != life {
            return;
        }
        let now = self.wall();
        let Some(machine) = &mut self.nodes[n].machine else { return };
        machine.handle(input, now);
        let outputs: Vec<_> = std::iter::from_fn(|| machine.poll_output()).collect();
        let due = machine.poll_timeout();
        for output in outputs {
            match output {
                Output::Store { op, what } => self.send(Some((n, life)), vec![(op, what)]),
                Output::Together(ops) => self.send(Some((n, life)), ops),
                Output::Answer { request, answer } => {
                    let handle = self.nodes[n].requests.remove(&request).expect("answered twice");
                    self.answered(n, handle, answer.ok());
                }
            }
        }
        let Some(due) = due else { return };
        if self.nodes[n].timer.is_none_or(|timer| due < timer) {
            self.nodes[n].timer = Some(due);
            self.at(due.saturating_duration_since(self.now), Event::Timer { node: n, life });
        }
    }

    fn answered(&mut self, n: usize, handle: HandleId, answer: Option<Answer>) {
        if self.answered_ahead(n, &handle, answer.as_ref()) {
            return;
        }
        let pod = self.nodes[n].pods.get(&handle).copied();
        match (pod, answer) {
            (Some(Pod::Starting), Some(Answer::Given(given))) => {
                for given in given {
                    self.owners.given(given.addr, &handle);
                }
                self.tally.given += 1;
                self.nodes[n].pods.insert(handle, Pod::Running);
            }
            (Some(Pod::Starting), _) => {
                self.tally.refused += 1;
                // A runtime mostly cleans up. What it forgets is the collector's.
                if self.one_in(5) {
                    self.nodes[n].pods.remove(&handle);
                } else {
                    self.stop(n, handle);
                }
            }
            (Some(Pod::Stopping), Some(_)) => {
                self.tally.released += 1;
                self.nodes[n].pods.remove(&handle);
            }
            (Some(Pod::Stopping), None) => self.stop(n, handle),
            (Some(Pod::Running) | None, _) => {}
        }
    }
}

// ---- the runtimes
impl Sim {
    fn tick(&mut self, n: usize) {
        if self.nodes[n].gone {
            return;
        }
        let after = self.pace(500, 4_000);
        self.at(after, Event::Tick { node: n });
        let mut handles: BTreeSet<_> = self.nodes[n].pods.keys().cloned().collect();
        handles.extend(self.ahead_handles(n));
        self.nodes[n].report = Some(Report::Uses { handles, at: self.now });
        self.claim_ahead(n);
        if self.quiet || self.nodes[n].machine.is_none() {
            return;
        }
        if self.one_in(self.plan.crash) {
            self.crash(n);
            return;
        }
        let running = self.nodes[n].pods.iter().filter(|(_, pod)| **pod == Pod::Running);
        let running: Vec<_> = running.map(|(handle, _)| handle.clone()).collect();
        if self.nodes[n].pods.len() < self.plan.pods && !self.one_in(3) {
            for _ in 0..=self.random.below(3) {
                self.next += 1;
                let handle = format!("k8s-pod-network.{n}-{}", self.next).parse().unwrap();
                self.start(n, handle);
            }
        } else if !running.is_empty() {
            let handle = running[self.random.below(running.len())].clone();
            // Some go without a word, as when a sandbox is lost.
            if self.one_in(10) {
                self.owners.left(&handle);
                self.nodes[n].pods.remove(&handle);
                self.nodes[n].ahead.records.remove(&handle);
            } else {
                self.stop(n, handle);
            }
        }
    }

    fn start(&mut self, n: usize, handle: HandleId) {
        self.nodes[n].pods.insert(handle.clone(), Pod::Starting);
        if !self.start_with_ahead(n, &handle) {
            self.allocate(n, handle, &[]);
        }
    }

    /// Asks for an address of each family, by name for those that are named.
    pub(super) fn allocate(&mut self, n: usize, handle: HandleId, wished: &[IpAddr]) {
        let secondary = BTreeMap::from([("node".to_owned(), self.nodes[n].name.to_string())]);
        let who = Claimant { handle: handle.clone(), secondary };
        let mut families: Vec<_> = self.plan.config.pools.iter().map(|p| p.family()).collect();
        families.dedup();
        let of = |family| wished.iter().copied().find(|addr| Family::of(*addr) == family);
        let want = |family| Want { family, pools: Vec::new(), wished: of(family) };
        let wants = families.into_iter().map(want).collect();
        self.ask(n, handle, Ask::Allocate { who, wants });
    }

    pub(super) fn stop(&mut self, n: usize, handle: HandleId) {
        self.owners.left(&handle);
        self.nodes[n].pods.insert(handle.clone(), Pod::Stopping);
        self.ask(n, handle.clone(), Ask::ReleaseHandle(handle));
    }

    pub(super) fn ask(&mut self, n: usize, handle: HandleId, ask: Ask) {
        self.next += 1;
        let request = self.next;
        self.nodes[n].requests.insert(request, handle);
        let life = self.nodes[n].life;
        self.feed(n, life, Input::Ask { request, ask });
    }
}

// ---- time and chance
impl Sim {
    fn at(&mut self, after: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + after, self.next), event);
    }

    fn wall(&self) -> Now {
        let wall = Timestamp::from_nanos(1).after(self.now - self.start);
        Now { mono: self.now, wall }
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.random.below(n) == 0
    }

    /// At rest there is less to look at.
    fn pace(&mut self, from: u64, to: u64) -> Duration {
        self.chance_ms(from, to) * if self.quiet { 5 } else { 1 }
    }

    fn chance_ms(&mut self, from: u64, to: u64) -> Duration {
        let span = usize::try_from(to - from).unwrap();
        Duration::from_millis(from + u64::try_from(self.random.below(span)).unwrap())
    }
}

/// One in so many transactions is refused as such.
const NO_TRANSACTION: usize = 4;
/// Longer than a request waits.
const GRACE: Duration = Duration::from_secs(70);
const LOOK: Duration = Duration::from_secs(20);
/// Time for a release, and for the collector to give back the blocks that are empty then.
const SETTLE: Duration = Duration::from_mins(5);
/// Two sights for a leak, three more for its block, and again for what the first has changed.
const REST: Duration = Duration::from_mins(12);
