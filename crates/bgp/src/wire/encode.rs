//! UPDATEs written: routes with equal attributes into as few messages as they fit in.
//!
//! A run of routes is written straight into the caller's buffer, message after message; no message is longer
//! than the session allows. Routes of IPv4 with a next hop of IPv4 stand where RFC 4271 has them, all others in
//! `MP_REACH_NLRI`, which goes first (RFC 7606 §5.1).

use std::borrow::Cow;

use super::{
    AsPath, AsWidth, Family, MessageKind, NextHop, Nlri, Terms,
    attributes::{Aggregator, RawAttribute, RawAttributes, code, flag, flags_of, write_attribute},
    frame::{begin_message, end_message, set_u16},
    nlri::Ids,
};

/// Writes UPDATEs for peers that agreed on the same terms.
#[derive(Debug)]
pub struct UpdateWriter<'a> {
    terms: Terms,
    out: &'a mut Vec<u8>,
}

/// The attributes leave no room for a route: the route cannot be told to the peer (RFC 4271 §9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{octets} octets of attributes leave no room for a route in a message of {limit}")]
pub struct AttributesTooLong {
    octets: usize,
    limit: usize,
}

impl<'a> UpdateWriter<'a> {
    /// Writes behind what `out` has.
    pub const fn new(terms: Terms, out: &'a mut Vec<u8>) -> Self {
        Self { terms, out }
    }

    /// Announces routes of `family`, all with these canonical attributes and this next hop. Returns how many
    /// messages it took; none when there are no routes.
    ///
    /// # Errors
    ///
    /// When no route fits beside the attributes. Nothing is written then.
    pub fn announce(
        &mut self,
        family: Family,
        canonical: &[u8],
        next_hop: NextHop,
        nlris: impl IntoIterator<Item = Nlri>,
    ) -> Result<usize, AttributesTooLong> {
        let attributes = for_width(canonical, self.terms.as_width);
        let limit = self.terms.limit.octets();
        let octets = attributes.len() + AROUND_ATTRIBUTES;
        if octets + LONGEST_NLRI > limit {
            return Err(AttributesTooLong { octets, limit });
        }
        let shape = match (family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(_)) => Shape::Nlri,
            _ => Shape::Reach(family),
        };
        let head = Head { shape, attributes: &attributes, next_hop: Some(next_hop) };
        Ok(self.run(&head, family, nlris))
    }

    /// Withdraws routes of `family`. Returns how many messages it took.
    pub fn withdraw(&mut self, family: Family, nlris: impl IntoIterator<Item = Nlri>) -> usize {
        let shape = match family {
            Family::Ipv4Unicast => Shape::Withdrawn,
            _ => Shape::Unreach(family),
        };
        self.run(&Head { shape, attributes: &[], next_hop: None }, family, nlris)
    }

    /// Says that all routes of `family` have been told (RFC 4724 §2).
    pub fn end_of_rib(&mut self, family: Family) {
        let shape = match family {
            Family::Ipv4Unicast => Shape::Withdrawn,
            _ => Shape::Unreach(family),
        };
        let head = Head { shape, attributes: &[], next_hop: None };
        let open = head.begin(self.out);
        head.end(&open, self.out);
    }

    fn run(
        &mut self,
        head: &Head<'_>,
        family: Family,
        nlris: impl IntoIterator<Item = Nlri>,
    ) -> usize {
        let with_ids = self.terms.add_path_out.contains(family);
        let ids = if with_ids { Ids::Present } else { Ids::Absent };
        let room = self.terms.limit.octets() - head.behind();
        let mut messages = 0;
        let mut open: Option<OpenMessage> = None;
        for nlri in nlris {
            let now = open.get_or_insert_with(|| head.begin(self.out));
            let at = self.out.len();
            nlri.write(ids, self.out);
            if self.out.len() - now.start <= room {
                continue;
            }
            self.out.truncate(at);
            head.end(now, self.out);
            messages += 1;
            *now = head.begin(self.out);
            nlri.write(ids, self.out);
        }
        if let Some(open) = open {
            head.end(&open, self.out);
            messages += 1;
        }
        messages
    }
}

/// What every message of a run has.
struct Head<'a> {
    shape: Shape,
    attributes: &'a [u8],
    next_hop: Option<NextHop>,
}

