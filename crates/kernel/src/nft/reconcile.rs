//! Keeps our tables equal to what is wanted of them.
//!
//! Wishes come as patches; [`Reconciler::apply`] plans the smallest change (`plan`) and sends it, in one
//! transaction when it fits in one. A transaction is all or nothing, so when the kernel refuses a step the
//! step is left out and the rest sent again; a message of many elements is halved until the bad one is
//! alone. What was refused stays pending, and the next apply reads the kernel back first: a refusal often
//! means that somebody else was there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
};

use russet_desired::{Chain, ChainKey, Element, ElementKey, Key, Patch, Set, SetKey};
use russet_net::Family;

use super::{
    found::Found,
    kernel::{Fault, Ruleset, StepOutcome},
    plan::{Op, Plan, Step, Wanted, drift, fits, plan},
};
use crate::{
    netlink::{Batch, NetlinkError},
    reconcile::{DriftKind, Sync},
};

/// A wish that was not fulfilled, and stays pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `None`: a stranger in our table that would not go, or the table itself, which another process owns.
    pub key: Option<Key>,
    pub error: NetlinkError,
}

#[derive(Debug)]
pub(crate) struct Reconciler<R> {
    ruleset: R,
    wanted: Wanted,
    found: Found,
    /// Elements of hash sets whose wanted and found state may differ.
    pending: BTreeSet<ElementKey>,
    sync: Sync,
    /// Whether `found` may be out of date.
    read: Read,
    drifted: BTreeMap<Key, DriftKind>,
    repaired: Vec<(Key, DriftKind)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Needed,
    Done,
}

impl<R: Ruleset> Reconciler<R> {
    pub(crate) fn new(ruleset: R) -> Self {
        let (wanted, found, pending) = Default::default();
        let (drifted, repaired) = Default::default();
        let (sync, read) = (Sync::Partial, Read::Needed);
        Self { ruleset, wanted, found, pending, sync, read, drifted, repaired }
    }

    pub(crate) fn ruleset(&self) -> &R {
        &self.ruleset
    }

    pub(crate) fn ruleset_mut(&mut self) -> &mut R {
        &mut self.ruleset
    }

    pub(crate) fn sync(&self) -> Sync {
        self.sync
    }

    /// Takes newer wishes. Cheap: the kernel is not touched until [`Self::apply`].
    pub(crate) fn update(
        &mut self,
        sets: Patch<Set>,
        elements: Patch<Element>,
        chains: Patch<Chain>,
    ) {
        merge(&mut self.wanted.sets, sets);
        merge(&mut self.wanted.chains, chains);
        self.pending.extend(elements.keys().copied());
        for (key, wanted) in elements {
            match wanted {
                Some(_) => _ = self.wanted.elements.insert(key),
                None => _ = self.wanted.elements.remove(&key),
            }
        }
    }

    /// Says that every wish has been told, so what is ours and unwished may go.
    pub(crate) fn complete(&mut self) {
        self.sync = Sync::Complete;
        self.look_at_everything();
    }

    /// Reads the kernel back. When that fails nothing has changed.
    pub(crate) fn resync(&mut self) -> Result<(), NetlinkError> {
        let found = self.ruleset.list_owned()?;
        self.drifted.extend(drift(&self.wanted, &self.found, &found));
        self.found = found;
        self.read = Read::Done;
        self.look_at_everything();
        Ok(())
    }

    /// Sends what is missing or too much, and returns what the kernel refused.
    pub(crate) fn apply(&mut self) -> Result<Vec<Refused>, NetlinkError> {
        if self.read == Read::Needed {
            self.resync()?;
        }
        let mut refused = self.claim()?;
        refused.extend(self.homeless());
        let plan = plan(&self.wanted, &self.found, &self.pending, self.sync);
        for steps in transactions(plan, self.ruleset.room()) {
            refused.extend(self.commit(steps)?);
        }
        self.pending = refused.iter().filter_map(element_of).collect();
        let drifted = mem::take(&mut self.drifted).into_iter();
        let is_repaired =
            |(key, _): &(Key, DriftKind)| refused.iter().all(|r| r.key.as_ref() != Some(key));
        self.repaired.extend(drifted.filter(is_repaired));
        if refused
            .iter()
            .any(|refused| refused.error.errno().is_some() || refused.error.is_foreign())
        {
            self.read = Read::Needed;
        }
        Ok(refused)
    }

