//! One pass over the attributes of an UPDATE: what each is worth (RFC 7606 §7), and all of them in canonical
//! order.
//!
//! Nothing is copied until [`Collected::write`]: known types have a place each, what we do not know is listed.

use std::net::Ipv4Addr;

use super::{
    AsPath, AsWidth, AttributeFault, NextHop, Outcome, Peering, PmsiTunnel, RouterId, Terms,
    as_path::RawSegments,
    attributes::{Aggregator, RawAttribute, RawAttributes, code, flag, flags_of, write_attribute},
};

/// The attributes of one UPDATE that are worth something, and what is wrong with the rest.
#[derive(Clone, Debug)]
pub(super) struct Collected<'a> {
    as_width: AsWidth,
    known: [Option<RawAttribute<'a>>; KNOWN],
    /// By ascending type; each type once.
    others: Vec<RawAttribute<'a>>,
    pub mp_reach: Option<&'a [u8]>,
    pub mp_unreach: Option<&'a [u8]>,
    pub faults: Vec<AttributeFault>,
    pub outcome: Outcome,
    /// Whether there was anything at all.
    pub is_empty: bool,
    /// Whether the list ended where it should; if not, attributes may hide behind the break.
    pub is_whole: bool,
}

/// A multiprotocol attribute that is there twice: the message cannot be trusted (RFC 7606 §3 g).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Twice;

impl<'a> Collected<'a> {
    pub fn read(block: &'a [u8], terms: Terms) -> Result<Self, Twice> {
        let mut read = Self {
            as_width: terms.as_width,
            known: [None; KNOWN],
            others: Vec::new(),
            mp_reach: None,
            mp_unreach: None,
            faults: Vec::new(),
            outcome: Outcome::Good,
            is_empty: block.is_empty(),
            is_whole: true,
        };
        let mut seen = [0_u64; 4];
        let mut raw = RawAttributes::new(block);
        for attribute in raw.by_ref() {
            let (word, bit) = (usize::from(attribute.code >> 6), 1 << (attribute.code & 63));
            let first = seen.get(word).is_some_and(|word| word & bit == 0);
            seen.iter_mut().skip(word).take(1).for_each(|word| *word |= bit);
            if first {
                read.take(attribute, terms);
            } else {
                read.again(attribute.code)?;
            }
        }
        if !raw.is_at_end() {
            read.is_whole = false;
            read.fault(0, Verdict::withdraw("the list of attributes is cut off"));
        }
        Ok(read)
    }

    pub fn next_hop(&self) -> Option<NextHop> {
        let octets: [u8; 4] = self.value(code::NEXT_HOP)?.try_into().ok()?;
        Some(NextHop::V4(octets.into()))
    }

    pub fn has(&self, code: u8) -> bool {
        self.value(code).is_some()
    }

    pub fn fault(&mut self, attribute: u8, verdict: Verdict) {
        self.outcome = self.outcome.max(verdict.outcome);
        if self.faults.len() < MOST_FAULTS {
            let Verdict { outcome, what } = verdict;
            self.faults.push(AttributeFault { attribute, what, outcome });
        }
    }

