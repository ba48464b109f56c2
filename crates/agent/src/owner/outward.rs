//! What leaves the owner: patches to the lanes, writes to the store, files to the keeper, answers to whoever asks.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use russet_api::admin::{Answer, Ask, Page, Refused, SHOWN, Status, StoreStatus};
use russet_api::flannel::SubnetEnv;
use russet_core::{
    Change, Fact, FactId, Source,
    distribution::bgp,
    lease::LeaseOutput,
    model::{Addressing, Preset},
};
use russet_desired::Key;
use tokio::sync::watch;

use super::{CalicoView, Owner, errand, kernel::KernelView, view};
use crate::{
    calico::{Announced, announced},
    disk::checkpoint::{Checkpoint, OwnLease},
    keeper::Files,
    notify::notify,
    one_line,
};

impl Owner {
    pub(super) fn lease_output(&mut self, output: LeaseOutput) {
        match output {
            LeaseOutput::Store { op, write } => {
                // One write is under way at a time, so there is room; the machine repeats what gets lost.
                if self.outlets.writes.try_send((op, write)).is_err() {
                    tracing::warn!(op = "write lease", "the store's writer does not keep up");
                }
            }
            LeaseOutput::Acquired { key, expires } => {
                tracing::info!(op = "lease", subnet = %key, "this node holds its subnet");
                self.own_lease = Some(OwnLease { key, expires: expires.map(by_wall_clock) });
                self.lease_fault = None;
                self.change(Change::Upsert { id: FactId::Own, fact: Fact::Own(key), rev: 0 });
            }
            LeaseOutput::Lost { key, reason } => {
                tracing::error!(op = "lease", subnet = %key, %reason, "this node lost its subnet");
                self.own_lease = None;
            }
            LeaseOutput::Pending(fault) => {
                tracing::warn!(op = "lease", reason = %one_line(&fault), "the lease is not as it should be");
                self.lease_fault = Some(fault);
            }
        }
    }

    /// Passes on all that the inputs so far have led to.
    pub(super) fn pass_on(&mut self) {
        let patches = std::mem::take(&mut self.patches);
        if !patches.is_empty() {
            self.patched = self.outlets.lane.patch(patches);
        }
        if self.calc.is_complete() && !self.completed {
            self.completed = true;
            self.outlets.lane.complete();
        }
        self.pass_pod_network();
        self.announce();
        self.pass_tunnels();
        self.pass_errands();
        self.keep();
        self.tell_ready();
        self.settle_down();
    }

    /// What a snapshot passed through is many times what stays of it, and nothing as large comes soon.
    fn settle_down(&mut self) {
        if self.unsettled && self.completed && self.kernel.has(self.patched) {
            self.unsettled = false;
            russet_kernel::sys::give_memory_back();
            self.unmap_at = Some(Instant::now() + START);
        }
        // Most of what the start passed through nobody passes through again.
        if self.unmap_at.take_if(|at| *at <= Instant::now()).is_some()
            && let Err(error) = russet_kernel::sys::text::unmap()
        {
            tracing::debug!(%error, op = "unmap the program's pages");
        }
    }

    fn pass_pod_network(&mut self) {
        // In a subnet that is ours no more, another node may be giving out the same addresses.
        let network = self.calc.pod_network().filter(|_| self.holds_subnet());
        pass(&self.outlets.pod_network, &network.map(Arc::new));
    }

    /// Says which tunnels want an address, and which ends others may be told of, with preset calico. A tunnel is one to
    /// be told of once the kernel has all that was wanted when it came to be wanted.
    fn pass_tunnels(&mut self) {
        let Some(calico) = &self.outlets.calico else { return };
        // It looks at every node while a tunnel is on its way out.
        let generation = Some(self.calc.generation());
        let wanted = match &self.wanted_ends {
            Some((wanted, _)) if self.ends_of == generation => wanted.clone(),
            _ => match announced(self.calc.world()) {
                Some(wanted) => wanted,
                None => return,
            },
        };
        self.ends_of = generation;
        calico.tunnels.send_if_modified(|known| {
            let same = known.iter().eq(wanted.tunnels.keys());
            if !same {
                *known = wanted.tunnels.keys().copied().collect();
            }
            !same
        });
        if self.wanted_ends.as_ref().is_none_or(|(before, _)| *before != wanted) {
            self.wanted_ends = Some((wanted, self.patched));
        }
        let Some((wanted, since)) = &self.wanted_ends else { return };
        if self.kernel.has(*since) {
            calico.announced.send_if_modified(|known| {
                let told = wanted.without_refused(&self.kernel, known.as_ref());
                let same = known.as_ref() == Some(&told);
                *known = Some(told);
                !same
            });
        }
    }

