//! The one that knows: it owns the world, the calculation and the lease machine, and nobody else changes them.
//!
//! Every input is a message (`tasks` draws who sends what). After each the owner passes on what follows from
//! it: patches to the reconcile lane, writes to the store, what a pod is given to the attach lane, what must
//! survive to the keeper, the picture to whoever looks. `store` judges and translates what the datastore
//! says, `trust` whether it is believed, `kernel` keeps what the lanes report, `outward` is all that leaves, `view`
//! shows, `paths` has what the prober found.

mod calico;
mod errand;
mod kernel;
mod outward;
mod paths;
mod store;
pub(crate) mod trust;
mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use russet_api::admin::{Answer, Ask};
use russet_core::{
    Calc, Change, Fact, FactId, Fault, Source,
    errand::{Problem, Wanted},
    lease::{LeaseFault, LeaseInput, LeaseMachine, StoreWrite, Term, WriteOutcome},
    model::{
        Addressing, LeaseKey, NodeFact, PodFact, PodId, PodNetwork, Prepared, Preset, Settings,
        UnderlayFact,
    },
};
use russet_desired::Patches;
use russet_net::{Family, Prefix, Reach, Router};
use russet_store::{EtcdClient, WatchEvent};
use tokio::sync::{mpsc, oneshot, watch};

use self::{calico::CalicoView, kernel::KernelView, paths::PathView, store::StoreView};
use russet_kernel::lane::Generation;

use crate::{
    bgp::Learned,
    calico::Announced,
    config::{Config, OnUnspoken},
    disk::checkpoint::{Checkpoint, OwnLease},
    errands::Report,
    keeper::Keeper,
    prober::{Finding, Paths},
    resources::News,
};

/// What can happen to the owner.
#[derive(Debug)]
pub enum Input {
    Store(WatchEvent),
    /// What Calico's part of the datastore says.
    Resources(News),
    /// A write to the store ended.
    Wrote {
        op: u64,
        outcome: WriteOutcome,
    },
    /// What the node observes of itself, or why that is of no use.
    Node(Result<NodeFact, String>),
    /// What the reconcile lane did.
    Lane(russet_kernel::lane::Report),
    /// The pods of an earlier life: the whole picture.
    Recovered(Vec<(PodId, PodFact)>),
    Attached(PodId, PodFact),
    Detached(PodId),
    /// What the operator's commands came to.
    Errands(Report),
    /// What the BGP speaker was taught.
    Learned(Learned),
    /// The prober asks for the peer behind this one.
    NextPath(Option<LeaseKey>, oneshot::Sender<Option<Paths>>),
    /// What the prober found on the ways to a peer.
    Probed(LeaseKey, Vec<Finding>),
    Ask(Ask, oneshot::Sender<Answer>),
}

/// The way to the owner.
#[derive(Clone, Debug)]
pub struct OwnerHandle {
    inputs: mpsc::Sender<Input>,
}

impl OwnerHandle {
    pub const fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self { inputs }
    }

    /// Asks what an operator asks. An owner that is gone says so.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let (sender, answer) = oneshot::channel();
        let gone = || Answer::Error("the agent is stopping".into());
        if self.inputs.send(Input::Ask(ask, sender)).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}

/// What the owner sends to.
#[derive(Debug)]
pub struct Outlets {
    pub lane: russet_kernel::lane::ReconcileLane,
    pub writes: mpsc::Sender<(u64, StoreWrite)>,
    /// Whose connections are left when this node has another address.
    pub store: EtcdClient,
    /// What a pod that is added now is given, for the attach lane.
    pub pod_network: watch::Sender<Option<Arc<PodNetwork>>>,
    pub keeper: Keeper,
    /// Asks somebody to give the cluster its id.
    pub name_cluster: mpsc::Sender<()>,
    /// What is wanted of the operator's commands.
    pub errands: watch::Sender<Wanted>,
    /// What is announced, where there is a BGP speaker.
    pub here: Option<watch::Sender<Vec<Reach>>>,
    /// With preset calico.
    pub calico: Option<crate::calico::Outlets>,
}

/// What is known of the operator's commands.
#[derive(Debug, Default)]
struct ErrandView {
    prepared: Prepared,
    problems: Vec<Problem>,
    /// The calculation's generation whose wants were passed on.
    passed: Option<u64>,
}