    /// Writes the attributes in canonical form behind what `out` has, next hop and routes left out.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut others = self.others.iter().peekable();
        let known = (0_u8..).zip(&self.known);
        for (code, raw) in known.filter_map(|(code, raw)| raw.map(|raw| (code, raw))) {
            while let Some(other) = others.next_if(|other| other.code < code) {
                write_raw(other, out);
            }
            match code {
                code::NEXT_HOP
                | code::MP_REACH
                | code::MP_UNREACH
                | code::AS4_PATH
                | code::AS4_AGGREGATOR => {}
                code::AS_PATH if self.as_width == AsWidth::Two => self.write_as_path(&raw, out),
                code::AGGREGATOR if self.as_width == AsWidth::Two => {
                    self.write_aggregator(&raw, out);
                }
                _ => write_raw(&raw, out),
            }
        }
        others.for_each(|other| write_raw(other, out));
    }

    fn value(&self, code: u8) -> Option<&'a [u8]> {
        self.known.get(usize::from(code))?.map(|raw| raw.value)
    }

    fn take(&mut self, attribute: RawAttribute<'a>, terms: Terms) {
        let code = attribute.code;
        match code {
            code::MP_REACH => self.mp_reach = Some(attribute.value),
            code::MP_UNREACH => self.mp_unreach = Some(attribute.value),
            _ => {}
        }
        let verdict = match expected(code) {
            Some(flags) if attribute.flags & FIXED != flags => {
                Err(Verdict::withdraw("its flags are not those of its type"))
            }
            Some(_) => check(code, attribute.value, terms),
            None => return self.take_unknown(attribute),
        };
        match verdict {
            Ok(()) => {
                if let Some(place) = self.known.get_mut(usize::from(code)) {
                    *place = Some(attribute);
                }
            }
            Err(verdict) => self.fault(code, verdict),
        }
    }

    /// What is optional and transitive is passed on, marked as not understood; what is only optional is not ours
    /// to pass on (RFC 4271 §5).
    fn take_unknown(&mut self, mut attribute: RawAttribute<'a>) {
        if attribute.flags & flag::OPTIONAL == 0 {
            self.fault(attribute.code, Verdict::withdraw("it is well-known, but not to us"));
        } else if attribute.flags & flag::TRANSITIVE != 0 {
            attribute.flags |= flag::PARTIAL;
            let at = self.others.partition_point(|other| other.code < attribute.code);
            self.others.insert(at, attribute);
        }
    }

    fn again(&mut self, code: u8) -> Result<(), Twice> {
        if matches!(code, code::MP_REACH | code::MP_UNREACH) {
            return Err(Twice);
        }
        self.fault(code, Verdict::discard("it is there twice; the first counts"));
        Ok(())
    }

    /// The path of a speaker of two octets, joined with what it left beside (RFC 6793 §4.2.3).
    fn write_as_path(&self, raw: &RawAttribute<'_>, out: &mut Vec<u8>) {
        let path = AsPath::read(raw.value, AsWidth::Two).unwrap_or_default();
        let four = self.value(code::AS4_PATH).filter(|_| self.four_octets_count());
        let path = match four.and_then(|four| AsPath::read(four, AsWidth::Four)) {
            Some(four) => path.merge(&four),
            None => path,
        };
        write_attribute(raw.flags, raw.code, out, |out| path.write(out, AsWidth::Four));
    }

    fn write_aggregator(&self, raw: &RawAttribute<'_>, out: &mut Vec<u8>) {
        let four = self.value(code::AS4_AGGREGATOR).filter(|_| self.four_octets_count());
        let aggregator = match four.and_then(|four| Aggregator::read(four, AsWidth::Four)) {
            Some(four) => Some(four),
            None => Aggregator::read(raw.value, AsWidth::Two),
        };
        if let Some(aggregator) = aggregator {
            write_attribute(raw.flags, raw.code, out, |out| aggregator.write(out, AsWidth::Four));
        }
    }

    /// An aggregator that is not `AS_TRANS` came after whoever wrote the four octets: they are stale.
    fn four_octets_count(&self) -> bool {
        let aggregator = self.value(code::AGGREGATOR);
        aggregator
            .and_then(|value| Aggregator::read(value, AsWidth::Two))
            .is_none_or(|aggregator| aggregator.asn == russet_net::Asn::TRANS)
    }
}

fn write_raw(raw: &RawAttribute<'_>, out: &mut Vec<u8>) {
    write_attribute(raw.flags, raw.code, out, |out| out.extend(raw.value));
}

/// What a fault does to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    outcome: Outcome,
    what: &'static str,
}

impl Verdict {
    pub const fn withdraw(what: &'static str) -> Self {
        Self { outcome: Outcome::TreatAsWithdraw, what }
    }