    /// Announces what is ours and no more than that.
    fn announce(&self) {
        let Some(announced) = &self.outlets.here else { return };
        let me = self.calc.world().me().filter(|_| self.holds_subnet());
        pass(announced, &me.iter().flat_map(bgp::announced).collect());
    }

    fn leases_subnets(&self) -> bool {
        self.config.settings.addressing == Addressing::NodeSubnet
    }

    /// Whether the lease of the subnet that is in force is ours and has not run out.
    fn holds_subnet(&self) -> bool {
        let Some(me) = self.calc.world().me() else { return false };
        // Each address out of a block is the store's to give, and none is given on belief.
        if !self.leases_subnets() {
            return true;
        }
        let own = me.own.lease();
        self.own_lease
            .is_some_and(|lease| Some(lease.key) == own && lease.is_valid(SystemTime::now()))
    }

    /// Hands the keeper what must survive this process. What a doubted store is measured by does not change
    /// while it is doubted, but this node's lease may be renewed.
    fn keep(&mut self) {
        self.store.note_in_force(self.calc.world().in_force().map(|footing| &footing.config));
        let files = Files { checkpoint: self.checkpoint(), subnet_env: self.subnet_env() };
        self.outlets.keeper.keep(files);
    }

    fn checkpoint(&mut self) -> Option<Checkpoint> {
        // Before a store was believed there is nothing to remember that is not in the old file.
        if !self.calc.world().in_sync.contains(&Source::Store) {
            return None;
        }
        let in_force = self.calc.world().in_force();
        Some(Checkpoint {
            cluster_id: self.store.seen.cluster_id.clone(),
            revision: self.store.seen.revision,
            digest: self.store.digest.clone(),
            config: self.store.raw_config.clone(),
            lease: self.own_lease,
            calico: self.calico.as_mut().map(|calico| calico.kept(in_force)),
        })
    }

    fn subnet_env(&self) -> Option<String> {
        let me = self.calc.world().me()?;
        if me.settings.preset == Preset::Calico {
            // As Felix writes it: the number alone.
            return Some(me.footing.pod_mtu.to_string());
        }
        let masquerade = self.config.settings.masquerade;
        let own = me.own.lease()?;
        Some(SubnetEnv::new(&me.footing.config, own, me.footing.pod_mtu, masquerade).write())
    }

    /// Tells the service manager, once.
    fn tell_ready(&mut self) {
        if !self.ready_told && self.not_ready().is_empty() {
            self.ready_told = true;
            tracing::info!(op = "start", "this node is ready");
            notify("READY=1");
        }
    }

    pub(super) fn answer(&mut self, ask: Ask, now: Instant) -> Answer {
        match ask {
            Ask::Status => Answer::Status(Box::new(self.status(now))),
            Ask::Leases { from } => Answer::Leases(Page::cut(view::leases(&self.calc), from)),
            Ask::Pods { from } => Answer::Pods(Page::cut(view::pods(self.calc.world()), from)),
            Ask::Routes { from } => {
                let rows = view::routes(&self.calc, |key| self.kernel.state_of(key));
                Answer::Routes(Page::cut(rows, from))
            }
            Ask::AcceptStore if self.withheld().is_some() => {
                self.accept_withheld();
                Answer::Done
            }
            Ask::AcceptStore if self.store.doubt.is_none() => {
                Answer::Error("the store is believed already; there is nothing to accept".into())
            }
            Ask::AcceptStore if self.outlets.calico.is_some() => {
                // Full means that it is under way.
                let _ = self.outlets.calico.as_ref().map(|calico| calico.accept.try_send(()));
                Answer::Done
            }
            Ask::AcceptStore => {
                self.accept(now);
                match &self.store.doubt {
                    None => Answer::Done,
                    Some(doubt) => Answer::Error(format!("it is accepted, but {doubt}")),
                }
            }
        }
    }

