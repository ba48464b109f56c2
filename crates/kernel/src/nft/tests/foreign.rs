//! Chains of others that drop, and our rules in them.

use std::process::Command;

use russet_net::Prefix;

use super::{
    in_netns, nft, run,
    wishes::{FORWARD, accept, apply, fulfil, patches, without},
};
use crate::{
    nft::{
        DroppingChain, ForeignFamily, Nft, Why,
        expr::{Code, Expr},
        kernel::Kernel,
        number::{NFPROTO_IPV4, NFT_TABLE_F_OWNER},
        object::{self, TableRef},
    },
    reconcile::DriftKind,
};

/// What Docker does to the forward chain of `iptables`.
const DOCKER: &str = "iptables-nft -P FORWARD DROP";

/// firewalld's shape: accepts by policy and rejects at the end.
const FIREWALLD: &str = r#"
table inet firewalld {
    chain filter_FORWARD_IN_ZONES { }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        jump filter_FORWARD_IN_ZONES
        ct state invalid drop
        reject with icmpx admin-prohibited
    }
}
"#;

fn dropping(nft: &mut Nft) -> Vec<(String, Why)> {
    nft.resync().unwrap();
    nft.dropping_chains().into_iter().map(|chain| (chain.to_string(), chain.why)).collect()
}

#[test]
fn every_forward_chain_that_drops_is_named_with_its_reason() {
    in_netns(|| {
        let mut driver = Nft::open().unwrap();
        assert_eq!(dropping(&mut driver), []);
        run(DOCKER);
        nft(FIREWALLD);
        nft(r"
table ip6 strict {
    chain last { counter drop; }
    chain first { tcp dport 22 accept; }
    chain forward {
        type filter hook forward priority 5; policy accept;
        jump first
        counter jump last
    }
}
table inet loose {
    chain forward {
        type filter hook forward priority 7; policy drop;
        ct state new accept
        accept
    }
    chain input {
        type filter hook input priority 7; policy drop;
    }
}
table arp filter {
    chain input {
        type filter hook input priority 0; policy drop;
    }
}
table bridge filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
    }
}
");
        assert_eq!(
            dropping(&mut driver),
            [
                ("ip filter FORWARD".to_owned(), Why::Policy),
                ("inet firewalld filter_FORWARD".to_owned(), Why::Rule),
                ("ip6 strict forward".to_owned(), Why::Chain("last".to_owned())),
            ]
        );
    });
}

#[test]
fn a_reject_of_iptables_at_the_end_is_seen() {
    in_netns(|| {
        run("iptables-nft -A FORWARD -m comment --comment hello -j REJECT");
        run("ip6tables-nft -A FORWARD -p tcp -j REJECT");
        let mut driver = Nft::open().unwrap();
        assert_eq!(dropping(&mut driver), [("ip filter FORWARD".to_owned(), Why::Rule)]);
    });
}

#[test]
fn iptables_lists_our_rules_behind_the_operators_own_drop() {
    in_netns(|| {
        run(DOCKER);
        run("iptables-nft -A FORWARD -i eth0 -j DROP");
        let mut driver = Nft::open().unwrap();
        fulfil(&mut driver, patches([accept("10.50.0.0/16"), accept("fd00:50::/48")]));
        let listing = run("iptables-nft -S FORWARD");
        let mut lines: Vec<_> = listing.lines().collect();
        lines[2..4].sort_unstable();
        assert_eq!(
            lines,
            [
                "-P FORWARD DROP",
                "-A FORWARD -i eth0 -j DROP",
                "-A FORWARD -d 10.50.0.0/16 -m comment --comment \"russet forward\" -j ACCEPT",
                "-A FORWARD -s 10.50.0.0/16 -m comment --comment \"russet forward\" -j ACCEPT",
            ]
        );
    });
}

