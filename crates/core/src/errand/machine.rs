//! The machine: what has been run, what failed, and what is next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Task, Visit, Wanted};
use crate::model::{LeaseKey, PRE_STARTUP, Prepared};

/// What a command is run for. Two of the same are never run at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    Prepare(Arc<str>),
    Start,
    Peer(LeaseKey),
}

/// A command that is to be run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub errand: Errand,
    /// As flannel's documentation calls it.
    pub name: &'static str,
    pub task: Task,
}

/// What must survive the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What each `PreStartupCommand` printed when it last ended well.
    pub outputs: BTreeMap<Arc<str>, Arc<str>>,
    /// Whom a command may have added, and how that is undone.
    pub visits: BTreeMap<LeaseKey, Visit>,
}

/// A command that did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As flannel's documentation calls it.
    pub name: &'static str,
    /// Whom it was for.
    pub peer: Option<LeaseKey>,
    pub reason: Arc<str>,
    pub failures: u32,
}

/// Knows what has been run. Give it what is wanted and how each command ended; take what is to be kept, then what
/// is to be run, until there is no more, and come back at [`Errands::poll_timeout`].
#[derive(Debug, Default)]
pub struct Errands {
    wanted: Wanted,
    outputs: BTreeMap<Arc<str>, Arc<str>>,
    /// Prepared in this life.
    prepared: BTreeSet<Arc<str>>,
    /// What `PostStartupCommand` ended well with in this life.
    started: Option<Task>,
    places: BTreeMap<LeaseKey, Place>,
    /// What is to be run, and when. An errand is in it at most once, and not while it runs.
    queue: BTreeSet<(Instant, Errand)>,
    /// The same by errand.
    due: BTreeMap<Errand, Instant>,
    running: BTreeMap<Errand, (Step, Task)>,
    failing: BTreeMap<Errand, Failing>,
    /// Something must be kept before the next command is run.
    unkept: bool,
    lapsed: Lapsed,
}

/// Whether somebody is kept who has gone. A next life that takes it away once more does no harm, so that can wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lapsed {
    #[default]
    Nobody,
    Somebody,
    /// It is kept together with what else has gone by then.
    Until(Instant),
}

/// A peer that a command may have added.
#[derive(Debug)]
struct Place {
    visit: Visit,
    /// Whether it was added in this life.
    stands: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepare,
    Start,
    Add,
    Remove,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Prepare => PRE_STARTUP,
            Self::Start => "PostStartupCommand",
            Self::Add => "SubnetAddCommand",
            Self::Remove => "SubnetRemoveCommand",
        }
    }
}

#[derive(Debug)]
struct Failing {
    step: Step,
    reason: Arc<str>,
    failures: u32,
}

impl Errands {
    pub fn new(kept: Kept) -> Self {
        let places = kept.visits.into_iter();
        let places = places.map(|(key, visit)| (key, Place { visit, stands: false }));
        Self { outputs: kept.outputs, places: places.collect(), ..Self::default() }
    }

    /// Takes what should have been run from now on.
    pub fn want(&mut self, wanted: Wanted, now: Instant) {
        if self.wanted.start != wanted.start {
            self.start_over(&Errand::Start);
        }
        self.wanted = wanted;
        if self.wanted.sweeps.is_on() {
            let (outputs, wanted) = (self.outputs.len(), &self.wanted.prepare);
            self.outputs.retain(|command, _| wanted.contains(command));
            self.unkept |= self.outputs.len() != outputs;
        }
        self.settle_all(now);
    }

    /// Takes how a command ended: with what it printed, or with what is wrong.
    pub fn ended(&mut self, errand: &Errand, result: Result<String, String>, now: Instant) {
        let Some((step, task)) = self.running.remove(errand) else { return };
        match result {
            Ok(output) => {
                self.failing.remove(errand);
                self.succeeded(errand, step, task, output);
            }
            Err(reason) => self.failed(errand, step, reason),
        }
        match step {
            Step::Start => self.settle_all(now),
            Step::Prepare | Step::Add | Step::Remove => self.settle(errand, now),
        }
    }

