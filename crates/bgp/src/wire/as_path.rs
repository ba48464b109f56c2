//! The autonomous systems that a route came through (RFC 4271 §4.3, §5.1.2; RFC 6793; RFC 5065 §3).

use std::fmt;

use russet_net::Asn;

use super::{AsWidth, reader::Reader};

/// The path of a route, the nearest AS first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath {
    segments: Vec<Segment>,
}

/// A run of AS numbers of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    pub kind: SegmentKind,
    pub asns: Vec<Asn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    Set,
    Sequence,
    ConfedSequence,
    ConfedSet,
}

impl SegmentKind {
    fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Set),
            2 => Some(Self::Sequence),
            3 => Some(Self::ConfedSequence),
            4 => Some(Self::ConfedSet),
            _ => None,
        }
    }

    const fn wire(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Sequence => 2,
            Self::ConfedSequence => 3,
            Self::ConfedSet => 4,
        }
    }

    /// Inside a confederation only; we are in none.
    pub const fn is_confed(self) -> bool {
        matches!(self, Self::ConfedSequence | Self::ConfedSet)
    }
}

impl Segment {
    /// How much it counts when paths are compared (RFC 4271 §9.1.2.2, RFC 5065 §5.3).
    fn hops(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.asns.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        }
    }
}

impl AsPath {
    pub const fn new(segments: Vec<Segment>) -> Self {
        Self { segments }
    }

    /// A path that is one sequence, the nearest AS first; empty for a route of our own AS.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        let asns: Vec<_> = asns.into_iter().collect();
        if asns.is_empty() {
            return Self::default();
        }
        Self { segments: vec![Segment { kind: SegmentKind::Sequence, asns }] }
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How long the path counts as: a set is one.
    pub fn hops(&self) -> usize {
        self.segments.iter().map(Segment::hops).sum()
    }

    pub fn contains(&self, asn: Asn) -> bool {
        self.asns().any(|other| other == asn)
    }

    /// Every number of the path in order, sets included.
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.segments.iter().flat_map(|segment| segment.asns.iter().copied())
    }

    /// The AS that the route was learned from; `None` when it is ours, or begins with a set.
    pub fn neighbor(&self) -> Option<Asn> {
        let first = self.segments.iter().find(|segment| !segment.kind.is_confed())?;
        (first.kind == SegmentKind::Sequence).then(|| first.asns.first().copied()).flatten()
    }

    /// The AS that the route came from at first; `None` when it is ours, or ends with a set.
    pub fn origin(&self) -> Option<Asn> {
        let last = self.segments.last()?;
        (last.kind == SegmentKind::Sequence).then(|| last.asns.last().copied()).flatten()
    }

    /// Puts `asn` in front, `times` times (RFC 4271 §5.1.2).
    pub fn prepend(&mut self, asn: Asn, times: u8) {
        for _ in 0..times {
            match self.segments.first_mut() {
                Some(first) if first.kind == SegmentKind::Sequence && first.asns.len() < MOST => {
                    first.asns.insert(0, asn);
                }
                _ => {
                    let segment = Segment { kind: SegmentKind::Sequence, asns: vec![asn] };
                    self.segments.insert(0, segment);
                }
            }
        }
    }

    /// Reads a whole attribute; `None` when it is malformed (RFC 7606 §7.2).
    pub(super) fn read(octets: &[u8], width: AsWidth) -> Option<Self> {
        let segments = RawSegments::new(octets, width)
            .map(|raw| raw.map(|raw| Segment { kind: raw.kind, asns: raw.asns().collect() }))
            .collect::<Option<_>>()?;
        Some(Self { segments })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, width: AsWidth) {
        for segment in &self.segments {
            for run in segment.asns.chunks(MOST) {
                out.push(segment.kind.wire());
                out.push(u8::try_from(run.len()).unwrap_or(u8::MAX));
                for asn in run {
                    match width {
                        AsWidth::Two => out.extend(asn.in_two_octets().to_be_bytes()),
                        AsWidth::Four => out.extend(asn.get().to_be_bytes()),
                    }
                }
            }
        }
    }

    /// What an `AS4_PATH` must carry beside a path in two octets: nothing when each number fits (RFC 6793
    /// §4.2.2).
    pub(super) fn beside_two_octets(&self) -> Option<Self> {
        if self.asns().all(|asn| u16::try_from(asn.get()).is_ok()) {
            return None;
        }
        Some(self.without_confed())
    }

    /// Joins the path that a speaker of two octets sent with the `AS4_PATH` beside it (RFC 6793 §4.2.3).
    pub(super) fn merge(self, four: &Self) -> Self {
        let four = four.without_confed();
        let Some(mut lead) = self.hops().checked_sub(four.hops()) else { return self };
        let mut merged = Self::default();
        for mut segment in self.segments {
            if lead == 0 {
                break;
            }
            if segment.kind == SegmentKind::Sequence {
                segment.asns.truncate(lead);
            }
            lead -= segment.hops().min(lead);
            merged.push(segment);
        }
        for segment in four.segments {
            merged.push(segment);
        }
        merged
    }

    /// Adds a segment at the end; a sequence goes on with the one before it.
    fn push(&mut self, segment: Segment) {
        match self.segments.last_mut() {
            Some(last)
                if last.kind == SegmentKind::Sequence
                    && segment.kind == SegmentKind::Sequence
                    && last.asns.len() + segment.asns.len() <= MOST =>
            {
                last.asns.extend(segment.asns);
            }
            _ => self.segments.push(segment),
        }
    }

    fn without_confed(&self) -> Self {
        let kept = self.segments.iter().filter(|segment| !segment.kind.is_confed());
        Self { segments: kept.cloned().collect() }
    }
}

