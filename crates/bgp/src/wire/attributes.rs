//! Path attributes as values, and the little that is known of each type (RFC 4271 §4.3, §5).
// Octets in the order of the wire have no better names than letters.
#![allow(clippy::many_single_char_names)]

use std::net::Ipv4Addr;

use russet_net::Asn;

use super::{
    AsPath, AsWidth, ClusterId, Community, ExtCommunity, LargeCommunity, PmsiTunnel, RouterId,
    reader::Reader,
};

/// Every attribute of a path but next hop and routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub origin: Origin,
    pub as_path: AsPath,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    /// Whether a less specific route was chosen by somebody on the way.
    pub atomic_aggregate: bool,
    pub aggregator: Option<Aggregator>,
    pub communities: Vec<Community>,
    /// Who brought the route into the AS (RFC 4456 §8).
    pub originator_id: Option<RouterId>,
    /// The clusters that the route came through, the nearest first.
    pub cluster_list: Vec<ClusterId>,
    pub ext_communities: Vec<ExtCommunity>,
    pub large_communities: Vec<LargeCommunity>,
    pub pmsi_tunnel: Option<PmsiTunnel>,
    /// What we do not know and pass on, by ascending type.
    pub others: Vec<OtherAttribute>,
    /// What somebody on the way did not know; it stays marked (RFC 4271 §5).
    pub partial: PartialTypes,
}

/// How the route came into BGP; the smaller the better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    #[default]
    Igp,
    Egp,
    Incomplete,
}

/// Who put several routes together into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    pub asn: Asn,
    pub id: Ipv4Addr,
}

/// An attribute that we do not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherAttribute {
    pub flags: u8,
    pub code: u8,
    pub value: Vec<u8>,
}

/// Types below 64 that somebody on the way passed on without knowing them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartialTypes(u64);

impl Origin {
    fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Igp),
            1 => Some(Self::Egp),
            2 => Some(Self::Incomplete),
            _ => None,
        }
    }

    pub const fn wire(self) -> u8 {
        match self {
            Self::Igp => 0,
            Self::Egp => 1,
            Self::Incomplete => 2,
        }
    }
}

impl Attributes {
    /// Reads canonical octets; `None` when they are not (see [`super::Update::write_attributes`]).
    pub fn read(canonical: &[u8]) -> Option<Self> {
        let mut read = Self::default();
        let mut raw = RawAttributes::new(canonical);
        for attribute in raw.by_ref() {
            read.take(&attribute)?;
        }
        raw.is_at_end().then_some(read)
    }

    fn take(&mut self, raw: &RawAttribute<'_>) -> Option<()> {
        let value = raw.value;
        let mut reader = Reader::new(value);
        match raw.code {
            code::ORIGIN => self.origin = Origin::from_wire(reader.u8()?)?,
            code::AS_PATH => self.as_path = AsPath::read(value, AsWidth::Four)?,
            code::MED => self.med = Some(reader.u32()?),
            code::LOCAL_PREF => self.local_pref = Some(reader.u32()?),
            code::ATOMIC_AGGREGATE => self.atomic_aggregate = true,
            code::AGGREGATOR => self.aggregator = Some(Aggregator::read(value, AsWidth::Four)?),
            code::COMMUNITIES => self.communities = each(value, |o| Community::new(number(o))),
            code::ORIGINATOR_ID => self.originator_id = RouterId::try_from(reader.u32()?).ok(),
            code::CLUSTER_LIST => self.cluster_list = each(value, |o| ClusterId::new(number(o))),
            code::EXT_COMMUNITIES => self.ext_communities = each(value, ExtCommunity::new),
            code::LARGE_COMMUNITIES => self.large_communities = each(value, large),
            code::PMSI_TUNNEL => self.pmsi_tunnel = Some(PmsiTunnel::read(value)?),
            code => {
                self.others.push(OtherAttribute { flags: raw.flags, code, value: value.to_vec() });
            }
        }
        if raw.flags & flag::PARTIAL != 0 {
            self.partial.0 |= 1_u64.checked_shl(raw.code.into()).unwrap_or_default();
        }
        Some(())
    }

    /// Writes canonical octets behind what `out` has.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer { out, partial: self.partial, others: self.others.iter() };
        writer.put(code::ORIGIN, |out| out.push(self.origin.wire()));
        writer.put(code::AS_PATH, |out| self.as_path.write(out, AsWidth::Four));
        writer.put_some(code::MED, self.med, |med, out| out.extend(med.to_be_bytes()));
        writer.put_some(code::LOCAL_PREF, self.local_pref, |pref, out| {
            out.extend(pref.to_be_bytes());
        });
        writer.put_some(code::ATOMIC_AGGREGATE, self.atomic_aggregate.then_some(()), |(), _| {});
        writer.put_some(code::AGGREGATOR, self.aggregator, |aggregator, out| {
            aggregator.write(out, AsWidth::Four);
        });
        writer.put_all(code::COMMUNITIES, &self.communities, |c| c.get().to_be_bytes());
        writer.put_some(code::ORIGINATOR_ID, self.originator_id, |id, out| {
            out.extend(id.get().to_be_bytes());
        });
        writer.put_all(code::CLUSTER_LIST, &self.cluster_list, |c| c.get().to_be_bytes());
        writer.put_all(code::EXT_COMMUNITIES, &self.ext_communities, ExtCommunity::octets);
        writer.put_some(code::PMSI_TUNNEL, self.pmsi_tunnel.as_ref(), |tunnel, out| {
            tunnel.write(out);
        });
        writer.put_all(code::LARGE_COMMUNITIES, &self.large_communities, large_octets);
        writer.finish();
    }
}

