//! A rule of ours as expressions.
//!
//! There is no way back, on purpose: what the kernel holds is compared with what we would write, so a rule
//! that was altered by another hand, in whatever way, is never taken for one of ours. The forms are those
//! of `nft` itself, so that its listing reads like the rules in `desired`.

use std::net::IpAddr;

use russet_desired::{Field, Flag, Match, Rule, Verdict};
use russet_net::{Family, IfName, Prefix};

use super::{
    expr::{Code, Expr},
    number::{NF_NAT_RANGE_PROTO_RANDOM_FULLY, NFT_META_IIFNAME, NFT_META_MARK},
};

/// The expressions of `rule` in a chain of a table of `family`.
pub(crate) fn write_rule(family: Family, rule: &Rule) -> Vec<Expr> {
    let mut exprs = Vec::new();
    for test in &rule.matches {
        write_match(family, test, &mut exprs);
    }
    exprs.push(write_verdict(rule.verdict));
    exprs
}

fn write_match(family: Family, test: &Match, exprs: &mut Vec<Expr>) {
    match test {
        Match::Mark { mask, value } => {
            exprs.push(Expr::Meta { key: NFT_META_MARK });
            push_mask(exprs, mask.to_ne_bytes().to_vec());
            exprs.push(Expr::Equal(value.to_ne_bytes().to_vec()));
        }
        Match::InSet { field, set, negate } => {
            exprs.push(load_address(family, *field));
            exprs.push(look_up(set, *negate));
        }
        Match::Within { field, prefix, negate } => {
            exprs.extend(within(*field, *prefix, *negate));
        }
        Match::InputLink { name, negate } => {
            exprs.push(Expr::Meta { key: NFT_META_IIFNAME });
            exprs.push(compare(name_octets(*name), *negate));
        }
        // Without the zero at the end it is compared as far as it goes.
        Match::InputLinkStarts(start) => {
            exprs.push(Expr::Meta { key: NFT_META_IIFNAME });
            exprs.push(Expr::Equal(start.as_bytes().to_vec()));
        }
        Match::InputLinkAndSource { set, negate } => {
            exprs.push(Expr::Meta { key: NFT_META_IIFNAME });
            let (offset, len) = address_place(family, Field::Source);
            exprs.push(Expr::NetworkBeside { offset, len });
            exprs.push(look_up(set, *negate));
        }
        Match::Misplaced => {
            exprs.push(Expr::ReversePath);
            exprs.push(Expr::Equal(0_u32.to_ne_bytes().to_vec()));
        }
    }
}

/// `ip saddr 10.0.0.0/8`: load, mask, compare. `iptables` reads this form too.
pub(crate) fn within(field: Field, prefix: Prefix, negate: Flag) -> Vec<Expr> {
    let mut exprs = vec![load_address(prefix.family(), field)];
    push_mask(&mut exprs, netmask(prefix));
    exprs.push(compare(octets(prefix.addr()), negate));
    exprs
}

/// A mask of all ones keeps every bit and is left out, as `nft` does.
fn push_mask(exprs: &mut Vec<Expr>, mask: Vec<u8>) {
    if mask.iter().any(|octet| *octet != 0xff) {
        exprs.push(Expr::Mask(mask));
    }
}

fn compare(value: Vec<u8>, negate: Flag) -> Expr {
    if negate.is_on() { Expr::NotEqual(value) } else { Expr::Equal(value) }
}

fn look_up(set: &str, negate: Flag) -> Expr {
    let set = set.to_owned();
    if negate.is_on() { Expr::NotInSet(set) } else { Expr::InSet(set) }
}

fn load_address(family: Family, field: Field) -> Expr {
    let (offset, len) = address_place(family, field);
    Expr::Network { offset, len }
}

/// Offset and length (RFC 791 §3.1, RFC 8200 §3).
const fn address_place(family: Family, field: Field) -> (u32, u32) {
    match (family, field) {
        (Family::V4, Field::Source) => (12, 4),
        (Family::V4, Field::Destination) => (16, 4),
        (Family::V6, Field::Source) => (8, 16),
        (Family::V6, Field::Destination) => (24, 16),
    }
}

fn write_verdict(verdict: Verdict) -> Expr {
    match verdict {
        Verdict::Accept => Expr::Verdict(Code::Accept),
        Verdict::Drop => Expr::Verdict(Code::Drop),
        Verdict::Return => Expr::Verdict(Code::Return),
        Verdict::Masquerade { fully_random } => Expr::Masquerade {
            flags: if fully_random.is_on() { NF_NAT_RANGE_PROTO_RANDOM_FULLY } else { 0 },
        },
    }
}

/// An address as it stands in a header.
pub(crate) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

/// The address that 4 or 16 octets are.
pub(crate) fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

fn netmask(prefix: Prefix) -> Vec<u8> {
    let mask = |octet: u8| {
        let ones = prefix.len().saturating_sub(octet * 8).min(8);
        0xff_u8.checked_shl(u32::from(8 - ones)).unwrap_or_default()
    };
    (0..prefix.family().bits() / 8).map(mask).collect()
}

/// `IFNAMSIZ` octets.
pub(crate) fn name_octets(name: IfName) -> Vec<u8> {
    let mut octets = name.as_str().as_bytes().to_vec();
    octets.resize(IfName::MAX_LEN + 1, 0);
    octets
}
