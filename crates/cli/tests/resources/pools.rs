//! Pools meet each other, and the addresses that were taken from them.

use std::thread;

use crate::{RESOURCES, on_both};

fn pool(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: {name}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn pools_that_overlap_are_refused_with_both_names_and_nothing_is_written() {
    on_both(|lab| {
        let both = pool("a", "cidr: 10.0.0.0/8") + &pool("b", "cidr: 10.9.0.0/16");
        let told = lab.refuses(&["apply", "-f", "-"], &both, 65);
        assert!(told.contains("standard input:12:14: IPPool b: spec.cidr: pool b (10.9.0.0/16) lies in pool a (10.0.0.0/8)"), "{told}");
        lab.apply(&pool("a", "cidr: 10.9.0.0/16"));
        let others = pool("other", "cidr: 172.16.0.0/16") + &pool("b", "cidr: 10.0.0.0/8");
        let told = lab.refuses(&["create", "-f", "-"], &others, 65);
        // The one that is there is no line of the file, so the other is marked.
        assert!(
            told.contains(
                "12:14: IPPool b: spec.cidr: pool a (10.9.0.0/16) lies in pool b (10.0.0.0/8)"
            ),
            "{told}"
        );
        assert_eq!(lab.says(&["get", "ipp", "-o", "name"]), "ippool/a\n");
        // What is told without a store is the same.
        assert!(lab.refuses(&["validate", "-f", "-"], &both, 65).contains("lies in pool"));
        let told = lab.refuses(&["patch", "ipp", "a", "-p", "{spec: {cidr: 10.10.0.0/33}}"], "", 1);
        assert!(told.contains("spec.cidr"), "{told}");
    });
}

#[test]
fn of_two_who_write_overlapping_pools_at_once_one_is_refused() {
    on_both(|lab| {
        for round in 0..4 {
            let (a, b) = (format!("a{round}"), format!("b{round}"));
            let manifests = [
                pool(&a, &format!("cidr: 10.{round}.0.0/16")),
                pool(&b, &format!("cidr: 10.{round}.64.0/18")),
            ];
            let worked = thread::scope(|scope| {
                let threads = manifests.each_ref().map(|manifest| {
                    scope.spawn(|| lab.run_with(&["apply", "-f", "-"], manifest).status.success())
                });
                threads.map(|thread| thread.join().unwrap())
            });
            assert_ne!(worked[0], worked[1], "round {round}");
        }
    });
}

#[test]
fn a_pool_in_use_keeps_its_place_and_its_blocks_and_is_not_deleted() {
    on_both(|lab| {
        lab.put_calico();
        let key = format!("{RESOURCES}ippools/default-ipv4-ippool");
        let before = lab.value(&key);
        let change = |spec| pool("default-ipv4-ippool", spec);
        let told =
            lab.refuses(&["apply", "-f", "-"], &change("cidr: 10.244.0.0/15, blockSize: 27"), 65);
        assert!(
            told.contains("10.244.0.0/16 has ") && told.contains("a pool in use keeps its cidr"),
            "{told}"
        );
        assert!(
            told.contains(
                "6:40: IPPool default-ipv4-ippool: spec.blockSize: blocks of /26 are there"
            ),
            "{told}"
        );
        let told = lab.refuses(
            &["patch", "ipp", "default-ipv4-ippool", "-p", "{spec: {blockSize: 28}}"],
            "",
            1,
        );
        assert!(told.contains("they keep their size"), "{told}");
        let told = lab.refuses(&["delete", "ipp", "default-ipv4-ippool"], "", 1);
        assert!(
            told.contains("its addresses are in use; --force") && told.contains("on node-1 ("),
            "{told}"
        );
        assert_eq!(lab.value(&key), before);
        // What the blocks do not mind.
        lab.apply(&change("cidr: 10.244.0.0/16, disabled: true"));
        lab.says(&["delete", "ipp", "default-ipv4-ippool", "--force"]);
        assert_eq!(lab.value(&key), "");
    });
}

#[test]
fn a_pool_whose_blocks_cannot_be_read_is_not_deleted() {
    on_both(|lab| {
        lab.apply(&pool("a", "cidr: 10.9.0.0/16"));
        lab.put("/calico/ipam/v2/assignment/ipv4/block/10.9.0.0-26", "{}");
        let told = lab.refuses(&["delete", "ipp", "a"], "", 1);
        assert!(told.contains("nobody knows who has its addresses"), "{told}");
        // Nor moved, nor cut up.
        for words in [
            &["patch", "ipp", "a", "-p", "{spec: {cidr: 10.8.0.0/16}}"][..],
            &["ipam", "split", "--name", "a", "2"],
        ] {
            let told = lab.refuses(words, "", 1);
            assert!(told.contains("nobody knows who has its addresses"), "{words:?}: {told}");
        }
        let told = lab.refuses(&["apply", "-f", "-"], &pool("a", "cidr: 10.8.0.0/16"), 1);
        assert!(told.contains("nobody knows who has its addresses"), "{told}");
        // What the blocks have no say in is not hindered by one.
        lab.apply(
            &(pool("a", "cidr: 10.9.0.0/16, natOutgoing: true") + &pool("b", "cidr: 10.7.0.0/16")),
        );
        lab.says(&["delete", "ipp", "a", "--force"]);
    });
}

/// Whoever claims blocks does it all the time; a pool that has none may be moved all the same.
#[test]
fn of_a_pool_that_moves_and_a_block_that_is_claimed_at_once_one_comes_too_late() {
    const CLAIM: &str = r#"{"cidr":"10.9.0.0/30","affinity":"host:n","allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":[],"deleted":false}"#;
    on_both(|lab| {
        lab.apply(&pool("a", "cidr: 10.9.0.0/16"));
        let key = "/calico/ipam/v2/assignment/ipv4/block/10.9.0.0-30";
        for round in 0..6 {
            let change = format!("{{spec: {{blockSize: {}}}}}", 27 + round % 2);
            let moved = thread::scope(|scope| {
                let moving = scope.spawn(|| lab.run(&["patch", "ipp", "a", "-p", &change]));
                lab.put(key, CLAIM);
                moving.join().unwrap().status.success()
            });
            let pool_s = revision(lab, &format!("{RESOURCES}ippools/a"));
            // It moved before the block was there, or not at all.
            assert!(!moved || pool_s < revision(lab, key), "round {round}");
            crate::etcdctl(&lab.address, &["del", key]);
        }
    });
}

fn revision(lab: &crate::Lab, key: &str) -> u64 {
    let fields = crate::etcdctl(&lab.address, &["get", key, "-w", "json"]);
    let fields: serde_json::Value = serde_json::from_str(&fields).unwrap();
    fields["kvs"][0]["mod_revision"].as_u64().unwrap()
}

#[test]
fn a_filter_that_decides_nothing_is_warned_of_and_strict_refuses_it() {
    on_both(|lab| {
        let filter = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: f}\nspec:\n  exportV4:\n  - cidr: 10.0.0.0/16\n    matchOperator: In\n    prefixLength: {min: 8, max: 12}\n    action: Accept\n";
        let told = lab.refuses(&["apply", "--strict", "-f", "-"], filter, 65);
        assert!(
            told.contains("6:5: BGPFilter f: spec.exportV4[0]: no route meets this rule"),
            "{told}"
        );
        let out = lab.run_with(&["apply", "-f", "-"], filter);
        assert!(out.status.success());
        assert!(
            crate::errors(&out).contains("6:5: warning: BGPFilter f: "),
            "{}",
            crate::errors(&out)
        );
    });
}
