//! One machine and a store that answers at once, unless a test says otherwise.

mod desk;

use self::desk::{Desk, config, node, who};
use super::{
    super::{block::Block, handle::Handle, name::Affinity},
    *,
};

#[test]
fn a_claim_and_a_hundred_requests_cost_few_writes() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    for n in 0..50 {
        desk.allocate(n, &format!("pod{n}"));
    }
    desk.run();
    let given: BTreeSet<_> = (0..50).map(|n| desk.given(n)).collect();
    assert_eq!(given.len(), 50);
    let blocks = desk.writes.iter().filter(|key| matches!(key, Key::Block(_))).count();
    // One creates, one gives all fifty; and the block ahead.
    assert!(blocks <= 4, "{:?}", desk.writes);
    assert_eq!(desk.owned_blocks().len(), 2, "fewer than 16 are left, so one is claimed ahead");
}

#[test]
fn a_second_request_of_a_handle_gets_the_same_address() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "pod");
    desk.settle();
    desk.allocate(2, "pod");
    desk.settle();
    assert_eq!(desk.given(1), desk.given(2));
    assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(1));
    // The index is written again, so that a collector which is about to lower it fails.
    let indexed = desk.writes.iter().filter(|key| matches!(key, Key::Handle(_))).count();
    assert_eq!(indexed, 2);
}

#[test]
fn a_release_frees_the_address_and_deletes_the_handle() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "pod");
    desk.run();
    desk.ask(2, Ask::ReleaseHandle("pod".parse().unwrap()));
    desk.run();
    assert_eq!(desk.answers[&2], Ok(Answer::Released(1)));
    assert_eq!(desk.handle("pod"), None);
    desk.ask(3, Ask::ReleaseHandle("pod".parse().unwrap()));
    desk.run();
    assert_eq!(desk.answers[&3], Ok(Answer::Released(0)));
}

#[test]
fn a_restart_finds_what_was_borrowed_by_the_handle_s_index() {
    let mut desk = Desk::new(config("10.0.0.0/26", Borrowing::Allowed));
    desk.put_block("10.0.0.0/26", "host:other");
    desk.start();
    desk.allocate(1, "pod");
    desk.settle();
    desk.start();
    desk.allocate(2, "pod");
    desk.settle();
    assert_eq!(desk.given(1), desk.given(2));
    desk.start();
    desk.ask(3, Ask::ReleaseHandle("pod".parse().unwrap()));
    desk.settle();
    assert_eq!(desk.answers[&3], Ok(Answer::Released(1)));
}

#[test]
fn a_borrowed_address_is_the_handle_s_also_when_there_is_room_of_our_own() {
    for restart in [false, true] {
        let mut desk = Desk::new(config("10.0.0.0/25", Borrowing::Allowed));
        let (one, two) = ("10.0.0.0/26", "10.0.0.64/26");
        desk.put_block(one, "host:other");
        desk.put_block(two, "host:other");
        desk.start();
        desk.allocate(1, "pod");
        desk.settle();
        let (lent, free) =
            if desk.given(1) < IpAddr::from([10, 0, 0, 64]) { (one, two) } else { (two, one) };
        // The other node gives a block up, and it becomes ours.
        let (key, rev) = (Key::Block(free.parse().unwrap()), desk.rev + 1);
        desk.store.remove(&key);
        desk.rev = rev;
        desk.feed(Input::Changed(vec![Change { key, rev, value: None }]));
        desk.allocate(2, "second");
        desk.settle();
        assert_eq!(desk.owned_blocks(), [free.parse().unwrap()]);
        if restart {
            desk.start_told_outlines(lent, "pod");
        }
        desk.allocate(3, "pod");
        desk.settle();
        assert_eq!(desk.given(3), desk.given(1), "{lent} has it");
        assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(1));
    }
}

