//! Prefixes as the elements of an interval set, and back.
//!
//! The kernel keeps an interval as two elements: its first address, and the address after its last one,
//! marked as an end. A prefix that reaches the last address of the family has no end element. `nft`
//! besides puts an end at address zero; it says nothing and is skipped. An interval of pairs is one element with a first
//! and a last key, each of a link's name and an address.

use std::collections::BTreeSet;

use russet_desired::Flag;
use russet_net::{Family, IfName, Prefix};

use super::{
    object::RawElement,
    plan::Member,
    rule::{address, name_octets, octets},
};

/// The elements that stand for `prefix`.
pub(crate) fn write_interval(prefix: Prefix) -> Vec<RawElement> {
    let start = RawElement { key: octets(prefix.addr()), end: Flag::Off, last: None };
    let end = prefix.next().map(|next| RawElement {
        key: octets(next.addr()),
        end: Flag::On,
        last: None,
    });
    std::iter::once(start).chain(end).collect()
}

/// The element that stands for a single address.
pub(crate) fn write_address(prefix: Prefix) -> RawElement {
    RawElement { key: octets(prefix.addr()), end: Flag::Off, last: None }
}

/// The element that stands for a link's name and a prefix. One without a name is none that a set of pairs is given.
pub(crate) fn write_pair(member: Member) -> Option<RawElement> {
    let name = name_octets(member.link?);
    let key = |addr| [name.clone(), octets(addr)].concat();
    let last = Some(key(member.prefix.last()));
    Some(RawElement { key: key(member.prefix.addr()), end: Flag::Off, last })
}

/// The pairs that the elements of a set are; `None` when one is not a name and a prefix.
pub(crate) fn read_pairs(family: Family, elements: &[RawElement]) -> Option<BTreeSet<Member>> {
    elements.iter().map(|element| read_pair(family, element)).collect()
}

fn read_pair(family: Family, element: &RawElement) -> Option<Member> {
    let (name, first) = element.key.split_at_checked(NAME_LEN)?;
    let last = element.last.as_deref().unwrap_or(&element.key);
    let (same, last) = last.split_at_checked(NAME_LEN)?;
    let text = name.split(|octet| *octet == 0).next()?;
    let link: IfName = str::from_utf8(text).ok()?.parse().ok()?;
    let (first, last) = (address(first)?, address(last)?);
    let whole = Family::of(first) == family && same == name && name_octets(link) == name;
    let lens = 0..=family.bits();
    let prefix =
        lens.filter_map(|len| Prefix::new(first, len).ok()).find(|prefix| prefix.last() == last)?;
    whole.then_some(Member { link: Some(link), prefix })
}

/// `IFNAMSIZ`
const NAME_LEN: usize = IfName::MAX_LEN + 1;

/// The prefixes that the elements of an interval set are; `None` when an interval is not a prefix.
pub(crate) fn read_intervals(
    family: Family,
    mut elements: Vec<RawElement>,
) -> Option<BTreeSet<Prefix>> {
    // An end before the start at the same key: two intervals that touch.
    elements.sort_by(|a, b| (&a.key, !a.end.is_on()).cmp(&(&b.key, !b.end.is_on())));
    let mut prefixes = BTreeSet::new();
    let mut elements = elements.into_iter().peekable();
    while let Some(element) = elements.next() {
        if element.end.is_on() {
            // Only the one at zero has no start before it.
            if element.key.iter().any(|octet| *octet != 0) {
                return None;
            }
            continue;
        }
        let end = elements.next_if(|next| next.end.is_on());
        prefixes.insert(prefix_between(
            family,
            &element.key,
            end.as_ref().map(|end| end.key.as_slice()),
        )?);
    }
    Some(prefixes)
}

/// The prefixes that the elements of a hash set are.
pub(crate) fn read_addresses(family: Family, elements: &[RawElement]) -> Option<BTreeSet<Prefix>> {
    let prefix = |element: &RawElement| address(&element.key).map(Prefix::host);
    let prefixes: Option<BTreeSet<_>> = elements.iter().map(prefix).collect();
    prefixes.filter(|all| all.iter().all(|prefix| prefix.family() == family))
}