/// Where in the message the routes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Nlri,
    Withdrawn,
    Reach(Family),
    Unreach(Family),
}

/// A message that is being written.
struct OpenMessage {
    start: usize,
    /// Where the attribute with the routes begins, in a shape that has one.
    attribute: usize,
}

impl Head<'_> {
    /// Octets that come behind the routes.
    fn behind(&self) -> usize {
        match self.shape {
            Shape::Nlri | Shape::Unreach(_) => 0,
            Shape::Withdrawn => 2,
            Shape::Reach(_) => self.attributes.len(),
        }
    }

    fn begin(&self, out: &mut Vec<u8>) -> OpenMessage {
        let start = begin_message(MessageKind::Update, out);
        out.extend([0, 0]);
        if self.shape == Shape::Withdrawn {
            return OpenMessage { start, attribute: out.len() };
        }
        out.extend([0, 0]);
        let attribute = out.len();
        match self.shape {
            Shape::Nlri => {
                self.write_with_next_hop(out);
                let len = out.len() - attribute;
                set_u16(out, attribute - 2, len);
            }
            Shape::Reach(family) => {
                begin_attribute(code::MP_REACH, family, out);
                if let Some(next_hop) = self.next_hop {
                    out.push(next_hop.len());
                    next_hop.write(out);
                }
                out.push(0);
            }
            Shape::Unreach(family) => begin_attribute(code::MP_UNREACH, family, out),
            Shape::Withdrawn => {}
        }
        OpenMessage { start, attribute }
    }

    fn end(&self, open: &OpenMessage, out: &mut Vec<u8>) {
        match self.shape {
            Shape::Nlri => {}
            Shape::Withdrawn => {
                let len = out.len() - open.attribute;
                set_u16(out, open.attribute - 2, len);
                out.extend([0, 0]);
            }
            Shape::Reach(_) | Shape::Unreach(_) => {
                let with_reach = matches!(self.shape, Shape::Reach(_));
                let code = if with_reach { code::MP_REACH } else { code::MP_UNREACH };
                end_attribute(open.attribute, code, out);
                out.extend(self.attributes);
                let len = out.len() - open.attribute;
                set_u16(out, open.attribute - 2, len);
            }
        }
        end_message(open.start, out);
    }

    /// The attributes with the next hop where its type belongs.
    fn write_with_next_hop(&self, out: &mut Vec<u8>) {
        let mut before = RawAttributes::new(self.attributes);
        let mut rest = before.clone();
        while before.next().is_some_and(|attribute| attribute.code < code::NEXT_HOP) {
            rest = before.clone();
        }
        let (head, tail) = self.attributes.split_at(self.attributes.len() - rest.left());
        out.extend(head);
        if let Some(next_hop) = self.next_hop {
            write_attribute(flag::TRANSITIVE, code::NEXT_HOP, out, |out| next_hop.write(out));
        }
        out.extend(tail);
    }
}

/// Begins an attribute with an extended length, which is put right at its end.
fn begin_attribute(code: u8, family: Family, out: &mut Vec<u8>) {
    let wire = family.wire();
    out.extend([flag::OPTIONAL | flag::EXTENDED_LENGTH, code, 0, 0]);
    out.extend(wire.afi.to_be_bytes());
    out.push(wire.safi);
}

/// Sets the length of the attribute at `at`, in one octet where that is enough.
fn end_attribute(at: usize, code: u8, out: &mut Vec<u8>) {
    let len = out.len() - at - 4;
    match u8::try_from(len) {
        Ok(short) => _ = out.splice(at..at + 4, [flag::OPTIONAL, code, short]),
        Err(_) => set_u16(out, at + 2, len),
    }
}

/// The attributes as the peer can read them: for one of two octets with `AS4_PATH` and `AS4_AGGREGATOR` where
/// they are needed (RFC 6793 §4.2.2).
fn for_width(canonical: &[u8], width: AsWidth) -> Cow<'_, [u8]> {
    match width {
        AsWidth::Four => Cow::Borrowed(canonical),
        AsWidth::Two => Cow::Owned(in_two_octets(canonical)),
    }
}

