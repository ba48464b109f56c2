//! The RIB and what each peer was told are equal to the oracle's, for every order of inputs: routes that come
//! and go, peers that go, restart, come back, read slowly, ask again, or are too slow to be kept.

use proptest::prelude::*;

use crate::world::{Op, PEERS, World, bounds_generous, bounds_tight};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn peers_that_read_all_hold_what_the_oracle_says(
        ops in proptest::collection::vec(op(), 1..80),
        seed: u64,
    ) {
        let mut world = World::new(seed, bounds_generous());
        for op in ops {
            world.apply(&op);
        }
        world.settle();
        world.check();
    }

    #[test]
    fn slow_readers_and_full_logs_end_in_the_same_routes(
        ops in proptest::collection::vec(op(), 1..120),
        seed: u64,
        log in 0_usize..400,
        walk in 1_usize..8,
        snapshot in 0_usize..12,
        empty in 0_usize..20,
    ) {
        let mut world = World::new(seed, bounds_tight(log, walk, snapshot, empty));
        for op in ops {
            world.apply(&op);
        }
        world.settle();
        world.check();
    }

    #[test]
    fn when_all_is_gone_nothing_is_left(ops in proptest::collection::vec(op(), 1..60), seed: u64) {
        let mut world = World::new(seed, bounds_generous());
        for op in ops {
            world.apply(&op);
        }
        world.remove_all();
        prop_assert_eq!(world.rib.attribute_sets(), 0);
    }
}

/// The chunks of before were not for the peer that had the number then.
#[test]
fn who_gets_a_number_that_was_another_s_is_told_all_the_same() {
    let mut world = World::new(0, bounds_generous());
    let announce = |peer, attributes| Op::Announce { peer, keys: vec![9], attributes, id: 0 };
    for op in [
        announce(6, 1_149),
        announce(4, 25_088),
        Op::Flush,
        Op::Withdraw { peer: 4, keys: vec![9], id: 0 },
        Op::Flush,
        Op::Remove { peer: 6 },
        Op::Up { peer: 7 },
    ] {
        world.apply(&op);
    }
    world.settle();
    world.check();
}

/// It is not told its own route, and what it was told before by an older snapshot has to go.
#[test]
fn a_route_that_moves_to_a_peer_that_was_away_is_taken_from_it() {
    let mut world = World::new(0, bounds_generous());
    for op in [
        Op::Announce { peer: 0, keys: vec![13], attributes: 3_784, id: 0 },
        Op::Lose { peer: 0, keep: 2 },
        Op::Announce { peer: 6, keys: vec![13], attributes: 1_544, id: 0 },
        Op::Up { peer: 7 },
        Op::Lose { peer: 6, keep: 0 },
        Op::Up { peer: 0 },
    ] {
        world.apply(&op);
    }
    world.settle();
    world.check();
}

/// Whoever restarts forgets at the marker what it was not told again (RFC 4724 §4.2).
#[test]
fn the_end_is_told_after_all_that_was_there_though_the_snapshot_is_older() {
    let mut world = World::new(0, bounds_generous());
    world.apply(&Op::Announce { peer: 4, keys: vec![9], attributes: 1_149, id: 0 });
    // Peer 6 has not read its snapshot, which knows nothing of it, when 7 begins with the same.
    world.apply(&Op::Flush);
    world.apply(&Op::Up { peer: 7 });
    while !world.heard(7, 9).0 {
        world.apply(&Op::Read { peer: 7, pieces: 1 });
    }
    assert_eq!(world.heard(7, 9), (true, true));
    world.settle();
    world.check();
}

/// A destination that is gone leaves a number behind, and comes back under another.
#[test]
fn a_walk_does_not_withdraw_what_came_back_under_another_number() {
    let mut world = World::new(0, bounds_tight(0, 1, 0, 0));
    let announce = |peer, keys: &[u8], attributes| Op::Announce {
        peer,
        keys: keys.to_vec(),
        attributes,
        id: 0,
    };
    for op in [
        announce(0, &[0], 0),
        announce(6, &[1], 0),
        Op::Up { peer: 5 },
        announce(4, &[2], 0),
        announce(5, &[3, 4, 7], 0),
        Op::Lose { peer: 5, keep: 6 },
        Op::Flush,
        Op::Up { peer: 5 },
        Op::Up { peer: 2 },
        announce(2, &[7], 25_736),
        Op::Refresh { peer: 5 },
    ] {
        world.apply(&op);
    }
    world.settle();
    world.check();
}

