//! Writes endpoints into the store, or takes them away: many as one transaction where nothing was there before, one after
//! the other where something is.

use russet_api::calico::{Born, Group, Key, Layout, Meta, ResourceId, Stored};
use russet_core::model::calico::{Name, WorkloadEndpoint};
use russet_store::{Expect, KeyValue, Revision, WriteOutcome};

use crate::{
    ipam::{Shelf, Swap},
    one_line,
    register::born,
};

/// What is to be done about one endpoint. `at` is where it was written last, as far as that is known.
#[derive(Debug)]
pub(super) enum Task {
    Put {
        id: ResourceId,
        value: Box<WorkloadEndpoint>,
        at: Option<Revision>,
    },
    /// Only if it says this container.
    Remove {
        id: ResourceId,
        container: Option<String>,
        at: Option<Revision>,
    },
}

impl Task {
    const fn id(&self) -> &ResourceId {
        match self {
            Self::Put { id, .. } | Self::Remove { id, .. } => id,
        }
    }

    /// What it comes to if nobody else has written.
    fn at_once(&self) -> Option<Swap> {
        let key = Key::Resource(self.id().clone()).to_string().into_bytes();
        match self {
            Self::Put { id, value, at: None } => {
                let value = Some(fresh(id, value).ok()?.into_bytes());
                Some(Swap { key, expect: Expect::Absent, value })
            }
            Self::Remove { at: Some(at), .. } => {
                Some(Swap { key, expect: Expect::At(*at), value: None })
            }
            Self::Put { .. } | Self::Remove { .. } => None,
        }
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
    let (swaps, at_once, alone) = split(tasks);
    let mut done = Vec::new();
    let mut one_by_one = alone;
    if swaps.len() > 1 {
        match store.swap_all(swaps).await {
            Ok(Some(at)) => done
                .extend(at_once.into_iter().map(|task| (task.id().clone(), as_wished(&task, at)))),
            Ok(None) => one_by_one.extend(at_once),
            Err(err) => {
                let failed = |task: Task| (task.id().clone(), Outcome::Failed(one_line(&err)));
                done.extend(at_once.into_iter().map(failed));
            }
        }
    } else {
        one_by_one.extend(at_once);
    }
    for task in one_by_one {
        let outcome = one(&store, &node, &task).await.unwrap_or_else(Outcome::Failed);
        let failed = matches!(outcome, Outcome::Failed(_));
        done.push((task.id().clone(), outcome));
        if failed {
            // The store is asked again later, and for all of them.
            break;
        }
    }
    done
}

fn split(tasks: Vec<Task>) -> (Vec<Swap>, Vec<Task>, Vec<Task>) {
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
    (swaps, at_once, alone)
}

const fn as_wished(task: &Task, at: Revision) -> Outcome {
    match task {
        Task::Put { .. } => Outcome::There(at),
        Task::Remove { .. } => Outcome::Gone,
    }
}

/// Looks what is there, and changes it; whoever writes between is read and built upon.
async fn one(store: &impl Shelf, node: &Name, task: &Task) -> Result<Outcome, String> {
    let key = Key::Resource(task.id().clone()).to_string().into_bytes();
    let mut there = store.get(&key).await.map_err(|err| one_line(&err))?;
    for _ in 0..ATTEMPTS {
        let (expect, text) = match next(there.as_ref(), node, task)? {
            Next::Write(expect, text) => (expect, text),
            Next::Nothing(outcome) => return Ok(outcome),
        };
        let text = text.as_deref().map(str::as_bytes);
        match store.swap(&key, expect, text).await.map_err(|err| one_line(&err))? {
            WriteOutcome::Done { revision } => return Ok(as_wished(task, revision)),
            WriteOutcome::Conflict(now) => there = now,
        }
    }
    Err(format!("{} was written by others {ATTEMPTS} times in between", task.id().name))
}

enum Next {
    Write(Expect, Option<String>),
    Nothing(Outcome),
}

fn next(there: Option<&KeyValue>, node: &Name, task: &Task) -> Result<Next, String> {
    let Some(kv) = there else {
        return match task {
            Task::Put { id, value, .. } => Ok(Next::Write(Expect::Absent, Some(fresh(id, value)?))),
            Task::Remove { .. } => Ok(Next::Nothing(Outcome::Gone)),
        };
    };
    let read = Stored::<WorkloadEndpoint>::read(&kv.value, Layout::Resource);
    let mut stored = match read {
        Ok(stored) if stored.value().node == *node => stored,
        Ok(stored) => {
            let of = &stored.value().node;
            return Ok(Next::Nothing(Outcome::Left(format!("it is of node {of}"))));
        }
        Err(fault) => return Ok(Next::Nothing(Outcome::Left(fault.to_string()))),
    };
    match task {
        Task::Put { value, .. } => {
            let wanted = merged(value, stored.value());
            if wanted == *stored.value() {
                return Ok(Next::Nothing(Outcome::There(kv.modified)));
            }
            stored.set(wanted);
            Ok(Next::Write(Expect::At(kv.modified), Some(stored.text())))
        }
        Task::Remove { container, .. } if stored.value().container == *container => {
            Ok(Next::Write(Expect::At(kv.modified), None))
        }
        Task::Remove { .. } => Ok(Next::Nothing(Outcome::Gone)),
    }
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
    let Born { uid, created } = born().map_err(|err| format!("make an object's id: {err}"))?;
    let meta = Meta {
        name: id.name.clone(),
        namespace: id.namespace.clone(),
        uid: Some(uid),
        created: Some(created),
    };
    Ok(Stored::new(meta, value.clone(), Group::V3).text())
}

/// How often a write is tried before it is put off.
const ATTEMPTS: usize = 5;
