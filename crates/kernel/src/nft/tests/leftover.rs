//! What flannel left by `iptables` goes when ours is in its place, and nothing else does.

use russet_desired::{Item, LeftoverKey, LeftoverSpec, Patches};
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
    [key("nat", "FLANNEL-POSTRTG"), key("filter", "FLANNEL-FWD")]
        .into_iter()
        .map(|key| Item::Leftover(key, LeftoverSpec))
        .collect()
}
