//! The algebra against a slow, obvious twin: who has which address, and in which order the free ones wait.

use proptest::prelude::*;

use super::{super::check::RawBlock, *};

#[derive(Clone, Debug)]
enum Op {
    Take {
        who: u8,
        n: usize,
    },
    Exactly {
        who: u8,
        ordinal: u128,
    },
    Keep {
        who: u8,
    },
    /// With the number that the address has, or one that is stale.
    Release {
        ordinal: u128,
        stale: bool,
    },
    ReleaseAll {
        who: u8,
    },
    PassOn {
        ordinal: u128,
        from: u8,
        to: u8,
    },
    Thaw,
    Wait,
}

/// One entry per address: free, somebody's, or cooling since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Of(u8),
    Cooling(u64),
}

struct Model {
    addresses: Vec<State>,
    /// The free ones by how long they wait.
    queue: Vec<usize>,
    now: u64,
    cooldown: u64,
}

impl Model {
    fn apply(&mut self, op: &Op, reserved: usize) {
        match *op {
            Op::Take { who, n } => {
                self.thaw();
                let open = self.queue.iter().copied().filter(|n| *n >= reserved);
                for ordinal in open.take(n).collect::<Vec<_>>() {
                    self.set(ordinal, State::Of(who));
                }
            }
            Op::Exactly { who, ordinal } => {
                let ordinal = usize::try_from(ordinal).unwrap();
                let is = self.addresses[ordinal];
                let cooled = matches!(is, State::Cooling(at) if at + self.cooldown <= self.now);
                if ordinal >= reserved && (is == State::Free || cooled) {
                    self.thaw();
                    self.set(ordinal, State::Of(who));
                }
            }
            Op::Release { ordinal, stale } => {
                let ordinal = usize::try_from(ordinal).unwrap();
                if !stale && matches!(self.addresses[ordinal], State::Of(_)) {
                    self.rest(ordinal);
                }
            }
            Op::ReleaseAll { who } => {
                for ordinal in 0..self.addresses.len() {
                    if self.addresses[ordinal] == State::Of(who) {
                        self.rest(ordinal);
                    }
                }
            }
            Op::PassOn { ordinal, from, to } => {
                let state = &mut self.addresses[usize::try_from(ordinal).unwrap()];
                if *state == State::Of(from) {
                    *state = State::Of(to);
                }
            }
            Op::Thaw => self.thaw(),
            Op::Keep { .. } => {}
            Op::Wait => self.now += 1,
        }
    }

    fn rest(&mut self, ordinal: usize) {
        let to = if self.cooldown == 0 { State::Free } else { State::Cooling(self.now) };
        self.set(ordinal, to);
    }

    fn thaw(&mut self) {
        for at in 0..=self.now.saturating_sub(self.cooldown) {
            for ordinal in 0..self.addresses.len() {
                if self.now >= self.cooldown && self.addresses[ordinal] == State::Cooling(at) {
                    self.set(ordinal, State::Free);
                }
            }
        }
    }

    fn set(&mut self, ordinal: usize, to: State) {
        self.addresses[ordinal] = to;
        self.queue.retain(|n| *n != ordinal);
        if to == State::Free {
            self.queue.push(ordinal);
        }
    }
}

proptest! {
    #[test]
    fn a_block_and_its_obvious_twin_agree_after_every_order_of_operations(
        ops in proptest::collection::vec(op(), 1..60),
        reserved in 0_usize..3,
        cooldown in prop_oneof![Just(0_u64), 1_u64..4],
    ) {
        let mut block = Block::new(CIDR.parse().unwrap(), None, Timestamp::from_nanos(10)).unwrap();
        let mut model = Model {
            addresses: vec![State::Free; block.size()],
            queue: (0..block.size()).collect(),
            now: 0,
            cooldown,
        };
        for op in ops {
            let next = step(&block, &op, &model, reserved);
            prop_assert!(next == block || next.sequence > block.sequence, "no number is used twice");
            model.apply(&op, reserved);
            prop_assert_eq!(states(&next), model.addresses.clone(), "{:?}", op);
            prop_assert_eq!(Vec::from(next.unallocated.clone()), model.queue.clone(), "{:?}", op);
            // What we write is what we would believe.
            prop_assert_eq!(Block::try_from(RawBlock::from(&next)), Ok(next.clone()));
            let indices: BTreeSet<_> = next.allocations.iter().flatten().collect();
            prop_assert_eq!(indices.len(), next.attributes.len(), "no attributes without a user");
            block = next;
        }
    }
}

