//! Our tables: what is made of wishes, who may touch it, and what of it survives.

use std::time::{Duration, Instant};

use russet_desired::{
    BaseChain, ChainSpec, ChainType, Field, Flag, Hook, Item, Key, Match, Rule, SetKind, Verdict,
};
use russet_net::Family;

use super::{
    in_netns, nft, run, try_run,
    wishes::{
        FORWARD, MASQUERADE, apply, chain, element, fulfil, in_set, masquerade, pair, patches, set,
        within, without,
    },
};
use crate::nft::{Monitor, Nft, Ownership, Refused};

fn node() -> Vec<Item> {
    let mut items: Vec<_> = Family::BOTH.into_iter().flat_map(masquerade).collect();
    items.extend([element("networks", "10.50.0.0/16"), element("subnets", "10.50.7.0/24")]);
    items.extend([element("networks", "fd00:50::/48"), element("subnets", "fd00:50:0:7::/64")]);
    items
}

/// What `nft` lists of our table, without the headings that depend on its version.
fn listing(family: &str) -> String {
    run(&format!("nft -nn list table {family} russet"))
}

#[test]
fn nft_shows_the_six_rules_as_an_operator_would_write_them() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        fulfil(&mut nft, patches(node()));
        assert_eq!(
            rules_of(&listing("ip")),
            [
                "meta mark & 0x00004000 == 0x00004000 return",
                "ip saddr @subnets ip daddr @networks return",
                "ip saddr @networks ip daddr @subnets return",
                "ip saddr != @networks ip daddr @subnets return",
                "ip saddr @networks ip daddr != 224.0.0.0/4 masquerade fully-random",
                "ip saddr != @networks ip daddr @networks masquerade fully-random",
            ]
        );
        assert!(listing("ip").contains("type nat hook postrouting priority 100; policy accept;"));
        assert!(listing("ip").contains("elements = { 10.50.0.0/16 }"), "{}", listing("ip"));
        assert!(listing("ip6").contains("ip6 saddr @networks ip6 daddr != ff00::/8 masquerade"));
        assert!(listing("ip6").contains("elements = { fd00:50:0:7::/64 }"), "{}", listing("ip6"));
    });
}

fn rules_of(listing: &str) -> Vec<String> {
    let chain = listing.split("chain postrouting").nth(1).unwrap();
    let lines = chain.lines().map(str::trim);
    lines.skip(2).take_while(|line| *line != "}").map(str::to_owned).collect()
}

#[test]
fn every_kind_of_match_and_verdict_is_as_nft_would_show_it() {
    in_netns(|| {
        let rule = |matches: Vec<Match>, verdict| Rule { matches, verdict };
        let link = |negate| Match::InputLink { name: "rst-cni0".parse().unwrap(), negate };
        let rules = vec![
            rule(vec![link(Flag::Off)], Verdict::Accept),
            rule(
                vec![link(Flag::On), within(Field::Source, "10.0.0.0/8", Flag::Off)],
                Verdict::Drop,
            ),
            rule(vec![within(Field::Destination, "192.0.2.7/32", Flag::On)], Verdict::Return),
            rule(vec![Match::Mark { mask: u32::MAX, value: 7 }], Verdict::Accept),
            rule(vec![in_set(Field::Source, "pods", Flag::Off)], Verdict::Drop),
            rule(vec![], Verdict::Return),
        ];
        let mut nft = Nft::open().unwrap();
        fulfil(
            &mut nft,
            patches([
                set(Family::V4, "pods", SetKind::Addresses),
                element("pods", "10.50.7.2/32"),
                chain(Family::V4, "forward", ChainSpec { base: Some(FORWARD), rules }),
            ]),
        );
        let listing = listing("ip");
        for line in [
            "iifname \"rst-cni0\" accept",
            "iifname != \"rst-cni0\" ip saddr 10.0.0.0/8 drop",
            "ip daddr != 192.0.2.7 return",
            "meta mark 0x00000007 accept",
            "ip saddr @pods drop",
            "elements = { 10.50.7.2 }",
            "type filter hook forward priority 0; policy accept;",
        ] {
            assert!(listing.contains(line), "{line}\n{listing}");
        }
    });
}

