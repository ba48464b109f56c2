//! The bytes of a few messages, as they were when `nft` showed what they mean. They change only on purpose.

use russet_desired::{BaseChain, ChainType, Field, Flag, Hook, Match, Rule, SetKind, Verdict};
use russet_net::Family;

use super::wishes::{MASQUERADE, in_set, prefix};
use crate::{
    netlink::Batch,
    nft::{
        COMMENT,
        expr::{Code, Expr},
        object::{self, TableRef},
        plan::{Op, Step},
        rule::{within, write_rule},
    },
};

const OURS: TableRef<'static> = TableRef { family: 2, name: "russet" };

/// The octets behind `nlmsghdr`, whose type and flags are compared apart; on a little-endian machine.
fn hex(fill: impl FnOnce(&mut Batch)) -> String {
    let mut batch = Batch::new();
    fill(&mut batch);
    let (header, body) = batch.bytes().split_at(16);
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let words = body.as_chunks::<4>().0.iter();
    let words: Vec<_> = words.map(|word| format!("{:08x}", u32::from_be_bytes(*word))).collect();
    format!("{:04x} {:04x} {}", half(4), half(6), words.join(" "))
}

#[test]
fn a_table_with_an_owner() {
    assert_eq!(
        hex(|batch| object::new_table(batch, OURS, 6)),
        "0a00 0400 \
         02000000 0b000100 72757373 65740000 08000200 00000006"
    );
}

#[test]
fn a_base_chain() {
    let base = BaseChain { kind: ChainType::Nat, hook: Hook::Postrouting, priority: 100 };
    assert_eq!(
        hex(|batch| object::new_chain(batch, OURS, "post", Some(base))),
        "0a03 0400 \
         02000000 0b000100 72757373 65740000 09000300 706f7374 00000000 08000700 6e617400 \
         14000480 08000100 00000004 08000200 00000064 08000500 00000001"
    );
}

#[test]
fn a_rule_of_masquerade() {
    let matches =
        vec![Match::Mark { mask: 0x4000, value: 0x4000 }, in_set(Field::Source, "nets", Flag::On)];
    let exprs = write_rule(Family::V4, &Rule { matches, verdict: MASQUERADE });
    assert_eq!(
        hex(|batch| object::append_rule(batch, OURS, "post", &exprs)),
        "0a06 0c00 \
         02000000 0b000100 72757373 65740000 09000200 706f7374 00000000 18010480 24000180 \
         09000100 6d657461 00000000 14000280 08000200 00000003 08000100 00000001 44000180 \
         0c000100 62697477 69736500 34000280 08000100 00000001 08000200 00000001 08000300 \
         00000004 0c000480 08000100 00400000 0c000580 08000100 00000000 2c000180 08000100 \
         636d7000 20000280 08000100 00000001 08000200 00000000 0c000380 08000100 00400000 \
         34000180 0c000100 7061796c 6f616400 24000280 08000100 00000001 08000200 00000001 \
         08000300 0000000c 08000400 00000004 30000180 0b000100 6c6f6f6b 75700000 20000280 \
         09000100 6e657473 00000000 08000200 00000001 08000500 00000001 1c000180 09000100 \
         6d617371 00000000 0c000280 08000100 00000010"
    );
}

#[test]
fn a_rule_that_returns() {
    let exprs = write_rule(Family::V4, &Rule { matches: vec![], verdict: Verdict::Return });
    assert_eq!(
        hex(|batch| object::append_rule(batch, OURS, "post", &exprs)),
        "0a06 0c00 \
         02000000 0b000100 72757373 65740000 09000200 706f7374 00000000 34000480 30000180 \
         0e000100 696d6d65 64696174 65000000 1c000280 08000100 00000000 10000280 0c000280 \
         08000100 fffffffb"
    );
}

#[test]
fn a_foreign_accept_with_our_comment() {
    let table = TableRef { family: 2, name: "filter" };
    let mut exprs = within(Field::Source, prefix("10.50.0.0/16"), Flag::Off);
    exprs.push(Expr::Verdict(Code::Accept));
    let insert = |batch: &mut Batch| {
        object::insert_rule(batch, (table, "FORWARD"), object::Place::Head, &exprs, COMMENT);
    };
    assert_eq!(
        hex(insert),
        "0a06 0400 \
         02000000 0b000100 66696c74 65720000 0c000200 464f5257 41524400 d8000480 34000180 \
         0c000100 7061796c 6f616400 24000280 08000100 00000001 08000200 00000001 08000300 \
         0000000c 08000400 00000004 44000180 0c000100 62697477 69736500 34000280 08000100 \
         00000001 08000200 00000001 08000300 00000004 0c000480 08000100 ffff0000 0c000580 \
         08000100 00000000 2c000180 08000100 636d7000 20000280 08000100 00000001 08000200 \
         00000000 0c000380 08000100 0a320000 30000180 0e000100 696d6d65 64696174 65000000 \
         1c000280 08000100 00000000 10000280 0c000280 08000100 00000001 15000700 000f7275 \
         73736574 20666f72 77617264 00000000"
    );
}

#[test]
fn an_interval_and_the_one_that_has_no_end() {
    let prefixes = vec![prefix("10.50.0.0/16").into(), prefix("255.255.255.0/24").into()];
    let step = Step::new(Family::V4, "nets", Op::Add(SetKind::Prefixes, prefixes));
    assert_eq!(
        hex(|batch| step.write(batch)),
        "0a0c 0400 \
         02000000 0b000100 72757373 65740000 09000200 6e657473 00000000 3c000380 10000180 \
         0c000180 08000100 0a320000 18000180 0c000180 08000100 0a330000 08000300 00000001 \
         10000180 0c000180 08000100 ffffff00"
    );
}

#[test]
fn a_set_of_addresses() {
    let step = Step::new(Family::V6, "pods", Op::NewSet(SetKind::Addresses));
    assert_eq!(
        hex(|batch| step.write(batch)),
        "0a09 0400 \
         0a000000 0b000100 72757373 65740000 09000200 706f6473 00000000 08000300 00000000 \
         08000400 00000008 08000500 00000010 08000a00 00000000"
    );
}