    /// Returns what must be on disk before the next command is run, when it is other than before. Who has gone is
    /// left out a little later, with others that go.
    #[must_use]
    pub fn take_kept(&mut self, now: Instant) -> Option<Kept> {
        self.lapsed = match self.lapsed {
            Lapsed::Somebody => Lapsed::Until(now + KEEPS_LAPSED),
            lapsed => lapsed,
        };
        if !self.unkept && !matches!(self.lapsed, Lapsed::Until(end) if end <= now) {
            return None;
        }
        (self.unkept, self.lapsed) = (false, Lapsed::Nobody);
        Some(Kept {
            outputs: self.outputs.clone(),
            visits: self.places.iter().map(|(key, place)| (*key, place.visit.clone())).collect(),
        })
    }

    /// What was taken could not be kept.
    pub fn not_kept(&mut self) {
        self.unkept = true;
    }

    /// Returns the next command that is to be run now.
    #[must_use]
    pub fn poll_run(&mut self, now: Instant) -> Option<Run> {
        while self.running.len() < AT_A_TIME {
            let (due, _) = self.queue.first()?;
            if *due > now {
                return None;
            }
            let (_, errand) = self.queue.pop_first()?;
            self.due.remove(&errand);
            let Some(step) = self.step(&errand) else { continue };
            let Some(task) = self.task(&errand, step) else { continue };
            self.running.insert(errand.clone(), (step, task.clone()));
            return Some(Run { errand, name: step.name(), task });
        }
        None
    }

    /// Returns when there is something to run or to keep next, if nothing is told before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let run = self.queue.first().filter(|_| self.running.len() < AT_A_TIME);
        let keep = match self.lapsed {
            Lapsed::Until(end) => Some(end),
            Lapsed::Nobody | Lapsed::Somebody => None,
        };
        run.map(|(due, _)| *due).into_iter().chain(keep).min()
    }

    /// What the `PreStartupCommand`s came to. One that fails after it once ended well goes on to count.
    pub fn prepared(&self) -> Prepared {
        let failed = self.failing.iter().filter_map(|(errand, failing)| match errand {
            Errand::Prepare(command) => Some((Arc::clone(command), Err(failing.reason.clone()))),
            Errand::Start | Errand::Peer(_) => None,
        });
        let ended = self.outputs.iter().map(|(command, out)| (command.clone(), Ok(out.clone())));
        failed.chain(ended).collect()
    }

    /// What failed and is tried again.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        self.failing.iter().map(|(errand, failing)| Problem {
            name: failing.step.name(),
            peer: match errand {
                Errand::Peer(key) => Some(*key),
                Errand::Prepare(_) | Errand::Start => None,
            },
            reason: Arc::clone(&failing.reason),
            failures: failing.failures,
        })
    }
}

// ---- what comes of a run
impl Errands {
    fn succeeded(&mut self, errand: &Errand, step: Step, task: Task, output: String) {
        match (errand, step) {
            (Errand::Prepare(command), _) => {
                self.prepared.insert(Arc::clone(command));
                let output: Arc<str> = output.into();
                let before = self.outputs.insert(Arc::clone(command), Arc::clone(&output));
                self.unkept |= before != Some(output);
            }
            (Errand::Start, _) => self.started = Some(task),
            (Errand::Peer(key), Step::Remove) => self.forget(*key),
            (Errand::Peer(key), _) => {
                if let Some(place) = self.places.get_mut(key) {
                    place.stands = true;
                }
            }
        }
    }

    fn failed(&mut self, errand: &Errand, step: Step, reason: String) {
        let before = self.failing.get(errand).filter(|failing| failing.step == step);
        let failures = before.map_or(0, |failing| failing.failures).saturating_add(1);
        if let (Errand::Peer(key), Step::Remove) = (errand, step) {
            // What cannot be taken away must not keep the peer from being added as it is now.
            let patience = if self.wanted.visits.contains_key(key) { 1 } else { REMOVALS };
            if failures >= patience {
                return self.forget(*key);
            }
        }
        self.failing.insert(errand.clone(), Failing { step, reason: reason.into(), failures });
    }

    fn forget(&mut self, key: LeaseKey) {
        if self.places.remove(&key).is_some() && self.lapsed == Lapsed::Nobody {
            self.lapsed = Lapsed::Somebody;
        }
        self.start_over(&Errand::Peer(key));
    }