#[test]
fn a_packet_whose_source_is_not_behind_its_link_is_known_by_the_routes() {
    in_netns(|| {
        let base = BaseChain { kind: ChainType::Filter, hook: Hook::Prerouting, priority: -300 };
        let rules = || {
            let matches = vec![Match::InputLinkStarts("rst"), Match::Misplaced];
            vec![Rule { matches, verdict: Verdict::Drop }]
        };
        let wish = || {
            let spec = |_| ChainSpec { base: Some(base), rules: rules() };
            patches(Family::BOTH.map(|family| chain(family, "spoofed", spec(family))))
        };
        let mut nft = Nft::open().unwrap();
        fulfil(&mut nft, wish());
        nft.complete();
        fulfil(&mut nft, patches([]));
        for family in ["ip", "ip6"] {
            let listing = listing(family);
            // `missing`, were it not for the numbers.
            let line = "iifname \"rst*\" fib saddr . iif oif 0 drop";
            assert!(listing.contains(line), "{listing}");
        }
        // What is read back is known for what was written.
        let mut monitor = Monitor::open(0).unwrap();
        nft.resync().unwrap();
        fulfil(&mut nft, wish());
        assert!(!monitor.drain().unwrap());
    });
}

#[test]
fn pairs_of_a_link_and_a_prefix_are_looked_up_as_nft_would() {
    in_netns(|| {
        let wish = |second: &str| {
            let test = Match::InputLinkAndSource { set: "pairs", negate: Flag::On };
            let rule = Rule { matches: vec![test], verdict: Verdict::Drop };
            let spec = ChainSpec { base: Some(FORWARD), rules: vec![rule] };
            patches([
                set(Family::V4, "pairs", SetKind::LinkPrefixes),
                set(Family::V6, "pairs", SetKind::LinkPrefixes),
                pair("pairs", "rst0", "192.0.2.0/24"),
                pair("pairs", "rst0", second),
                pair("pairs", "rst1", "192.0.2.0/25"),
                pair("pairs", "rst1", "2001:db8::/64"),
                chain(Family::V4, "forward", spec),
            ])
        };
        let mut nft = Nft::open().unwrap();
        nft.complete();
        fulfil(&mut nft, wish("198.51.100.7/32"));
        let text = listing("ip");
        for part in [
            "type ifname . ipv4_addr",
            "flags interval",
            "\"rst0\" . 192.0.2.0/24",
            "\"rst0\" . 198.51.100.7",
            "\"rst1\" . 192.0.2.0/25",
            "iifname . ip saddr != @pairs drop",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(listing("ip6").contains("\"rst1\" . 2001:db8::/64"));
        // What is read back is known for what was written; what lies in another is not sent.
        let mut monitor = Monitor::open(0).unwrap();
        nft.resync().unwrap();
        fulfil(&mut nft, wish("192.0.2.128/26"));
        assert!(!listing("ip").contains("192.0.2.128"));
        monitor.drain().unwrap();
        nft.resync().unwrap();
        fulfil(&mut nft, wish("192.0.2.128/26"));
        assert!(!monitor.drain().unwrap());
    });
}

#[test]
fn what_is_right_is_not_sent_again() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        fulfil(&mut nft, patches(node()));
        nft.complete();
        fulfil(&mut nft, patches([]));
        // It takes every transaction for somebody else's.
        let mut monitor = Monitor::open(0).unwrap();
        nft.resync().unwrap();
        fulfil(&mut nft, patches(node()));
        assert!(!monitor.drain().unwrap());
        fulfil(&mut nft, patches([element("networks", "10.60.0.0/16")]));
        assert!(monitor.drain().unwrap());
    });
}

