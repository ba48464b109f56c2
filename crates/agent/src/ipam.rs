//! Addresses out of blocks: the task that owns the machine, and carries out what it decides.
//!
//! ```text
//!  resources ─ News ──▶ ┌────────────┐ StoreOp ─▶ shelf ─▶ etcd: read, or compare and swap (64 at once)
//!  attach lane ─ Ask ──▶│ BlockMachine│◀──────── Carried
//!              ◀ Told ──└────────────┘──▶ which tunnel addresses this node holds
//! ```
//!
//! An ADD asks and goes on; the answer is a message. All that wait share compare-and-swaps. Nobody waits for
//! long: with the store away an ask is refused at once or within seconds, while what was asked of the store goes
//! on, and a repeated ask of the same container gets the same address. A release is kept and tried until it is
//! done; across a restart the lane's records and notes bring it back.
//!
//! `wish` chooses pools, `shelf` is the store, `documents` what is kept of objects so that unknown fields
//! survive, `desk` who waits, `gc` looks after this node's own blocks, `cluster` after those of nodes that are
//! gone, `live` is what the kernel knows of pods.

mod cluster;
mod desk;
mod documents;
mod gc;
mod live;
pub mod shelf;
#[cfg(test)]
mod tests;
mod wish;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use russet_api::calico;
use russet_core::{
    addressing::blocks::{
        AffinityState, BlockMachine, Collector, Key, Outcome, Outline, StoreOp, Timestamp, Value,
        Versioned,
        gc::{GRACE, Rules},
        machine::{BlockConfig, Change, Input, Now, Output},
    },
    model::calico::{Affinity, Name},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::{
    cluster::Census,
    desk::Desk,
    documents::{Document, Documents},
    gc::Local,
    shelf::{Carried, Shelf, carry_out},
};
pub use self::{
    desk::{Ask, Deny, MOST_ASKS, Told, What, handle_of, tunnel_handle},
    live::{HostRoutes, host_routes},
    wish::{Ground, Tunnel, Wish, WishError},
};
use crate::resources::{BlockNews, History, Known, News, Object, Picture};

/// How the task goes about it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: Name,
    /// How long an address rests after its release.
    pub cooldown: Duration,
    pub seed: u64,
    /// How long nobody must have owned an address before it is freed for him; above `machine::PATIENCE`.
    pub grace: Duration,
    /// How often this node's own blocks are looked through.
    pub look: Duration,
    /// Which addresses the kernel leads to a link of this node.
    pub routes: HostRoutes,
}

impl Settings {
    pub fn new(node: Name, seed: u64) -> Self {
        let routes: HostRoutes = host_routes;
        Self { node, cooldown: COOLDOWN, seed, grace: GRACE, look: LOOK, routes }
    }
}

/// Where the task's messages come from and go to.
#[derive(Debug)]
pub struct Lines {
    pub news: mpsc::Receiver<News>,
    pub asks: mpsc::Receiver<Ask>,
    pub told: mpsc::Sender<Told>,
    /// The tunnels that want an address.
    pub tunnels: watch::Receiver<BTreeSet<Tunnel>>,
    /// The addresses that this node's tunnels hold.
    pub held: watch::Sender<BTreeMap<Tunnel, IpAddr>>,
}