    pub const fn discard(what: &'static str) -> Self {
        Self { outcome: Outcome::Discard, what }
    }
}

/// The flags of a type that we know.
fn expected(code: u8) -> Option<u8> {
    match code {
        code::ORIGIN..=code::CLUSTER_LIST
        | code::MP_REACH..=code::AS4_AGGREGATOR
        | code::PMSI_TUNNEL
        | code::LARGE_COMMUNITIES => Some(flags_of(code)),
        _ => None,
    }
}

/// Looks at one attribute (RFC 7606 §7).
fn check(code: u8, value: &[u8], terms: Terms) -> Result<(), Verdict> {
    match code {
        code::ORIGIN => match value {
            [0..=2] => Ok(()),
            [_] => Err(Verdict::withdraw("the origin is none of three")),
            _ => Err(Verdict::withdraw(BAD_LENGTH)),
        },
        code::AS_PATH => check_as_path(value, terms.as_width),
        code::NEXT_HOP => check_next_hop(value),
        code::MED => exactly(4, value),
        code::LOCAL_PREF => internal(terms).and_then(|()| exactly(4, value)),
        code::ATOMIC_AGGREGATE if !value.is_empty() => Err(Verdict::discard(BAD_LENGTH)),
        code::AGGREGATOR => check_aggregator(value, terms.as_width),
        code::COMMUNITIES => each_of(4, value),
        code::ORIGINATOR_ID => internal(terms).and_then(|()| check_originator(value)),
        code::CLUSTER_LIST => internal(terms).and_then(|()| each_of(4, value)),
        code::EXT_COMMUNITIES => each_of(8, value),
        code::AS4_PATH => two_octets(terms).and_then(|()| check_as4_path(value)),
        code::AS4_AGGREGATOR => {
            two_octets(terms).and_then(|()| check_aggregator(value, AsWidth::Four))
        }
        code::PMSI_TUNNEL if PmsiTunnel::read(value).is_none() => {
            Err(Verdict::withdraw("the tunnel is malformed"))
        }
        code::LARGE_COMMUNITIES => each_of(12, value),
        _ => Ok(()),
    }
}

fn exactly(len: usize, value: &[u8]) -> Result<(), Verdict> {
    if value.len() == len { Ok(()) } else { Err(Verdict::withdraw(BAD_LENGTH)) }
}

fn each_of(len: usize, value: &[u8]) -> Result<(), Verdict> {
    let whole = !value.is_empty() && value.len().is_multiple_of(len);
    if whole { Ok(()) } else { Err(Verdict::withdraw(BAD_LENGTH)) }
}

/// An attribute that an external peer has no say in is left out, whatever it contains (RFC 7606 §7.5, §7.9, §7.10).
fn internal(terms: Terms) -> Result<(), Verdict> {
    match terms.peering {
        Peering::Internal => Ok(()),
        Peering::External => Err(Verdict::discard("it comes from an external peer")),
    }
}

/// What is for speakers of two octets means nothing from one of four (RFC 6793 §4.1).
fn two_octets(terms: Terms) -> Result<(), Verdict> {
    match terms.as_width {
        AsWidth::Two => Ok(()),
        AsWidth::Four => Err(Verdict::discard("it comes from a speaker of four octets")),
    }
}

fn check_as_path(value: &[u8], width: AsWidth) -> Result<(), Verdict> {
    for segment in RawSegments::new(value, width) {
        let segment = segment.ok_or(Verdict::withdraw("a segment is malformed"))?;
        if segment.kind.is_confed() {
            return Err(Verdict::withdraw("a confederation's segment, and we are in none"));
        }
        if segment.asns().any(|asn| asn == russet_net::Asn::ZERO) {
            return Err(Verdict::withdraw("it has AS 0 (RFC 7607)"));
        }
    }
    Ok(())
}

