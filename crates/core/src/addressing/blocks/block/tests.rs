//! What one block does, step by step.

use super::*;

#[test]
fn an_address_is_used_again_as_late_as_possible() {
    let (block, first) = take(&block("10.0.0.0/30"), 2, "a");
    assert_eq!(addrs(&first), ["10.0.0.0", "10.0.0.1"]);
    let block = block.release_handle(&handle("a"), Rest::None).unwrap();
    assert!(block.is_empty());
    let (_, second) = take(&block, 4, "b");
    assert_eq!(addrs(&second), ["10.0.0.2", "10.0.0.3", "10.0.0.0", "10.0.0.1"]);
}

#[test]
fn reserved_addresses_are_passed_over_and_keep_their_place() {
    let reserved = Reserved::new(vec!["10.0.0.0/31".parse().unwrap()]);
    let empty = block("10.0.0.0/30");
    assert_eq!(empty.free(&reserved, NEVER), 2);
    let (next, given) = empty.take(9, &who("a"), &reserved, NEVER);
    assert_eq!(addrs(&given), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(next.unallocated, [0, 1]);
    let wish = empty.take_exactly(ip("10.0.0.1"), &who("a"), &reserved, NEVER);
    assert_eq!(wish, Err(TakeError::Reserved { addr: ip("10.0.0.1") }));
}

#[test]
fn a_wish_is_granted_or_says_who_has_it() {
    let none = Reserved::default();
    let (next, given) =
        block("10.0.0.0/30").take_exactly(ip("10.0.0.2"), &who("a"), &none, NEVER).unwrap();
    assert_eq!(given.addr, ip("10.0.0.2"));
    let again = next.take_exactly(ip("10.0.0.2"), &who("b"), &none, NEVER);
    assert_eq!(again.unwrap_err().to_string(), "address 10.0.0.2 is taken by a");
    let far = next.take_exactly(ip("10.0.0.4"), &who("b"), &none, NEVER).unwrap_err();
    assert!(matches!(far, TakeError::Outside { .. }));
}

#[test]
fn a_released_address_cools_down_before_it_is_free() {
    let (full, given) = take(&block("10.0.0.0/31"), 2, "a");
    let release = Release { addr: given[0].addr, sequence: None, handle: None };
    let cooling = full.release(&release, Rest::From(at(100))).unwrap().unwrap();
    assert_eq!(cooling.free(&Reserved::default(), at(99)), 0);
    assert!(!cooling.is_empty());
    assert_eq!(cooling.count(&handle("a")), 1);
    assert_eq!(cooling.release(&release, Rest::From(at(101))), Ok(None), "it is released already");
    let wish = cooling.take_exactly(given[0].addr, &who("b"), &Reserved::default(), at(99));
    assert_eq!(wish, Err(TakeError::Cooling { addr: given[0].addr }));

    assert_eq!(cooling.free(&Reserved::default(), at(100)), 1);
    let (_, second) = cooling.take(1, &who("b"), &Reserved::default(), at(100));
    assert_eq!(second[0].addr, given[0].addr);
}

#[test]
fn a_release_that_was_decided_too_early_is_refused() {
    let (one, first) = take(&block("10.0.0.0/32"), 1, "a");
    let free = one.release_handle(&handle("a"), Rest::None).unwrap();
    let (again, second) = take(&free, 1, "b");
    let stale = Release { addr: first[0].addr, sequence: Some(first[0].sequence), handle: None };
    assert_eq!(
        again.release(&stale, Rest::None),
        Err(ReleaseError::Stale {
            addr: first[0].addr,
            named: first[0].sequence,
            is: second[0].sequence
        })
    );
    let theirs = Release { handle: Some(handle("a")), sequence: None, ..stale };
    let err = again.release(&theirs, Rest::None).unwrap_err();
    assert_eq!(err, ReleaseError::NotTheirs { addr: first[0].addr });
}

#[test]
fn what_is_kept_gets_a_new_number_and_no_other_address() {
    let (one, first) = take(&block("10.0.0.0/30"), 1, "a");
    let (next, kept) = one.keep(&handle("a")).unwrap();
    assert_eq!(kept[0].addr, first[0].addr);
    assert_ne!(kept[0].sequence, first[0].sequence);
    assert_eq!(next.held().next().unwrap().0, kept[0]);
    assert_eq!(next.keep(&handle("b")), None);
}

#[test]
fn attributes_that_nobody_uses_go_and_equal_ones_are_shared() {
    let (next, _) = take(&block("10.0.0.0/29"), 2, "a");
    let (next, _) = take(&next, 2, "b");
    assert_eq!(next.attributes.len(), 2);
    let next = next.release_handle(&handle("a"), Rest::None).unwrap();
    assert_eq!(next.attributes.len(), 1);
    assert_eq!(next.count(&handle("b")), 2);
}

#[test]
fn a_block_that_is_made_anew_does_not_give_old_numbers() {
    let cidr = "10.0.0.0/32".parse().unwrap();
    let old = Block::new(cidr, None, at(1)).unwrap();
    let (_, first) = take(&old, 1, "a");
    let new = Block::new(cidr, None, at(2)).unwrap();
    let (_, second) = take(&new, 1, "a");
    assert_ne!(first[0].sequence, second[0].sequence);
}

const NEVER: Timestamp = Timestamp::from_nanos(0);

fn at(secs: u64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn block(cidr: &str) -> Block {
    Block::new(cidr.parse().unwrap(), "host:n1".parse().ok(), at(1)).unwrap()
}

fn take(block: &Block, n: usize, name: &str) -> (Block, Vec<Given>) {
    block.take(n, &who(name), &Reserved::default(), NEVER)
}

fn who(name: &str) -> Claimant {
    Claimant { handle: handle(name), secondary: BTreeMap::new() }
}

fn handle(name: &str) -> HandleId {
    name.parse().unwrap()
}

fn addrs(given: &[Given]) -> Vec<String> {
    given.iter().map(|given| given.addr.to_string()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
