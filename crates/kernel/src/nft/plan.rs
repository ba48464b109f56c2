//! What must be sent so that our tables hold what is wanted. Pure.
//!
//! A plan has three parts. The *heart* is one transaction: chains, rules, and every change of an interval
//! set, so that no packet meets half of it. Before it come new sets and additions to hash sets, after it
//! removals from them: those may be many, and may travel in several transactions when they do not fit in
//! one, because a set that holds too much for a moment does no harm and too little would.

use std::collections::BTreeSet;

use russet_desired::{
    BaseChain, Chain, ChainKey, ChainSpec, ElementKey, Key, Match, Set, SetKey, SetKind, Table,
};
use russet_net::{Family, IfName, Prefix};

use super::{
    expr::Expr,
    found::{Found, FoundBase, FoundChain, FoundSet},
    rule::write_rule,
};
use crate::{
    netlink::Batch,
    reconcile::{DriftKind, Sync},
};

/// What is wanted of our tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) sets: Table<Set>,
    pub(crate) elements: BTreeSet<ElementKey>,
    pub(crate) chains: Table<Chain>,
}

impl Wanted {
    fn kind(&self, set: SetKey) -> Option<SetKind> {
        self.sets.get(&set).map(|spec| spec.kind)
    }

    /// The elements of a set that it can hold.
    fn elements_of(&self, set: SetKey, kind: SetKind) -> impl Iterator<Item = Member> {
        of_set(&self.elements, set).filter(move |key| fits(kind, key)).map(Member::in_key)
    }

    /// What a set that holds nothing yet must be given.
    fn target(&self, set: SetKey, kind: SetKind) -> Vec<Member> {
        let all = self.elements_of(set, kind);
        match kind {
            SetKind::Addresses => all.collect(),
            SetKind::Prefixes | SetKind::LinkPrefixes => {
                widest(all.collect()).into_iter().collect()
            }
        }
    }
}

/// What a set holds: a prefix, or a link's name and a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) link: Option<IfName>,
    pub(crate) prefix: Prefix,
}

impl Member {
    fn in_key(key: &ElementKey) -> Self {
        Self { link: key.link, prefix: key.prefix }
    }

    pub(crate) fn of(self, set: SetKey) -> ElementKey {
        ElementKey { set, link: self.link, prefix: self.prefix }
    }
}

impl From<Prefix> for Member {
    fn from(prefix: Prefix) -> Self {
        Self { link: None, prefix }
    }
}

/// Whether a set of that kind can hold the element.
pub(crate) fn fits(kind: SetKind, key: &ElementKey) -> bool {
    let whole = kind != SetKind::Addresses || key.prefix.is_host();
    let named = (kind == SetKind::LinkPrefixes) == key.link.is_some();
    whole && named && key.prefix.family() == key.set.family
}

/// One message of a transaction, and the object of our table that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) family: Family,
    /// The chain's, or the set's.
    pub(crate) name: String,
    pub(crate) op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    NewSet(SetKind),
    DelSet,
    /// At most [`ELEMENTS_PER_STEP`].
    Add(SetKind, Vec<Member>),
    Remove(SetKind, Vec<Member>),
    NewChain(Option<BaseChain>),
    DelChain,
    Flush,
    AddRule(Vec<Expr>),
}

impl Op {
    /// The same about these elements, when it is about elements.
    pub(crate) fn with(&self, members: &[Member]) -> Self {
        match self {
            Self::Add(kind, _) => Self::Add(*kind, members.to_vec()),
            Self::Remove(kind, _) => Self::Remove(*kind, members.to_vec()),
            other => other.clone(),
        }
    }
}

/// An element takes up to 112 octets, and all of one message are inside an attribute of at most 65,535.
pub(crate) const ELEMENTS_PER_STEP: usize = 500;

impl Step {
    pub(crate) fn new(family: Family, name: &str, op: Op) -> Self {
        Self { family, name: name.to_owned(), op }
    }

    /// Whether it is done when its object is not there.
    pub(crate) fn is_removal(&self) -> bool {
        matches!(self.op, Op::DelSet | Op::Remove(..) | Op::DelChain | Op::Flush)
    }