#[test]
fn a_restarted_agent_takes_its_tables_over_and_they_stay_in_between() {
    in_netns(|| {
        let mut first = Nft::open().unwrap();
        fulfil(&mut first, patches(node()));
        assert_eq!(first.ownership(Family::V4), Ownership::Exclusive);
        let before = listing("ip");
        drop(first);
        assert_eq!(
            without_owner(&listing("ip")),
            without_owner(&before),
            "it stays when its owner goes"
        );

        let mut second = Nft::open().unwrap();
        second.complete();
        fulfil(&mut second, patches(node()));
        assert_eq!(listing("ip"), before, "the owner's mark is back");
        assert_eq!(second.ownership(Family::V4), Ownership::Exclusive);
        let (done, _) = try_run("nft add rule ip russet postrouting drop");
        assert!(!done, "nobody else may change it");
    });
}

fn without_owner(listing: &str) -> String {
    let lines = listing.lines().filter(|line| !matches!(line.trim(), "flags" | "flags owner"));
    lines.filter(|line| !line.starts_with("table ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_owned_table_outlives_a_strangers_flush() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        fulfil(&mut nft, patches(node()));
        let before = listing("ip");
        run("nft add table inet theirs");
        run("nft flush ruleset");
        assert_eq!(listing("ip"), before);
        assert!(!try_run("nft list table inet theirs").0, "the flush was real");
    });
}

#[test]
fn a_second_agent_is_told_that_the_table_is_held() {
    in_netns(|| {
        let mut first = Nft::open().unwrap();
        fulfil(&mut first, patches(node()));
        let mut second = Nft::open().unwrap();
        let refused = apply(&mut second, patches([element("networks", "10.60.0.0/16")]));
        let is_held =
            |refused: &&Refused| refused.error.to_string().contains("the owner of its table");
        assert_eq!(refused.iter().filter(is_held).count(), 2, "neither table: {refused:?}");
        let refused = apply(&mut second, patches([set(Family::V4, "networks", SetKind::Prefixes)]));
        let key = element("networks", "10.60.0.0/16").key();
        let refused = refused.iter().find(|refused| refused.key.as_ref() == Some(&key)).unwrap();
        assert!(refused.error.is_foreign(), "{refused:?}");
    });
}

#[test]
fn tampering_is_undone_after_a_resync() {
    in_netns(|| {
        drop_ownership();
        let mut nft = Nft::open().unwrap();
        nft.complete();
        fulfil(&mut nft, patches(node()));
        assert_eq!(nft.ownership(Family::V4), Ownership::Shared);
        let right = listing("ip");
        for tampering in [
            "nft add rule ip russet postrouting counter drop",
            "nft insert rule ip russet postrouting ip saddr 10.0.0.1 accept",
            "nft flush chain ip russet postrouting",
            "nft add element ip russet networks { 10.99.0.5-10.99.0.9 }",
            "nft delete element ip russet networks { 10.50.0.0/16 }",
            "nft add table ip russet { flags dormant; }",
            "nft flush table ip russet",
            "nft add chain ip russet stranger { type filter hook input priority 0; policy drop; }",
            "nft add set ip russet stranger { type inet_service; }",
            "nft chain ip russet postrouting { policy drop; }",
            "nft flush ruleset",
        ] {
            run_nft(tampering);
            assert_ne!(sorted(&listing_or_none()), sorted(&right), "{tampering}");
            nft.resync().unwrap();
            fulfil(&mut nft, patches([]));
            assert_eq!(sorted(&listing("ip")), sorted(&right), "{tampering}");
        }
    });
}

