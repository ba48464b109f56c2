//! Chains of others that drop what we forward, and the one thing that we may put into them.
//!
//! An accept in our own table ends only our own chain: a chain of Docker's or firewalld's at the same hook
//! judges the packet after us and may drop it. So these chains are named ([`DroppingChain`]), and when it
//! is wished, accept rules with our comment are put at their heads. A rule with that comment is ours, and
//! nothing else in a foreign table is ever touched. `iptables` shows these rules and can delete them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
};

use russet_desired::{Field, Flag, ForeignAccept, Key, Patch};
use russet_net::{Family, Prefix};

use super::{
    expr::{Code, Expr},
    kernel::Kernel,
    number::{
        NF_DROP, NF_INET_FORWARD, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFT_META_NFPROTO,
    },
    object::{self, OUR_TABLE, Place, RawChain, RawRule, TableRef, family_number},
    reconcile::{Refused, held},
    rule::within,
};
use crate::{
    netlink::NetlinkError,
    reconcile::{DriftKind, Sync},
};

/// A foreign base chain at the forward hook that drops what no earlier rule of it lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppingChain {
    pub family: ForeignFamily,
    pub table: String,
    pub chain: String,
    pub why: Why,
    /// The netlink port of the process that alone may change the table.
    pub owner: Option<u32>,
}

impl fmt::Display for DroppingChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForeignFamily {
    Ip,
    Ip6,
    Inet,
}

impl fmt::Display for ForeignFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

/// What makes a chain drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Policy,
    /// A rule without a condition drops or rejects.
    Rule,
    /// A rule without a condition goes to this chain, which has such a rule.
    Chain(String),
    /// It goes to Felix' chains, which drop what comes from pods, or goes to pods, that it did not make. They may hold a
    /// policy, so no accept is put in for their sake: whoever has no need of them any more removes them.
    Felix,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("policy drop"),
            Self::Rule => f.write_str("a rule drops everything"),
            Self::Chain(name) => write!(f, "chain {name} drops everything"),
            Self::Felix => f.write_str(
                "what Felix left drops from and to pods that it did not make; `russet migrate check calico` says how to \
                 be rid of it",
            ),
        }
    }
}

/// The comment by which a rule in a foreign chain is known as ours.
pub const COMMENT: &str = "russet forward";

/// Keeps the accept rules in foreign chains equal to what is wanted.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    wanted: BTreeSet<Prefix>,
    /// `None`: to be read.
    chains: Option<Vec<Forward>>,
    drifted: BTreeSet<Prefix>,
    repaired: Vec<Prefix>,
}

/// A foreign base chain at the forward hook, as it was read.
#[derive(Clone, Debug)]
struct Forward {
    chain: RawChain,
    family: ForeignFamily,
    why: Option<Why>,
    /// Whether it goes to chains of Felix' that are not empty.
    felix: Flag,
    owner: Option<u32>,
    /// Those with our comment.
    ours: Vec<RawRule>,
}

impl Foreign {
    pub(crate) fn update(&mut self, patch: Patch<ForeignAccept>) {
        for (prefix, wanted) in patch {
            match wanted {
                Some(_) => _ = self.wanted.insert(prefix),
                None => _ = self.wanted.remove(&prefix),
            }
        }
    }

    pub(crate) fn resync(&mut self, kernel: &mut Kernel) -> Result<(), NetlinkError> {
        let now = list_forward(kernel)?;
        let before = self.chains.iter().flatten();
        let lost = before.flat_map(|old| old.lost(&now, &self.wanted)).collect::<Vec<_>>();
        self.drifted.extend(lost);
        self.chains = Some(now);
        Ok(())
    }

    pub(crate) fn dropping(&self) -> Vec<DroppingChain> {
        let report = |forward: &Forward, why| DroppingChain {
            family: forward.family,
            table: forward.chain.table.clone(),
            chain: forward.chain.name.clone(),
            why,
            owner: forward.owner,
        };
        let all = self.chains.iter().flatten();
        let whys = |forward: &Forward| {
            let felix = forward.felix.is_on().then_some(Why::Felix);
            forward.why.clone().into_iter().chain(felix)
        };
        all.flat_map(|forward| whys(forward).map(|why| report(forward, why))).collect()
    }

    pub(crate) fn take_repaired(&mut self) -> Vec<(Key, DriftKind)> {
        let prefixes = mem::take(&mut self.repaired).into_iter();
        prefixes.map(|prefix| (Key::ForeignAccept(prefix), DriftKind::Gone)).collect()
    }