fn check_as4_path(value: &[u8]) -> Result<(), Verdict> {
    for segment in RawSegments::new(value, AsWidth::Four) {
        let segment = segment.ok_or(Verdict::discard("a segment is malformed"))?;
        if segment.asns().any(|asn| asn == russet_net::Asn::ZERO) {
            return Err(Verdict::withdraw("it has AS 0 (RFC 7607)"));
        }
    }
    Ok(())
}

fn check_next_hop(value: &[u8]) -> Result<(), Verdict> {
    let octets: [u8; 4] = value.try_into().map_err(|_| Verdict::withdraw(BAD_LENGTH))?;
    let usable = NextHop::V4(Ipv4Addr::from(octets)).is_usable();
    if usable { Ok(()) } else { Err(Verdict::withdraw("no packet can go to that address")) }
}

fn check_aggregator(value: &[u8], width: AsWidth) -> Result<(), Verdict> {
    match Aggregator::read(value, width) {
        Some(aggregator) if aggregator.asn != russet_net::Asn::ZERO => Ok(()),
        Some(_) => Err(Verdict::discard("it has AS 0 (RFC 7607)")),
        None => Err(Verdict::discard(BAD_LENGTH)),
    }
}

fn check_originator(value: &[u8]) -> Result<(), Verdict> {
    let octets: [u8; 4] = value.try_into().map_err(|_| Verdict::withdraw(BAD_LENGTH))?;
    RouterId::try_from(u32::from_be_bytes(octets))
        .map(|_| ())
        .map_err(|_| Verdict::withdraw("zero identifies no speaker"))
}