    /// What had drifted and is as it should be again, since the last call.
    pub(crate) fn take_repaired(&mut self) -> Vec<(Key, DriftKind)> {
        mem::take(&mut self.repaired)
    }

    /// Takes over what a predecessor left, also when nothing in it has to change.
    fn claim(&mut self) -> Result<Vec<Refused>, NetlinkError> {
        let refused = |(family, fault)| {
            let subject = format!("the table of {family}");
            Refused { key: None, error: error_of("claim", subject, &fault) }
        };
        Ok(self.ruleset.claim()?.into_iter().map(refused).collect())
    }

    fn look_at_everything(&mut self) {
        self.pending.extend(&self.wanted.elements);
        for set in self.wanted.sets.keys() {
            let held = self.found.set(set.family, set.name).into_iter().flat_map(|s| &s.elements);
            self.pending.extend(held.map(|member| member.of(*set)));
        }
    }

    /// Wanted elements that no set can take: there is none, or it is of another kind.
    fn homeless(&self) -> Vec<Refused> {
        let wanted = self.pending.iter().filter(|key| self.wanted.elements.contains(key));
        let error = |key: &ElementKey| match self.wanted.sets.get(&key.set) {
            None => Some(NetlinkError::missing("add element", key, "the set")),
            Some(spec) if !fits(spec.kind, key) => Some(NetlinkError::Impossible {
                op: "add element",
                subject: key.to_string(),
                reason: "the set holds elements of another kind",
            }),
            Some(_) => None,
        };
        let refused = |key: &ElementKey| {
            error(key).map(|error| Refused { key: Some(Key::Element(*key)), error })
        };
        wanted.filter_map(refused).collect()
    }

    /// Sends the steps until what is left of them is taken. Every round leaves out or halves at least one
    /// step, so the rounds end.
    fn commit(&mut self, mut steps: Vec<Step>) -> Result<Vec<Refused>, NetlinkError> {
        let mut refused = Vec::new();
        while !steps.is_empty() {
            let outcomes =
                self.ruleset.transact(&steps).inspect_err(|_| self.read = Read::Needed)?;
            if outcomes.iter().all(Result::is_ok) {
                for step in steps {
                    self.found.note(step);
                }
                break;
            }
            steps = self.narrow(steps, outcomes, &mut refused);
        }
        Ok(refused)
    }

    /// What is worth another try after a transaction was refused.
    fn narrow(
        &self,
        steps: Vec<Step>,
        outcomes: Vec<StepOutcome>,
        refused: &mut Vec<Refused>,
    ) -> Vec<Step> {
        let bad = bad_objects(&steps, &outcomes);
        let mut left = Vec::new();
        for (step, outcome) in steps.into_iter().zip(outcomes) {
            if bad.contains(&object_of(&step)) {
                if let Err(fault) = outcome {
                    self.note_bad(refused, &step, &fault);
                }
                continue;
            }
            match (outcome, step.halves()) {
                (Ok(()), _) => left.push(step),
                (Err(_), Some(halves)) => left.extend(halves),
                (Err(fault), None) if step.is_removal() && is_gone(&fault) => {}
                (Err(fault), None) => note(refused, self.refused(&step, &fault)),
            }
        }
        left
    }

    /// The elements of a set that cannot be had need no reasons of their own; those of a table that belongs
    /// to somebody else have no other.
    fn note_bad(&self, refused: &mut Vec<Refused>, step: &Step, fault: &Fault) {
        match (&step.op, fault) {
            (Op::Add(_, members) | Op::Remove(_, members), Fault::Held { .. }) => {
                for member in members {
                    let single = Step::new(step.family, &step.name, step.op.with(&[*member]));
                    note(refused, self.refused(&single, fault));
                }
            }
            (Op::Add(..) | Op::Remove(..), Fault::Refused(_)) => {}
            _ => note(refused, self.refused(step, fault)),
        }
    }

    fn refused(&self, step: &Step, fault: &Fault) -> Refused {
        let key = self.key_of(step);
        let subject = key.as_ref().map_or_else(|| step.name.clone(), Key::to_string);
        Refused { key, error: error_of(step.verb(), subject, fault) }
    }