#[test]
fn without_borrowing_a_full_pool_is_refused_and_a_foreign_wish_too() {
    let mut desk = Desk::new(config("10.0.0.0/26", Borrowing::Never));
    desk.put_block("10.0.0.0/26", "host:other");
    desk.start();
    desk.allocate(1, "pod");
    desk.wish(2, "pod2", "10.0.0.7");
    desk.wish(3, "pod3", "10.9.9.9");
    desk.run();
    assert_eq!(desk.answers[&1], Err(Refusal::Exhausted(Family::V4)));
    assert!(matches!(desk.answers[&2], Err(Refusal::Strict { .. })));
    assert!(matches!(desk.answers[&3], Err(Refusal::NoPoolHas(_))));
}

#[test]
fn a_wish_claims_its_block_and_a_taken_one_is_refused_by_name() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Never));
    desk.wish(1, "pod", "10.0.9.77");
    desk.run();
    assert_eq!(desk.given(1), "10.0.9.77".parse::<IpAddr>().unwrap());
    desk.wish(2, "rival", "10.0.9.77");
    desk.run();
    let refusal = desk.answers[&2].clone().unwrap_err().to_string();
    assert_eq!(refusal, "address 10.0.9.77 is taken by pod");
    // The count that stood first is taken back.
    assert_eq!(desk.handle("rival"), None);
}

#[test]
fn what_is_claimed_ahead_is_passed_on_to_who_names_it_and_to_no_other_node() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "ahead-addr-n1-0");
    desk.allocate(2, "ahead-addr-n2-0");
    desk.run();
    let (ours, theirs) = (desk.given(1).to_string(), desk.given(2).to_string());
    // Its pool gives nothing any more, and it is somebody's all the same.
    desk.feed(Input::Config(config("10.9.0.0/16", Borrowing::Allowed)));
    desk.wish(3, "pod", &ours);
    desk.settle();
    assert_eq!(desk.given(3).to_string(), ours);
    let held = |desk: &Desk, handle: &str| {
        desk.blocks().iter().map(|block| block.count(&handle.parse().unwrap())).sum::<u32>()
    };
    assert_eq!((held(&desk, "pod"), held(&desk, "ahead-addr-n1-0")), (1, 0));
    assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(1));
    assert_eq!(desk.handle("ahead-addr-n1-0"), None, "its count is lowered");
    desk.feed(Input::Config(desk.config.clone()));
    desk.wish(4, "pod2", &theirs);
    desk.wish(5, "pod2", &ours);
    desk.settle();
    for (request, by) in [(4, "ahead-addr-n2-0"), (5, "pod")] {
        let refusal = desk.answers[&request].clone().unwrap_err().to_string();
        assert!(refusal.ends_with(&format!("is taken by {by}")), "{refusal}");
    }
}

#[test]
fn what_is_passed_on_stays_whose_it_is_when_nobody_hears_of_it() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "ahead-addr-n1-0");
    desk.run();
    let addr = desk.given(1).to_string();
    desk.wish(2, "pod", &addr);
    // The count is written, and the write of the block is done without an answer for so long that it is given up.
    desk.run_writes(1);
    desk.lose_answers = true;
    desk.run();
    desk.wait(PATIENCE);
    assert_eq!(desk.answers[&2], Err(Refusal::NoAnswer));
    desk.lose_answers = false;
    desk.settle();
    assert!(desk.blocks().iter().any(|block| block.has(&"pod".parse().unwrap())));
    assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(1));
}

#[test]
fn one_family_without_room_gives_the_other_back() {
    let mut wanted = config("10.0.0.0/16", Borrowing::Never);
    wanted.pools.push(BlockPool::new("fd00::/122".parse().unwrap(), 122).unwrap());
    let mut desk = Desk::new(wanted);
    desk.put_block("fd00::/122", "host:other");
    desk.start();
    let wants = Family::BOTH.map(|family| Want { family, pools: vec![], wished: None });
    desk.ask(1, Ask::Allocate { who: who("pod"), wants: wants.to_vec() });
    desk.run();
    assert_eq!(desk.answers[&1], Err(Refusal::Exhausted(Family::V6)));
    assert!(desk.blocks().iter().all(|block| block.is_empty()));
    assert_eq!(desk.handle("pod"), None);
}