/// The order in which chains and sets were made is not ours to keep.
fn sorted(listing: &str) -> Vec<String> {
    let listing = without_owner(listing);
    let mut lines: Vec<_> =
        listing.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn listing_or_none() -> String {
    try_run("nft -nn list table ip russet").1
}

fn run_nft(command: &str) {
    nft(command.strip_prefix("nft ").unwrap());
}

/// Somebody made our tables without an owner, so they cannot be claimed.
fn drop_ownership() {
    run("nft add table ip russet");
    run("nft add table ip6 russet");
}

#[test]
fn nothing_is_removed_before_all_is_told() {
    in_netns(|| {
        let mut first = Nft::open().unwrap();
        fulfil(&mut first, patches(node()));
        drop(first);

        let mut second = Nft::open().unwrap();
        fulfil(&mut second, patches([set(Family::V4, "networks", SetKind::Prefixes)]));
        fulfil(&mut second, patches([element("networks", "10.60.0.0/16")]));
        assert!(listing("ip").contains("10.50.0.0/16"), "{}", listing("ip"));
        assert!(listing("ip").contains("chain postrouting"));

        second.complete();
        fulfil(&mut second, patches([]));
        assert!(!listing("ip").contains("10.50.0.0/16"), "{}", listing("ip"));
        assert!(!listing("ip").contains("chain postrouting"));
        assert!(listing("ip").contains("10.60.0.0/16"));
    });
}

#[test]
fn one_bad_object_holds_back_no_other() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        let lost = in_set(Field::Source, "nowhere", Flag::Off);
        let rules = vec![Rule { matches: vec![lost], verdict: Verdict::Drop }];
        let bad = chain(Family::V4, "bad", ChainSpec { base: Some(FORWARD), rules });
        // Masquerade has no place in a forward chain.
        let rules = vec![Rule { matches: vec![], verdict: MASQUERADE }];
        let worse = chain(Family::V4, "worse", ChainSpec { base: Some(FORWARD), rules });
        let mut items = node();
        let keys = [bad.key(), worse.key()];
        items.extend([bad, worse, element("networks", "10.60.0.0/16")]);

        let refused = apply(&mut nft, patches(items));
        let names: Vec<_> = refused.iter().filter_map(|r| r.key.clone()).collect();
        assert!(keys.iter().all(|key| names.contains(key)), "{refused:?}");
        assert!(refused.iter().all(|r| keys.contains(r.key.as_ref().unwrap())), "{refused:?}");
        assert!(listing("ip").contains("10.60.0.0/16"));
        assert!(listing("ip").contains("chain postrouting"));
        assert!(!listing("ip").contains("bad"), "{}", listing("ip"));

        assert_eq!(apply(&mut nft, patches([])).len(), refused.len(), "it stays pending");
        fulfil(&mut nft, without(keys));
    });
}

#[test]
fn an_element_that_no_set_can_take_is_named() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        let wide = element("pods", "10.50.0.0/16");
        let key = wide.key();
        let good = element("pods", "10.50.7.2/32");
        let refused =
            apply(&mut nft, patches([set(Family::V4, "pods", SetKind::Addresses), wide, good]));
        assert_eq!(refused.iter().map(|r| r.key.clone()).collect::<Vec<_>>(), [Some(key)]);
        assert!(listing("ip").contains("10.50.7.2"));
    });
}

#[test]
fn a_set_whose_kind_changes_is_made_anew_under_its_rules() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        fulfil(&mut nft, patches(node()));
        fulfil(
            &mut nft,
            patches([
                set(Family::V4, "subnets", SetKind::Addresses),
                element("subnets", "10.50.7.9/32"),
            ]),
        );
        panic_unless(listing("ip").contains("10.50.7.9"));
        panic_unless(rules_of(&listing("ip")).len() == 6);
    });
}

fn panic_unless(holds: bool) {
    assert!(holds, "{}", listing("ip"));
}