    /// Brings every chain up to date, each in a transaction of its own, so that one that cannot be changed
    /// holds back no other. What was changed is read back: only the kernel knows the handles
    /// of new rules.
    pub(crate) fn apply(
        &mut self,
        kernel: &mut Kernel,
        sync: Sync,
    ) -> Result<Vec<Refused>, NetlinkError> {
        let chains = match self.chains.take() {
            Some(chains) => chains,
            None => list_forward(kernel)?,
        };
        let changes: Vec<_> = chains.iter().map(|f| (f, f.change(&self.wanted, sync))).collect();
        let mut refused = BTreeMap::new();
        for (forward, change) in changes.iter().filter(|(_, change)| !change.is_empty()) {
            if let Err(error) = change.send(forward, kernel) {
                tracing::debug!(%error, "foreign chain");
                refused.extend(change.add.iter().map(|accept| (accept.prefix, error.clone())));
            }
        }
        let is_settled = changes.iter().all(|(_, change)| change.is_empty());
        self.chains = if is_settled { Some(chains) } else { Some(list_forward(kernel)?) };
        let drifted = mem::take(&mut self.drifted).into_iter();
        self.repaired.extend(drifted.filter(|prefix| !refused.contains_key(prefix)));
        let refused = refused.into_iter();
        let refused =
            refused.map(|(key, error)| Refused { key: Some(Key::ForeignAccept(key)), error });
        Ok(refused.collect())
    }
}

/// One accept rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Accept {
    prefix: Prefix,
    field: Field,
}

/// What a chain needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct ForeignChange {
    add: Vec<Accept>,
    /// Handles of rules with our comment.
    remove: Vec<u64>,
}

impl ForeignChange {
    fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    fn send(&self, forward: &Forward, kernel: &mut Kernel) -> Result<(), NetlinkError> {
        let RawChain { table, name, .. } = &forward.chain;
        let subject = format!("{} {table} {name}", forward.family);
        if let Some(port) = forward.owner {
            return Err(held("accept in", subject, port));
        }
        let table = TableRef { family: forward.chain.family, name: table };
        kernel.change("accept in", &subject, |batch| {
            for accept in &self.add {
                let exprs = accept_exprs(forward.family, *accept);
                object::insert_rule(batch, (table, name), forward.place(), &exprs, COMMENT);
            }
            for handle in &self.remove {
                object::del_rule(batch, table, name, *handle);
            }
        })
    }
}

impl Forward {
    /// Behind all other rules when only the policy drops, so that what the operator drops by a rule stays
    /// dropped; before them when a rule drops everything.
    fn place(&self) -> Place {
        match self.why {
            Some(Why::Policy) => Place::End,
            _ => Place::Head,
        }
    }

    /// The rules that are missing, and those of ours that are not wanted, doubled or altered. A chain that
    /// does not drop needs none.
    fn change(&self, wanted: &BTreeSet<Prefix>, sync: Sync) -> ForeignChange {
        let mut change = ForeignChange::default();
        let mut kept = BTreeSet::new();
        let prefixes = wanted.iter().filter(|prefix| self.why.is_some() && self.takes(**prefix));
        for prefix in prefixes {
            for field in [Field::Source, Field::Destination] {
                let accept = Accept { prefix: *prefix, field };
                let exprs = accept_exprs(self.family, accept);
                match self.ours.iter().find(|rule| rule.exprs == exprs) {
                    Some(rule) => _ = kept.insert(rule.handle),
                    None => change.add.push(accept),
                }
            }
        }
        if sync == Sync::Complete {
            let all = self.ours.iter().map(|rule| rule.handle);
            change.remove = all.filter(|handle| !kept.contains(handle)).collect();
        }
        change
    }

    /// The wanted prefixes that had a rule here, and have none in the same chain any more.
    fn lost(&self, now: &[Self], wanted: &BTreeSet<Prefix>) -> Vec<Prefix> {
        let is_same = |other: &&Self| other.chain == self.chain && other.why.is_some();
        let Some(now) = now.iter().find(is_same) else { return Vec::new() };
        let missing = |chain: &Self| {
            let change = chain.change(wanted, Sync::Partial);
            change.add.into_iter().map(|accept| accept.prefix).collect::<BTreeSet<_>>()
        };
        missing(now).difference(&missing(self)).copied().collect()
    }

    fn takes(&self, prefix: Prefix) -> bool {
        match self.family {
            ForeignFamily::Ip => prefix.family() == Family::V4,
            ForeignFamily::Ip6 => prefix.family() == Family::V6,
            ForeignFamily::Inet => true,
        }
    }
}

fn accept_exprs(family: ForeignFamily, Accept { prefix, field }: Accept) -> Vec<Expr> {
    let mut exprs = Vec::new();
    if family == ForeignFamily::Inet {
        exprs.push(Expr::Meta { key: NFT_META_NFPROTO });
        exprs.push(Expr::Equal(vec![family_number(prefix.family())]));
    }
    exprs.extend(within(field, prefix, Flag::Off));
    exprs.push(Expr::Verdict(Code::Accept));
    exprs
}

