//! What passes between us and a peer: `BGPFilter`s, then what every node announces.
//!
//! The filters of a peer are asked in their order, and the first rule that fits decides. What none fits is taken in; it is
//! announced when it lies in a pool that BGP announces, or is a prefix of services that we announce.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use russet_api::calico::Kind;
use russet_bgp::{
    bestpath::Learned,
    policy::{
        AsPathMatch, Edit, Lengths, Match, Operator, Policy, PrefixMatch, Rule, Then, Verdict,
    },
};
use russet_core::model::calico::{
    self, BgpFilter, BgpFilterRule, Encapsulation, MatchOperator, Name, Operation, PeerType, Scope,
};
use russet_net::{Family, Prefix};

use super::{
    Grade, Reports, Resources,
    ours::{Wire, services, settings, wire},
};

/// Policies, each made once for all sessions that have it.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    filters: &'a BTreeMap<Name, BgpFilter>,
    /// What is announced unless a filter decides, by family.
    announced: [Vec<Rule>; 2],
    made: BTreeMap<(Vec<Name>, Family, bool), Passes>,
}

/// What passes in both directions.
#[derive(Clone, Debug)]
pub(super) struct Passes {
    pub import: Arc<Policy>,
    pub export: Arc<Policy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl<'a> Rules<'a> {
    pub fn of(resources: &'a Resources, reports: &mut Reports) -> Self {
        for (name, filter) in &resources.filters {
            note_idle(name, filter, reports);
        }
        note_unused(resources, reports);
        Self {
            filters: &resources.filters,
            announced: [Family::V4, Family::V6].map(|family| announced(resources, family)),
            made: BTreeMap::new(),
        }
    }

    /// The policies of a session; the name of a filter that is not there otherwise.
    pub fn passes(
        &mut self,
        filters: &[Name],
        family: Family,
        internal: bool,
    ) -> Result<Passes, Name> {
        if let Some(missing) = filters.iter().find(|name| !self.filters.contains_key(*name)) {
            return Err(missing.clone());
        }
        let key = (filters.to_vec(), family, internal);
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let passes = Passes {
            import: Arc::new(self.policy(filters, family, internal, Way::In)),
            export: Arc::new(self.policy(filters, family, internal, Way::Out)),
        };
        self.made.insert(key, passes.clone());
        Ok(passes)
    }

    fn policy(&self, filters: &[Name], family: Family, internal: bool, way: Way) -> Policy {
        let mut rules = Vec::new();
        for name in filters {
            let Some(filter) = self.filters.get(name) else { continue };
            let (field, list) = list_of(filter, family, way);
            let numbered = list.iter().enumerate();
            rules.extend(numbered.filter_map(|(n, one)| {
                rule(format!("BGPFilter {name} {field}[{n}]"), one, internal)
            }));
        }
        let name = if filters.is_empty() { "calico".to_owned() } else { joined(filters) };
        match way {
            Way::In if rules.is_empty() => Policy::accept_all(),
            Way::In => Policy { name, rules, otherwise: Verdict::Accept },
            Way::Out => {
                rules.extend(self.announced[place(family)].iter().cloned());
                Policy { name, rules, otherwise: Verdict::Reject }
            }
        }
    }
}

/// Pools within which the store tells who has what, so that the node does not believe routers there.
pub(super) fn by_the_store(resources: &Resources) -> Vec<Prefix> {
    let pools = resources.pools.values();
    pools
        .filter(|pool| matches!(pool.encapsulation(), Encapsulation::Vxlan(_)))
        .map(calico::IpPool::cidr)
        .collect()
}

/// What every node announces, and what it never does.
fn announced(resources: &Resources, family: Family) -> Vec<Rule> {
    let of = |exported: bool| {
        let pools = resources.pools.iter();
        pools
            .filter(move |(_, pool)| pool.family() == family && pool.bgp_export.is_on() == exported)
    };
    let withheld = of(false).map(|(name, pool)| Rule {
        name: format!("IPPool {name} disableBGPExport"),
        prefixes: vec![within(pool.cidr())],
        matches: Vec::new(),
        then: Then::Reject,
    });
    let exported = of(true).map(|(name, pool)| Rule {
        name: format!("IPPool {name}"),
        prefixes: vec![within(pool.cidr())],
        matches: Vec::new(),
        then: Then::Accept(Vec::new()),
    });
    let services = settings(resources, &Scope::Cluster).into_iter().flat_map(services);
    let services = services.filter(|prefix| prefix.family() == family).map(|prefix| Rule {
        name: format!("services in {prefix}"),
        prefixes: vec![within(prefix)],
        matches: vec![Match::Learned(Learned::Local)],
        then: Then::Accept(Vec::new()),
    });
    withheld.chain(exported).chain(services).collect()
}

fn within(prefix: Prefix) -> PrefixMatch {
    PrefixMatch { operator: Operator::In, prefix, lengths: Lengths::ANY }
}

const fn place(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

fn list_of(filter: &BgpFilter, family: Family, way: Way) -> (&'static str, &[BgpFilterRule]) {
    match (way, family) {
        (Way::In, Family::V4) => ("importV4", &filter.import_v4),
        (Way::In, Family::V6) => ("importV6", &filter.import_v6),
        (Way::Out, Family::V4) => ("exportV4", &filter.export_v4),
        (Way::Out, Family::V6) => ("exportV6", &filter.export_v6),
    }
}

/// A filter's rule as the speaker asks it; none where it is not for such a peer, or fits nothing.
fn rule(name: String, one: &BgpFilterRule, internal: bool) -> Option<Rule> {
    let for_peer = one.peer_type.is_none_or(|kind| (kind == PeerType::Internal) == internal);
    if !for_peer || never_fits(one).is_some() {
        return None;
    }
    let mut matches = Vec::new();
    if one.from_peers {
        matches.push(Match::Not(Box::new(Match::Learned(Learned::Local))));
    }
    matches.extend(one.community.map(|community| match wire(community) {
        Wire::Standard(community) => Match::Community(community),
        Wire::Large(community) => Match::LargeCommunity(community),
    }));
    if !one.path_prefix.is_empty() {
        matches.push(Match::AsPath(AsPathMatch::Begins(one.path_prefix.clone())));
    }
    let then = match &one.verdict {
        calico::Verdict::Reject => Then::Reject,
        calico::Verdict::Accept(operations) => {
            Then::Accept(operations.iter().flat_map(edits).collect())
        }
    };
    Some(Rule { name, prefixes: one.prefix.map(prefix_match).into_iter().collect(), matches, then })
}

fn prefix_match(wanted: calico::PrefixMatch) -> PrefixMatch {
    let operator = match wanted.operator {
        MatchOperator::Equal => Operator::Equal,
        MatchOperator::NotEqual => Operator::NotEqual,
        MatchOperator::In => Operator::In,
        MatchOperator::NotIn => Operator::NotIn,
    };
    let lengths =
        wanted.len.map_or(Lengths::ANY, |len| Lengths { least: len.min(), most: len.max() });
    PrefixMatch { operator, prefix: wanted.cidr, lengths }
}

fn edits(operation: &Operation) -> Vec<Edit> {
    match operation {
        Operation::AddCommunity(community) => vec![match wire(*community) {
            Wire::Standard(community) => Edit::AddCommunity(community),
            Wire::Large(community) => Edit::AddLargeCommunity(community),
        }],
        // The last that is put in front is the first.
        Operation::PrependPath(path) => {
            path.iter().rev().map(|asn| Edit::Prepend { asn: *asn, count: 1 }).collect()
        }
        Operation::SetPriority(_) => Vec::new(),
    }
}

/// Why a rule fits no route whatever.
fn never_fits(rule: &BgpFilterRule) -> Option<String> {
    if rule.link.is_some() {
        return Some("interface: a route of BGP has no link here, so the rule fits nothing".into());
    }
    if rule.priority.is_some() {
        return Some(
            "priority: a route of BGP has no metric here, so the rule fits nothing".into(),
        );
    }
    let wanted = rule.prefix?;
    let len = wanted.len?;
    let cidr = wanted.cidr;
    let lengths = || format!("lengths of {} to {}", len.min(), len.max());
    match wanted.operator {
        MatchOperator::In if len.max() < cidr.len() => {
            Some(format!("nothing in {cidr} has {}, so the rule fits nothing", lengths()))
        }
        MatchOperator::Equal if !(len.min()..=len.max()).contains(&cidr.len()) => {
            Some(format!("{cidr} has none of {}, so the rule fits nothing", lengths()))
        }
        MatchOperator::NotIn if cidr.len() == 0 => {
            Some(format!("everything lies in {cidr}, so the rule fits nothing"))
        }
        _ => None,
    }
}

/// What of a filter means nothing.
fn note_idle(name: &Name, filter: &BgpFilter, reports: &mut Reports) {
    let mut any = false;
    for (way, family) in
        [Way::In, Way::Out].into_iter().flat_map(|way| Family::BOTH.map(|family| (way, family)))
    {
        let (field, list) = list_of(filter, family, way);
        for (n, rule) in list.iter().enumerate() {
            any = true;
            let place = format!("{field}[{n}]");
            if let Some(why) = never_fits(rule) {
                let reason = format!("{place}: {why}");
                reports.tell(Kind::BgpFilter, name, Grade::NoEffect, reason);
            }
            if let calico::Verdict::Accept(operations) = &rule.verdict
                && operations.iter().any(|it| matches!(it, Operation::SetPriority(_)))
            {
                let reason = format!("{place}: setPriority: routes of ours have one metric");
                reports.tell(Kind::BgpFilter, name, Grade::NoEffect, reason);
            }
        }
    }
    if !any {
        reports.tell(Kind::BgpFilter, name, Grade::NoEffect, "it has no rule, so it fits nothing");
    }
}

fn note_unused(resources: &Resources, reports: &mut Reports) {
    let used: BTreeSet<_> = resources.peers.values().flat_map(|peer| &peer.filters).collect();
    for name in resources.filters.keys().filter(|name| !used.contains(name)) {
        reports.tell(Kind::BgpFilter, name, Grade::Note, "no BGPPeer names it");
    }
}

fn joined(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}