    fn status(&self, now: Instant) -> Status {
        let not_ready = self.not_ready();
        let expires = self.own_lease.and_then(|lease| lease.expires);
        let expires_in =
            expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default().as_secs());
        let commands = errand::pending(&self.errands.problems);
        let pending = commands.chain(self.kernel.pending(&self.calc)).take(SHOWN).collect();
        let peers_total = self.calc.peers().count();
        let mut counters = self.kernel.counters;
        counters.store_events = self.store.events;
        Status {
            node: self.config.settings.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            preset: format!("{:?}", self.config.settings.preset).to_lowercase(),
            ready: not_ready.is_empty(),
            not_ready,
            store: self.store_status(),
            network: view::network(&self.calc, expires_in),
            uplink: view::uplink(&self.calc),
            node_object: self.node_object(),
            peers: view::leases(&self.calc).take(SHOWN).collect(),
            peers_total,
            pods: self.calc.world().pods().count(),
            refused: self.refused(),
            pending,
            repaired: self.kernel.repaired(now),
            paths: self.paths.problems(),
            leftovers: Vec::new(),
            forward_drops: self.kernel.forward_drops(self.config.settings.forward_accept),
            counters,
        }
    }

    /// Facts that are left out, and objects that are no fact by themselves.
    fn refused(&self) -> Vec<Refused> {
        let objects = self.calico.iter().flat_map(CalicoView::faults);
        let objects = objects.map(|(fact, fault)| Refused { fact, reason: one_line(fault) });
        objects.chain(view::refused(&self.calc)).take(SHOWN).collect()
    }

    fn node_object(&self) -> Option<String> {
        self.outlets.calico.as_ref()?.registered.borrow().problem()
    }

    fn store_status(&self) -> StoreStatus {
        StoreStatus {
            endpoints: self.config.endpoints.clone(),
            connected: self.store.connected,
            in_sync: self.calc.world().in_sync.contains(&Source::Store),
            revision: self.store.seen.revision,
            cluster_id: self.store.seen.cluster_id.clone(),
            doubt: self.store.doubt.as_ref().map(ToString::to_string).or_else(|| self.withheld()),
            error: self.store.error.clone(),
        }
    }

    /// Why pods cannot be served now, each reason a sentence.
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(reason) = &self.kernel.no_uplink {
            reasons.push(reason.clone());
        }
        if self.calc.world().in_force().is_none() {
            reasons.push("no network configuration is in force".into());
        } else if self.leases_subnets() && self.calc.world().own().is_none() {
            let why = self.lease_fault.as_ref().map(|fault| format!(": {}", one_line(fault)));
            reasons.push(format!("this node has no subnet yet{}", why.unwrap_or_default()));
        } else if !self.holds_subnet() {
            let reason = "this node's lease of its subnet is lost, has run out or does not fit";
            reasons.push(reason.into());
        } else if !self.kernel.applied_once {
            reasons.push("the kernel has not taken the first patch yet".into());
        }
        reasons
    }
}

impl Announced {
    /// What may be said of it: nobody is to send by a tunnel that the kernel refused. An end that was announced once stays,
    /// because whoever sends by it has nothing else.
    fn without_refused(&self, kernel: &KernelView, before: Option<&Self>) -> Self {
        let mut told = self.clone();
        told.tunnels.retain(|tunnel, link| {
            let is_refused = link.is_some_and(|link| kernel.refuses(&Key::Link(link)));
            !is_refused || before.is_some_and(|before| before.tunnels.contains_key(tunnel))
        });
        told
    }
}

/// Tells those who follow, if it is another than before.
fn pass<T: Clone + PartialEq>(to: &watch::Sender<T>, now: &T) {
    to.send_if_modified(|known| {
        let same = known == now;
        if !same {
            known.clone_from(now);
        }
        !same
    });
}

/// The same point in time by the clock that goes on while the machine is off.
fn by_wall_clock(at: Instant) -> SystemTime {
    SystemTime::now() + at.saturating_duration_since(Instant::now())
}

/// How long a start goes on after its snapshot: first pods, first probes, first repairs.
const START: Duration = Duration::from_secs(10);