#[derive(Debug)]
pub struct Owner {
    config: Arc<Config>,
    calc: Calc,
    lease: LeaseMachine,
    store: StoreView,
    /// With preset calico.
    calico: Option<CalicoView>,
    /// The newest patch that the lane was handed.
    patched: Generation,
    /// The tunnels' ends that are wanted, and the patch since which the kernel has them.
    wanted_ends: Option<(Announced, Generation)>,
    /// The calculation's generation that they are of.
    ends_of: Option<u64>,
    kernel: KernelView,
    paths: PathView,
    errands: ErrandView,
    outlets: Outlets,
    /// What no outlet has yet.
    patches: Patches,
    completed: bool,
    own_lease: Option<OwnLease>,
    lease_fault: Option<LeaseFault>,
    ready_told: bool,
    /// A snapshot was taken in, and the kernel has not all that follows from it yet.
    unsettled: bool,
    /// When what the start has mapped of the program is forgotten.
    unmap_at: Option<Instant>,
}

impl Owner {
    /// An owner that knows what the node kept from before: nothing, on a new node.
    pub fn new(
        config: Arc<Config>,
        kept: Option<Checkpoint>,
        previous: Option<LeaseKey>,
        seed: u64,
        outlets: Outlets,
    ) -> Self {
        let mut owner = Self {
            calc: Calc::new(config.settings.clone()),
            lease: LeaseMachine::new(
                config.settings.clone(),
                Term { margin: config.renew_margin, ..Term::default() },
                seed,
            ),
            store: StoreView::new(&config, kept.as_ref()),
            calico: calico(&config.settings),
            patched: Generation::default(),
            wanted_ends: None,
            ends_of: None,
            kernel: KernelView::default(),
            paths: PathView::default(),
            errands: ErrandView::default(),
            outlets,
            patches: Patches::default(),
            completed: false,
            own_lease: None,
            lease_fault: None,
            ready_told: false,
            unsettled: false,
            unmap_at: None,
            config,
        };
        owner.recall(kept, previous);
        if owner.outlets.here.is_none() {
            // Nobody teaches anything.
            owner.change(Change::InSync(Source::Routes));
        }
        owner
    }

    /// Puts back in force what was in force before: the configuration, and the lease that has not run out.
    fn recall(&mut self, kept: Option<Checkpoint>, previous: Option<LeaseKey>) {
        let now = Instant::now();
        let lease = kept.as_ref().and_then(|kept| kept.lease);
        if let Some(key) = lease.map(|lease| lease.key).or(previous) {
            self.lease_input(LeaseInput::Previous(key), now);
        }
        let Some(kept) = kept else { return };
        if let (Some(calico), Some(objects)) = (&mut self.calico, &kept.calico) {
            let changes = calico.recall(objects);
            self.changes(changes);
        }
        if let Some(config) = kept.config.as_deref().and_then(|raw| self.store.read_config(raw)) {
            self.change(Change::Upsert { id: FactId::Config, fact: Fact::Config(config), rev: 0 });
        }
        match lease {
            Some(lease) if lease.is_valid(SystemTime::now()) => {
                self.own_lease = Some(lease);
                self.change(Change::Upsert { id: FactId::Own, fact: Fact::Own(lease.key), rev: 0 });
            }
            Some(lease) => {
                tracing::warn!(op = "recall", subnet = %lease.key, "this node's lease has run out");
            }
            None => {}
        }
    }