/// Reads every foreign base chain at the forward hook.
fn list_forward(kernel: &mut Kernel) -> Result<Vec<Forward>, NetlinkError> {
    let port = kernel.port()?;
    let owners: BTreeMap<_, _> = kernel
        .tables()?
        .into_iter()
        .filter_map(|table| Some(((table.family, table.name), table.owner?)))
        .collect();
    let mut all = Vec::new();
    for chain in kernel.chains()? {
        let Some(family) = foreign_family(chain.family) else { continue };
        let forwards = chain.base.as_ref().is_some_and(|base| base.hook == NF_INET_FORWARD);
        if !forwards || chain.table == OUR_TABLE {
            continue;
        }
        let table = TableRef { family: chain.family, name: &chain.table };
        let rules = kernel.chain_rules(table, &chain.name)?;
        let why = why_dropping(&chain, &rules, |name| kernel.chain_rules(table, name))?;
        let felix = goes_to_felix(&rules, |name| kernel.chain_rules(table, name))?;
        let owner = owners.get(&(chain.family, chain.table.clone())).copied();
        let is_ours = |rule: &RawRule| rule.comment.as_deref() == Some(COMMENT);
        let ours = rules.into_iter().filter(is_ours).collect();
        let owner = owner.filter(|o| *o != port);
        all.push(Forward { chain, family, why, felix, owner, ours });
    }
    Ok(all)
}

fn foreign_family(number: u8) -> Option<ForeignFamily> {
    match number {
        NFPROTO_IPV4 => Some(ForeignFamily::Ip),
        NFPROTO_IPV6 => Some(ForeignFamily::Ip6),
        NFPROTO_INET => Some(ForeignFamily::Inet),
        _ => None,
    }
}

/// What Felix has its forward chain go to, with `iptables` and in a table of its own.
const FELIX: [&str; 2] = ["cali-FORWARD", "filter-cali-FORWARD"];

fn goes_to_felix(
    rules: &[RawRule],
    mut rules_of: impl FnMut(&str) -> Result<Vec<RawRule>, NetlinkError>,
) -> Result<Flag, NetlinkError> {
    for rule in rules {
        if let Some(End::GoesTo(name)) = unconditional(&rule.exprs)
            && FELIX.contains(&name)
            && !rules_of(name)?.is_empty()
        {
            return Ok(Flag::On);
        }
    }
    Ok(Flag::Off)
}

/// What happens to a packet that no condition of the chain speaks of: the first rule without a condition
/// decides, else the policy. Chains that are jumped to are looked into one level deep.
fn why_dropping(
    chain: &RawChain,
    rules: &[RawRule],
    mut rules_of: impl FnMut(&str) -> Result<Vec<RawRule>, NetlinkError>,
) -> Result<Option<Why>, NetlinkError> {
    for rule in rules {
        match unconditional(&rule.exprs) {
            Some(End::Drops) => return Ok(Some(Why::Rule)),
            Some(End::Accepts) => return Ok(None),
            Some(End::GoesTo(name)) => match first_end(&rules_of(name)?) {
                Some(true) => return Ok(Some(Why::Chain(name.to_owned()))),
                Some(false) => return Ok(None),
                None => {}
            },
            Some(End::Returns) => break,
            None => {}
        }
    }
    let drops = chain.base.as_ref().is_some_and(|base| base.policy == NF_DROP);
    Ok(drops.then_some(Why::Policy))
}

/// Whether a chain drops what no condition of it speaks of; `None` when it returns.
fn first_end(rules: &[RawRule]) -> Option<bool> {
    for rule in rules {
        match unconditional(&rule.exprs) {
            Some(End::Drops) => return Some(true),
            Some(End::Accepts) => return Some(false),
            Some(End::Returns) => return None,
            Some(End::GoesTo(_)) | None => {}
        }
    }
    None
}

/// What a rule without a condition does.
enum End<'a> {
    Drops,
    Accepts,
    Returns,
    GoesTo(&'a str),
}

fn unconditional(exprs: &[Expr]) -> Option<End<'_>> {
    let mut judging = exprs.iter().filter(|expr| **expr != Expr::Neutral);
    let end = match judging.next()? {
        Expr::Verdict(Code::Drop) | Expr::Reject => End::Drops,
        Expr::Verdict(Code::Accept) => End::Accepts,
        Expr::Verdict(Code::Return) => End::Returns,
        Expr::Verdict(Code::Jump(name) | Code::Goto(name)) => End::GoesTo(name),
        _ => return None,
    };
    judging.next().is_none().then_some(end)
}