    /// The key of a step's object, where it is one that was ever wanted.
    fn key_of(&self, step: &Step) -> Option<Key> {
        let Step { family, name, op } = step;
        if !step.is_of_set() {
            let mut keys = self.wanted.chains.keys();
            let is_it = |key: &&ChainKey| key.family == *family && key.name == name;
            return keys.find(is_it).map(|key| Key::Chain(*key));
        }
        let is_it = |key: &&SetKey| key.family == *family && key.name == name;
        let set = *self.wanted.sets.keys().find(is_it)?;
        match op {
            Op::Add(_, members) | Op::Remove(_, members) => {
                members.first().map(|member| Key::Element(member.of(set)))
            }
            _ => Some(Key::Set(set)),
        }
    }
}

impl Step {
    fn verb(&self) -> &'static str {
        match self.op {
            Op::NewSet(_) => "add set",
            Op::DelSet => "remove set",
            Op::Add(..) => "add element",
            Op::Remove(..) => "remove element",
            Op::NewChain(_) => "add chain",
            Op::DelChain => "remove chain",
            Op::Flush => "flush chain",
            Op::AddRule(_) => "add rule",
        }
    }
}

fn merge<K: Ord, V>(
    wanted: &mut std::collections::BTreeMap<K, V>,
    patch: std::collections::BTreeMap<K, Option<V>>,
) {
    for (key, value) in patch {
        match value {
            Some(value) => drop(wanted.insert(key, value)),
            None => drop(wanted.remove(&key)),
        }
    }
}

/// A chain, or a set with its elements: with one step of it all the others are left out.
type Object = (Family, String, ObjectKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ObjectKind {
    Set,
    Chain,
}

fn object_of(step: &Step) -> Object {
    let kind = if step.is_of_set() { ObjectKind::Set } else { ObjectKind::Chain };
    (step.family, step.name.clone(), kind)
}

/// The chains and sets that have a step that was refused. An element that was refused does not make its set
/// bad, and what could not be removed because it is gone is no fault.
fn bad_objects(steps: &[Step], outcomes: &[StepOutcome]) -> BTreeSet<Object> {
    let is_bad = |step: &Step, fault: &Fault| match step.op {
        Op::Add(..) | Op::Remove(..) => matches!(fault, Fault::Held { .. }),
        _ => !(step.is_removal() && is_gone(fault)),
    };
    let refused = steps.iter().zip(outcomes).filter_map(|(step, outcome)| {
        outcome.as_ref().err().filter(|fault| is_bad(step, fault)).map(|_| object_of(step))
    });
    refused.collect()
}

fn is_gone(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused(refusal) if refusal.errno == libc::ENOENT)
}

fn error_of(op: &'static str, subject: String, fault: &Fault) -> NetlinkError {
    match fault {
        Fault::Held { port } => held(op, subject, *port),
        Fault::Refused(refusal) => NetlinkError::refused(op, subject, refusal.clone()),
    }
}

/// What belongs to another socket. Its port is the process's id, as a rule.
pub(crate) fn held(op: &'static str, subject: impl fmt::Display, port: u32) -> NetlinkError {
    NetlinkError::foreign(op, subject, format_args!("the owner of its table (port {port})"))
}

/// The first refusal of a key is its reason; what follows from it is not told.
fn note(refused: &mut Vec<Refused>, new: Refused) {
    if new.key.is_none() || refused.iter().all(|old| old.key != new.key) {
        refused.push(new);
    }
}

fn element_of(refused: &Refused) -> Option<ElementKey> {
    match refused.key {
        Some(Key::Element(key)) => Some(key),
        _ => None,
    }
}

/// Packs a plan into as few transactions as hold it. The heart is not cut, unless it is larger than any
/// transaction can be.
fn transactions(plan: Plan, room: usize) -> Vec<Vec<Step>> {
    let mut scratch = Batch::new();
    let mut size =
        |steps: &[Step]| -> usize { steps.iter().map(|step| step.size(&mut scratch)).sum() };
    let single = |steps: Vec<Step>| steps.into_iter().map(|step| vec![step]);
    let mut groups: Vec<_> = single(plan.before).collect();
    if size(&plan.heart) <= room {
        groups.push(plan.heart);
    } else {
        groups.extend(single(plan.heart));
    }
    groups.extend(single(plan.after));

    let (mut packed, mut current, mut used) = (Vec::new(), Vec::new(), 0);
    for group in groups {
        let needs = size(&group);
        if used + needs > room && !current.is_empty() {
            packed.push(mem::take(&mut current));
            used = 0;
        }
        used += needs;
        current.extend(group);
    }
    packed.push(current);
    packed
}
