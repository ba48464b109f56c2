//! What much costs: counted in messages, which is the same on every machine. The times are the bench's.

use std::{net::IpAddr, time::Instant};

use russet_desired::Item;
use russet_kernel::{
    netlink::{Batch, Protocol, Socket, flags},
    reconcile::Path,
};

use crate::{drivers::counts, support::*};

#[test]
fn ten_thousand_remote_nodes_cost_one_message_for_each_object() {
    on_a_node(|| {
        let mut all = settled(overlay(0));
        let patches = overlay(10_000);
        let start = Instant::now();
        let sent = messages(&mut all, |all| {
            all.update(patches);
            println!("taken: {:?}", start.elapsed());
            apply(all);
        });
        println!("made: {:?}", start.elapsed());
        assert_eq!(counts(), (10_000, 10_000, 10_000, 10_000));
        assert_eq!(sent, 40_000);

        let start = Instant::now();
        let sent = messages(&mut all, |all| {
            all.update(wish(remote(10_000)));
            apply(all);
        });
        println!("one more: {:?}", start.elapsed());
        assert_eq!(sent, 4);

        let start = Instant::now();
        let sent = messages(&mut all, |all| {
            all.mark_stale(Path::Sweep);
            apply(all);
        });
        println!("read back: {:?}", start.elapsed());
        assert!(sent < 20, "{sent} messages");

        let start = Instant::now();
        let keys = (0..10_001).flat_map(remote).map(|item: Item| item.key());
        let sent = messages(&mut all, |all| {
            all.update(no_longer(keys));
            apply(all);
        });
        println!("removed: {:?}", start.elapsed());
        assert_eq!(sent, 40_004);
        assert_eq!(counts(), (0, 0, 0, 0));
    });
}

/// The same state by nothing but its messages, written once and sent in order: what the bench compares with.
#[test]
fn the_cheapest_messages_reach_the_same_state() {
    on_a_node(|| {
        let _links = settled(overlay(0));
        let index = links_index("flannel.1");
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let start = Instant::now();
        let mut batch = Batch::new();
        for n in 0..10_000 {
            cheapest(&mut batch, n, index);
        }
        let outcomes = socket.batch(&mut batch).unwrap();
        println!("cheapest: {:?}", start.elapsed());
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(counts(), (10_000, 10_000, 10_000, 10_000));
    });
}

fn links_index(link: &str) -> u32 {
    let index = json("ip", &format!("link show dev {link}"))[0]["ifindex"].as_u64().unwrap();
    u32::try_from(index).unwrap()
}

/// Neighbour, FDB entry, next hop and route of one remote node.
fn cheapest(batch: &mut Batch, n: u16, index: u32) {
    let [hi, lo] = n.to_be_bytes();
    let via: IpAddr = [10, 128 + hi, lo, 0].into();
    let mac = [2, 1, 0, 0, hi, lo];
    let index = index.to_ne_bytes();
    let neigh = |family: u8, flags: u8| {
        let mut header = [family, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, flags, 0];
        header[4..8].copy_from_slice(&index);
        header
    };
    let id = 0x5200_0001 + u32::from(n);
    let make = flags::CREATE | flags::EXCL;
    batch.push(28, make, &neigh(2, 0)).ip(1, via).bytes(2, &mac);
    batch.push(28, make, &neigh(7, 2)).bytes(2, &mac).ip(1, [192, 168, 78 + hi, lo].into());
    batch.push(104, make, &[2, 0, 82, 0, 4, 0, 0, 0]).u32(1, id).bytes(5, &index).ip(6, via);
    batch.push(24, make, &[2, 24, 0, 0, 254, 82, 0, 1, 0, 0, 0, 0]).ip(1, via).u32(30, id);
}
