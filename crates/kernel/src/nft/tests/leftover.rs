//! What flannel left by `iptables` goes when ours is in its place, and nothing else does.

use russet_desired::{Flag, Item, LeftoverKey, LeftoverSpec, Patches};
use russet_net::Family;

use super::{in_netns, run};
use crate::nft::Nft;

#[test]
fn chains_and_the_rules_that_lead_to_them_go_once_and_the_rest_stays() {
    in_netns(|| {
        run("iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE");
        flannel();
        let mut driver = Nft::open().unwrap();
        driver.update(&mut wish());
        assert!(driver.apply().unwrap().is_empty());
        assert!(listing().contains("FLANNEL"), "not before everything is told");

        driver.complete();
        assert!(driver.apply().unwrap().is_empty());
        let left = listing();
        assert!(!left.contains("FLANNEL") && !left.contains("flanneld"), "{left}");
        assert!(left.contains("-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE"), "{left}");

        // Who makes them anew wants them.
        flannel();
        driver.resync().unwrap();
        assert!(driver.apply().unwrap().is_empty());
        assert!(listing().contains("FLANNEL-POSTRTG"));
    });
}

#[test]
fn a_table_of_flannel_s_own_goes_with_its_last_chain() {
    in_netns(|| {
        own_table("postrtg", "nat hook postrouting priority 100");
        own_table("forward", "filter hook forward priority 0");
        let mut driver = Nft::open().unwrap();
        driver.update(&mut wish());
        driver.complete();
        assert!(driver.apply().unwrap().is_empty());
        assert!(!run("nft list ruleset").contains("flannel-ipv4"));

        // What somebody else put there stays.
        own_table("postrtg", "nat hook postrouting priority 100");
        own_table("theirs", "filter hook input priority 0");
        let mut driver = Nft::open().unwrap();
        driver.update(&mut wish());
        driver.complete();
        assert!(driver.apply().unwrap().is_empty());
        let left = run("nft list ruleset");
        assert!(left.contains("chain theirs") && !left.contains("postrtg"), "{left}");
    });
}

/// As flanneld v0.28 has it with `EnableNFTables`.
fn own_table(chain: &str, hook: &str) {
    run("nft add table ip flannel-ipv4");
    run(&format!("nft add chain ip flannel-ipv4 {chain} {{ type {hook}; }}"));
    run(&format!("nft add rule ip flannel-ipv4 {chain} ip saddr 10.50.0.0/16 accept"));
}

#[test]
fn where_there_is_no_such_chain_nothing_is_refused() {
    in_netns(|| {
        let mut driver = Nft::open().unwrap();
        driver.update(&mut wish());
        driver.complete();
        assert!(driver.apply().unwrap().is_empty());
    });
}

/// As flanneld v0.20.2 has them.
fn flannel() {
    run("iptables-nft -t nat -N FLANNEL-POSTRTG");
    run("iptables-nft -t nat -A POSTROUTING -m comment --comment flanneld -j FLANNEL-POSTRTG");
    run(
        "iptables-nft -t nat -A FLANNEL-POSTRTG -s 10.50.0.0/16 ! -d 224.0.0.0/4 -m comment --comment flanneld \
         -j MASQUERADE --random-fully",
    );
    run("iptables-nft -N FLANNEL-FWD");
    run("iptables-nft -A FORWARD -m comment --comment flanneld -j FLANNEL-FWD");
    run("iptables-nft -A FLANNEL-FWD -s 10.50.0.0/16 -m comment --comment flanneld -j ACCEPT");
}

fn listing() -> String {
    run("iptables-nft -t nat -S") + &run("iptables-nft -S")
}

fn wish() -> Patches {
    let key = |table, chain| LeftoverKey { family: Family::V4, table, chain };
    let chain =
        |table, chain| Item::Leftover(key(table, chain), LeftoverSpec { with_table: Flag::Off });
    let own =
        |chain| Item::Leftover(key("flannel-ipv4", chain), LeftoverSpec { with_table: Flag::On });
    [
        chain("nat", "FLANNEL-POSTRTG"),
        chain("filter", "FLANNEL-FWD"),
        own("postrtg"),
        own("forward"),
    ]
    .into_iter()
    .collect()
}