    /// Works until all senders are gone.
    ///
    /// # Errors
    ///
    /// With a configuration that cannot be served, where that is an end.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), Fault> {
        self.pass_on();
        loop {
            let due = self.next_timeout();
            let input = tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => Some(input),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(due.into()) => None,
            };
            let now = Instant::now();
            match input {
                Some(input) => self.handle(input, now),
                None => self.lease_input(LeaseInput::Timeout, now),
            }
            // What else has arrived goes into the same patch.
            for _ in 1..crate::tasks::INPUTS {
                let Ok(input) = inputs.try_recv() else { break };
                self.handle(input, now);
            }
            if let Some(fault) = self.unspoken() {
                return Err(fault);
            }
            self.pass_on();
        }
    }

    /// What is wrong with the first configuration, when there is no use in waiting for another.
    fn unspoken(&self) -> Option<Fault> {
        let world = self.calc.world();
        if self.config.on_unspoken == OnUnspoken::Wait || world.config().is_some() {
            return None;
        }
        let fault = world.facts.get(&FactId::Config)?.fault.as_deref()?;
        fault.is_unspoken().then(|| fault.clone())
    }

    fn next_timeout(&self) -> Instant {
        let now = Instant::now();
        // No pod is added after the lease's end, whether or not the machine has anything to do then.
        let end = self.own_lease.and_then(|lease| lease.time_left(SystemTime::now()));
        let end = end.and_then(|left| now.checked_add(left));
        let due = [self.lease.poll_timeout(), end, self.unmap_at].into_iter().flatten();
        due.min().map_or(now + LULL, |due| due.min(now + LULL))
    }

    fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Store(event) => self.store_event(event, now),
            Input::Resources(news) => self.resources(news),
            Input::Wrote { op, outcome } => {
                self.lease_input(LeaseInput::Wrote { op, outcome }, now);
            }
            Input::Node(node) => self.observed(node, now),
            Input::Lane(report) => self.kernel.take(report, now),
            Input::Recovered(pods) => self.recover_pods(pods),
            Input::Attached(id, pod) => {
                self.kernel.counters.cni_adds += 1;
                self.change(Change::Upsert {
                    id: FactId::Pod(id),
                    fact: Fact::Pod(Box::new(pod)),
                    rev: 0,
                });
            }
            Input::Detached(id) => {
                self.kernel.counters.cni_dels += 1;
                self.change(Change::Remove { id: FactId::Pod(id) });
            }
            Input::Errands(report) => self.errands(report, now),
            Input::Learned(learned) => self.learn(learned),
            // The prober may be gone.
            Input::NextPath(after, answer) => _ = answer.send(self.next_path(after)),
            Input::Probed(key, findings) => self.probed(key, &findings),
            Input::Ask(ask, answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.answer(ask, now));
            }
        }
    }

    /// Takes the pods' records as the whole picture.
    fn recover_pods(&mut self, pods: Vec<(PodId, PodFact)>) {
        self.change(Change::Resync(Source::Pods));
        for (id, pod) in pods {
            self.change(Change::Upsert {
                id: FactId::Pod(id),
                fact: Fact::Pod(Box::new(pod)),
                rev: 0,
            });
        }
        self.change(Change::InSync(Source::Pods));
    }

    fn learn(&mut self, learned: Learned) {
        let changes = match learned {
            Learned::Changed(changed) => changed,
            Learned::All => return self.change(Change::InSync(Source::Routes)),
        };
        let change = |(dst, router): (Prefix, Option<Router>)| {
            let id = FactId::Learned(dst);
            match router {
                Some(router) => Change::Upsert { id, fact: Fact::Learned(router), rev: 0 },
                None => Change::Remove { id },
            }
        };
        self.changes(changes.into_iter().map(change));
    }

    fn change(&mut self, change: Change) {
        self.changes(std::iter::once(change));
    }

    fn changes(&mut self, changes: impl IntoIterator<Item = Change>) {
        let newer = self.calc.apply(changes);
        self.patches.merge(newer);
    }

    /// The lane is at work on the first while the others are calculated.
    pub(super) fn take_pieces(&mut self, changes: impl IntoIterator<Item = Change>) {
        let Self { calc, patches, patched, outlets, .. } = self;
        calc.apply_in_pieces(changes, |newer| {
            patches.merge(newer);
            if !patches.is_empty() {
                *patched = outlets.lane.patch(std::mem::take(patches));
            }
        });
    }

    fn observed(&mut self, node: Result<NodeFact, String>, now: Instant) {
        match node {
            Ok(mut node) => {
                node.underlay.prepared.clone_from(&self.errands.prepared);
                self.kernel.no_uplink = None;
                self.leave_old_addresses(&node.underlay);
                self.lease_input(LeaseInput::Underlay(node.underlay.clone()), now);
                self.change_node(node);
                let earlier = self.calico.as_mut().map(CalicoView::replay);
                self.changes(earlier.into_iter().flatten());
                // Once is enough, and it looks through all facts: links come and go with every pod.
                if !self.calc.world().in_sync.contains(&Source::Kernel) {
                    self.change(Change::InSync(Source::Kernel));
                }
                self.tell_lease_of_config(now);
            }
            Err(reason) => {
                tracing::warn!(op = "observe node", %reason, "the node has no usable uplink");
                self.kernel.no_uplink = Some(reason);
            }
        }
    }

    /// Whoever spoke from an address that is gone is never answered. The peers learn of the new one through the
    /// store, so it must not take the time in which pings find that out.
    fn leave_old_addresses(&self, now: &UnderlayFact) {
        let Some(before) = self.calc.world().node().map(|node| &node.underlay) else { return };
        if Family::BOTH.into_iter().any(|family| before.addr(family) != now.addr(family)) {
            tracing::info!(op = "observe node", "this node has other addresses than before");
            self.outlets.store.reconnect();
        }
    }

    /// Where addresses come out of blocks there is no lease to hold.
    fn lease_input(&mut self, input: LeaseInput, now: Instant) {
        if self.config.settings.addressing == Addressing::Blocks {
            return;
        }
        self.lease.handle(input, now);
        while let Some(output) = self.lease.poll_output() {
            self.lease_output(output);
        }
    }
}

fn calico(settings: &Settings) -> Option<CalicoView> {
    let node = settings.node.parse().ok()?;
    let is_calico = settings.preset == Preset::Calico;
    is_calico.then(|| CalicoView::new(node, settings.distribution))
}

/// How long the owner sleeps when nothing is due.
const LULL: Duration = Duration::from_hours(1);