impl fmt::Display for AsPath {
    /// Numbers with blanks between; a set in braces, what belongs to a confederation in parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments: Vec<_> = self.segments.iter().map(ToString::to_string).collect();
        f.pad(&segments.join(" "))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.asns.iter().map(ToString::to_string).collect();
        match self.kind {
            SegmentKind::Sequence => f.write_str(&numbers.join(" ")),
            SegmentKind::Set => write!(f, "{{{}}}", numbers.join(" ")),
            SegmentKind::ConfedSequence => write!(f, "({})", numbers.join(" ")),
            SegmentKind::ConfedSet => write!(f, "({{{}}})", numbers.join(" ")),
        }
    }
}

/// The segments of an attribute where they lie. A `None` is a malformed one, and the last.
pub(super) struct RawSegments<'a> {
    reader: Reader<'a>,
    width: AsWidth,
}

pub(super) struct RawSegment<'a> {
    pub kind: SegmentKind,
    octets: &'a [u8],
    width: AsWidth,
}

impl<'a> RawSegments<'a> {
    pub const fn new(octets: &'a [u8], width: AsWidth) -> Self {
        Self { reader: Reader::new(octets), width }
    }

    fn read(&mut self) -> Option<RawSegment<'a>> {
        let kind = SegmentKind::from_wire(self.reader.u8()?)?;
        let count = usize::from(self.reader.u8()?);
        let octets = self.reader.take(count * self.width.octets())?;
        // A segment without a number is malformed (RFC 7606 §7.2).
        (count > 0).then_some(RawSegment { kind, octets, width: self.width })
    }
}

impl<'a> Iterator for RawSegments<'a> {
    type Item = Option<RawSegment<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let segment = self.read();
        if segment.is_none() {
            self.reader = Reader::new(&[]);
        }
        Some(segment)
    }
}

impl RawSegment<'_> {
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.octets.chunks_exact(self.width.octets()).map(|octets| match *octets {
            [a, b] => Asn::new(u16::from_be_bytes([a, b]).into()),
            [a, b, c, d] => Asn::new(u32::from_be_bytes([a, b, c, d])),
            // The width is two or four.
            _ => Asn::ZERO,
        })
    }
}

/// The most numbers of one segment: its count is one octet.
const MOST: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(asns: &[u32]) -> AsPath {
        AsPath::sequence(asns.iter().copied().map(Asn::new))
    }

    #[test]
    fn a_path_is_the_same_after_a_round_trip() {
        let mut path = path(&[65_001, 4_200_000_000]);
        path.segments.push(Segment { kind: SegmentKind::Set, asns: vec![Asn::new(7)] });
        let mut out = Vec::new();
        path.write(&mut out, AsWidth::Four);
        assert_eq!(AsPath::read(&out, AsWidth::Four), Some(path.clone()));
        assert_eq!(path.to_string(), "65001 4200000000 {7}");
        assert_eq!((path.hops(), path.neighbor()), (3, Some(Asn::new(65_001))));
        assert_eq!(path.origin(), None);
    }

    #[test]
    fn a_malformed_segment_spoils_the_path() {
        for bad in [&[9, 1, 0, 1][..], &[2, 2, 0, 1], &[2, 0], &[2], &[2, 1, 0, 1, 2]] {
            assert_eq!(AsPath::read(bad, AsWidth::Two), None, "{bad:?}");
        }
        assert_eq!(AsPath::read(&[], AsWidth::Two), Some(AsPath::default()));
    }

    #[test]
    fn prepending_starts_a_new_segment_when_the_first_is_full() {
        let mut path = path(&[1; 254]);
        path.prepend(Asn::new(2), 3);
        let lens: Vec<_> = path.segments.iter().map(|segment| segment.asns.len()).collect();
        assert_eq!((lens, path.hops()), (vec![2, 255], 257));
    }

    #[test]
    fn what_a_speaker_of_two_octets_hid_is_put_back() {
        let two = path(&[64_500, 23_456, 23_456]);
        let four = path(&[70_000, 80_000]);
        assert_eq!(two.merge(&four), path(&[64_500, 70_000, 80_000]));
        // Longer than the path itself: it belongs to another route.
        let two = path(&[64_500]);
        assert_eq!(two.clone().merge(&four), two);
    }

    #[test]
    fn a_path_that_fits_needs_nothing_beside_it() {
        assert_eq!(path(&[1, 65_535]).beside_two_octets(), None);
        assert_eq!(path(&[1, 65_536]).beside_two_octets(), Some(path(&[1, 65_536])));
    }
}