/// Serves until nobody asks any more.
pub async fn serve(store: impl Shelf, settings: Settings, lines: Lines) {
    let Lines { mut news, mut asks, told, mut tunnels, held } = lines;
    let mut ipam = Ipam::new(store, settings, told, held);
    ipam.desk.tunnels_wanted.clone_from(&tunnels.borrow_and_update());
    loop {
        let due = ipam.due();
        tokio::select! {
            one = news.recv() => match one {
                Some(one) => ipam.news(one),
                None => return,
            },
            ask = asks.recv() => match ask {
                Some(ask) => ipam.ask(ask),
                None => return,
            },
            Some(done) = ipam.work.join_next() => ipam.done(done),
            Ok(()) = tunnels.changed() => {
                ipam.desk.tunnels_wanted.clone_from(&tunnels.borrow_and_update());
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
        // What else has come shares the writes.
        for _ in 0..TOGETHER {
            match (asks.try_recv(), ipam.work.try_join_next()) {
                (Ok(ask), done) => {
                    ipam.ask(ask);
                    if let Some(done) = done {
                        ipam.done(done);
                    }
                }
                (Err(_), Some(done)) => ipam.done(done),
                (Err(_), None) => break,
            }
        }
        ipam.turn();
    }
}

/// Whether addresses can be given.
#[derive(Clone, Debug)]
enum Gate {
    /// The store has not been read yet.
    Starting,
    Open,
    Away(Arc<str>),
    Doubted(String),
}

/// What is being done beside.
enum Done {
    /// An operation; the machine's have a number, the collector's none.
    Carried(Option<u64>, Carried),
    /// What the handles in our blocks say, for the collector.
    Handles(gc::Handles),
    /// What the cluster's collector has found.
    Cluster(Collector, Vec<StoreOp>),
}

struct Ipam<S> {
    store: S,
    settings: Settings,
    machine: BlockMachine,
    ground: Ground,
    gate: Gate,
    desk: Desk,
    documents: Documents,
    local: Local,
    nodes: BTreeSet<Name>,
    work: JoinSet<Done>,
    queued: VecDeque<(Option<u64>, StoreOp)>,
    look_at: Instant,
    /// Of the whole cluster; none while it looks.
    collector: Option<Collector>,
    looks: u32,
    /// Why the store did not do something, the last time that it did not.
    trouble: Option<String>,
}

impl<S: Shelf> Ipam<S> {
    fn new(
        store: S,
        settings: Settings,
        told: mpsc::Sender<Told>,
        held: watch::Sender<BTreeMap<Tunnel, IpAddr>>,
    ) -> Self {
        Self {
            store,
            machine: BlockMachine::new(settings.node.clone(), settings.seed),
            ground: Ground::default(),
            gate: Gate::Starting,
            desk: Desk::new(settings.node.clone(), told, held),
            documents: Documents::default(),
            local: Local::default(),
            nodes: BTreeSet::new(),
            work: JoinSet::new(),
            queued: VecDeque::new(),
            look_at: Instant::now() + settings.look,
            collector: Some(Collector::default()),
            looks: 0,
            trouble: None,
            settings,
        }
    }

    fn due(&self) -> Instant {
        let due = [self.machine.poll_timeout(), self.desk.due(Instant::now()), Some(self.look_at)];
        due.into_iter().flatten().min().unwrap_or(self.look_at)
    }

    /// Passes on all that follows from what has come.
    fn turn(&mut self) {
        let now = now();
        if self.machine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.machine.handle(Input::Timeout, now);
        }
        for (request, ask) in self.desk.turn(&self.gate, &self.ground, self.trouble.as_deref(), now)
        {
            self.machine.handle(Input::Ask { request, ask }, now);
        }
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Store { op, what } => self.queued.push_back((Some(op), what)),
                Output::Answer { request, answer } => {
                    let fill = || self.machine.fill();
                    self.desk.answered(request, answer, fill, now);
                }
            }
        }
        if self.look_at <= now.mono {
            self.look_at = now.mono + self.settings.look;
            self.look();
        }
        self.begin();
    }

    /// Begins what may be under way at once.
    fn begin(&mut self) {
        while self.work.len() < AT_ONCE {
            let Some((op, what)) = self.queued.pop_front() else { break };
            let at_hand = match &what {
                StoreOp::Swap { key, expect: Some(revision), value: Some(_) } => {
                    self.documents.at(key, *revision).cloned()
                }
                _ => None,
            };
            let work = carry_out(self.store.clone(), what, at_hand);
            self.work.spawn(async move { Done::Carried(op, work.await) });
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        // One that was cut off by a panic is missed by the machine, which then reads.
        let Ok(done) = done else { return };
        match done {
            Done::Carried(op, Carried { key, outcome, document }) => {
                match document {
                    Some((revision, document)) => self.documents.keep(key, revision, document),
                    None => self.documents.forget(&key),
                }
                match &outcome {
                    Outcome::Failed(reason) => self.note_trouble(reason),
                    Outcome::Done { .. } | Outcome::Present { .. } => self.trouble = None,
                }
                if let Some(op) = op {
                    self.machine.handle(Input::Wrote { op, outcome }, now());
                }
            }
            Done::Handles(handles) => self.look_at_handles(&handles),
            Done::Cluster(collector, ops) => self.collected(collector, ops),
        }
    }

    fn note_trouble(&mut self, reason: &str) {
        if self.trouble.as_deref() != Some(reason) {
            tracing::warn!(
                op = "write addresses",
                reason,
                "the store did not do it; it is tried again"
            );
            self.trouble = Some(reason.to_owned());
        }
    }

    fn ask(&mut self, ask: Ask) {
        self.desk.take(ask, Instant::now());
    }
}