const BAD_LENGTH: &str = "its length is not one that its type can have";
/// Flags that a type fixes; whether it is partial depends on its way here.
const FIXED: u8 = flag::OPTIONAL | flag::TRANSITIVE;
/// Places for the types that we know: 0 to 32.
const KNOWN: usize = 33;
/// How many faults of one message are told; all count.
const MOST_FAULTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(block: &[u8], terms: Terms) -> (Vec<u8>, Outcome) {
        let read = Collected::read(block, terms).unwrap();
        let mut out = Vec::new();
        read.write(&mut out);
        (out, read.outcome)
    }

    fn internal() -> Terms {
        Terms { as_width: AsWidth::Four, ..Terms::plain(Peering::Internal) }
    }

    #[test]
    fn attributes_are_put_in_order_and_unknown_ones_marked() {
        let block = [
            &[0xc0, 99, 1, 7][..],        // unknown, optional transitive
            &[0x80, 98, 1, 7],            // unknown, optional only
            &[0x50, 5, 0, 4, 0, 0, 0, 9], // an extended length without need
            &[0x4f, 1, 1, 0],             // low flag bits set
            &[0x40, 2, 0],
        ]
        .concat();
        let (out, outcome) = collected(&block, internal());
        let wanted =
            [&[0x40, 1, 1, 0][..], &[0x40, 2, 0], &[0x40, 5, 4, 0, 0, 0, 9], &[0xe0, 99, 1, 7]];
        assert_eq!((out, outcome), (wanted.concat(), Outcome::Good));
    }

    #[test]
    fn each_fault_has_the_outcome_of_its_rfc() {
        use Outcome::{Discard, Good, TreatAsWithdraw};
        let external = Terms { peering: Peering::External, ..internal() };
        for (terms, attribute, outcome) in [
            (internal(), &[0x40, 1, 1, 3][..], TreatAsWithdraw),
            (internal(), &[0x40, 1, 2, 0, 0], TreatAsWithdraw),
            (internal(), &[0xc0, 1, 1, 0], TreatAsWithdraw),
            (internal(), &[0x40, 2, 2, 2, 0], TreatAsWithdraw),
            (internal(), &[0x40, 2, 6, 2, 1, 0, 0, 0, 0], TreatAsWithdraw),
            (internal(), &[0x40, 2, 6, 3, 1, 0, 0, 0, 1], TreatAsWithdraw),
            (internal(), &[0x40, 3, 4, 224, 0, 0, 1], TreatAsWithdraw),
            (internal(), &[0x80, 4, 3, 0, 0, 0], TreatAsWithdraw),
            (internal(), &[0x40, 5, 3, 0, 0, 0], TreatAsWithdraw),
            (external, &[0x40, 5, 3, 0, 0, 0], Discard),
            (internal(), &[0x40, 6, 1, 0], Discard),
            (internal(), &[0xc0, 7, 6, 0, 1, 10, 0, 0, 1], Discard),
            (internal(), &[0xc0, 8, 3, 0, 0, 0], TreatAsWithdraw),
            (internal(), &[0xc0, 8, 0], TreatAsWithdraw),
            (internal(), &[0x80, 9, 4, 0, 0, 0, 0], TreatAsWithdraw),
            (external, &[0x80, 9, 3, 0, 0, 0], Discard),
            (internal(), &[0x80, 10, 2, 0, 0], TreatAsWithdraw),
            (external, &[0x80, 10, 2, 0, 0], Discard),
            (internal(), &[0xc0, 16, 7, 0, 0, 0, 0, 0, 0, 0], TreatAsWithdraw),
            (internal(), &[0xc0, 17, 6, 2, 1, 0, 0, 0, 1], Discard),
            (internal(), &[0xc0, 22, 1, 0], TreatAsWithdraw),
            (internal(), &[0xc0, 32, 4, 0, 0, 0, 0], TreatAsWithdraw),
            (internal(), &[0x40, 99, 0], TreatAsWithdraw),
            (internal(), &[0xc0, 99, 0], Good),
            (internal(), &[0xc0, 99, 9, 1], TreatAsWithdraw),
            (internal(), &[0xc0], TreatAsWithdraw),
        ] {
            assert_eq!(collected(attribute, terms).1, outcome, "{attribute:02x?}");
        }
    }

    #[test]
    fn of_two_the_first_counts_and_two_multiprotocol_ones_are_too_many() {
        let block = [0x40, 1, 1, 1, 0x40, 1, 1, 2];
        assert_eq!(collected(&block, internal()), (vec![0x40, 1, 1, 1], Outcome::Discard));
        let block = [0x80, 15, 3, 0, 1, 1, 0x80, 15, 3, 0, 1, 1];
        assert_eq!(Collected::read(&block, internal()).unwrap_err(), Twice);
    }

    #[test]
    fn a_path_in_two_octets_is_joined_with_the_four_beside_it() {
        let block = [
            &[0x40, 2, 6, 2, 2, 0, 9, 0x5b, 0xa0][..],
            &[0xc0, 7, 6, 0x5b, 0xa0, 10, 0, 0, 1],
            &[0xc0, 17, 6, 2, 1, 0, 1, 0, 0],
            &[0xc0, 18, 8, 0, 1, 0, 0, 10, 0, 0, 1],
        ]
        .concat();
        let (out, outcome) = collected(&block, Terms::plain(Peering::External));
        let wanted = [
            &[0x40, 2, 10, 2, 2, 0, 0, 0, 9, 0, 1, 0, 0][..],
            &[0xc0, 7, 8, 0, 1, 0, 0, 10, 0, 0, 1],
        ];
        assert_eq!((out, outcome), (wanted.concat(), Outcome::Good));
    }

    #[test]
    fn four_octets_that_are_older_than_the_aggregator_are_left_out() {
        let block = [
            &[0x40, 2, 6, 2, 2, 0, 9, 0x5b, 0xa0][..],
            &[0xc0, 7, 6, 0, 5, 10, 0, 0, 1],
            &[0xc0, 17, 6, 2, 1, 0, 1, 0, 0],
        ]
        .concat();
        let (out, _) = collected(&block, Terms::plain(Peering::External));
        let wanted = [
            &[0x40, 2, 10, 2, 2, 0, 0, 0, 9, 0, 0, 0x5b, 0xa0][..],
            &[0xc0, 7, 8, 0, 0, 0, 5, 10, 0, 0, 1],
        ];
        assert_eq!(out, wanted.concat());
    }
}