    /// Another task of the same errand does not pay for the failures of the old one.
    fn start_over(&mut self, errand: &Errand) {
        self.failing.remove(errand);
        self.leave_queue(errand);
    }

    fn leave_queue(&mut self, errand: &Errand) {
        if let Some(due) = self.due.remove(errand) {
            self.queue.remove(&(due, errand.clone()));
        }
    }
}

// ---- what is next
impl Errands {
    fn settle_all(&mut self, now: Instant) {
        let mut errands: BTreeSet<_> = self.due.keys().cloned().collect();
        errands.extend(self.failing.keys().cloned());
        errands.extend(self.wanted.prepare.iter().cloned().map(Errand::Prepare));
        errands.insert(Errand::Start);
        errands
            .extend(self.wanted.visits.keys().chain(self.places.keys()).copied().map(Errand::Peer));
        for errand in errands {
            self.settle(&errand, now);
        }
    }

    /// Puts an errand where it belongs: in the queue, once, or nowhere.
    fn settle(&mut self, errand: &Errand, now: Instant) {
        if self.running.contains_key(errand) {
            return;
        }
        if let Errand::Peer(key) = errand {
            self.place(*key);
        }
        let step = self.step(errand);
        if self.failing.get(errand).is_some_and(|failing| Some(failing.step) != step) {
            self.start_over(errand);
        }
        if step.is_none() {
            self.leave_queue(errand);
        } else if !self.due.contains_key(errand) {
            let due = now + self.pause(errand);
            self.due.insert(errand.clone(), due);
            self.queue.insert((due, errand.clone()));
        }
    }

    /// Gives a peer its place, when nothing has to be run before.
    fn place(&mut self, key: LeaseKey) {
        let wanted = self.wanted.visits.get(&key);
        if let Some(place) = self.places.get(&key) {
            let leaves = wanted.is_none() && self.wanted.sweeps.is_on();
            let changes = wanted.is_some_and(|visit| *visit != place.visit);
            if (leaves || changes) && place.visit.remove.is_none() {
                self.forget(key);
            }
        }
        if let Some(visit) = self.wanted.visits.get(&key)
            && !self.places.contains_key(&key)
        {
            self.places.insert(key, Place { visit: visit.clone(), stands: false });
            self.unkept = true;
        }
    }

    /// What an errand asks for now; `None` when there is nothing to run.
    fn step(&self, errand: &Errand) -> Option<Step> {
        match errand {
            Errand::Prepare(command) => {
                let wanted = self.wanted.prepare.contains(command);
                (wanted && !self.prepared.contains(command)).then_some(Step::Prepare)
            }
            Errand::Start => (!self.is_started()).then_some(Step::Start),
            Errand::Peer(key) => {
                let place = self.places.get(key)?;
                match self.wanted.visits.get(key) {
                    Some(visit) if *visit == place.visit => {
                        (self.is_started() && !place.stands && visit.add.is_some())
                            .then_some(Step::Add)
                    }
                    Some(_) => Some(Step::Remove),
                    None => self.wanted.sweeps.is_on().then_some(Step::Remove),
                }
            }
        }
    }

    fn is_started(&self) -> bool {
        self.wanted.start.is_none() || self.wanted.start == self.started
    }

    fn task(&self, errand: &Errand, step: Step) -> Option<Task> {
        let visit = |key| Some(&self.places.get(key)?.visit);
        match (errand, step) {
            (Errand::Prepare(command), _) => Some(Task {
                command: Arc::clone(command),
                environment: Arc::default(),
                input: "".into(),
            }),
            (Errand::Start, _) => self.wanted.start.clone(),
            (Errand::Peer(key), Step::Remove) => visit(key)?.remove.clone(),
            (Errand::Peer(key), _) => visit(key)?.add.clone(),
        }
    }

    /// Doubles with each failure up to a bound.
    fn pause(&self, errand: &Errand) -> Duration {
        let failures = self.failing.get(errand).map_or(0, |failing| failing.failures);
        match failures {
            0 => Duration::ZERO,
            n => FIRST_PAUSE.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_PAUSE),
        }
    }
}

/// How many commands are run at a time: one that hangs holds up as many less.
const AT_A_TIME: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How often it is tried to take away a peer that has left.
const REMOVALS: u32 = 3;
/// How long who has gone is kept at most.
const KEEPS_LAPSED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
