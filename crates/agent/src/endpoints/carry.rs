//! Writes endpoints into the store, or takes them away: many as one transaction where nothing was there before, one after
//! the other where something is.

use std::collections::BTreeSet;

use russet_api::calico::{Key, Layout, ResourceId, Stored};
use russet_core::model::calico::{Name, WorkloadEndpoint};
use russet_store::{Expect, KeyValue, Revision, StoreError, WriteOutcome};

use crate::{
    ipam::{Shelf, Swap},
    one_line,
    register::made,
};

/// What is to be done about one endpoint.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: ResourceId,
    /// `None`: it is taken away.
    pub(super) wanted: Option<Box<WorkloadEndpoint>>,
    /// If it says one of these containers.
    pub(super) gone: BTreeSet<String>,
    /// Where it was written last, as far as that is known.
    pub(super) at: Option<Revision>,
}

impl Task {
    fn key(&self) -> Vec<u8> {
        Key::Resource(self.id.clone()).to_string().into_bytes()
    }

    /// What it comes to if nobody else has written.
    fn at_once(&self) -> Option<Swap> {
        let (expect, value) = match (&self.wanted, self.at) {
            (Some(value), None) => {
                (Expect::Absent, Some(fresh(&self.id, value).ok()?.into_bytes()))
            }
            (None, Some(at)) => (Expect::At(at), None),
            _ => return None,
        };
        Some(Swap { key: self.key(), expect, value })
    }

    const fn as_wished(&self, at: Revision) -> Outcome {
        if self.wanted.is_some() { Outcome::There(at) } else { Outcome::Gone }
    }
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    There(Revision),
    /// There is none, or another's.
    Gone,
    /// Something that is not ours to change is there, and why.
    Left(String),
    Failed(String),
}

pub(super) async fn carry_out(
    store: impl Shelf,
    node: Name,
    tasks: Vec<Task>,
) -> Vec<(ResourceId, Outcome)> {
    let (mut swaps, mut at_once, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for task in tasks {
        match task.at_once() {
            Some(swap) => {
                swaps.push(swap);
                at_once.push(task);
            }
            None => alone.push(task),
        }
    }
    let mut done = Vec::new();
    let together = if swaps.len() > 1 { store.swap_all(swaps).await } else { Ok(None) };
    match together {
        Ok(Some(at)) => {
            done.extend(at_once.into_iter().map(|task| {
                let outcome = task.as_wished(at);
                (task.id, outcome)
            }));
        }
        // Something was there before, or there is one only.
        Ok(None) => alone.extend(at_once),
        Err(err) => {
            let failed = |task: Task| (task.id, Outcome::Failed(one_line(&err)));
            return at_once.into_iter().map(failed).collect();
        }
    }
    for task in alone {
        match one(&store, &node, &task).await {
            Ok(outcome) => done.push((task.id, outcome)),
            // The store is asked again later, and for all that is left.
            Err(err) => {
                done.push((task.id, Outcome::Failed(one_line(&err))));
                break;
            }
        }
    }
    done
}

/// Looks what is there, and changes it; whoever writes between is read and built upon.
///
/// # Errors
///
/// When the store does not answer.
async fn one(store: &impl Shelf, node: &Name, task: &Task) -> Result<Outcome, StoreError> {
    let key = task.key();
    let mut there = store.get(&key).await?;
    for _ in 0..ATTEMPTS {
        let (expect, text) = match next(there.as_ref(), node, task) {
            Next::Write(expect, text) => (expect, text),
            Next::Nothing(outcome) => return Ok(outcome),
        };
        let text = text.as_deref().map(str::as_bytes);
        match store.swap(&key, expect, text).await? {
            WriteOutcome::Done { revision } => return Ok(task.as_wished(revision)),
            WriteOutcome::Conflict(now) => there = now,
        }
    }
    let name = &task.id.name;
    Ok(Outcome::Failed(format!("{name} was written by others {ATTEMPTS} times in between")))
}

enum Next {
    Write(Expect, Option<String>),
    Nothing(Outcome),
}

fn next(there: Option<&KeyValue>, node: &Name, task: &Task) -> Next {
    let Some(kv) = there else {
        return match &task.wanted {
            Some(value) => match fresh(&task.id, value) {
                Ok(text) => Next::Write(Expect::Absent, Some(text)),
                Err(reason) => Next::Nothing(Outcome::Failed(reason)),
            },
            None => Next::Nothing(Outcome::Gone),
        };
    };
    let mut stored = match Stored::<WorkloadEndpoint>::read(&kv.value, Layout::Resource) {
        Ok(stored) if stored.value().node == *node => stored,
        Ok(stored) => {
            let of = &stored.value().node;
            return Next::Nothing(Outcome::Left(format!("it is of node {of}")));
        }
        Err(fault) => return Next::Nothing(Outcome::Left(fault.to_string())),
    };
    let Some(value) = &task.wanted else {
        let says = stored.value().container.as_ref();
        return if says.is_some_and(|container| task.gone.contains(container)) {
            Next::Write(Expect::At(kv.modified), None)
        } else {
            Next::Nothing(Outcome::Gone)
        };
    };
    let wanted = merged(value, stored.value());
    if wanted == *stored.value() {
        return Next::Nothing(Outcome::There(kv.modified));
    }
    stored.set(wanted);
    Next::Write(Expect::At(kv.modified), Some(stored.text()))
}

/// What is ours, and of the same container's object what somebody has added to it: labels, ports, the service account.
fn merged(ours: &WorkloadEndpoint, there: &WorkloadEndpoint) -> WorkloadEndpoint {
    if ours.container != there.container {
        return ours.clone();
    }
    let labels = there.labels.iter().chain(ours.labels.iter()).collect();
    let profiles = if there.profiles.is_empty() { &ours.profiles } else { &there.profiles };
    WorkloadEndpoint {
        labels,
        profiles: profiles.clone(),
        ports: there.ports.clone(),
        service_account: there.service_account.clone(),
        mac: ours.mac.or(there.mac),
        ..ours.clone()
    }
}

fn fresh(id: &ResourceId, value: &WorkloadEndpoint) -> Result<String, String> {
    made(id.namespace.clone(), &id.name, value.clone()).map(|object| object.text())
}

/// How often a write is tried before it is put off.
const ATTEMPTS: usize = 5;
