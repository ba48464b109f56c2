//! Rules of a filter that no route can meet. They are no fault, but nobody writes one on purpose.

use std::fmt;

use super::{BgpFilter, BgpFilterRule, MatchOperator, PrefixMatch};

/// One of a filter's four lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterList {
    ExportV4,
    ImportV4,
    ExportV6,
    ImportV6,
}

/// As Calico calls it.
impl fmt::Display for FilterList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExportV4 => "exportV4",
            Self::ImportV4 => "importV4",
            Self::ExportV6 => "exportV6",
            Self::ImportV6 => "importV6",
        })
    }
}

/// A rule that decides nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleRule {
    pub list: FilterList,
    /// Its place in the list, from 0.
    pub at: usize,
    pub why: WhyIdle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyIdle {
    #[error(
        "no prefix in {} has a length of {min} to {max}: it has at least /{}", wanted.cidr, wanted.cidr.len()
    )]
    Lengths { wanted: PrefixMatch, min: u8, max: u8 },
    #[error("{} itself is /{}, which is not within {min} to {max}", wanted.cidr, wanted.cidr.len())]
    OwnLength { wanted: PrefixMatch, min: u8, max: u8 },
    #[error("every prefix lies in {}", .0.cidr)]
    OutsideAll(PrefixMatch),
    #[error("rule [{0}] before it decides every route")]
    Behind(usize),
    #[error("rule [{0}] before it asks for the same")]
    Same(usize),
}

impl BgpFilter {
    /// The rules that no route can meet, and whether there is any rule at all is the caller's to ask.
    pub fn idle(&self) -> Vec<IdleRule> {
        let lists = [
            (FilterList::ExportV4, &self.export_v4),
            (FilterList::ImportV4, &self.import_v4),
            (FilterList::ExportV6, &self.export_v6),
            (FilterList::ImportV6, &self.import_v6),
        ];
        let idle = |(list, rules): (FilterList, &Vec<BgpFilterRule>)| {
            let why = |at| why_idle(rules, at).map(|why| IdleRule { list, at, why });
            (0..rules.len()).filter_map(why).collect::<Vec<_>>()
        };
        lists.into_iter().flat_map(idle).collect()
    }

    pub const fn is_empty(&self) -> bool {
        self.import_v4.is_empty()
            && self.import_v6.is_empty()
            && self.export_v4.is_empty()
            && self.export_v6.is_empty()
    }
}

/// Why a rule among others decides nothing.
fn why_idle(rules: &[BgpFilterRule], at: usize) -> Option<WhyIdle> {
    let (before, rule) = (rules.get(..at)?, rules.get(at)?);
    if let Some(all) = before.iter().position(BgpFilterRule::is_for_all) {
        return Some(WhyIdle::Behind(all));
    }
    if let Some(same) = before.iter().position(|other| other.asks_as(rule)) {
        return Some(WhyIdle::Same(same));
    }
    rule.prefix.and_then(PrefixMatch::why_never)
}

impl BgpFilterRule {
    /// Whether it decides every route.
    fn is_for_all(&self) -> bool {
        let any = Self { verdict: self.verdict.clone(), ..Self::any() };
        *self == any
    }

    fn asks_as(&self, other: &Self) -> bool {
        Self { verdict: other.verdict.clone(), ..self.clone() } == *other
    }

    /// Without a condition.
    const fn any() -> Self {
        Self {
            prefix: None,
            from_peers: false,
            link: None,
            peer_type: None,
            community: None,
            path_prefix: Vec::new(),
            priority: None,
            verdict: super::Verdict::Reject,
        }
    }
}

impl PrefixMatch {
    fn why_never(self) -> Option<WhyIdle> {
        let own = self.cidr.len();
        if self.operator == MatchOperator::NotIn && own == 0 {
            return Some(WhyIdle::OutsideAll(self));
        }
        let len = self.len?;
        let (min, max) = (len.min(), len.max());
        let holds_own = (min..=max).contains(&own);
        match self.operator {
            MatchOperator::In if max < own => Some(WhyIdle::Lengths { wanted: self, min, max }),
            MatchOperator::Equal if !holds_own => {
                Some(WhyIdle::OwnLength { wanted: self, min, max })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use MatchOperator::{Equal, In, NotIn};

    use super::*;
    use crate::model::calico::{LenRange, Verdict};

    #[test]
    fn rules_that_no_route_can_meet_are_told() {
        let long = |operator, cidr: &str, len: Option<(u64, u64)>| {
            let cidr = cidr.parse().unwrap();
            let len = len.map(|(min, max)| LenRange::new(cidr, Some(min), Some(max)).unwrap());
            BgpFilterRule {
                prefix: Some(PrefixMatch { cidr, operator, len }),
                ..BgpFilterRule::any()
            }
        };
        for (rule, idle) in [
            (long(In, "10.0.0.0/16", Some((8, 12))), true),
            (long(In, "10.0.0.0/16", Some((8, 16))), false),
            (long(Equal, "10.0.0.0/16", Some((17, 32))), true),
            (long(Equal, "10.0.0.0/16", Some((16, 32))), false),
            (long(NotIn, "0.0.0.0/0", None), true),
            (long(NotIn, "10.0.0.0/16", None), false),
        ] {
            // What is told is true: no prefix of any length meets the rule.
            let meets = (0..=32).any(|len| {
                ["10.0.0.0", "11.0.0.0"].iter().any(|addr| {
                    let route = russet_net::Prefix::around(addr.parse().unwrap(), len).unwrap();
                    rule.prefix.unwrap().holds(route)
                })
            });
            assert_eq!(rule.prefix.unwrap().why_never().is_some(), idle, "{rule:?}");
            assert_eq!(meets, !idle, "{rule:?}");
        }
    }

    #[test]
    fn what_stands_behind_a_rule_for_all_decides_nothing() {
        let from_peers = BgpFilterRule { from_peers: true, ..BgpFilterRule::any() };
        let accept = Verdict::Accept(Vec::new());
        let filter = BgpFilter {
            import_v4: vec![
                from_peers.clone(),
                BgpFilterRule { verdict: accept, ..from_peers.clone() },
                BgpFilterRule::any(),
                from_peers,
            ],
            ..BgpFilter::default()
        };
        let told: Vec<_> = filter.idle().iter().map(|idle| (idle.at, idle.why)).collect();
        assert_eq!(told, [(1, WhyIdle::Same(0)), (3, WhyIdle::Behind(2))]);
    }
}