#[test]
fn no_more_blocks_are_claimed_than_the_limit() {
    let mut wanted = config("10.0.0.0/16", Borrowing::Never);
    wanted.blocks_per_node = 2;
    let mut desk = Desk::new(wanted);
    for n in 0..130 {
        desk.allocate(n, &format!("pod{n}"));
    }
    desk.run();
    assert_eq!(desk.owned_blocks().len(), 2);
    let refused = desk.answers.values().filter(|a| **a == Err(Refusal::BlockLimit(2))).count();
    assert_eq!(refused, 2);
}

#[test]
fn a_write_whose_answer_is_lost_gives_one_address_all_the_same() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.lose_answers = true;
    desk.allocate(1, "pod");
    for _ in 0..12 {
        desk.run();
        desk.wait(NO_ANSWER);
    }
    // Every write took place, no answer came: the request is refused in the end, and nothing hangs.
    assert_eq!(desk.answers[&1], Err(Refusal::NoAnswer));
    desk.lose_answers = false;
    desk.allocate(2, "pod");
    desk.settle();
    assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(1));
    let held: usize = desk.blocks().iter().map(|block| block.held().count()).sum();
    assert_eq!(held, 1);
    assert!(desk.answers[&2].is_ok());
}

#[test]
fn a_claim_is_carried_on_from_between_any_two_writes() {
    for writes in 0..12 {
        let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
        desk.allocate(1, "pod");
        desk.run_writes(writes);
        desk.start();
        desk.allocate(2, "pod");
        desk.settle();
        assert!(desk.answers[&2].is_ok(), "after {writes} writes");
        let held: usize = desk.blocks().iter().map(|block| block.held().count()).sum();
        assert_eq!(held, 1, "after {writes} writes");
        assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(1));
        for block in desk.owned_blocks() {
            let key = Key::Affinity(node(), block);
            let state = desk.store.get(&key).map(|found| found.value.clone());
            assert_eq!(state, Some(Value::Affinity(AffinityState::Confirmed)));
        }
    }
}

#[test]
fn a_block_that_others_fill_under_our_hands_costs_no_request() {
    let mut desk = Desk::new(config("10.0.0.0/24", Borrowing::Allowed));
    desk.allocate(1, "pod");
    desk.run();
    let ours = desk.owned_blocks()[0];
    // The watch is late: the machine still believes its block to have room.
    let Value::Block(block) = desk.store[&Key::Block(ours)].value.clone() else { panic!() };
    let (full, _) = block.take(64, &who("borrower"), &Reserved::default(), Timestamp::default());
    desk.put(Key::Block(ours), Value::Block(Arc::new(full)));
    desk.allocate(2, "late");
    desk.settle();
    assert!(!ours.contains(desk.given(2)));
    assert_eq!(desk.handle("late").map(|handle| handle.total()), Some(1));
}

#[test]
fn an_address_is_released_by_its_number_only() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "pod");
    desk.run();
    let Ok(Answer::Given(given)) = desk.answers[&1].clone() else { panic!() };
    let Given { addr, sequence } = given[0];
    let release =
        |sequence| Ask::ReleaseAddress(Release { addr, sequence: Some(sequence), handle: None });
    desk.ask(2, release(sequence + 1));
    desk.run();
    assert!(matches!(desk.answers[&2], Err(Refusal::Release(ReleaseError::Stale { .. }))));
    desk.ask(3, release(sequence));
    desk.settle();
    assert_eq!(desk.answers[&3], Ok(Answer::Released(1)));
    assert_eq!(desk.handle("pod"), None);
}

#[test]
fn a_write_that_was_given_up_cannot_give_an_address_afterwards() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "first");
    desk.run();
    let block = desk.owned_blocks()[0];
    desk.wish(2, "pod", &block.last().to_string());
    // The count is written, the block's write is on its way for very long.
    desk.run_writes(1);
    let (_, late) = desk.queue.pop_front().unwrap().remove(0);
    assert!(matches!(late.key(), Key::Block(_)));
    desk.release_without_an_answer(3, "pod");
    assert!(matches!(desk.take(late), Outcome::Present { .. }), "it comes too late");
    assert_eq!(desk.handle("pod"), None);
}