#[test]
fn prefixes_at_the_edges_and_in_each_other_are_kept() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        nft.complete();
        let v4 = ["0.0.0.0/4", "16.0.0.0/4", "10.0.0.0/8", "240.0.0.0/4", "255.255.255.255/32"];
        let v6 = ["::/0", "fd00::/8", "ffff::/16"];
        let mut items: Vec<_> =
            Family::BOTH.map(|family| set(family, "nets", SetKind::Prefixes)).into();
        items.extend(v4.iter().chain(&v6).map(|text| element("nets", text)));
        fulfil(&mut nft, patches(items));
        for text in ["0.0.0.0", "9.9.9.9", "255.255.255.255", "31.255.255.255"] {
            run(&format!("nft get element ip russet nets {{ {text} }}"));
        }
        assert!(!try_run("nft get element ip russet nets { 32.0.0.0 }").0);
        run("nft get element ip6 russet nets { ffff::1 }");

        // When the wide one goes, the narrow ones that it covered take its place.
        nft.resync().unwrap();
        let wide = [element("nets", "::/0").key(), element("nets", "0.0.0.0/4").key()];
        fulfil(&mut nft, without(wide));
        nft.resync().unwrap();
        fulfil(&mut nft, patches([]));
        run("nft get element ip russet nets { 10.255.255.255 }");
        run("nft get element ip6 russet nets { fd12::1 }");
        assert!(!try_run("nft get element ip russet nets { 9.9.9.9 }").0);
        assert!(!try_run("nft get element ip6 russet nets { 2001:db8::1 }").0);
    });
}

#[test]
fn ten_thousand_elements_come_and_go() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        nft.complete();
        let all = || {
            (0..10_000_u32).map(|n| {
                element("pods", &format!("10.{}.{}.{}/32", 1 + n / 65_536, n / 256 % 256, n % 256))
            })
        };
        let mut items: Vec<_> = all().collect();
        items.push(set(Family::V4, "pods", SetKind::Addresses));
        fulfil(&mut nft, patches(items));
        assert_eq!(count(&nft_json("set ip russet pods")), 10_000);

        fulfil(&mut nft, without(all().skip(10).map(|item| item.key())));
        assert_eq!(count(&nft_json("set ip russet pods")), 10);
    });
}

fn nft_json(what: &str) -> String {
    run(&format!("nft -j list {what}"))
}

fn count(json: &str) -> usize {
    json.matches("\"10.").count()
}

#[test]
fn the_monitor_tells_of_others_and_not_of_us() {
    in_netns(|| {
        drop_ownership();
        let mut nft = Nft::open().unwrap();
        let mut monitor = nft.monitor().unwrap();
        fulfil(&mut nft, patches(node()));
        fulfil(&mut nft, patches([element("networks", "10.60.0.0/16")]));
        assert!(!monitor.drain().unwrap(), "our own transactions are no news");

        run("nft delete element ip russet networks { 10.60.0.0/16 }");
        assert!(eventually(|| monitor.drain().unwrap()), "an element of ours was taken");

        nft.resync().unwrap();
        fulfil(&mut nft, patches([]));
        assert!(!monitor.drain().unwrap(), "the repair is ours");

        run("nft add table inet theirs");
        run("nft add set inet theirs bans { type ipv4_addr; }");
        assert!(
            eventually(|| monitor.drain().unwrap()),
            "a foreign table may hold a forward chain"
        );
        run("nft add element inet theirs bans { 192.0.2.1 }");
        assert!(!monitor.drain().unwrap(), "a foreign set decides nothing of ours");
    });
}

fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if holds() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn a_key_is_named_in_its_refusal() {
    in_netns(|| {
        let mut nft = Nft::open().unwrap();
        let refused = apply(&mut nft, patches([element("nowhere", "10.0.0.0/8")]));
        assert!(matches!(refused[0].key, Some(Key::Element(_))));
        assert_eq!(
            refused[0].error.to_string(),
            "add element ip russet @nowhere 10.0.0.0/8: the set is missing"
        );
    });
}
