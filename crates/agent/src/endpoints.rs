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
//! still says the container that is gone.

mod carry;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
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

/// What is to be at a key.
#[derive(Clone, Debug)]
enum Wish {
    There(Box<WorkloadEndpoint>),
    /// Not one of this container.
    Gone {
        container: Option<String>,
        tickets: Vec<u64>,
    },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Due(Instant),
    UnderWay,
    /// As it should be, for all that is known.
    Done,
}

#[derive(Debug)]
struct Endpoint {
    wish: Wish,
    state: State,
    /// Where it was written, by this life of the agent.
    at: Option<Revision>,
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
    /// Whether the store is believed.
    pub believed: watch::Receiver<bool>,
    /// Whether it is there; one that comes back is judged again before anything is written.
    pub reachable: watch::Receiver<bool>,
    /// Tells that this node's own object was deleted: whoever deletes a node deletes its endpoints first.
    pub deleted: watch::Receiver<()>,
}

/// Keeps the endpoints as they should be, for as long as somebody may say something. Nothing is written into a store that
/// is not believed.
pub async fn keep(store: impl Shelf, (node, pace): (Name, Pace), lines: Lines) {
    let Lines { mut says, told, mut believed, mut reachable, mut deleted } = lines;
    let mut keeper = Keeper::new(node, pace, told);
    let mut work: JoinSet<Vec<(ResourceId, Outcome)>> = JoinSet::new();
    loop {
        let now = Instant::now();
        let there = *reachable.borrow_and_update();
        if !there {
            work.abort_all();
        }
        let may_write = *believed.borrow_and_update() && there;
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
            changed = believed.changed() => {
                if changed.is_err() {
                    return;
                }
                // It may be another store, or have lost what it had.
                keeper.unsure(Instant::now());
            }
            changed = reachable.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            changed = deleted.changed() => {
                if changed.is_err() {
                    return;
                }
                keeper.unsure(Instant::now());
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
        match said {
            Say::Attached(pod) => {
                let Some(id) = self.id_of(&pod) else { return };
                let wish = Wish::There(Box::new(pod.endpoint(&self.node)));
                self.wish(id, wish, now);
            }
            Say::Gone { ticket, pod } => {
                let Some(id) = self.id_of(&pod) else { return self.unlisted(&[ticket]) };
                let container = Some(pod.container.clone());
                match self.endpoints.get_mut(&id) {
                    // The name is a later sandbox's.
                    Some(Endpoint { wish: Wish::There(there), .. })
                        if there.container != container =>
                    {
                        self.unlisted(&[ticket]);
                    }
                    Some(Endpoint { wish: Wish::Gone { container: of, tickets }, .. })
                        if *of == container =>
                    {
                        tickets.push(ticket);
                    }
                    _ => self.wish(id, Wish::Gone { container, tickets: vec![ticket] }, now),
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

    fn wish(&mut self, id: ResourceId, wish: Wish, now: Instant) {
        let before = self.endpoints.remove(&id);
        let at = before.as_ref().and_then(|before| before.at);
        if let Some(Endpoint { wish: Wish::Gone { tickets, .. }, .. }) = before {
            // Another has its name now: that one's is not there any more, or soon.
            self.unlisted(&tickets);
        }
        let state = State::Due(now + self.pace.lull);
        self.endpoints.insert(id, Endpoint { wish, state, at });
    }

    fn unlisted(&self, tickets: &[u64]) {
        for ticket in tickets {
            // There is room for as many answers as there may be questions.
            let _ = self.told.try_send(Told { ticket: *ticket, what: What::Unlisted });
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
            let (id, at) = (id.clone(), one.at);
            match &one.wish {
                Wish::There(value) => Task::Put { id, value: value.clone(), at },
                Wish::Gone { container, .. } => {
                    Task::Remove { id, container: container.clone(), at }
                }
            }
        })
        .collect()
    }

    fn done(&mut self, all: Vec<(ResourceId, Outcome)>, now: Instant) {
        for (id, outcome) in all {
            let Some(one) = self.endpoints.get_mut(&id) else { continue };
            match &outcome {
                Outcome::There(at) => one.at = Some(*at),
                Outcome::Gone => one.at = None,
                Outcome::Left(_) | Outcome::Failed(_) => {}
            }
            // Something else may have been wished for meanwhile.
            let under_way = matches!(one.state, State::UnderWay);
            match outcome {
                Outcome::Failed(reason) => {
                    if under_way {
                        one.state = State::Due(now + self.pace.retry);
                    }
                    self.note_trouble(&reason);
                }
                _ if !under_way => {}
                Outcome::There(_) => one.state = State::Done,
                Outcome::Left(reason) => {
                    one.state = State::Done;
                    tracing::warn!(op = "write workload endpoint", subject = %id.name, reason, "what is there stays");
                    self.end_if_gone(&id);
                }
                Outcome::Gone => self.end_if_gone(&id),
            }
        }
        // What was not come to, because the store failed before.
        self.cut_off(now);
    }

    /// Tells who waits for it that an endpoint is not there.
    fn end_if_gone(&mut self, id: &ResourceId) {
        self.trouble = None;
        let gone = self.endpoints.get(id).is_some_and(|one| matches!(one.wish, Wish::Gone { .. }));
        if gone
            && let Some(Endpoint { wish: Wish::Gone { tickets, .. }, .. }) =
                self.endpoints.remove(id)
        {
            self.unlisted(&tickets);
        }
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

    fn unsure(&mut self, now: Instant) {
        let soon = now + self.pace.lull;
        for one in self.endpoints.values_mut() {
            one.at = None;
            if matches!(one.state, State::Done) {
                one.state = State::Due(soon);
            }
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
