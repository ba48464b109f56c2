//! `BGPFilter`.

use russet_core::model::calico::{
    BgpFilter, BgpFilterRule, LenRange, MatchOperator, Operation, PeerType, PrefixMatch, Verdict,
};
use russet_net::{Family, Prefix};

use super::{
    at::At,
    kind::Kind,
    stored::{Form, Layout},
};

impl Form for BgpFilter {
    const KIND: Kind = Kind::BgpFilter;
    const ORDER: &'static [&'static str] = &[
        "exportV4",
        "importV4",
        "exportV6",
        "importV6",
        "cidr",
        "prefixLength",
        "min",
        "max",
        "source",
        "interface",
        "matchOperator",
        "peerType",
        "communities",
        "asPathPrefix",
        "priority",
        "action",
        "operations",
        "addCommunity",
        "prependASPath",
        "setPriority",
    ];

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        let rules = |key, family| {
            let rules = spec.at(key).items();
            rules.iter().filter_map(|at| rule(at, family)).collect()
        };
        Some(Self {
            export_v4: rules("exportV4", Family::V4),
            import_v4: rules("importV4", Family::V4),
            export_v6: rules("exportV6", Family::V6),
            import_v6: rules("importV6", Family::V6),
        })
    }
}

fn rule(at: &At<'_>, family: Family) -> Option<BgpFilterRule> {
    let prefix = prefix(at, family);
    let communities = at.at("communities").at("values");
    if communities.list().len() > 1 {
        communities.wanted("a list of one community");
    }
    let path = at.at("asPathPrefix").items();
    let rule = |verdict| BgpFilterRule {
        prefix,
        from_peers: at.at("source").one_of(&[("RemotePeers", ())]).is_some(),
        link: at.at("interface").owned(),
        peer_type: at.at("peerType").one_of(PEER_TYPES),
        community: communities.item(0).parsed(),
        path_prefix: path.iter().filter_map(At::asn).collect(),
        priority: at.at("priority").ranged(),
        verdict,
    };
    let verdict = verdict(at);
    let all = rule(Verdict::Reject);
    verdict.map(|verdict| BgpFilterRule { verdict, ..all })
}

fn prefix(at: &At<'_>, family: Family) -> Option<PrefixMatch> {
    let (cidr, operator, len) = (at.at("cidr"), at.at("matchOperator"), at.at("prefixLength"));
    match (cidr.text().is_some(), operator.text().is_some()) {
        (true, false) => operator.refuse("it is missing, and cidr is there"),
        (false, true) => cidr.refuse("it is missing, and matchOperator is there"),
        _ => {}
    }
    if len.is_there() && cidr.text().is_none() {
        len.refuse("it says nothing without cidr");
    }
    let operator = operator.one_of(OPERATORS);
    let prefix = cidr.parsed::<Prefix>()?;
    if prefix.family() != family {
        cidr.wanted(&format!("an {family} prefix"));
        return None;
    }
    let len = len.is_there().then(|| {
        let range = LenRange::new(prefix, len.at("min").number(), len.at("max").number());
        range.map_err(|err| len.refuse(err.to_string())).ok()
    });
    Some(PrefixMatch { cidr: prefix, operator: operator?, len: len.flatten() })
}

fn verdict(at: &At<'_>) -> Option<Verdict> {
    let operations = at.at("operations");
    let read: Vec<_> = operations.items().iter().filter_map(operation).collect();
    if operations.list().len() > MOST_OPERATIONS {
        operations.refuse(format!("more than {MOST_OPERATIONS} operations"));
    }
    let action = at.at("action");
    if action.required().one_of(&[("Accept", true), ("Reject", false)])? {
        return Some(Verdict::Accept(read));
    }
    if !read.is_empty() {
        operations
            .refuse("what is rejected cannot be changed; use action Accept, or leave them out");
    }
    Some(Verdict::Reject)
}

/// That Calico takes.
const MOST_OPERATIONS: usize = 10;

fn operation(at: &At<'_>) -> Option<Operation> {
    let (community, path, priority) =
        (at.at("addCommunity"), at.at("prependASPath"), at.at("setPriority"));
    let said = [&community, &path, &priority].into_iter().filter(|at| at.is_there()).count();
    if said != 1 {
        at.wanted("one of addCommunity, prependASPath and setPriority");
        return None;
    }
    if community.is_there() {
        return community.at("value").required().parsed().map(Operation::AddCommunity);
    }
    if priority.is_there() {
        return priority.at("value").required().ranged().map(Operation::SetPriority);
    }
    let prefix = path.at("prefix");
    let numbers: Vec<_> = prefix.required().items().iter().filter_map(At::asn).collect();
    if numbers.is_empty() || numbers.len() > MOST_OPERATIONS {
        prefix.wanted("a list of 1 to 10 AS numbers");
    }
    Some(Operation::PrependPath(numbers))
}

const OPERATORS: &[(&str, MatchOperator)] = &[
    ("Equal", MatchOperator::Equal),
    ("NotEqual", MatchOperator::NotEqual),
    ("In", MatchOperator::In),
    ("NotIn", MatchOperator::NotIn),
];

const PEER_TYPES: &[(&str, PeerType)] =
    &[("eBGP", PeerType::External), ("iBGP", PeerType::Internal)];
