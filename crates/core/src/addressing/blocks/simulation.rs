//! Block machines of many nodes, a collector and one store, on a virtual clock.
//!
//! The store compares and swaps, and nothing more. Between it and a node lies a line that delays and loses
//! operations and their answers; the watch is late by seconds; agents die at any moment and start with nothing
//! but the store; runtimes ask again, or clean up, or forget. `check` says what must hold after every write and
//! at rest: no address has two owners, none is taken from its owner, none is lost for ever.

use std::time::Duration;

use super::{
    BlockPool, Reserved,
    machine::{BLOCKS_PER_NODE, BlockConfig, Borrowing},
};

mod ahead;
mod check;
mod sim;
mod store;

use self::sim::{Plan, Sim};

#[test]
fn five_hundred_nodes_that_borrow_in_half_as_many_blocks_lose_nothing() {
    let tally = run(Plan {
        nodes: 500,
        config: config(&[("10.0.0.0/18", 26)], Borrowing::Allowed),
        pods: 12,
        crash: 60,
        churn: Duration::from_secs(12),
        away: (Duration::from_secs(5), Duration::from_secs(8)),
        gone: 20,
        ..plan(1)
    });
    assert!(tally.given > 1_500 && tally.crashes > 20 && tally.conflicts > 200, "{tally:?}");
    assert!(tally.together > 100, "{tally:?}");
}

#[test]
fn nodes_that_die_all_the_time_lose_nothing() {
    for seed in 0..4 {
        let tally = run(Plan { crash: 4, loss: 8, ..plan(seed) });
        assert!(tally.crashes > 200 && tally.lost > 300, "{tally:?}");
    }
}

#[test]
fn a_pool_that_runs_full_without_borrowing_loses_nothing() {
    for seed in 0..2 {
        let tally = run(Plan {
            config: config(&[("10.0.0.0/25", 29)], Borrowing::Never),
            ..plan(10 + seed)
        });
        assert!(tally.refused > 100 && tally.given > 100, "{tally:?}");
    }
}

#[test]
fn a_pool_that_runs_full_with_borrowing_loses_nothing() {
    for seed in 0..2 {
        let tally = run(Plan {
            config: config(&[("10.0.0.0/25", 29)], Borrowing::Allowed),
            nodes: 25,
            ..plan(20 + seed)
        });
        assert!(tally.refused > 100 && tally.conflicts > 100, "{tally:?}");
    }
}

#[test]
fn two_families_and_a_cooldown_lose_nothing() {
    for seed in 0..2 {
        let pools = [("10.0.0.0/24", 28), ("fd00::/118", 124)];
        let mut config = config(&pools, Borrowing::Allowed);
        config.cooldown = Duration::from_secs(20);
        config.reserved = Reserved::new(vec!["10.0.0.16/29".parse().unwrap()]);
        let tally = run(Plan { config, nodes: 20, ..plan(30 + seed) });
        assert!(tally.given > 200 && tally.together > 50, "{tally:?}");
    }
}

#[test]
fn addresses_claimed_ahead_are_given_to_one_each_though_the_store_is_away_and_agents_die() {
    for seed in 0..2 {
        // Longer than an agent has anything left.
        let away = (Duration::from_secs(30), Duration::from_secs(70));
        let tally = run(Plan { ahead: 3, crash: 12, loss: 12, away, ..plan(40 + seed) });
        assert!(tally.ahead > 100 && tally.ahead_away > 4 && tally.crashes > 50, "{tally:?}");
    }
}

#[test]
fn addresses_claimed_ahead_in_a_pool_that_runs_full_are_lost_to_nobody() {
    for seed in 0..2 {
        let mut config = config(&[("10.0.0.0/25", 29), ("fd00::/121", 125)], Borrowing::Allowed);
        config.cooldown = Duration::from_secs(20);
        let tally = run(Plan { config, nodes: 20, ahead: 2, ..plan(50 + seed) });
        assert!(tally.ahead > 20 && tally.refused > 50, "{tally:?}");
    }
}

fn run(plan: Plan) -> sim::Tally {
    let mut sim = Sim::new(plan);
    sim.run();
    sim.tally
}

/// Forty nodes in a pool that has room for them.
fn plan(seed: u64) -> Plan {
    Plan {
        nodes: 40,
        config: config(&[("10.0.0.0/21", 28)], Borrowing::Allowed),
        pods: 8,
        seed,
        crash: 30,
        loss: 50,
        churn: Duration::from_mins(2),
        away: (Duration::from_secs(50), Duration::from_secs(65)),
        gone: 3,
        ahead: 0,
    }
}

fn config(pools: &[(&str, u8)], borrowing: Borrowing) -> BlockConfig {
    let pool = |(cidr, len): &(&str, u8)| BlockPool::new(cidr.parse().unwrap(), *len).unwrap();
    BlockConfig {
        pools: pools.iter().map(pool).collect(),
        reserved: Reserved::default(),
        borrowing,
        blocks_per_node: BLOCKS_PER_NODE,
        cooldown: Duration::ZERO,
    }
}