impl Aggregator {
    pub(super) fn read(value: &[u8], width: AsWidth) -> Option<Self> {
        let mut reader = Reader::new(value);
        let asn = match width {
            AsWidth::Two => reader.u16()?.into(),
            AsWidth::Four => Asn::new(reader.u32()?),
        };
        let id = reader.v4()?;
        reader.is_empty().then_some(Self { asn, id })
    }

    pub(super) fn write(self, out: &mut Vec<u8>, width: AsWidth) {
        match width {
            AsWidth::Two => out.extend(self.asn.in_two_octets().to_be_bytes()),
            AsWidth::Four => out.extend(self.asn.get().to_be_bytes()),
        }
        out.extend(self.id.octets());
    }
}

/// Writes attributes in the order of their types, those unknown to us in between.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    partial: PartialTypes,
    others: std::slice::Iter<'a, OtherAttribute>,
}

impl Writer<'_> {
    fn put(&mut self, code: u8, value: impl FnOnce(&mut Vec<u8>)) {
        self.others_before(code);
        let partial = self.partial.0.checked_shr(code.into()).unwrap_or_default() & 1 == 1;
        let flags = flags_of(code) | if partial { flag::PARTIAL } else { 0 };
        write_attribute(flags, code, self.out, value);
    }

    fn put_some<T>(&mut self, code: u8, value: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
        if let Some(value) = value {
            self.put(code, |out| write(value, out));
        }
    }

    fn put_all<T: Copy, const N: usize>(
        &mut self,
        code: u8,
        all: &[T],
        octets: impl Fn(T) -> [u8; N],
    ) {
        if !all.is_empty() {
            self.put(code, |out| all.iter().for_each(|one| out.extend(octets(*one))));
        }
    }

    fn others_before(&mut self, code: u8) {
        while let Some(other) = self.others.as_slice().first().filter(|other| other.code < code) {
            write_attribute(other.flags, other.code, self.out, |out| out.extend(&other.value));
            self.others.next();
        }
    }

    fn finish(mut self) {
        self.others_before(u8::MAX);
        for other in self.others {
            write_attribute(other.flags, other.code, self.out, |out| out.extend(&other.value));
        }
    }
}

/// An attribute where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawAttribute<'a> {
    /// Without the flag for an extended length.
    pub flags: u8,
    pub code: u8,
    pub value: &'a [u8],
}

/// The attributes of a block, up to the first whose length leads beyond it.
#[derive(Clone, Debug)]
pub(super) struct RawAttributes<'a> {
    reader: Reader<'a>,
}

impl<'a> RawAttributes<'a> {
    pub const fn new(block: &'a [u8]) -> Self {
        Self { reader: Reader::new(block) }
    }

    /// Octets that have not been read.
    pub const fn left(&self) -> usize {
        self.reader.len()
    }

    /// Whether nothing is left: otherwise the next attribute is cut off.
    pub const fn is_at_end(&self) -> bool {
        self.reader.is_empty()
    }
}

impl<'a> Iterator for RawAttributes<'a> {
    type Item = RawAttribute<'a>;

    fn next(&mut self) -> Option<RawAttribute<'a>> {
        let mut reader = self.reader;
        let (flags, code) = (reader.u8()?, reader.u8()?);
        let value = match flags & flag::EXTENDED_LENGTH {
            0 => reader.block_u8()?,
            _ => reader.block_u16()?,
        };
        self.reader = reader;
        Some(RawAttribute { flags: flags & !flag::EXTENDED_LENGTH, code, value })
    }
}

/// Writes one attribute, its length in one octet where that is enough.
pub(super) fn write_attribute(
    flags: u8,
    code: u8,
    out: &mut Vec<u8>,
    value: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend([flags & flag::KNOWN, code, 0]);
    value(out);
    let len = out.len() - start - 3;
    if let Ok(short) = u8::try_from(len) {
        if let Some(octet) = out.get_mut(start + 2) {
            *octet = short;
        }
        return;
    }
    // An attribute beyond 65,535 octets fits in no message; whoever makes one is told by the encoder.
    let [high, low] = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(octet) = out.get_mut(start) {
        *octet |= flag::EXTENDED_LENGTH;
    }
    out.splice(start + 2..start + 3, [high, low]);
}