#[test]
fn a_route_is_judged_anew_when_our_cluster_becomes_another() {
    // Both came through cluster 7; the other one is marked, and rejected by peer 5's policy.
    let (plain, marked) = (0x90, 0x88);
    let announce = |peer, attributes| Op::Announce { peer, keys: vec![9], attributes, id: 0 };
    let mut world = World::new(0, bounds_generous());
    let mut holds = |op: &Op| {
        world.apply(op);
        world.settle();
        world.check();
        world.heard(6, 9).1
    };
    assert!(holds(&announce(0, plain)));
    assert!(!holds(&Op::Cluster { number: 7 }), "it came through our cluster");
    assert!(!holds(&Op::Distance { hop: 0, distance: 0 }));
    assert!(!holds(&Op::Cluster { number: 0 }), "its next hop cannot be reached");
    assert!(holds(&Op::Distance { hop: 0, distance: 1 }));
    // One that is told meanwhile is kept, too.
    assert!(!holds(&Op::Cluster { number: 7 }));
    assert!(!holds(&Op::Withdraw { peer: 0, keys: vec![9], id: 0 }));
    assert!(!holds(&announce(0, plain)));
    assert!(holds(&Op::Cluster { number: 0 }));
    // What a policy rejects is not let in by that.
    assert!(!holds(&Op::Remove { peer: 0 }));
    holds(&Op::Up { peer: 5 });
    assert!(!holds(&Op::Cluster { number: 7 }));
    assert!(!holds(&announce(5, marked)));
    assert!(!holds(&Op::Cluster { number: 0 }));
    assert!(holds(&announce(5, plain)));
}

#[test]
fn a_peer_that_does_not_read_is_given_up_and_the_others_hold_all() {
    let mut world = World::new(0, bounds_tight(0, 2, 4, 3));
    for round in 0..40_u16 {
        let keys = vec![u8::try_from(round % 12).unwrap()];
        world.apply(&Op::Announce { peer: 0, keys: keys.clone(), attributes: round, id: 0 });
        world.apply(&Op::Flush);
        world.apply(&Op::Withdraw { peer: 0, keys, id: 0 });
        world.apply(&Op::Flush);
        world.apply(&Op::Read { peer: 2, pieces: 9 });
        world.apply(&Op::Up { peer: 4 });
    }
    assert!(world.too_slow > 0);
    world.settle();
    world.check();
}

fn op() -> impl Strategy<Value = Op> {
    let peer = 0..PEERS;
    let attributes = || any::<u16>();
    let keys = || proptest::collection::vec(0_u8..24, 1..6);
    prop_oneof![
        8 => (peer.clone(), keys(), attributes(), 0_u8..3)
            .prop_map(|(peer, keys, attributes, id)| Op::Announce { peer, keys, attributes, id }),
        4 => (peer.clone(), keys(), 0_u8..3)
            .prop_map(|(peer, keys, id)| Op::Withdraw { peer, keys, id }),
        2 => (0_u8..24, attributes()).prop_map(|(key, attributes)| Op::Originate { key, attributes }),
        1 => (0_u8..24).prop_map(|key| Op::WithdrawOurs { key }),
        4 => peer.clone().prop_map(|peer| Op::Up { peer }),
        1 => peer.clone().prop_map(|peer| Op::Remove { peer }),
        2 => (peer.clone(), 0_u8..8).prop_map(|(peer, keep)| Op::Lose { peer, keep }),
        1 => peer.clone().prop_map(|peer| Op::Sweep { peer }),
        6 => Just(Op::Flush),
        6 => (peer.clone(), 1_u8..4).prop_map(|(peer, pieces)| Op::Read { peer, pieces }),
        1 => peer.prop_map(|peer| Op::Refresh { peer }),
        1 => (0_u8..8, 0_u8..3).prop_map(|(hop, distance)| Op::Distance { hop, distance }),
        1 => (6_u8..9).prop_map(|number| Op::Cluster { number: number % 8 }),
    ]
}
