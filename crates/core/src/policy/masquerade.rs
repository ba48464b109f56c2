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
//!
//! Where the pools themselves say whose packets are masqueraded (Calico's `natOutgoing`; O = those pools), there are two:
//!
//! ```text
//!   1  mark 0x4000/0x4000        return       somebody else has decided
//!   2  O to not N, not multicast masquerade   out of all pools
//! ```

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use russet_desired::{
    BaseChain, ChainKey, ChainSpec, ChainType, ElementKey, ElementSpec, Emit, Field, Flag, Hook,
    Item, Match, Rule, SetKey, SetKind, SetSpec, Verdict,
};
use russet_net::{Family, Prefix};

use super::{Leftovers, take_over};
use crate::{model::Pool, transport::Me};

/// O.
const OUTGOING: &str = "outgoing";
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
    for family in me.footing.config.families() {
        let pools = || me.footing.config.pools().filter(move |pool| pool.family() == family);
        let says = |pool: &Pool| pool.habits.nat_outgoing.is_some();
        if pools().any(|pool| says(&pool)) {
            of_pools(me, family, out);
        } else if me.settings.masquerade.is_on() {
            set(family, NETWORK, pools().map(Pool::network), out);
            set(family, LOCAL, me.own.of(family), out);
            chain(family, rules(me, family), out);
            take_over(
                me,
                family,
                Leftovers { iptables: ("nat", "FLANNEL-POSTRTG"), nftables: "postrtg" },
                out,
            );
        }
    }
}

/// Where the pools say so themselves. No rule at all where none does.
fn of_pools(me: &Me<'_>, family: Family, out: &mut Emit) {
    let pools = || me.footing.config.pools().filter(move |pool| pool.family() == family);
    let outgoing: Vec<_> = pools()
        .filter(|pool| pool.habits.nat_outgoing.is_some_and(Flag::is_on))
        .map(Pool::network)
        .collect();
    if outgoing.is_empty() {
        return;
    }
    set(family, NETWORK, pools().map(Pool::network), out);
    set(family, OUTGOING, outgoing, out);
    let matches = vec![from(OUTGOING), not_to(NETWORK), not_multicast(family)];
    chain(family, vec![marked(), Rule { matches, verdict: masquerade(me) }], out);
}

fn chain(family: Family, rules: Vec<Rule>, out: &mut Emit) {
    let base = BaseChain { kind: ChainType::Nat, hook: Hook::Postrouting, priority: PRIORITY };
    let spec = ChainSpec { base: Some(base), rules };
    out.push(Item::Chain(ChainKey { family, name: CHAIN }, spec));
}

/// Prefixes that lie in each other are one element: an interval set refuses what overlaps.
fn set(
    family: Family,
    name: &'static str,
    elements: impl IntoIterator<Item = Prefix>,
    out: &mut Emit,
) {
    let set = SetKey { family, name };
    out.push(Item::Set(set, SetSpec { kind: SetKind::Prefixes }));
    let all: BTreeSet<Prefix> = elements.into_iter().collect();
    for prefix in &all {
        if !all.iter().any(|other| other != prefix && other.covers(*prefix)) {
            out.push(Item::Element(ElementKey { set, link: None, prefix: *prefix }, ElementSpec));
        }
    }
}

fn rules(me: &Me<'_>, family: Family) -> Vec<Rule> {
    let masquerade = masquerade(me);
    let mut rules = vec![
        marked(),
        rule([from(LOCAL), to(NETWORK)], Verdict::Return),
        rule([from(NETWORK), to(LOCAL)], Verdict::Return),
        rule([not_from(NETWORK), to(LOCAL)], Verdict::Return),
        rule([from(NETWORK), not_multicast(family)], masquerade),
    ];
    if me.settings.hide_client_source.is_on() {
        rules.push(rule([not_from(NETWORK), to(NETWORK)], masquerade));
    }
    rules
}

const fn masquerade(me: &Me<'_>) -> Verdict {
    Verdict::Masquerade { fully_random: me.settings.fully_random }
}

fn marked() -> Rule {
    Rule { matches: vec![Match::Mark { mask: MARK, value: MARK }], verdict: Verdict::Return }
}

fn not_multicast(family: Family) -> Match {
    Match::Within { field: Field::Destination, prefix: multicast(family), negate: Flag::On }
}

fn not_to(set: &'static str) -> Match {
    Match::InSet { field: Field::Destination, set, negate: Flag::On }
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
