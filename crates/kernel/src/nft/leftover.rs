//! Chains that another system left: in a foreign table, by `iptables` on `nf_tables`, or in a table of its own, which goes
//! with the last of them.
//!
//! They are looked for once, when everything is told and ours is in its place: who makes them anew afterwards wants
//! them. Each goes in a transaction of its own with the rules that lead to it. `iptables-legacy` keeps its rules
//! elsewhere, where netlink does not reach; `legacy` only looks at those.

use std::collections::{BTreeMap, BTreeSet};

use russet_desired::{Key, Leftover, LeftoverKey, LeftoverSpec, Patch};

use super::{
    expr::{Code, Expr},
    kernel::Kernel,
    object::{self, RawChain, RawRule, TableRef, family_number},
    reconcile::Refused,
};
use crate::netlink::NetlinkError;

/// Removes what was left.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    wanted_gone: BTreeMap<LeftoverKey, LeftoverSpec>,
    /// Those that are gone, or never were.
    settled: BTreeSet<LeftoverKey>,
}

impl Leftovers {
    pub(crate) fn update(&mut self, patch: Patch<Leftover>) {
        for (key, wanted) in patch {
            match wanted {
                Some(spec) => _ = self.wanted_gone.insert(key, spec),
                None => _ = self.wanted_gone.remove(&key),
            }
        }
    }

    /// To be called when ours is in its place.
    pub(crate) fn apply(&mut self, kernel: &mut Kernel) -> Result<Vec<Refused>, NetlinkError> {
        let due = self.wanted_gone.iter().filter(|(key, _)| !self.settled.contains(key));
        let due: Vec<_> = due.map(|(key, spec)| (*key, *spec)).collect();
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut chains = kernel.chains()?;
        let mut refused = Vec::new();
        for (key, spec) in due {
            match remove(kernel, key, spec, &chains) {
                Ok(()) => {
                    let table = table_of(&key);
                    chains.retain(|chain| !(chain.is_of(table) && chain.name == key.chain));
                    self.settled.insert(key);
                }
                Err(error) => refused.push(Refused { key: Some(Key::Leftover(key)), error }),
            }
        }
        Ok(refused)
    }
}

fn table_of(key: &LeftoverKey) -> TableRef<'static> {
    TableRef { family: family_number(key.family), name: key.table }
}

fn remove(
    kernel: &mut Kernel,
    key: LeftoverKey,
    spec: LeftoverSpec,
    chains: &[RawChain],
) -> Result<(), NetlinkError> {
    let table = table_of(&key);
    let of_table = || chains.iter().filter(|chain| chain.is_of(table));
    if !of_table().any(|chain| chain.name == key.chain) {
        return Ok(());
    }
    let mut leading = Vec::new();
    for chain in of_table() {
        let rules = kernel.chain_rules(table, &chain.name)?;
        leading.extend(rules.into_iter().filter(|rule| leads_to(rule, key.chain)));
    }
    let is_last = of_table().all(|chain| chain.name == key.chain);
    kernel.change("remove leftover chain", &key.to_string(), |batch| {
        for rule in &leading {
            object::del_rule(batch, table, &rule.chain, rule.handle);
        }
        object::flush_chain(batch, table, key.chain);
        object::del_chain(batch, table, key.chain);
        if is_last && spec.with_table.is_on() {
            object::del_table(batch, table);
        }
    })?;
    tracing::info!(
        op = "remove leftover chain",
        table = key.table,
        chain = key.chain,
        rules = leading.len(),
        "what flannel left is gone"
    );
    Ok(())
}

fn leads_to(rule: &RawRule, chain: &str) -> bool {
    rule.exprs.iter().any(
        |expr| matches!(expr, Expr::Verdict(Code::Jump(name) | Code::Goto(name)) if name == chain),
    )
}
