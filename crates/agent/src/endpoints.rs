//! The `WorkloadEndpoint` of each of this node's pods in Calico's store.
//!
//! ```text
//!   lane ── Attached, Gone ─▶ keep ── compare-and-swap ─▶ workloadendpoints/<namespace>/<name>   (etcd)
//!     ▲                        │
//!     └────── Unlisted ────────┘
//! ```
//!
//! Others read there whose an address is: a Felix on another node tells by it what a policy's selector or a profile means,
//! and `calicoctl ipam check` which addresses are in use. No ADD waits for it. A DEL's note stands until the object is
//! gone, so a restart goes on with it; what pods there are, the lane tells at its start.
//!
//! An endpoint is named after its pod, and a pod's next sandbox has the same name. So one is taken away only if it
//! still says a container that is gone, and whoever waits for that is told when it says another's, or nothing.

mod carry;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use russet_api::calico::{Kind, ResourceId};
use russet_core::model::calico::{Name, Workload, WorkloadEndpoint};
use russet_store::Revision;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

use self::carry::{Outcome, Task, carry_out};
use crate::ipam::{Shelf, Told, What};

/// What the lane says.
#[derive(Clone, Debug)]
pub enum Say {
    /// A pod has its link.
    Attached(Box<Workload>),
    /// A pod is no more. Whoever holds the ticket is told when its endpoint is not there.
    Gone { ticket: u64, pod: Box<Workload> },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Due(Instant),
    UnderWay,
    /// As it should be, for all that is known.
    Done,
}

/// What is to be at a key.
#[derive(Debug)]
struct Endpoint {
    /// `None`: none of ours.
    there: Option<Box<WorkloadEndpoint>>,
    /// The containers that the key may say still, and must not.
    gone: BTreeSet<String>,
    /// Who waits till it does not.
    tickets: Vec<u64>,
    state: State,
    /// Where it was written, by this life of the agent, and was not touched since for all that is known.
    at: Option<Revision>,
}

impl Endpoint {
    fn new(due: Instant) -> Self {
        let (gone, tickets) = (BTreeSet::new(), Vec::new());
        Self { there: None, gone, tickets, state: State::Due(due), at: None }
    }

    /// A pod has it now; whoever had it before has it no more.
    fn attach(&mut self, now: WorkloadEndpoint) {
        let container = now.container.clone();
        let before = self.there.replace(Box::new(now)).and_then(|before| before.container);
        self.gone.extend(before);
        if let Some(container) = container {
            self.gone.remove(&container);
        }
    }

    fn detach(&mut self, container: String, ticket: u64) {
        self.there.take_if(|there| there.container.as_ref() == Some(&container));
        self.gone.insert(container);
        self.tickets.push(ticket);
    }

    /// The key says a later sandbox already.
    const fn is_settled(&self) -> bool {
        self.there.is_some() && matches!(self.state, State::Done)
    }

    /// Who may be told that it is as they wait for.
    fn settle(&mut self) -> Vec<u64> {
        self.gone.clear();
        std::mem::take(&mut self.tickets)
    }
}

/// How soon things are done.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long what is said waits for more of its kind, and for the ADDs that it came from.
    pub lull: Duration,
    /// When something is tried again.
    pub retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { lull: Duration::from_millis(100), retry: Duration::from_secs(2) }
    }
}

/// What the task hears, and where it answers.
#[derive(Debug)]
pub struct Lines {
    pub says: mpsc::Receiver<Say>,
    pub told: mpsc::Sender<Told>,
    pub standing: watch::Receiver<Standing>,
}

/// How things stand with the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is there, and is believed. One that comes back is judged again first.
    pub may_write: bool,
    /// Grows whenever it may have lost what was written: it was read whole again, or this node's own object was deleted, which
    /// takes the endpoints with it.
    pub epoch: u64,
}

/// Keeps the endpoints as they should be, for as long as somebody may say something. Nothing is written into a store that
/// is not believed.
pub async fn keep(store: impl Shelf, node: Name, pace: Pace, lines: Lines) {
    let Lines { mut says, told, mut standing } = lines;
    let mut keeper = Keeper::new(node, pace, told);
    let mut work: JoinSet<Vec<(ResourceId, Outcome)>> = JoinSet::new();
    let mut known = 0;
    loop {
        let now = Instant::now();
        let Standing { may_write, epoch } = *standing.borrow_and_update();
        if epoch != known {
            known = epoch;
            keeper.unsure(now);
        }
        if !may_write {
            work.abort_all();
        }
        if may_write && work.is_empty() {
            let tasks = keeper.due_now(now);
            if !tasks.is_empty() {
                work.spawn(carry_out(store.clone(), keeper.node.clone(), tasks));
            }
        }
        let next = keeper.next_due().filter(|_| may_write && work.is_empty());
        tokio::select! {
            said = says.recv() => {
                let Some(said) = said else { return };
                keeper.hear(said, Instant::now());
            }
            Some(done) = work.join_next() => match done {
                Ok(done) => keeper.done(done, Instant::now()),
                Err(_) => keeper.cut_off(Instant::now()),
            },
            changed = standing.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep_until(next.unwrap_or(now).into()), if next.is_some() => {}
        }
    }
}