// ---- what the store tells
impl<S: Shelf> Ipam<S> {
    fn news(&mut self, news: News) {
        match news {
            News::All { revision, history, picture } => self.all(revision, history, &picture),
            News::Changed { changes, .. } => {
                let mut grounds = false;
                let mut told = Vec::new();
                for change in changes.iter() {
                    let (key, known) = (&change.key, change.known.as_ref());
                    grounds |= self.ground.put(&self.settings.node, key, known);
                    self.note(key, change.revision, known);
                    told.extend(translate(key, change.revision, known));
                }
                if grounds {
                    self.configure();
                }
                self.machine.handle(Input::Changed(told), now());
            }
            News::Doubted { doubt, .. } => {
                // Nothing is written from here on: what the machine knows is of another store.
                self.gate = Gate::Doubted(doubt.to_string());
                self.machine.handle(Input::OtherHistory, now());
                self.queued.clear();
            }
            News::Away(reason) => self.gate = Gate::Away(reason),
            News::Back => {
                if let Gate::Away(_) = self.gate {
                    self.gate = Gate::Open;
                }
            }
        }
    }

    fn all(&mut self, revision: u64, history: History, picture: &Picture) {
        let doubted = matches!(self.gate, Gate::Doubted(_));
        if history == History::Other || doubted {
            self.machine.handle(Input::OtherHistory, now());
            self.documents.clear();
        }
        self.gate = Gate::Open;
        self.local.clear();
        self.nodes.clear();
        self.ground = Ground::of(picture, &self.settings.node);
        self.configure();
        let mut objects = Vec::new();
        for (key, known) in picture.iter() {
            self.note(key, known.revision, Some(known));
            let told = translate(key, known.revision, Some(known));
            objects.extend(told.and_then(|change| {
                Some((change.key, Versioned { rev: change.rev, value: change.value? }))
            }));
        }
        self.machine.handle(Input::Snapshot { objects, rev: revision }, now());
    }

    fn configure(&mut self) {
        let config = self.ground.config(self.settings.cooldown);
        self.machine.handle(Input::Config(config), now());
        self.desk.pools_changed();
    }

    /// Notes what the collectors and the next writes need of a key.
    fn note(&mut self, key: &calico::Key, revision: u64, known: Option<&Known>) {
        let value = known.and_then(|known| known.value.as_ref());
        match key {
            calico::Key::Block(cidr) => {
                if let Some(Object::Block(BlockNews::Own(stored))) = value {
                    let document = Document::Block(Arc::clone(stored));
                    self.documents.keep(Key::Block(*cidr), revision, document);
                }
                self.local.block(*cidr, revision, value);
            }
            calico::Key::BlockAffinity(Affinity::Host(node), cidr)
                if *node == self.settings.node =>
            {
                let state = match value {
                    Some(Object::Affinity(affinity)) => Some(affinity.state),
                    _ => None,
                };
                self.local.affinity(*cidr, revision, state);
            }
            calico::Key::Resource(id) if id.kind == calico::Kind::Node => match known {
                // A node whose object is bad is there all the same.
                Some(_) => _ = self.nodes.insert(id.name.clone()),
                None => _ = self.nodes.remove(&id.name),
            },
            _ => {}
        }
    }
}

// ---- looking after this node's blocks
impl<S: Shelf> Ipam<S> {
    /// Reads the index of every handle that has an address in a block of this node.
    fn look(&mut self) {
        if !matches!(self.gate, Gate::Open) || self.desk.recorded.is_none() {
            return;
        }
        let handles = self.local.handles();
        let store = self.store.clone();
        self.work.spawn(async move { Done::Handles(gc::read(store, handles).await) });
        self.look_at_cluster();
    }