#[test]
fn a_new_handle_s_count_and_its_address_are_one_transaction() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "first");
    desk.settle();
    for n in 2..12 {
        desk.allocate(n, &format!("pod{n}"));
    }
    let first = desk.queue.pop_front().unwrap();
    let kinds = |ops: &[(u64, StoreOp)]| {
        let blocks = ops.iter().filter(|(_, op)| matches!(op.key(), Key::Block(_))).count();
        (blocks, ops.len() - blocks)
    };
    assert_eq!(kinds(&first), (1, 1), "whoever comes first goes first");
    assert!(desk.queue.is_empty(), "the others wait for the block");
    for (op, outcome) in desk.take_all(first) {
        desk.feed(Input::Wrote { op, outcome });
    }
    let together = desk.queue.front().unwrap();
    assert_eq!(kinds(together), (1, 9), "and then all go at once");
    desk.run();
    let given: BTreeSet<_> = (1..12).map(|n| desk.given(n)).collect();
    assert_eq!(given.len(), 11);
}

#[test]
fn a_transaction_of_two_families_is_one() {
    let mut both = config("10.0.0.0/16", Borrowing::Allowed);
    both.pools.push(BlockPool::new("fd00::/112".parse().unwrap(), 122).unwrap());
    let mut desk = Desk::new(both);
    desk.allocate_both(1, "first");
    desk.settle();
    desk.allocate_both(2, "pod");
    assert_eq!(desk.queue.front().map(Vec::len), Some(3), "two blocks and a handle");
    desk.run();
    assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(2));
}

#[test]
fn a_store_without_transactions_and_one_that_knows_the_handle_serve_as_well() {
    for transactions in [false, true] {
        let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
        desk.transactions = transactions;
        desk.allocate(1, "first");
        desk.settle();
        let block = desk.owned_blocks()[0];
        // What a crash left: a count that is too high.
        let counts = Handle::new([(block, 1)]);
        desk.put(Key::Handle("pod".parse().unwrap()), Value::Handle(counts));
        desk.allocate(2, "pod");
        desk.settle();
        assert_ne!(desk.given(1), desk.given(2));
        assert_eq!(desk.handle("pod").map(|handle| handle.total()), Some(1));
    }
}

#[test]
fn a_transaction_that_was_given_up_cannot_give_an_address_afterwards() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "first");
    desk.run();
    desk.allocate(2, "pod");
    let late = desk.queue.pop_front().unwrap();
    assert_eq!(late.len(), 2);
    desk.release_without_an_answer(3, "pod");
    let outcomes = desk.take_all(late);
    assert!(outcomes.iter().all(|(_, it)| matches!(it, Outcome::Present { .. })), "{outcomes:?}");
    assert_eq!(desk.handle("pod"), None);
}

#[test]
fn another_block_at_our_block_s_key_gives_nothing() {
    let mut desk = Desk::new(config("10.0.0.0/26", Borrowing::Allowed));
    desk.put_block("10.0.0.0/26", "host:other");
    desk.start();
    let other = Block::new("10.9.0.0/26".parse().unwrap(), None, desk.now.wall).unwrap();
    let key = Key::Block("10.0.0.0/26".parse().unwrap());
    desk.put(key, Value::Block(Arc::new(other)));
    desk.allocate(1, "pod");
    for _ in 0..10 {
        desk.run();
        desk.wait(NO_ANSWER);
    }
    assert_eq!(desk.answers[&1], Err(Refusal::NoAnswer));
}

#[test]
fn too_many_that_wait_are_refused_at_once() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.away = true;
    for n in 0..=u64::try_from(MOST_WAITING).unwrap() {
        desk.allocate(n, &format!("pod{n}"));
    }
    assert_eq!(desk.answers.len(), 1);
    assert!(desk.answers.values().all(|answer| *answer == Err(Refusal::Busy)));
}

#[test]
fn another_history_is_begun_anew() {
    let mut desk = Desk::new(config("10.0.0.0/16", Borrowing::Allowed));
    desk.allocate(1, "pod");
    desk.run();
    desk.store.clear();
    desk.rev = 1;
    desk.feed(Input::OtherHistory);
    desk.feed(Input::Snapshot { objects: vec![], rev: 1 });
    desk.allocate(2, "pod2");
    desk.settle();
    assert!(desk.answers[&2].is_ok());
}
