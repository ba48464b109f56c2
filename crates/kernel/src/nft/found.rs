//! What our tables hold, as read from the kernel and as changed by what we sent since.

use std::collections::{BTreeMap, BTreeSet};

use russet_desired::{BaseChain, SetKind};
use russet_net::Family;

use super::{
    expr::Expr,
    plan::{Member, Op, Step},
};

/// Both of our tables. Objects go by their names as the kernel says them: a table of ours may hold
/// strangers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    tables: BTreeMap<Family, FoundTable>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundTable {
    pub(crate) sets: BTreeMap<String, FoundSet>,
    pub(crate) chains: BTreeMap<String, FoundChain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundSet {
    /// `None`: not a set that we would make.
    pub(crate) kind: Option<SetKind>,
    pub(crate) elements: BTreeSet<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundChain {
    pub(crate) base: FoundBase,
    pub(crate) rules: Vec<Vec<Expr>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundBase {
    /// Only jumped to.
    Regular,
    Ours(BaseChain),
    /// Not one that we would make: another policy, hook or type.
    Strange,
}

impl From<Option<BaseChain>> for FoundBase {
    fn from(base: Option<BaseChain>) -> Self {
        base.map_or(Self::Regular, Self::Ours)
    }
}

impl Found {
    pub(crate) fn insert(&mut self, family: Family, table: FoundTable) {
        self.tables.insert(family, table);
    }

    pub(crate) fn table(&self, family: Family) -> Option<&FoundTable> {
        self.tables.get(&family)
    }

    pub(crate) fn set(&self, family: Family, name: &str) -> Option<&FoundSet> {
        self.table(family)?.sets.get(name)
    }

    pub(crate) fn chain(&self, family: Family, name: &str) -> Option<&FoundChain> {
        self.table(family)?.chains.get(name)
    }

    /// The elements of all sets that go by a name of the tests.
    #[cfg(test)]
    pub(crate) fn elements(&self) -> BTreeSet<russet_desired::ElementKey> {
        let names = ["alpha", "beta", "gamma"];
        let keys = Family::BOTH.into_iter().flat_map(|family| names.map(|name| (family, name)));
        let keys = keys.map(|(family, name)| russet_desired::SetKey { family, name });
        let held = |set: russet_desired::SetKey| {
            let found = self.set(set.family, set.name);
            let members = found.into_iter().flat_map(|found| found.elements.clone());
            members.map(move |member| member.of(set))
        };
        keys.flat_map(held).collect()
    }

    /// Takes note of a step that the kernel has taken.
    pub(crate) fn note(&mut self, step: Step) {
        let table = self.tables.entry(step.family).or_default();
        let name = step.name;
        match step.op {
            Op::NewSet(kind) => {
                let set = FoundSet { kind: Some(kind), elements: BTreeSet::new() };
                table.sets.insert(name, set);
            }
            Op::DelSet => drop(table.sets.remove(&name)),
            Op::Add(_, members) => table.sets.entry(name).or_default().elements.extend(members),
            Op::Remove(_, members) => {
                let elements = &mut table.sets.entry(name).or_default().elements;
                for member in &members {
                    elements.remove(member);
                }
            }
            Op::NewChain(base) => {
                let chain = FoundChain { base: base.into(), rules: Vec::new() };
                table.chains.insert(name, chain);
            }
            Op::DelChain => drop(table.chains.remove(&name)),
            Op::Flush => table.chains.get_mut(&name).into_iter().for_each(|c| c.rules.clear()),
            Op::AddRule(exprs) => {
                table.chains.get_mut(&name).into_iter().for_each(|c| c.rules.push(exprs.clone()));
            }
        }
    }
}
