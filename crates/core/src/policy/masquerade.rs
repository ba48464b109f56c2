//! Packets that leave the network take the node's address.
//!
//! flannel's six rules (N = network, P = this node's subnet), as it has them for iptables; its nftables
//! form is not the same and wrong. The rules stand still: N and P are sets.
//!
//! ```text
//!   1  mark 0x4000/0x4000        return       somebody else has decided
//!   2  P to N                    return       inside the network addresses are true
//!   3  N to P                    return
//!   4  not N to P                return       a client's address is not hidden from our own pods
//!   5  N to not multicast        masquerade   out of the network
//!   6  not N to N                masquerade   a client on its way to a pod of another node
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use russet_desired::{
    BaseChain, ChainKey, ChainSpec, ChainType, ElementKey, ElementSpec, Emit, Field, Flag, Hook,
    Item, Match, Rule, SetKey, SetKind, SetSpec, Verdict,
};
use russet_net::{Family, Prefix};

use super::{Leftovers, take_over};
use crate::transport::Me;

/// N.
const NETWORK: &str = "network";
/// P.
const LOCAL: &str = "local";
const CHAIN: &str = "postrouting";
/// `NF_IP_PRI_NAT_SRC`
const PRIORITY: i32 = 100;
/// What kube-proxy marks packets with that it masquerades itself.
const MARK: u32 = 0x4000;

pub fn local(me: &Me<'_>, out: &mut Emit) {
    if !me.settings.masquerade.is_on() {
        return;
    }
    for pool in me.footing.config.pools() {
        let family = pool.family();
        set(family, NETWORK, Some(pool.network()), out);
        set(family, LOCAL, me.own.of(family), out);
        let base = BaseChain { kind: ChainType::Nat, hook: Hook::Postrouting, priority: PRIORITY };
        let spec = ChainSpec { base: Some(base), rules: rules(me, family) };
        out.push(Item::Chain(ChainKey { family, name: CHAIN }, spec));
        take_over(
            me,
            family,
            Leftovers { iptables: ("nat", "FLANNEL-POSTRTG"), nftables: "postrtg" },
            out,
        );
    }
}

fn set(family: Family, name: &'static str, element: Option<Prefix>, out: &mut Emit) {
    let set = SetKey { family, name };
    out.push(Item::Set(set, SetSpec { kind: SetKind::Prefixes }));
    if let Some(prefix) = element {
        out.push(Item::Element(ElementKey { set, link: None, prefix }, ElementSpec));
    }
}

fn rules(me: &Me<'_>, family: Family) -> Vec<Rule> {
    let masquerade = Verdict::Masquerade { fully_random: me.settings.fully_random };
    let not_multicast =
        Match::Within { field: Field::Destination, prefix: multicast(family), negate: Flag::On };
    let mut rules = vec![
        Rule { matches: vec![Match::Mark { mask: MARK, value: MARK }], verdict: Verdict::Return },
        rule([from(LOCAL), to(NETWORK)], Verdict::Return),
        rule([from(NETWORK), to(LOCAL)], Verdict::Return),
        rule([not_from(NETWORK), to(LOCAL)], Verdict::Return),
        rule([from(NETWORK), not_multicast], masquerade),
    ];
    if me.settings.hide_client_source.is_on() {
        rules.push(rule([not_from(NETWORK), to(NETWORK)], masquerade));
    }
    rules
}

fn rule(matches: [Match; 2], verdict: Verdict) -> Rule {
    Rule { matches: matches.into(), verdict }
}

fn from(set: &'static str) -> Match {
    Match::InSet { field: Field::Source, set, negate: Flag::Off }
}

fn not_from(set: &'static str) -> Match {
    Match::InSet { field: Field::Source, set, negate: Flag::On }
}

fn to(set: &'static str) -> Match {
    Match::InSet { field: Field::Destination, set, negate: Flag::Off }
}

/// `224.0.0.0/4` (RFC 5771), `ff00::/8` (RFC 4291 §2.7).
fn multicast(family: Family) -> Prefix {
    let (addr, len) = match family {
        Family::V4 => (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        Family::V6 => (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    };
    // Constants without host bits; the fallback cannot be reached.
    Prefix::new(addr, len).unwrap_or(Prefix::host(addr))
}