struct Keeper {
    node: Name,
    pace: Pace,
    told: mpsc::Sender<Told>,
    endpoints: BTreeMap<ResourceId, Endpoint>,
    /// What is wrong with the store, as it was told last.
    trouble: Option<String>,
}

impl Keeper {
    const fn new(node: Name, pace: Pace, told: mpsc::Sender<Told>) -> Self {
        Self { node, pace, told, endpoints: BTreeMap::new(), trouble: None }
    }

    fn hear(&mut self, said: Say, now: Instant) {
        let soon = now + self.pace.lull;
        match said {
            Say::Attached(pod) => {
                let Some(id) = self.id_of(&pod) else { return };
                let one = self.endpoints.entry(id).or_insert_with(|| Endpoint::new(soon));
                one.attach(pod.endpoint(&self.node));
                one.state = State::Due(soon);
            }
            Say::Gone { ticket, pod } => {
                let Some(id) = self.id_of(&pod) else { return self.unlisted(vec![ticket]) };
                let one = self.endpoints.entry(id).or_insert_with(|| Endpoint::new(soon));
                one.detach(pod.container, ticket);
                if one.is_settled() {
                    let waiting = one.settle();
                    self.unlisted(waiting);
                } else {
                    one.state = State::Due(soon);
                }
            }
        }
    }

    fn id_of(&self, pod: &Workload) -> Option<ResourceId> {
        let (namespace, name) = pod.names(&self.node);
        let id = (namespace.parse(), name.parse());
        if let (Ok(namespace), Ok(name)) = id {
            return Some(ResourceId {
                kind: Kind::WorkloadEndpoint,
                namespace: Some(namespace),
                name,
            });
        }
        tracing::warn!(
            op = "write workload endpoint",
            subject = name,
            "it is no name of an object; the pod has none"
        );
        None
    }

    fn unlisted(&self, tickets: Vec<u64>) {
        for ticket in tickets {
            // There is room for as many answers as there may be questions.
            if self.told.try_send(Told { ticket, what: What::Unlisted }).is_err() {
                tracing::error!(op = "answer attach lane", "it is gone, or does not listen");
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let due = |endpoint: &Endpoint| match endpoint.state {
            State::Due(at) => Some(at),
            State::UnderWay | State::Done => None,
        };
        self.endpoints.values().filter_map(due).min()
    }

    /// What is to be done now, so many at most.
    fn due_now(&mut self, now: Instant) -> Vec<Task> {
        let is_due = |one: &Endpoint| matches!(one.state, State::Due(at) if at <= now);
        let due = self.endpoints.iter_mut().filter(|(_, one)| is_due(one)).take(TOGETHER);
        due.map(|(id, one)| {
            one.state = State::UnderWay;
            Task { id: id.clone(), wanted: one.there.clone(), gone: one.gone.clone(), at: one.at }
        })
        .collect()
    }

    fn done(&mut self, all: Vec<(ResourceId, Outcome)>, now: Instant) {
        for (id, outcome) in all {
            if let Outcome::Failed(reason) = &outcome {
                self.note_trouble(reason);
                continue;
            }
            let Some(one) = self.endpoints.get_mut(&id) else { continue };
            // Something else may have been said meanwhile: then it is due, and looked at anew.
            if !matches!(one.state, State::UnderWay) {
                one.at = None;
                continue;
            }
            (one.state, one.at) = (State::Done, None);
            match outcome {
                Outcome::There(at) => one.at = Some(at),
                Outcome::Left(reason) => {
                    tracing::warn!(op = "write workload endpoint", subject = %id.name, reason, "what is there stays");
                }
                Outcome::Gone | Outcome::Failed(_) => {}
            }
            let waiting = one.settle();
            if one.there.is_none() {
                self.endpoints.remove(&id);
            }
            self.trouble = None;
            self.unlisted(waiting);
        }
        // What failed, or was not come to because the store failed before.
        self.cut_off(now);
    }

    /// What has no answer is done again.
    fn cut_off(&mut self, now: Instant) {
        let again = now + self.pace.retry;
        for one in self.endpoints.values_mut() {
            if matches!(one.state, State::UnderWay) {
                one.state = State::Due(again);
            }
        }
    }

    /// The store may say otherwise than was written: all of it is looked at anew.
    fn unsure(&mut self, now: Instant) {
        let soon = now + self.pace.lull;
        for one in self.endpoints.values_mut() {
            (one.state, one.at) = (State::Due(soon), None);
        }
    }

    fn note_trouble(&mut self, reason: &str) {
        if self.trouble.as_deref() != Some(reason) {
            tracing::warn!(op = "write workload endpoint", reason, "it is tried again");
            self.trouble = Some(reason.to_owned());
        }
    }
}

/// How many are written as one transaction: etcd takes 128 by default.
const TOGETHER: usize = 64;
