//! What much costs: counted in messages, which is the same on every machine. The times are the bench's.

use std::time::Instant;

use russet_desired::Item;
use russet_kernel::reconcile::{Path, Reconcilers};

use crate::{drivers::counts, support::*};

#[test]
fn ten_thousand_remote_nodes_cost_one_message_for_each_object() {
    on_a_node(|| {
        let mut all = Reconcilers::open().unwrap();
        let patches = overlay(10_000);
        let start = Instant::now();
        let sent = messages(&mut all, |all| {
            all.update(patches);
            all.complete();
            apply(all);
        });
        println!("made: {:?}", start.elapsed());
        assert_eq!(counts(), (10_000, 10_000, 10_000, 10_000));
        assert!(sent < 40_000 + 50, "{sent} messages");

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