    /// Whether it is about a set or its elements.
    pub(crate) fn is_of_set(&self) -> bool {
        matches!(self.op, Op::NewSet(_) | Op::DelSet | Op::Add(..) | Op::Remove(..))
    }

    /// The same in two halves, when it is about several elements.
    pub(crate) fn halves(&self) -> Option<[Self; 2]> {
        let (Op::Add(_, members) | Op::Remove(_, members)) = &self.op else { return None };
        let (low, high) = members.split_at(members.len() / 2);
        let with =
            |part| Self { op: self.op.with(part), family: self.family, name: self.name.clone() };
        (!low.is_empty()).then(|| [with(low), with(high)])
    }

    /// How many octets the message takes.
    pub(crate) fn size(&self, scratch: &mut Batch) -> usize {
        scratch.clear();
        self.write(scratch);
        scratch.bytes().len()
    }
}

/// Steps in the order in which they go out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) before: Vec<Step>,
    pub(crate) heart: Vec<Step>,
    pub(crate) after: Vec<Step>,
}

/// The smallest plan from `found` to `wanted`. Chains, sets and intervals are compared whole: they are few.
/// Of hash sets only the elements in `pending` are looked at.
pub(crate) fn plan(
    wanted: &Wanted,
    found: &Found,
    pending: &BTreeSet<ElementKey>,
    sync: Sync,
) -> Plan {
    let mut plan = Plan::default();
    for family in Family::BOTH {
        let chains = ChainPlan::new(wanted, found, family);
        plan.heart.extend(chains.removals(sync));
        for (set, spec) in wanted.sets.iter().filter(|(set, _)| set.family == family) {
            plan_set(
                wanted,
                found,
                SetPlan { set: *set, kind: spec.kind, pending, sync },
                &mut plan,
            );
        }
        plan.heart.extend(chains.additions());
        if sync == Sync::Complete {
            plan.after.extend(stranger_sets(wanted, found, family));
        }
    }
    plan
}

// ---- sets

/// What is asked of one set.
#[derive(Clone, Copy)]
struct SetPlan<'a> {
    set: SetKey,
    kind: SetKind,
    pending: &'a BTreeSet<ElementKey>,
    sync: Sync,
}

fn plan_set(wanted: &Wanted, found: &Found, asked: SetPlan<'_>, plan: &mut Plan) {
    let SetPlan { set, kind, .. } = asked;
    let step = |op| Step::new(set.family, set.name, op);
    match found.set(set.family, set.name) {
        None => {
            plan.before.push(step(Op::NewSet(kind)));
            plan.before.extend(additions(set, kind, &wanted.target(set, kind)));
        }
        Some(old) if old.kind != Some(kind) => {
            plan.heart.extend([step(Op::DelSet), step(Op::NewSet(kind))]);
            plan.heart.extend(additions(set, kind, &wanted.target(set, kind)));
        }
        Some(old) => match kind {
            SetKind::Addresses => plan_addresses(wanted, old, asked, plan),
            SetKind::Prefixes | SetKind::LinkPrefixes => plan_intervals(wanted, old, asked, plan),
        },
    }
}

fn plan_addresses(wanted: &Wanted, old: &FoundSet, asked: SetPlan<'_>, plan: &mut Plan) {
    let SetPlan { set, kind, pending, sync } = asked;
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for key in of_set(pending, set).filter(|key| fits(kind, key)) {
        let member = Member::in_key(key);
        match (wanted.elements.contains(key), old.elements.contains(&member)) {
            (true, false) => add.push(member),
            (false, true) if sync == Sync::Complete => remove.push(member),
            _ => {}
        }
    }
    plan.before.extend(additions(set, kind, &add));
    plan.after.extend(removals(set, kind, &remove));
}

