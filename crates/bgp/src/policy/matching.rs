//! The questions of a rule.

use russet_net::{Asn, Prefix};

use crate::{
    bestpath::Learned,
    rib::USUAL_LOCAL_PREF,
    wire::{Attributes, Community, ExtCommunity, LargeCommunity, NextHop},
};

/// A question about the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixMatch {
    pub operator: Operator,
    pub prefix: Prefix,
    pub lengths: Lengths,
}

/// How a destination relates to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Equal,
    NotEqual,
    /// It is the prefix or a part of it.
    In,
    NotIn,
}

/// A range of prefix lengths, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lengths {
    pub least: u8,
    pub most: u8,
}

/// A question about the attributes of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    Community(Community),
    ExtCommunity(ExtCommunity),
    LargeCommunity(LargeCommunity),
    AsPath(AsPathMatch),
    /// The next hop lies in this prefix.
    NextHop(Prefix),
    LocalPref(u32),
    Med(u32),
    /// Where we have the route from.
    Learned(Learned),
    Not(Box<Match>),
    Any(Vec<Match>),
}

/// A question about the AS path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AsPathMatch {
    Contains(Asn),
    /// It begins with these, the nearest first.
    Begins(Vec<Asn>),
    /// The route came from this AS at first.
    Origin(Asn),
    /// It is longer than this.
    LongerThan(u32),
    /// The route is of our own AS.
    Empty,
}

/// What questions are asked of.
#[derive(Clone, Copy, Debug)]
pub struct RouteFacts<'a> {
    pub attributes: &'a Attributes,
    pub next_hop: NextHop,
    pub learned: Learned,
}

impl PrefixMatch {
    pub fn holds(&self, prefix: Prefix) -> bool {
        let related = match self.operator {
            Operator::Equal => prefix == self.prefix,
            Operator::NotEqual => prefix != self.prefix,
            Operator::In => self.prefix.covers(prefix),
            Operator::NotIn => !self.prefix.covers(prefix),
        };
        related && (self.lengths.least..=self.lengths.most).contains(&prefix.len())
    }
}

impl Lengths {
    pub const ANY: Self = Self { least: 0, most: 128 };
}

impl Match {
    pub fn holds(&self, facts: &RouteFacts<'_>) -> bool {
        let attributes = facts.attributes;
        match self {
            Self::Community(wanted) => attributes.communities.contains(wanted),
            Self::ExtCommunity(wanted) => attributes.ext_communities.contains(wanted),
            Self::LargeCommunity(wanted) => attributes.large_communities.contains(wanted),
            Self::AsPath(question) => question.holds(attributes),
            Self::NextHop(prefix) => prefix.contains(facts.next_hop.addr()),
            Self::LocalPref(wanted) => attributes.local_pref.unwrap_or(USUAL_LOCAL_PREF) == *wanted,
            Self::Med(wanted) => attributes.med.unwrap_or(0) == *wanted,
            Self::Learned(wanted) => facts.learned == *wanted,
            Self::Not(question) => !question.holds(facts),
            Self::Any(questions) => questions.iter().any(|question| question.holds(facts)),
        }
    }
}

impl AsPathMatch {
    fn holds(&self, attributes: &Attributes) -> bool {
        let path = &attributes.as_path;
        match self {
            Self::Contains(asn) => path.contains(*asn),
            Self::Begins(asns) => {
                let mut begin = path.asns();
                asns.iter().all(|asn| begin.next() == Some(*asn))
            }
            Self::Origin(asn) => path.origin() == Some(*asn),
            Self::LongerThan(hops) => u32::try_from(path.hops()).is_ok_and(|len| len > *hops),
            Self::Empty => path.segments().is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::AsPath;

    #[test]
    fn operators_relate_a_destination_to_a_prefix() {
        let holds = |operator, lengths, prefix: &str| {
            let wanted = "10.1.0.0/16".parse().unwrap();
            PrefixMatch { operator, prefix: wanted, lengths }.holds(prefix.parse().unwrap())
        };
        let any = Lengths::ANY;
        assert!(holds(Operator::Equal, any, "10.1.0.0/16"));
        assert!(!holds(Operator::Equal, any, "10.1.2.0/24"));
        assert!(holds(Operator::NotEqual, any, "10.1.2.0/24"));
        assert!(holds(Operator::In, any, "10.1.2.0/24") && holds(Operator::In, any, "10.1.0.0/16"));
        assert!(!holds(Operator::In, any, "10.0.0.0/8"));
        assert!(holds(Operator::NotIn, any, "10.0.0.0/8"));
        assert!(holds(Operator::NotIn, any, "fd00::/8"));
        let hosts = Lengths { least: 26, most: 32 };
        assert!(holds(Operator::In, hosts, "10.1.2.3/32"));
        assert!(!holds(Operator::In, hosts, "10.1.2.0/25"));
    }

    #[test]
    fn questions_are_asked_of_every_attribute() {
        let attributes = Attributes {
            as_path: AsPath::sequence([7, 8, 9].map(Asn::new)),
            med: Some(5),
            communities: vec![Community::new(1)],
            ext_communities: vec![ExtCommunity::encapsulation(8)],
            large_communities: vec![LargeCommunity { global: 1, local: [2, 3] }],
            ..Attributes::default()
        };
        let next_hop = std::net::IpAddr::from([192, 0, 2, 1]).into();
        let facts = RouteFacts { attributes: &attributes, next_hop, learned: Learned::Internal };
        let path = Match::AsPath;
        let yes = [
            Match::Community(Community::new(1)),
            Match::ExtCommunity(ExtCommunity::encapsulation(8)),
            Match::LargeCommunity(LargeCommunity { global: 1, local: [2, 3] }),
            path(AsPathMatch::Contains(Asn::new(8))),
            path(AsPathMatch::Begins(vec![Asn::new(7), Asn::new(8)])),
            path(AsPathMatch::Origin(Asn::new(9))),
            path(AsPathMatch::LongerThan(2)),
            Match::NextHop("192.0.2.0/24".parse().unwrap()),
            Match::LocalPref(100),
            Match::Med(5),
            Match::Learned(Learned::Internal),
            Match::Any(vec![Match::Med(4), Match::Med(5)]),
        ];
        let no = [
            Match::Community(Community::new(2)),
            Match::ExtCommunity(ExtCommunity::encapsulation(9)),
            Match::LargeCommunity(LargeCommunity { global: 1, local: [3, 2] }),
            path(AsPathMatch::Contains(Asn::new(6))),
            path(AsPathMatch::Begins(vec![Asn::new(8)])),
            path(AsPathMatch::Begins([7, 8, 9, 10].map(Asn::new).to_vec())),
            path(AsPathMatch::Origin(Asn::new(7))),
            path(AsPathMatch::LongerThan(3)),
            path(AsPathMatch::Empty),
            Match::NextHop("198.51.100.0/24".parse().unwrap()),
            Match::LocalPref(101),
            Match::Med(0),
            Match::Learned(Learned::Local),
            Match::Any(Vec::new()),
        ];
        for question in yes {
            assert!(question.holds(&facts), "{question:?}");
            assert!(!Match::Not(Box::new(question)).holds(&facts));
        }
        for question in no {
            assert!(!question.holds(&facts), "{question:?}");
        }
    }
}
