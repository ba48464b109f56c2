//! Policies as they are written: rules, the first that fits decides.

use std::{collections::BTreeMap, sync::Arc};

use russet_bgp::{
    policy::{
        AsPathMatch, Edit, Lengths, Match, Operator, Policy, PrefixMatch, Rule, Then, Verdict,
    },
    wire::Community,
};
use russet_net::{Asn, Prefix};
use serde::Deserialize;

use super::faults::Faults;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawPolicy {
    name: String,
    #[serde(default)]
    rule: Vec<RawRule>,
    /// `accept` or `reject`.
    #[serde(default = "accept")]
    otherwise: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRule {
    name: Option<String>,
    /// `PREFIX` alone, or with `in`, `not in` or `not` in front, or with `LEAST-MOST` behind.
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    communities: Vec<String>,
    #[serde(default)]
    as_path_contains: Vec<u32>,
    then: String,
    local_pref: Option<u32>,
    med: Option<u32>,
    #[serde(default)]
    add_communities: Vec<String>,
    prepend: Option<u8>,
    prepend_asn: Option<u32>,
}

/// The policies by name.
pub(super) struct Policies(BTreeMap<String, Arc<Policy>>);

impl Policies {
    pub fn read(raw: Vec<(String, RawPolicy)>, faults: &mut Faults<'_>) -> Self {
        let mut policies = BTreeMap::new();
        for (place, raw) in raw {
            let policy = raw.check(&place, faults);
            let first = policies.insert(policy.name.clone(), Arc::new(policy)).is_none();
            faults.check(&place, first, "another policy has the same name");
        }
        Self(policies)
    }

    /// The policy of that name; none lets everything pass.
    pub fn get(&self, place: &str, name: Option<&String>, faults: &mut Faults<'_>) -> Arc<Policy> {
        let Some(name) = name else { return Arc::new(Policy::accept_all()) };
        let found = self.0.get(name).map(Arc::clone);
        found.unwrap_or_else(|| {
            faults.tell(place, &format!("there is no policy {name}"));
            Arc::new(Policy::accept_all())
        })
    }
}

impl RawPolicy {
    fn check(self, place: &str, faults: &mut Faults<'_>) -> Policy {
        let rules = (self.rule.into_iter().enumerate())
            .flat_map(|(n, rule)| rule.check(&format!("{place}.rule[{n}]"), n, faults))
            .collect();
        let otherwise = match self.otherwise.as_str() {
            "accept" => Verdict::Accept,
            "reject" => Verdict::Reject,
            _ => {
                faults.tell(&format!("{place}.otherwise"), "accept or reject is wanted");
                Verdict::Reject
            }
        };
        Policy { name: self.name, rules, otherwise }
    }
}

impl RawRule {
    /// One rule for each prefix, since a rule asks all its questions, and here one of the prefixes is enough.
    fn check(self, place: &str, number: usize, faults: &mut Faults<'_>) -> Vec<Rule> {
        let at = |key: &str| format!("{place}.{key}");
        let prefixes: Vec<_> = (self.prefixes.iter())
            .filter_map(|text| faults.take(&at("prefixes"), prefix_match(text)))
            .collect();
        let communities = self.communities.iter();
        let mut matches: Vec<_> = communities
            .filter_map(|text| faults.parse(&at("communities"), text).map(Match::Community))
            .collect();
        let asns = self.as_path_contains.iter().copied().map(Asn::new);
        matches.extend(asns.map(|asn| Match::AsPath(AsPathMatch::Contains(asn))));
        let then = match self.then.as_str() {
            "reject" => Then::Reject,
            "accept" => Then::Accept(self.edits(&at("add-communities"), faults)),
            _ => {
                faults.tell(&at("then"), "accept or reject is wanted");
                Then::Reject
            }
        };
        let name = self.name.unwrap_or_else(|| format!("rule {number}"));
        if prefixes.is_empty() {
            return vec![Rule { name, prefixes, matches, then }];
        }
        let rule = |prefix| Rule {
            name: name.clone(),
            prefixes: vec![prefix],
            matches: matches.clone(),
            then: then.clone(),
        };
        prefixes.into_iter().map(rule).collect()
    }

    fn edits(&self, place: &str, faults: &mut Faults<'_>) -> Vec<Edit> {
        let mut edits = Vec::new();
        edits.extend(self.local_pref.map(Edit::LocalPref));
        edits.extend(self.med.map(|med| Edit::Med(Some(med))));
        let added: Vec<Community> =
            self.add_communities.iter().filter_map(|text| faults.parse(place, text)).collect();
        edits.extend(added.into_iter().map(Edit::AddCommunity));
        edits.extend(
            self.prepend_asn
                .map(|asn| Edit::Prepend { asn: Asn::new(asn), count: self.prepend.unwrap_or(1) }),
        );
        edits
    }
}

/// `10.0.0.0/8`, `in 10.0.0.0/8 24-32`, `not in …`, `not …`.
fn prefix_match(text: &str) -> Result<PrefixMatch, String> {
    let (operator, rest) =
        [("not in ", Operator::NotIn), ("in ", Operator::In), ("not ", Operator::NotEqual)]
            .into_iter()
            .find_map(|(word, operator)| Some((operator, text.strip_prefix(word)?)))
            .unwrap_or((Operator::Equal, text));
    let (prefix, lengths) = rest.split_once(' ').map_or((rest, None), |(p, l)| (p, Some(l)));
    let prefix: Prefix = prefix.parse().map_err(|err: russet_net::ParseError| err.to_string())?;
    let lengths = match lengths {
        None => Lengths::ANY,
        Some(range) => {
            let (least, most) = range.split_once('-').unwrap_or((range, range));
            let number =
                |text: &str| text.parse().map_err(|_| format!("{range:?} is no range of lengths"));
            Lengths { least: number(least)?, most: number(most)? }
        }
    };
    Ok(PrefixMatch { operator, prefix, lengths })
}

fn accept() -> String {
    "accept".to_owned()
}