fn in_two_octets(canonical: &[u8]) -> Vec<u8> {
    let mut narrow = Narrow::default();
    for raw in RawAttributes::new(canonical) {
        narrow.take(&raw);
    }
    narrow.flush(u8::MAX);
    narrow.out
}

/// Attributes on their way into two octets.
#[derive(Default)]
struct Narrow {
    out: Vec<u8>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
}

impl Narrow {
    fn take(&mut self, raw: &RawAttribute<'_>) {
        self.flush(raw.code);
        let (flags, code) = (raw.flags, raw.code);
        match code {
            code::AS_PATH => {
                let path = AsPath::read(raw.value, AsWidth::Four).unwrap_or_default();
                self.as4_path = path.beside_two_octets();
                write_attribute(flags, code, &mut self.out, |out| path.write(out, AsWidth::Two));
            }
            code::AGGREGATOR => {
                let Some(aggregator) = Aggregator::read(raw.value, AsWidth::Four) else { return };
                self.as4_aggregator =
                    Some(aggregator).filter(|a| u16::try_from(a.asn.get()).is_err());
                write_attribute(flags, code, &mut self.out, |out| {
                    aggregator.write(out, AsWidth::Two);
                });
            }
            _ => write_attribute(flags, code, &mut self.out, |out| out.extend(raw.value)),
        }
    }

    /// Writes what belongs before the type that comes now.
    fn flush(&mut self, code: u8) {
        if code > code::AS4_PATH
            && let Some(path) = self.as4_path.take()
        {
            write_attribute(flags_of(code::AS4_PATH), code::AS4_PATH, &mut self.out, |out| {
                path.write(out, AsWidth::Four);
            });
        }
        if code > code::AS4_AGGREGATOR
            && let Some(aggregator) = self.as4_aggregator.take()
        {
            let code = code::AS4_AGGREGATOR;
            write_attribute(flags_of(code), code, &mut self.out, |out| {
                aggregator.write(out, AsWidth::Four);
            });
        }
    }
}

/// Header, lengths, and the next hop in its longest form with the head of its attribute.
const AROUND_ATTRIBUTES: usize = 19 + 4 + 4 + 3 + 1 + 32 + 1;
/// A path identifier, and a route of EVPN's type 5 with IPv6.
const LONGEST_NLRI: usize = 4 + 2 + 58;

#[cfg(test)]
mod tests {
    use russet_net::{Asn, Prefix};

    use super::*;
    use crate::wire::{
        Attributes, Frame, MessageLimit, NlriKey, PathId, Peering, Update, V4Prefix,
    };

    fn terms(width: AsWidth) -> Terms {
        let mut terms = Terms::plain(Peering::External);
        terms.as_width = width;
        terms.families = Family::ALL.into_iter().collect();
        terms
    }

    fn attributes(asns: &[u32]) -> Attributes {
        let as_path = AsPath::sequence(asns.iter().copied().map(Asn::new));
        Attributes { as_path, med: Some(5), ..Attributes::default() }
    }

    fn canonical(attributes: &Attributes) -> Vec<u8> {
        let mut out = Vec::new();
        attributes.write(&mut out);
        out
    }

    fn many(count: u32) -> impl Iterator<Item = Nlri> {
        (0..count).map(|n| {
            let prefix = V4Prefix::around(0x0a00_0000 + (n << 8), 24).unwrap();
            Nlri { path_id: PathId::new(n), ..Nlri::plain(NlriKey::V4(prefix)) }
        })
    }

    /// Reads every message back: the routes, and the attributes of each.
    fn read(mut stream: &[u8], terms: Terms) -> Vec<(Vec<Nlri>, Attributes)> {
        let mut read = Vec::new();
        while let Some(frame) = Frame::read(stream, terms.limit).unwrap() {
            let update = Update::parse(frame.body, terms).unwrap();
            assert!(update.faults().is_empty(), "{:?}", update.faults());
            let mut octets = Vec::new();
            update.write_attributes(&mut octets);
            let routes = update.announced().flat_map(|announced| announced.nlris.iter()).collect();
            read.push((routes, Attributes::read(&octets).unwrap()));
            stream = &stream[frame.len..];
        }
        assert!(stream.is_empty());
        read
    }