fn step(block: &Block, op: &Op, model: &Model, reserved: usize) -> Block {
    let nobody = Reserved::new(reserved_prefixes(reserved));
    let rest = if model.cooldown == 0 { Rest::None } else { Rest::From(stamp(model.now)) };
    let thawed = model.now.checked_sub(model.cooldown).map_or(Timestamp::default(), stamp);
    let addr = |ordinal| block.cidr.nth(ordinal).unwrap();
    let same = || block.clone();
    match *op {
        Op::Take { who: name, n } => block.take(n, &who(name), &nobody, thawed).0,
        Op::Exactly { who: name, ordinal } => block
            .take_exactly(addr(ordinal), &who(name), &nobody, thawed)
            .map_or_else(|_| same(), |(next, _)| next),
        Op::Keep { who: name } => block.keep(&who(name).handle).map_or_else(same, |(next, _)| next),
        Op::Release { ordinal, stale } => {
            let given = block.held().find(|(given, _)| given.addr == addr(ordinal));
            let number = given.map_or(0, |(given, _)| given.sequence);
            let sequence = Some(if stale { number + 1 } else { number });
            let release = Release { addr: addr(ordinal), sequence, handle: None };
            block.release(&release, rest).ok().flatten().unwrap_or_else(same)
        }
        Op::ReleaseAll { who: name } => {
            block.release_handle(&who(name).handle, rest).unwrap_or_else(same)
        }
        Op::PassOn { ordinal, from, to } => block
            .pass_on(addr(ordinal), &who(from).handle, &who(to))
            .map_or_else(same, |(next, _)| next),
        Op::Thaw => block.thaw(thawed),
        Op::Wait => same(),
    }
}

fn states(block: &Block) -> Vec<State> {
    let state = |slot: &Option<usize>| match slot.map(|index| &block.attributes[index]) {
        None => State::Free,
        Some(Attributes { released_at: Some(at), .. }) => State::Cooling(at.nanos() - 1),
        Some(Attributes { handle: Some(handle), .. }) => {
            State::Of(handle.as_str().parse().unwrap())
        }
        Some(other) => panic!("{other:?}"),
    };
    block.allocations.iter().map(state).collect()
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0_u8..3;
    prop_oneof![
        (who.clone(), 0_usize..4).prop_map(|(who, n)| Op::Take { who, n }),
        (who.clone(), 0_u128..8).prop_map(|(who, ordinal)| Op::Exactly { who, ordinal }),
        who.clone().prop_map(|who| Op::Keep { who }),
        (0_u128..8, any::<bool>()).prop_map(|(ordinal, stale)| Op::Release { ordinal, stale }),
        who.clone().prop_map(|who| Op::ReleaseAll { who }),
        (0_u128..8, who.clone(), who).prop_map(|(ordinal, from, to)| Op::PassOn {
            ordinal,
            from,
            to
        }),
        Just(Op::Thaw),
        Just(Op::Wait),
    ]
}

/// One later than the model's, so that 0 is before everything.
fn stamp(now: u64) -> Timestamp {
    Timestamp::from_nanos(now + 1)
}

fn who(name: u8) -> Claimant {
    Claimant { handle: name.to_string().parse().unwrap(), secondary: BTreeMap::new() }
}

/// The first few addresses of the block.
fn reserved_prefixes(n: usize) -> Vec<Prefix> {
    let cidr: Prefix = CIDR.parse().unwrap();
    (0..n).map(|n| Prefix::host(cidr.nth(n as u128).unwrap())).collect()
}

const CIDR: &str = "10.0.0.0/29";