/// The flags that a type must have; those of what we do not know are optional and transitive.
pub(super) const fn flags_of(code: u8) -> u8 {
    match code {
        code::ORIGIN
        | code::AS_PATH
        | code::NEXT_HOP
        | code::LOCAL_PREF
        | code::ATOMIC_AGGREGATE => flag::TRANSITIVE,
        code::MED
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH
        | code::MP_UNREACH => flag::OPTIONAL,
        _ => flag::OPTIONAL | flag::TRANSITIVE,
    }
}

/// The name of a type, for people.
pub(super) fn name_of(code: u8) -> String {
    let name = match code {
        code::ORIGIN => "ORIGIN",
        code::AS_PATH => "AS_PATH",
        code::NEXT_HOP => "NEXT_HOP",
        code::MED => "MULTI_EXIT_DISC",
        code::LOCAL_PREF => "LOCAL_PREF",
        code::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        code::AGGREGATOR => "AGGREGATOR",
        code::COMMUNITIES => "COMMUNITIES",
        code::ORIGINATOR_ID => "ORIGINATOR_ID",
        code::CLUSTER_LIST => "CLUSTER_LIST",
        code::MP_REACH => "MP_REACH_NLRI",
        code::MP_UNREACH => "MP_UNREACH_NLRI",
        code::EXT_COMMUNITIES => "EXTENDED_COMMUNITIES",
        code::AS4_PATH => "AS4_PATH",
        code::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        code::PMSI_TUNNEL => "PMSI_TUNNEL",
        code::LARGE_COMMUNITIES => "LARGE_COMMUNITY",
        other => return format!("attribute {other}"),
    };
    name.to_owned()
}

fn each<T, const N: usize>(value: &[u8], one: impl Fn([u8; N]) -> T) -> Vec<T> {
    value.as_chunks::<N>().0.iter().map(|octets| one(*octets)).collect()
}

fn number(octets: [u8; 4]) -> u32 {
    u32::from_be_bytes(octets)
}

fn large(octets: [u8; 12]) -> LargeCommunity {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = octets;
    let local = [number([e, f, g, h]), number([i, j, k, l])];
    LargeCommunity { global: number([a, b, c, d]), local }
}

fn large_octets(large: LargeCommunity) -> [u8; 12] {
    let [a, b, c, d] = large.global.to_be_bytes();
    let [e, f, g, h] = large.local[0].to_be_bytes();
    let [i, j, k, l] = large.local[1].to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// Types of attributes.
pub(super) mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH: u8 = 14;
    pub const MP_UNREACH: u8 = 15;
    pub const EXT_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const PMSI_TUNNEL: u8 = 22;
    pub const LARGE_COMMUNITIES: u8 = 32;
}

/// Flags of attributes (RFC 4271 §4.3).
pub(super) mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;
    /// The low bits must be zero when sent and are ignored when received.
    pub const KNOWN: u8 = OPTIONAL | TRANSITIVE | PARTIAL;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_as_they_are_written() {
        let attributes = Attributes {
            as_path: AsPath::sequence([Asn::new(65_001), Asn::new(4_200_000_000)]),
            med: Some(7),
            local_pref: Some(200),
            atomic_aggregate: true,
            aggregator: Some(Aggregator { asn: Asn::new(9), id: [10, 0, 0, 1].into() }),
            communities: (0..100).map(Community::new).collect(),
            originator_id: RouterId::try_from(9).ok(),
            cluster_list: vec![ClusterId::new(1), ClusterId::new(2)],
            ext_communities: vec![ExtCommunity::encapsulation(8)],
            large_communities: vec![LargeCommunity { global: 1, local: [2, 3] }],
            pmsi_tunnel: PmsiTunnel::read(&[0, 6, 0, 0, 100, 10, 0, 0, 1]),
            others: [12, 30, 200, 255]
                .map(|code| OtherAttribute { flags: 0xe0, code, value: vec![code; 300] })
                .to_vec(),
            partial: PartialTypes(1 << code::COMMUNITIES | 1 << 12 | 1 << 30),
            ..Attributes::default()
        };
        let mut out = Vec::new();
        attributes.write(&mut out);
        assert_eq!(Attributes::read(&out), Some(attributes));
        let codes: Vec<_> = RawAttributes::new(&out).map(|raw| raw.code).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        assert_eq!(Attributes::read(&out[..out.len() - 1]), None);
    }

    #[test]
    fn the_length_is_extended_only_when_it_has_to_be() {
        for (len, header) in [(255, &[0xc0, 8, 255][..]), (256, &[0xd0, 8, 1, 0])] {
            let mut out = Vec::new();
            write_attribute(0xc0, 8, &mut out, |out| out.resize(out.len() + len, 0));
            assert_eq!(&out[..header.len()], header);
            assert_eq!(out.len(), header.len() + len);
        }
    }
}