#[test]
fn the_rules_come_back_and_go_when_they_are_no_longer_wished() {
    in_netns(|| {
        run(DOCKER);
        nft(FIREWALLD);
        let foreign = run("nft list ruleset");
        let mut driver = Nft::open().unwrap();
        driver.complete();
        let wishes = || patches([accept("10.50.0.0/16"), accept("fd00:50::/48")]);
        fulfil(&mut driver, wishes());
        let right = run("nft list ruleset");
        assert_eq!(right.matches("comment \"russet forward\"").count(), 2 + 4, "{right}");

        assert_eq!(driver.take_repaired(), []);
        run("iptables-nft -F FORWARD");
        driver.resync().unwrap();
        fulfil(&mut driver, wishes());
        assert_eq!(run("nft list ruleset"), right);
        let key = accept("10.50.0.0/16").key();
        assert_eq!(driver.take_repaired(), [(key, DriftKind::Gone)]);
        fulfil(&mut driver, wishes());
        assert_eq!(run("nft list ruleset"), right, "no rule is put in twice");

        let prefixes = ["10.50.0.0/16", "fd00:50::/48"].map(|text| accept(text).key());
        fulfil(&mut driver, without(prefixes));
        assert_eq!(run("nft list ruleset"), foreign, "nothing of ours is left");
    });
}

#[test]
fn a_predecessors_rules_stay_until_all_is_told() {
    in_netns(|| {
        run(DOCKER);
        let mut first = Nft::open().unwrap();
        fulfil(&mut first, patches([accept("10.50.0.0/16")]));
        drop(first);

        let mut second = Nft::open().unwrap();
        fulfil(&mut second, patches([accept("10.60.0.0/16")]));
        assert_eq!(run("iptables-nft -S FORWARD").matches("russet forward").count(), 4);
        second.complete();
        fulfil(&mut second, patches([]));
        let listing = run("iptables-nft -S FORWARD");
        assert!(!listing.contains("10.50.0.0/16"), "{listing}");
        assert!(listing.contains("10.60.0.0/16"), "{listing}");
    });
}

#[test]
fn a_chain_that_drops_no_more_loses_our_rules() {
    in_netns(|| {
        run(DOCKER);
        let mut driver = Nft::open().unwrap();
        driver.complete();
        fulfil(&mut driver, patches([accept("10.50.0.0/16")]));
        run("iptables-nft -P FORWARD ACCEPT");
        driver.resync().unwrap();
        fulfil(&mut driver, patches([]));
        assert_eq!(run("iptables-nft -S FORWARD"), "-P FORWARD ACCEPT\n");
    });
}

#[test]
fn an_altered_rule_with_our_comment_is_replaced() {
    in_netns(|| {
        run(DOCKER);
        let mut driver = Nft::open().unwrap();
        driver.complete();
        fulfil(&mut driver, patches([accept("10.50.0.0/16")]));
        nft("insert rule ip filter FORWARD ip saddr 10.9.0.0/16 accept comment \"russet forward\"");
        driver.resync().unwrap();
        fulfil(&mut driver, patches([]));
        let listing = run("iptables-nft -S FORWARD");
        assert!(!listing.contains("10.9.0.0/16"), "{listing}");
        assert_eq!(listing.matches("russet forward").count(), 2);
    });
}

#[test]
fn a_table_that_another_process_owns_is_named_and_holds_back_no_other() {
    in_netns(|| {
        run(DOCKER);
        let mut owner = Kernel::open().unwrap();
        let table = TableRef { family: NFPROTO_IPV4, name: "owned" };
        let drop = [Expr::Verdict(Code::Drop)];
        owner
            .change("make", "an owned table", |batch| {
                object::new_table(batch, table, NFT_TABLE_F_OWNER);
                object::new_chain(batch, table, "fwd", Some(FORWARD));
                object::append_rule(batch, table, "fwd", &drop);
            })
            .unwrap();

        let mut driver = Nft::open().unwrap();
        let refused = apply(&mut driver, patches([accept("10.50.0.0/16")]));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].key, Some(accept("10.50.0.0/16").key()));
        let text = refused[0].error.to_string();
        assert!(text.contains("ip owned fwd: held by the owner of its table"), "{text}");
        assert!(run("iptables-nft -S FORWARD").contains("-s 10.50.0.0/16"));
        let owned = driver.dropping_chains().into_iter().find(|chain| chain.table == "owned");
        assert!(matches!(
            owned,
            Some(DroppingChain { family: ForeignFamily::Ip, why: Why::Rule, owner: Some(_), .. })
        ));
    });
}