/// Intervals of one set may not overlap, so of prefixes that lie in one another only the widest is sent.
fn plan_intervals(wanted: &Wanted, old: &FoundSet, asked: SetPlan<'_>, plan: &mut Plan) {
    let SetPlan { set, kind, sync, .. } = asked;
    let mut all: BTreeSet<_> = wanted.elements_of(set, kind).collect();
    if sync == Sync::Partial {
        all.extend(&old.elements);
    }
    let target = widest(all);
    let missing = |these: &BTreeSet<Member>, those: &BTreeSet<Member>| {
        these.difference(those).copied().collect::<Vec<_>>()
    };
    plan.heart.extend(removals(set, kind, &missing(&old.elements, &target)));
    plan.heart.extend(additions(set, kind, &missing(&target, &old.elements)));
}

/// The prefixes that lie in no other of them, for each link.
fn widest(members: BTreeSet<Member>) -> BTreeSet<Member> {
    let mut widest: BTreeSet<Member> = BTreeSet::new();
    let covers =
        |last: &Member, one: Member| last.link == one.link && last.prefix.covers(one.prefix);
    // In their order a prefix comes right before those that it covers.
    for member in members {
        if !widest.last().is_some_and(|last| covers(last, member)) {
            widest.insert(member);
        }
    }
    widest
}

fn additions(set: SetKey, kind: SetKind, members: &[Member]) -> impl Iterator<Item = Step> {
    let chunks = members.chunks(ELEMENTS_PER_STEP);
    chunks.map(move |part| Step::new(set.family, set.name, Op::Add(kind, part.to_vec())))
}

fn removals(set: SetKey, kind: SetKind, members: &[Member]) -> impl Iterator<Item = Step> {
    let chunks = members.chunks(ELEMENTS_PER_STEP);
    chunks.map(move |part| Step::new(set.family, set.name, Op::Remove(kind, part.to_vec())))
}

fn stranger_sets(wanted: &Wanted, found: &Found, family: Family) -> impl Iterator<Item = Step> {
    let known =
        move |name: &str| wanted.sets.keys().any(|key| key.family == family && key.name == name);
    let sets = found.table(family).into_iter().flat_map(|table| table.sets.keys());
    sets.filter(move |name| !known(name)).map(move |name| Step::new(family, name, Op::DelSet))
}

fn of_set(keys: &BTreeSet<ElementKey>, set: SetKey) -> impl Iterator<Item = &ElementKey> {
    keys.range(first_of(set)..).take_while(move |key| key.set == set)
}

/// What orders before every element of a set.
fn first_of(set: SetKey) -> ElementKey {
    ElementKey { set, link: None, prefix: Prefix::all(Family::V4) }
}

// ---- chains

/// The chains of one table, by what must happen to them.
struct ChainPlan<'a> {
    family: Family,
    /// Not there yet.
    new: Vec<(&'a str, &'a ChainSpec)>,
    /// There with another base.
    remade: Vec<(&'a str, &'a ChainSpec)>,
    /// There with other rules.
    rewritten: Vec<(&'a str, &'a ChainSpec)>,
    strangers: Vec<&'a str>,
}

impl<'a> ChainPlan<'a> {
    fn new(wanted: &'a Wanted, found: &'a Found, family: Family) -> Self {
        let strangers = found.table(family).into_iter().flat_map(|table| table.chains.keys());
        let known = |name: &str| wanted.chains.keys().any(|k| k.family == family && k.name == name);
        let mut plan = Self {
            family,
            new: Vec::new(),
            remade: Vec::new(),
            rewritten: Vec::new(),
            strangers: strangers.map(String::as_str).filter(|name| !known(name)).collect(),
        };
        for (key, spec) in wanted.chains.iter().filter(|(key, _)| key.family == family) {
            match found.chain(family, key.name) {
                None => plan.new.push((key.name, spec)),
                Some(chain) if chain.base != FoundBase::from(spec.base) => {
                    plan.remade.push((key.name, spec));
                }
                Some(chain) if is_rewritten(wanted, found, *key, spec, chain) => {
                    plan.rewritten.push((key.name, spec));
                }
                Some(_) => {}
            }
        }
        plan
    }

