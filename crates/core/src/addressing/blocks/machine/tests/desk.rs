//! A desk with one machine and a store.

use super::*;

pub(super) struct Desk {
    pub(super) machine: BlockMachine,
    pub(super) config: BlockConfig,
    pub(super) now: Now,
    pub(super) store: BTreeMap<Key, Versioned>,
    pub(super) rev: u64,
    pub(super) queue: VecDeque<Vec<(u64, StoreOp)>>,
    pub(super) writes: Vec<Key>,
    pub(super) answers: BTreeMap<u64, Result<Answer, Refusal>>,
    pub(super) lose_answers: bool,
    pub(super) away: bool,
    pub(super) transactions: bool,
}

impl Desk {
    pub(super) fn new(config: BlockConfig) -> Self {
        let now = Now { mono: Instant::now(), wall: Timestamp::from_nanos(1_000_000) };
        let mut desk = Self {
            machine: BlockMachine::new(node(), 1),
            config,
            now,
            store: BTreeMap::new(),
            rev: 0,
            queue: VecDeque::new(),
            writes: vec![],
            answers: BTreeMap::new(),
            lose_answers: false,
            away: false,
            transactions: true,
        };
        desk.start();
        desk
    }

    /// A new machine that knows nothing but the store.
    pub(super) fn start(&mut self) {
        self.machine = BlockMachine::new(node(), 1);
        self.queue.clear();
        self.feed(Input::Config(self.config.clone()));
        let seen = |key: &Key| !matches!(key, Key::Handle(_));
        let objects = self.store.iter().filter(|(key, _)| seen(key));
        let objects = objects.map(|(key, value)| (key.clone(), value.clone())).collect();
        self.feed(Input::Snapshot { objects, rev: self.rev });
    }