    /// Looks through the whole store when a node that has blocks is gone; else seldom, for what crashes have left.
    fn look_at_cluster(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        let gone = self.local.hosts().into_iter().any(|host| !self.nodes.contains(host));
        if !gone && !self.looks.is_multiple_of(SELDOM) {
            return;
        }
        let Some(collector) = self.collector.take() else { return };
        let BlockConfig { pools, reserved, cooldown, .. } =
            self.ground.config(self.settings.cooldown);
        let grace = self.settings.grace;
        let term = self.settings.look.as_secs().saturating_mul(3).max(10);
        let census = Census {
            node: self.settings.node.clone(),
            nodes: self.nodes.clone(),
            rules: Rules { grace, pools, reserved, cooldown },
            term_s: u32::try_from(term).unwrap_or(u32::MAX),
        };
        let work = cluster::look(self.store.clone(), census, collector, now());
        self.work.spawn(async move {
            let (collector, ops) = work.await;
            Done::Cluster(collector, ops)
        });
    }

    fn collected(&mut self, collector: Collector, ops: Vec<StoreOp>) {
        self.collector = Some(collector);
        if !matches!(self.gate, Gate::Open) {
            return;
        }
        for op in ops {
            tracing::info!(op = "collect", subject = ?op.key(), "its node is gone, or nobody owns it");
            self.queued.push_back((None, op));
        }
    }

    fn look_at_handles(&mut self, handles: &gc::Handles) {
        let (Gate::Open, Some(in_use)) = (&self.gate, self.desk.in_use()) else { return };
        let routed = match (self.settings.routes)() {
            Ok(routed) => routed,
            Err(error) => {
                tracing::warn!(op = "look for leaks", %error, "without the node's routes nothing is freed");
                return;
            }
        };
        let seen =
            gc::Seen { node: &self.settings.node, handles, in_use: &in_use, routed: &routed };
        let config = self.ground.config(self.settings.cooldown);
        let found = self.local.look(&seen, &config, self.settings.grace, now());
        for op in found.ops {
            tracing::info!(op = "free leaks", subject = ?op.key(), "nobody owns what is in it any more");
            self.queued.push_back((None, op));
        }
        for handle in found.strays {
            tracing::info!(op = "free leaks", subject = %handle, "nobody owns its addresses any more");
            self.desk.take(Ask::Free { ticket: None, handle }, Instant::now());
        }
    }
}

/// A change in the machine's words. A block that nobody can read exists, and nothing of it can be taken.
fn translate(key: &calico::Key, rev: u64, known: Option<&Known>) -> Option<Change> {
    let value = known.map(|known| known.value.as_ref());
    match key {
        calico::Key::Block(cidr) => {
            let value = value.map(|value| match value {
                Some(Object::Block(BlockNews::Own(stored))) => {
                    Value::Block(Arc::new(stored.value().clone()))
                }
                Some(Object::Block(BlockNews::Other { outline, .. })) => {
                    Value::Outline(outline.clone())
                }
                _ => Value::Outline(Outline::default()),
            });
            Some(Change { key: Key::Block(*cidr), rev, value })
        }
        calico::Key::BlockAffinity(Affinity::Host(node), cidr) => {
            let state = |value: Option<&Object>| match value {
                Some(Object::Affinity(affinity)) => affinity.state,
                // One that cannot be read is as one that was never confirmed.
                _ => AffinityState::Pending,
            };
            let value = value.map(|value| Value::Affinity(state(value)));
            Some(Change { key: Key::Affinity(node.clone(), *cidr), rev, value })
        }
        _ => None,
    }
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
    Now { mono: Instant::now(), wall: Timestamp::from_nanos(nanos) }
}

/// How many of this node's blocks the store is asked about at once.
const AT_ONCE: usize = 64;
/// How many messages are taken before what follows from them is done.
const TOGETHER: usize = 256;
/// How long an address rests after its release, where nothing else is said.
pub const COOLDOWN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_mins(5);
/// Of so many looks at this node's blocks one is at the whole store, without a reason.
const SELDOM: u32 = 12;