/// The prefix whose interval begins at `start` and ends before `end`.
fn prefix_between(family: Family, start: &[u8], end: Option<&[u8]>) -> Option<Prefix> {
    let start = address(start).filter(|addr| Family::of(*addr) == family)?;
    let lens = 0..=family.bits();
    lens.filter_map(|len| Prefix::new(start, len).ok())
        .find(|prefix| prefix.next().map(|next| octets(next.addr())).as_deref() == end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn elements(prefixes: &[&str]) -> Vec<RawElement> {
        prefixes.iter().flat_map(|text| write_interval(prefix(text))).collect()
    }

    #[test]
    fn a_prefix_at_the_end_of_the_family_has_no_end() {
        for text in ["0.0.0.0/0", "::/0", "240.0.0.0/4", "255.255.255.255/32", "ff00::/8"] {
            assert_eq!(elements(&[text]).len(), 1, "{text}");
        }
        let [start, end] = &elements(&["10.50.0.0/16"])[..] else { panic!() };
        assert_eq!((start.key.as_slice(), start.end), ([10, 50, 0, 0].as_slice(), Flag::Off));
        assert_eq!((end.key.as_slice(), end.end), ([10, 51, 0, 0].as_slice(), Flag::On));
    }

    #[test]
    fn prefixes_that_touch_are_told_apart() {
        let texts = ["10.50.0.0/16", "10.51.0.0/16", "10.52.0.0/15", "255.255.255.255/32"];
        let mut raw = elements(&texts);
        raw.reverse();
        let all: BTreeSet<_> = texts.into_iter().map(prefix).collect();
        assert_eq!(read_intervals(Family::V4, raw), Some(all));
    }

    #[test]
    fn the_end_at_zero_that_nft_writes_is_skipped() {
        let mut raw = elements(&["fd00::/8"]);
        raw.push(RawElement { key: vec![0; 16], end: Flag::On, last: None });
        assert_eq!(read_intervals(Family::V6, raw), Some(BTreeSet::from([prefix("fd00::/8")])));
    }

    #[test]
    fn pairs_of_a_link_and_a_prefix_are_read_as_they_are_written() {
        for (family, text) in [
            (Family::V4, "192.0.2.0/24"),
            (Family::V4, "0.0.0.0/0"),
            (Family::V4, "192.0.2.7/32"),
            (Family::V6, "2001:db8::/32"),
            (Family::V6, "::/0"),
        ] {
            let link = Some("cali82111e10a96".parse().unwrap());
            let member = Member { link, prefix: prefix(text) };
            let raw = write_pair(member).unwrap();
            assert_eq!(
                read_pairs(family, std::slice::from_ref(&raw)),
                Some(BTreeSet::from([member]))
            );
            let mut bent = raw;
            bent.last = Some(bent.last.unwrap().iter().map(|octet| octet ^ 1).collect());
            assert_eq!(read_pairs(family, &[bent]), None);
        }
        assert_eq!(write_pair(prefix("10.0.0.0/8").into()), None);
    }

    #[test]
    fn an_interval_that_is_no_prefix_is_not_ours() {
        let raw = |start: [u8; 4], end: [u8; 4]| {
            vec![
                RawElement { key: start.to_vec(), end: Flag::Off, last: None },
                RawElement { key: end.to_vec(), end: Flag::On, last: None },
            ]
        };
        assert_eq!(read_intervals(Family::V4, raw([10, 0, 0, 5], [10, 0, 0, 9])), None);
        assert_eq!(read_intervals(Family::V4, raw([10, 0, 0, 0], [10, 0, 0, 3])), None);
        let v4 = RawElement { key: vec![10, 0, 0, 1], end: Flag::Off, last: None };
        assert_eq!(read_addresses(Family::V6, &[v4]), None);
    }
}