    /// Flushes all before it removes any, because they may jump to each other.
    fn removals(&self, sync: Sync) -> Vec<Step> {
        let step = |name: &str, op| Step::new(self.family, name, op);
        let rewritten = self.rewritten.iter().map(|(name, _)| *name);
        let mut gone: Vec<_> = self.remade.iter().map(|(name, _)| *name).collect();
        if sync == Sync::Complete {
            gone.extend(&self.strangers);
        }
        let flushed = rewritten.chain(gone.iter().copied()).map(|name| step(name, Op::Flush));
        flushed.chain(gone.iter().map(|name| step(name, Op::DelChain))).collect()
    }

    /// Makes all chains before their rules, for the same reason.
    fn additions(&self) -> Vec<Step> {
        let step = |name: &str, op| Step::new(self.family, name, op);
        let made = self.new.iter().chain(&self.remade);
        let made = made.map(|(name, spec)| step(name, Op::NewChain(spec.base)));
        let filled = self.new.iter().chain(&self.remade).chain(&self.rewritten);
        let rules = filled.flat_map(|(name, spec)| {
            let exprs = spec.rules.iter().map(|rule| write_rule(self.family, rule));
            exprs.map(|exprs| step(name, Op::AddRule(exprs)))
        });
        made.chain(rules).collect()
    }
}

/// Whether the rules differ, or look into a set that must be made anew under them.
fn is_rewritten(
    wanted: &Wanted,
    found: &Found,
    key: ChainKey,
    spec: &ChainSpec,
    chain: &FoundChain,
) -> bool {
    let family = key.family;
    let is_remade = |name: &'static str| {
        let kind = wanted.kind(SetKey { family, name });
        found.set(family, name).zip(kind).is_some_and(|(set, kind)| set.kind != Some(kind))
    };
    let rests_on_remade = spec.rules.iter().flat_map(|rule| &rule.matches).any(|test| match test {
        Match::InSet { set, .. } | Match::InputLinkAndSource { set, .. } => is_remade(set),
        _ => false,
    });
    rests_on_remade || !has_rules(family, spec, chain)
}

fn has_rules(family: Family, spec: &ChainSpec, chain: &FoundChain) -> bool {
    let rules = spec.rules.iter().map(|rule| write_rule(family, rule));
    rules.eq(chain.rules.iter().cloned())
}

// ---- drift

/// What was as wanted in `before` and is not any more. A set that drifted speaks for its elements.
pub(crate) fn drift(wanted: &Wanted, before: &Found, now: &Found) -> Vec<(Key, DriftKind)> {
    let mut drift = Vec::new();
    for (key, spec) in &wanted.sets {
        let is_met = |found: &FoundSet| found.kind == Some(spec.kind);
        let sets = [before, now].map(|found| found.set(key.family, key.name));
        drift.extend(judge(sets, is_met).map(|what| (Key::Set(*key), what)));
    }
    for (key, spec) in &wanted.chains {
        let is_met = |found: &FoundChain| {
            found.base == FoundBase::from(spec.base) && has_rules(key.family, spec, found)
        };
        let chains = [before, now].map(|found| found.chain(key.family, key.name));
        drift.extend(judge(chains, is_met).map(|what| (Key::Chain(*key), what)));
    }
    drift
        .extend(lost_elements(wanted, before, now).map(|key| (Key::Element(key), DriftKind::Gone)));
    drift
}

fn judge<T>([before, now]: [Option<&T>; 2], is_met: impl Fn(&T) -> bool) -> Option<DriftKind> {
    before.filter(|found| is_met(found))?;
    match now {
        None => Some(DriftKind::Gone),
        Some(found) => (!is_met(found)).then_some(DriftKind::Changed),
    }
}

fn lost_elements<'a>(
    wanted: &'a Wanted,
    before: &'a Found,
    now: &'a Found,
) -> impl Iterator<Item = ElementKey> + 'a {
    wanted.elements.iter().copied().filter(move |key| {
        let (set, member) = (key.set, Member::in_key(key));
        let [before, now] = [before, now].map(|found| found.set(set.family, set.name));
        let kind = wanted.kind(set);
        before.is_some_and(|set| set.elements.contains(&member))
            && now.is_some_and(|set| set.kind == kind && !set.elements.contains(&member))
    })
}