    /// The same where of another's block the outline is told, and who of ours is in it.
    pub(super) fn start_told_outlines(&mut self, lent: &str, handle: &str) {
        let key = Key::Block(lent.parse().unwrap());
        let ours: Arc<[HandleId]> = [handle.parse().unwrap()].into();
        let value = Value::Outline { outline: crate::addressing::blocks::Outline::default(), ours };
        let whole = self.store.get(&key).unwrap().clone();
        self.store.insert(key.clone(), Versioned { rev: whole.rev, value });
        self.start();
        self.store.insert(key, whole);
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.machine.handle(input, self.now);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Store { op, what } => self.queue.push_back(vec![(op, what)]),
                Output::Together(ops) => self.queue.push_back(ops),
                Output::Answer { request, answer } => {
                    assert!(self.answers.insert(request, answer).is_none(), "answered twice");
                }
            }
        }
    }

    pub(super) fn run(&mut self) {
        self.run_writes(10_000);
    }

    /// Answers what is asked, but no more than so many writes.
    pub(super) fn run_writes(&mut self, most: usize) {
        let before = self.writes.len();
        while self.writes.len() < before + most
            && !self.away
            && let Some(ops) = self.queue.pop_front()
        {
            for (op, outcome) in self.take_all(ops) {
                if !self.lose_answers {
                    self.feed(Input::Wrote { op, outcome });
                }
            }
        }
    }

    /// Runs until nothing is left to do but to wait for minutes.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            self.run();
            self.wait(Duration::from_millis(400));
        }
    }

    pub(super) fn wait(&mut self, span: Duration) {
        self.now = Now { mono: self.now.mono + span, wall: self.now.wall.after(span) };
        self.feed(Input::Timeout);
        let next = self.machine.poll_timeout();
        assert!(next.is_none_or(|at| at > self.now.mono), "a hot loop");
    }

    /// Several are a transaction.
    pub(super) fn take_all(&mut self, ops: Vec<(u64, StoreOp)>) -> Vec<(u64, Outcome)> {
        let is_met = |(_, op): &(u64, StoreOp)| match op {
            StoreOp::Swap { key, expect, .. } => {
                *expect == self.store.get(key).map(|present| present.rev)
            }
            StoreOp::Read(_) => false,
        };
        let is_done = ops.len() == 1 || (self.transactions && ops.iter().all(is_met));
        let refused = |key: &Key| {
            if self.transactions {
                Outcome::Present { at: self.rev, value: self.store.get(key).cloned() }
            } else {
                Outcome::Failed("no transactions".to_owned())
            }
        };
        if !is_done {
            return ops.iter().map(|(op, what)| (*op, refused(what.key()))).collect();
        }
        ops.into_iter().map(|(op, what)| (op, self.take(what))).collect()
    }

    pub(super) fn take(&mut self, what: StoreOp) -> Outcome {
        let present = self.store.get(what.key()).cloned();
        match what {
            StoreOp::Swap { key, expect, value } if expect == present.as_ref().map(|p| p.rev) => {
                self.rev += 1;
                let rev = self.rev;
                self.writes.push(key.clone());
                match value {
                    Some(value) => _ = self.store.insert(key, Versioned { rev, value }),
                    None => _ = self.store.remove(&key),
                }
                Outcome::Done { rev }
            }
            StoreOp::Read(_) | StoreOp::Swap { .. } => {
                Outcome::Present { at: self.rev, value: present }
            }
        }
    }

    pub(super) fn put(&mut self, key: Key, value: Value) {
        self.rev += 1;
        self.store.insert(key, Versioned { rev: self.rev, value });
    }

    pub(super) fn put_block(&mut self, cidr: &str, owner: &str) {
        let cidr = cidr.parse().unwrap();
        let owner: Affinity = owner.parse().unwrap();
        let block = Block::new(cidr, Some(owner), self.now.wall).unwrap();
        self.put(Key::Block(cidr), Value::Block(Arc::new(block)));
    }

    pub(super) fn ask(&mut self, request: u64, ask: Ask) {
        self.feed(Input::Ask { request, ask });
    }

    pub(super) fn allocate(&mut self, request: u64, handle: &str) {
        let want = Want { family: Family::V4, pools: vec![], wished: None };
        self.ask(request, Ask::Allocate { who: who(handle), wants: vec![want] });
    }

    /// Releases a handle while an operation on it is given up, and finds nothing of it.
    pub(super) fn release_without_an_answer(&mut self, request: u64, handle: &str) {
        self.ask(request, Ask::ReleaseHandle(handle.parse().unwrap()));
        for _ in 0..3 {
            self.run();
            self.wait(NO_ANSWER);
        }
        self.settle();
        assert_eq!(self.answers[&request], Ok(Answer::Released(0)));
    }

    pub(super) fn allocate_both(&mut self, request: u64, handle: &str) {
        let want = |family| Want { family, pools: vec![], wished: None };
        let wants = Family::BOTH.into_iter().map(want).collect();
        self.ask(request, Ask::Allocate { who: who(handle), wants });
    }

    pub(super) fn wish(&mut self, request: u64, handle: &str, addr: &str) {
        let wished = addr.parse().ok();
        let want = Want { family: Family::V4, pools: vec![], wished };
        self.ask(request, Ask::Allocate { who: who(handle), wants: vec![want] });
    }

    pub(super) fn given(&self, request: u64) -> IpAddr {
        match &self.answers[&request] {
            Ok(Answer::Given(given)) => given[0].addr,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn handle(&self, id: &str) -> Option<Handle> {
        match self.store.get(&Key::Handle(id.parse().unwrap())).map(|found| &found.value) {
            Some(Value::Handle(handle)) => Some(handle.clone()),
            _ => None,
        }
    }

    pub(super) fn blocks(&self) -> Vec<Arc<Block>> {
        let block = |found: &Versioned| match &found.value {
            Value::Block(block) => Some(Arc::clone(block)),
            _ => None,
        };
        self.store.values().filter_map(block).collect()
    }

    pub(super) fn owned_blocks(&self) -> Vec<Prefix> {
        let ours = Some(Affinity::Host(node()));
        self.blocks().iter().filter(|b| b.affinity() == ours.as_ref()).map(|b| b.cidr()).collect()
    }
}

pub(super) fn node() -> Name {
    "n1".parse().unwrap()
}

pub(super) fn who(handle: &str) -> Claimant {
    Claimant { handle: handle.parse().unwrap(), secondary: BTreeMap::new() }
}

pub(super) fn config(pool: &str, borrowing: Borrowing) -> BlockConfig {
    BlockConfig {
        pools: vec![BlockPool::new(pool.parse().unwrap(), 26).unwrap()],
        reserved: Reserved::default(),
        borrowing,
        blocks_per_node: BLOCKS_PER_NODE,
        cooldown: Duration::ZERO,
    }
}