#[test]
fn any_length_of_prefix_can_be_listed_by_iptables() {
    in_netns(|| {
        run("iptables-nft -P FORWARD DROP");
        run("ip6tables-nft -P FORWARD DROP");
        let mut driver = Nft::open().unwrap();
        let v4 = (1..=32).map(|len| Prefix::around([172, 31, 255, 255].into(), len).unwrap());
        let v6 = (1..=128)
            .step_by(3)
            .map(|len| Prefix::around("fd00:50:ffff::ffff".parse().unwrap(), len).unwrap());
        let all: Vec<_> = v4.chain(v6).collect();
        fulfil(&mut driver, patches(all.iter().map(|prefix| accept(&prefix.to_string()))));
        let listing = [run("iptables-nft -S FORWARD"), run("ip6tables-nft -S FORWARD")].concat();
        for prefix in all {
            for side in ["-s", "-d"] {
                assert!(
                    listing.contains(&format!("{side} {prefix} ")),
                    "{side} {prefix}\n{listing}"
                );
            }
        }
    });
}

/// As Felix v3.28.5 has them, by `iptables` and in a table of its own.
#[test]
fn what_felix_left_is_named_and_nothing_is_put_before_it() {
    in_netns(|| {
        run("iptables-nft -N cali-FORWARD");
        run("iptables-nft -N cali-from-wl-dispatch");
        run(
            "iptables-nft -A cali-from-wl-dispatch -m comment --comment cali:zTj6P0TIgYvgz-md -j DROP",
        );
        run(
            "iptables-nft -A cali-FORWARD -m comment --comment cali:8ZoYfO5HKXWbB3pk -i cali+ -j cali-from-wl-dispatch",
        );
        run("iptables-nft -I FORWARD -m comment --comment cali:wUHhoiAYhphO9Mso -j cali-FORWARD");
        run("nft add table ip6 calico");
        run("nft add chain ip6 calico filter-cali-FORWARD");
        run("nft add chain ip6 calico filter-FORWARD { type filter hook forward priority 0; }");
        run("nft add rule ip6 calico filter-FORWARD counter jump filter-cali-FORWARD");
        let mut driver = Nft::open().unwrap();
        let by_iptables = [("ip filter FORWARD".to_owned(), Why::Felix)];
        assert_eq!(dropping(&mut driver), by_iptables, "an empty chain drops nothing");
        run("nft add rule ip6 calico filter-cali-FORWARD iifname cali* drop");
        let foreign = run("iptables-nft -S");
        let named = dropping(&mut driver);
        assert_eq!(
            named,
            [
                ("ip filter FORWARD".to_owned(), Why::Felix),
                ("ip6 calico filter-FORWARD".to_owned(), Why::Felix)
            ]
        );
        driver.complete();
        fulfil(&mut driver, patches([accept("10.50.0.0/16"), accept("fd00:50::/64")]));
        assert_eq!(run("iptables-nft -S"), foreign);
        // What `migrate check` advises, to the letter.
        let advised = "iptables-nft-save | grep -v -e ^:cali- -e cali: | iptables-nft-restore";
        assert!(Command::new("sh").args(["-c", advised]).status().unwrap().success());
        run("nft delete table ip6 calico");
        assert_eq!(dropping(&mut driver), []);
    });
}

#[test]
fn what_felix_left_takes_nothing_from_who_drops_beside_it() {
    in_netns(|| {
        run("iptables-nft -N cali-FORWARD");
        run("iptables-nft -A cali-FORWARD -i cali+ -j DROP");
        run("iptables-nft -I FORWARD -j cali-FORWARD");
        run(DOCKER);
        let mut driver = Nft::open().unwrap();
        driver.complete();
        fulfil(&mut driver, patches([accept("10.50.0.0/16")]));
        let named = dropping(&mut driver);
        let chain = || "ip filter FORWARD".to_owned();
        assert_eq!(named, [(chain(), Why::Policy), (chain(), Why::Felix)]);
        // Behind Felix' rules, as behind everybody's.
        let listing = run("iptables-nft -S FORWARD");
        let (felix, ours) = (listing.find("cali-FORWARD"), listing.find("russet forward"));
        assert!(felix.is_some() && felix < ours, "{listing}");
    });
}