    #[test]
    fn routes_fill_messages_and_none_is_lost_or_too_long() {
        for limit in [MessageLimit::Usual, MessageLimit::Extended] {
            for add_path in [false, true] {
                let mut terms = Terms { limit, ..terms(AsWidth::Four) };
                if add_path {
                    terms.add_path_in = terms.families;
                    terms.add_path_out = terms.families;
                }
                let (mut out, wanted) = (Vec::new(), attributes(&[65_001]));
                let next_hop = NextHop::V4([10, 0, 0, 1].into());
                let messages = UpdateWriter::new(terms, &mut out)
                    .announce(Family::Ipv4Unicast, &canonical(&wanted), next_hop, many(30_000))
                    .unwrap();
                let back = read(&out, terms);
                let least = 30_000 * if add_path { 8 } else { 4 } / limit.octets();
                assert_eq!(back.len(), messages);
                assert!((least..=least + 2).contains(&messages), "{messages} for {least}");
                assert!(back.iter().all(|(_, attributes)| *attributes == wanted));
                let keys: Vec<_> = back.iter().flat_map(|(routes, _)| routes).collect();
                assert!(keys.iter().zip(many(30_000)).all(|(got, sent)| got.key == sent.key));
                assert_eq!(keys.len(), 30_000);
            }
        }
    }

    #[test]
    fn what_fits_exactly_stands_in_one_message_and_one_more_in_two() {
        let terms = terms(AsWidth::Four);
        let octets = canonical(&attributes(&[1]));
        let next_hop = NextHop::V4([10, 0, 0, 1].into());
        let fit = u32::try_from((4_096 - 19 - 4 - octets.len() - 7) / 4).unwrap();
        for (count, messages) in [(fit, 1), (fit + 1, 2)] {
            let mut out = Vec::new();
            let mut writer = UpdateWriter::new(terms, &mut out);
            let made = writer.announce(Family::Ipv4Unicast, &octets, next_hop, many(count));
            assert_eq!(made, Ok(messages));
        }
    }

    #[test]
    fn a_peer_of_two_octets_gets_the_rest_beside() {
        let terms = terms(AsWidth::Two);
        let mut wanted = attributes(&[65_001, 4_200_000_000]);
        wanted.aggregator = Some(Aggregator { asn: Asn::new(80_000), id: [10, 0, 0, 9].into() });
        let mut out = Vec::new();
        let next_hop = NextHop::V4([10, 0, 0, 1].into());
        UpdateWriter::new(terms, &mut out)
            .announce(Family::Ipv4Unicast, &canonical(&wanted), next_hop, many(1))
            .unwrap();
        assert_eq!(read(&out, terms)[0].1, wanted);
    }

    #[test]
    fn withdrawals_and_ends_of_each_family_read_back() {
        let terms = terms(AsWidth::Four);
        let v6: Prefix = "2001:db8::/32".parse().unwrap();
        for (family, key) in
            [(Family::Ipv4Unicast, many(1).next().unwrap().key), (Family::Ipv6Unicast, v6.into())]
        {
            let mut out = Vec::new();
            let mut writer = UpdateWriter::new(terms, &mut out);
            writer.withdraw(family, [Nlri::plain(key)]);
            writer.end_of_rib(family);
            let first = Frame::read(&out, terms.limit).unwrap().unwrap();
            let update = Update::parse(first.body, terms).unwrap();
            let gone: Vec<_> = update.withdrawn().flat_map(|nlris| nlris.iter()).collect();
            assert_eq!((gone, update.end_of_rib()), (vec![Nlri::plain(key)], None));
            let second = Frame::read(&out[first.len..], terms.limit).unwrap().unwrap();
            let update = Update::parse(second.body, terms).unwrap();
            assert_eq!(update.end_of_rib(), Some(family));
        }
    }

    #[test]
    fn attributes_that_leave_no_room_are_refused_and_nothing_is_written() {
        let terms = terms(AsWidth::Four);
        let mut long = attributes(&[1]);
        long.communities = (0..1_020).map(crate::wire::Community::new).collect();
        let mut out = Vec::new();
        let next_hop = NextHop::V4([10, 0, 0, 1].into());
        let mut writer = UpdateWriter::new(terms, &mut out);
        let octets = canonical(&long);
        assert!(writer.announce(Family::Ipv4Unicast, &octets, next_hop, many(1)).is_err());
        assert!(out.is_empty());
    }
}
