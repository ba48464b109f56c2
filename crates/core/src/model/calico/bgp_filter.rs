//! Which routes a peer is told and believed, and what is changed in them.

use russet_net::{Asn, Family, OutOfRange, Prefix};

use super::Community;

/// Rules of each direction and family; the first that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpFilter {
    pub import_v4: Vec<BgpFilterRule>,
    pub import_v6: Vec<BgpFilterRule>,
    pub export_v4: Vec<BgpFilterRule>,
    pub export_v6: Vec<BgpFilterRule>,
}

/// One rule. A condition that is not there holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpFilterRule {
    pub prefix: Option<PrefixMatch>,
    /// Only routes that another peer taught.
    pub from_peers: bool,
    /// The route's link; `*` stands for any letters.
    pub link: Option<String>,
    pub peer_type: Option<PeerType>,
    pub community: Option<Community>,
    /// What the AS path begins with.
    pub path_prefix: Vec<Asn>,
    pub priority: Option<RoutePriority>,
    pub verdict: Verdict,
}

/// How a route's prefix is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixMatch {
    pub cidr: Prefix,
    pub operator: MatchOperator,
    pub len: Option<LenRange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOperator {
    Equal,
    NotEqual,
    In,
    NotIn,
}

/// Prefix lengths, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LenRange {
    min: u8,
    max: u8,
}

impl LenRange {
    /// What is not given is the prefix's own length, and a whole address.
    ///
    /// # Errors
    ///
    /// When an end does not fit the family, or the ends are the wrong way round.
    pub fn new(cidr: Prefix, min: Option<u64>, max: Option<u64>) -> Result<Self, OutOfRange> {
        let bits = cidr.family().bits();
        let end = |what, given: Option<u64>, low: u8, usual| match given {
            None => Ok(usual),
            Some(given) => {
                let fits = u8::try_from(given).ok().filter(|end| (low..=bits).contains(end));
                fits.ok_or(OutOfRange::new(what, given, low.into(), bits.into()))
            }
        };
        let min = end("prefix length", min, 0, cidr.len())?;
        Ok(Self { min, max: end("prefix length", max, min, bits)? })
    }

    pub const fn min(self) -> u8 {
        self.min
    }

    pub const fn max(self) -> u8 {
        self.max
    }
}

impl PrefixMatch {
    /// Whether a route is meant.
    pub fn holds(self, route: Prefix) -> bool {
        let len = self.len.is_none_or(|len| (len.min..=len.max).contains(&route.len()));
        match self.operator {
            MatchOperator::Equal => self.cidr == route && len,
            MatchOperator::NotEqual => self.cidr != route && len,
            MatchOperator::In => self.cidr.covers(route) && len,
            MatchOperator::NotIn => !self.cidr.covers(route) && len,
        }
    }

    pub fn family(self) -> Family {
        self.cidr.family()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerType {
    /// Of another AS.
    External,
    Internal,
}

/// Only what is accepted is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept(Vec<Operation>),
    Reject,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    AddCommunity(Community),
    /// In the order in which the path will begin.
    PrependPath(Vec<Asn>),
    SetPriority(RoutePriority),
}

/// A route's metric: 1 to 2,147,483,646.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutePriority(u32);

impl RoutePriority {
    pub const MAX: Self = Self(2_147_483_646);

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for RoutePriority {
    type Error = OutOfRange;

    fn try_from(raw: u32) -> Result<Self, Self::Error> {
        if (1..=Self::MAX.0).contains(&raw) {
            Ok(Self(raw))
        } else {
            Err(OutOfRange::new("priority", raw.into(), 1, Self::MAX.0.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_range_is_within_the_family_and_the_right_way_round() {
        let cidr = "10.0.0.0/8".parse().unwrap();
        let range = LenRange::new(cidr, None, Some(24)).unwrap();
        assert_eq!((range.min(), range.max()), (8, 24));
        assert!(LenRange::new(cidr, Some(33), None).is_err());
        assert!(LenRange::new(cidr, Some(25), Some(24)).is_err());
        assert!(LenRange::new(cidr, None, Some(u64::MAX)).is_err());
    }

    #[test]
    fn a_prefix_is_compared_by_its_operator_and_its_length() {
        let cidr: Prefix = "10.0.0.0/8".parse().unwrap();
        let len = Some(LenRange::new(cidr, Some(16), Some(24)).unwrap());
        let holds = |operator, len, route: &str| {
            PrefixMatch { cidr, operator, len }.holds(route.parse().unwrap())
        };
        assert!(holds(MatchOperator::In, len, "10.1.0.0/16"));
        assert!(!holds(MatchOperator::In, len, "10.1.1.0/26"));
        assert!(holds(MatchOperator::In, None, "10.1.1.0/26"));
        assert!(holds(MatchOperator::NotIn, None, "11.0.0.0/8"));
        assert!(holds(MatchOperator::Equal, None, "10.0.0.0/8"));
        assert!(holds(MatchOperator::NotEqual, None, "10.0.0.0/9"));
    }
}
