//! Which routes pass between us and a peer, and how they are changed on the way.
//!
//! A policy is a list of rules; the first that fits a route decides. A rule asks two kinds of questions: of the
//! destination, and of the attributes. Many routes of a message share attributes, so [`Policy::narrow`] asks
//! the second kind once and leaves the rules that may still fit; [`Narrowed::judge`] asks the first kind for
//! each destination.
//!
//! This is enough for Calico's `BGPFilter`: its operators `Equal`, `NotEqual`, `In`, `NotIn` with a range of
//! prefix lengths are [`PrefixMatch`], its sources, communities and AS path prefix are [`Match`]es, its
//! operations are [`Edit`]s.

mod edit;
mod matching;

pub use self::{
    edit::{Edit, edit},
    matching::{AsPathMatch, Lengths, Match, Operator, PrefixMatch, RouteFacts},
};
use crate::wire::NlriKey;

/// Rules, the first that fits decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    pub name: String,
    pub rules: Vec<Rule>,
    /// What becomes of a route that no rule fits.
    pub otherwise: Verdict,
}

/// One rule. It fits when every one of its questions is answered with yes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub name: String,
    pub prefixes: Vec<PrefixMatch>,
    pub matches: Vec<Match>,
    pub then: Then,
}

/// What a rule does with what it fits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    Reject,
    /// Lets it pass, changed like this, in this order.
    Accept(Vec<Edit>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Reject,
}

/// The rules of a policy that may still fit, for a given set of attributes.
#[derive(Debug)]
pub struct Narrowed<'a> {
    policy: &'a Policy,
    rules: Vec<u16>,
}

/// What becomes of a route, and which rule said so; `None` when none fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Judgement {
    Accepted(Option<u16>),
    Rejected(Option<u16>),
}

impl Policy {
    /// Lets everything pass as it is.
    pub fn accept_all() -> Self {
        Self { name: "accept-all".to_owned(), rules: Vec::new(), otherwise: Verdict::Accept }
    }

    /// Whether every route passes unchanged, so that nothing has to be asked.
    pub fn passes_all(&self) -> bool {
        self.rules.is_empty() && self.otherwise == Verdict::Accept
    }

    /// Asks all that does not depend on the destination.
    pub fn narrow(&self, facts: &RouteFacts<'_>) -> Narrowed<'_> {
        let fits = |rule: &Rule| rule.matches.iter().all(|question| question.holds(facts));
        let rules = (0..u16::MAX).zip(&self.rules).filter(|(_, rule)| fits(rule));
        Narrowed { policy: self, rules: rules.map(|(number, _)| number).collect() }
    }

    /// The changes that a rule makes to what it lets pass.
    pub fn edits(&self, rule: Option<u16>) -> &[Edit] {
        match rule.and_then(|rule| self.rules.get(usize::from(rule))).map(|rule| &rule.then) {
            Some(Then::Accept(edits)) => edits,
            Some(Then::Reject) | None => &[],
        }
    }

    /// The name of the rule that decided, for people.
    pub fn name_of(&self, rule: Option<u16>) -> &str {
        let rule = rule.and_then(|rule| self.rules.get(usize::from(rule)));
        rule.map_or("no rule fitted", |rule| &rule.name)
    }
}

impl Narrowed<'_> {
    /// Decides about one destination. A question about a prefix does not hold for what has none.
    pub fn judge(&self, key: &NlriKey) -> Judgement {
        let prefix = key.prefix();
        let fits = |number: &&u16| {
            let rule = &self.policy.rules[usize::from(**number)];
            rule.prefixes.iter().all(|question| prefix.is_some_and(|prefix| question.holds(prefix)))
        };
        let Some(&number) = self.rules.iter().find(fits) else {
            return match self.policy.otherwise {
                Verdict::Accept => Judgement::Accepted(None),
                Verdict::Reject => Judgement::Rejected(None),
            };
        };
        match self.policy.rules[usize::from(number)].then {
            Then::Accept(_) => Judgement::Accepted(Some(number)),
            Then::Reject => Judgement::Rejected(Some(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bestpath::Learned,
        wire::{Attributes, Community},
    };

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy {
            name: "pools".to_owned(),
            rules: vec![
                rule("marked", &[], &[Match::Community(MARK)], Then::Reject),
                rule("pool", &["10.1.0.0/16"], &[], Then::Accept(vec![Edit::LocalPref(200)])),
                rule("rest of ten", &["10.0.0.0/8"], &[], Then::Reject),
            ],
            otherwise: Verdict::Accept,
        };
        let plain = Attributes::default();
        let marked = Attributes { communities: vec![MARK], ..Attributes::default() };
        let judge = |attributes: &Attributes, prefix: &str| {
            policy.narrow(&facts(attributes)).judge(&key(prefix))
        };
        assert_eq!(judge(&plain, "10.1.2.0/24"), Judgement::Accepted(Some(1)));
        assert_eq!(judge(&plain, "10.2.0.0/24"), Judgement::Rejected(Some(2)));
        assert_eq!(judge(&plain, "192.0.2.0/24"), Judgement::Accepted(None));
        assert_eq!(judge(&marked, "10.1.2.0/24"), Judgement::Rejected(Some(0)));
        assert_eq!(policy.edits(Some(1)), [Edit::LocalPref(200)]);
        assert_eq!(policy.edits(None), []);
        assert_eq!(policy.name_of(Some(2)), "rest of ten");
    }

    #[test]
    fn a_policy_without_rules_does_what_it_says_otherwise() {
        let attributes = Attributes::default();
        assert!(Policy::accept_all().passes_all());
        let none = Policy { otherwise: Verdict::Reject, ..Policy::accept_all() };
        assert!(!none.passes_all());
        let judged = none.narrow(&facts(&attributes)).judge(&key("10.0.0.0/8"));
        assert_eq!(judged, Judgement::Rejected(None));
    }

    const MARK: Community = Community::new(0xfde8_0001);

    fn rule(name: &str, within: &[&str], matches: &[Match], then: Then) -> Rule {
        let within = within.iter().map(|prefix| PrefixMatch {
            operator: Operator::In,
            prefix: prefix.parse().unwrap(),
            lengths: Lengths::ANY,
        });
        Rule { name: name.to_owned(), prefixes: within.collect(), matches: matches.to_vec(), then }
    }

    fn facts(attributes: &Attributes) -> RouteFacts<'_> {
        let next_hop = std::net::IpAddr::from([10, 0, 0, 1]).into();
        RouteFacts { attributes, next_hop, learned: Learned::External }
    }

    fn key(prefix: &str) -> NlriKey {
        prefix.parse::<russet_net::Prefix>().unwrap().into()
    }
}
