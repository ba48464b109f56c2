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
//! survive, `ask` what is asked and answered, `desk` who waits, `hear` takes the news,
//! `ahead` is what is claimed before a pod asks, `again` takes what the store has lost of them, `put_back` what one has
//! lost that is not believed yet,
//! `look` and `gc` look after this node's own blocks, `cluster` after those of nodes that are
//! gone, `live` is what the kernel knows of pods.

mod again;
mod ahead;
mod ask;
mod cluster;
mod desk;
mod documents;
mod gc;
mod hear;
mod live;
mod look;
mod put_back;
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

use russet_core::{
    addressing::blocks::{
        BlockMachine, Collector, Outcome, StoreOp, Timestamp,
        gc::GRACE,
        machine::{Input, Now, Output},
    },
    model::calico::Name,
};
use russet_net::Prefix;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub use self::{
    ask::{Ask, Deny, MOST_ASKS, Told, What, handle_of, tunnel_handle},
    live::{HostRoutes, host_routes},
    put_back::Mine,
    shelf::{Shelf, Swap},
    wish::{Ground, Tunnel, Wish, WishError},
};
use self::{
    desk::Desk,
    documents::{Document, Documents},
    gc::Local,
    put_back::PutBack,
    shelf::{Carried, carry_out_all},
};
use crate::resources::News;

/// How the task goes about it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: Name,
    /// How long an address rests after its release.
    pub cooldown: Duration,
    /// How many addresses are claimed before a pod asks.
    pub ahead: usize,
    pub seed: u64,
    /// How long nobody must have owned an address before it is freed for him; above `machine::PATIENCE`.
    pub grace: Duration,
    /// How often this node's own blocks are looked through.
    pub look: Duration,
    /// Which addresses the kernel leads to a link of this node.
    pub routes: HostRoutes,
    /// What this node had in an earlier life.
    pub mine: Mine,
}

impl Settings {
    pub fn new(node: Name, seed: u64) -> Self {
        let routes: HostRoutes = host_routes;
        let mine = Mine::default();
        let (cooldown, ahead) = (COOLDOWN, 0);
        Self { node, cooldown, ahead, seed, grace: GRACE, look: LOOK, routes, mine }
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
    /// Whether the node's own object is to be put back into a store that has lost it.
    pub put_back: watch::Sender<bool>,
}

/// Serves until nobody asks any more.
pub async fn serve(store: impl Shelf, settings: Settings, lines: Lines) {
    let Lines { mut news, mut asks, told, mut tunnels, held, put_back } = lines;
    let desk = Desk::new(settings.node.clone(), told, held).claiming_ahead(settings.ahead);
    let mut ipam = Ipam::new(store, settings, desk, put_back);
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
    /// An operation, or a transaction of several; the machine's have a number, the collector's none.
    Carried(Vec<(Option<u64>, Carried)>),
    /// What the handles in our blocks say, for the collector.
    Handles(gc::Handles),
    /// What the cluster's collector has found.
    Cluster(Collector, Vec<StoreOp>),
    /// The blocks that a store has again that is not believed.
    PutBack(Result<Vec<Prefix>, String>),
}

struct Ipam<S> {
    store: S,
    settings: Settings,
    machine: BlockMachine,
    ground: Ground,
    /// What the store's content is worth: never `Away`, and only a picture that is believed opens it.
    gate: Gate,
    /// Why the store cannot be reached, whatever its content is worth.
    away: Option<Arc<str>>,
    desk: Desk,
    documents: Documents,
    local: Local,
    /// How long what the store lacks may be its watch's lag, when that is to be looked at.
    looks_for_losses: Option<Duration>,
    put_back: PutBack,
    nodes: BTreeSet<Name>,
    work: JoinSet<Done>,
    queued: VecDeque<Vec<(Option<u64>, StoreOp)>>,
    /// When what follows from all that has come was done last.
    turned: Instant,
    look_at: Instant,
    /// Of the whole cluster; none while it looks.
    collector: Option<Collector>,
    looks: u32,
    /// Why the store did not do something, the last time that it did not.
    trouble: Option<String>,
}

impl<S: Shelf> Ipam<S> {
    fn new(store: S, mut settings: Settings, desk: Desk, put_back: watch::Sender<bool>) -> Self {
        let mine = std::mem::take(&mut settings.mine);
        Self {
            store,
            machine: BlockMachine::new(settings.node.clone(), settings.seed),
            ground: Ground::default(),
            gate: Gate::Starting,
            away: None,
            desk,
            documents: Documents::default(),
            local: Local::default(),
            looks_for_losses: None,
            put_back: PutBack::new(mine, put_back),
            nodes: BTreeSet::new(),
            work: JoinSet::new(),
            queued: VecDeque::new(),
            turned: Instant::now(),
            look_at: Instant::now() + first_look(settings.look, settings.seed),
            collector: Some(Collector::default()),
            looks: 0,
            trouble: None,
            settings,
        }
    }

    fn due(&self) -> Instant {
        let (asked, desk) = (self.machine.poll_timeout(), self.desk.due(self.turned));
        let due = [asked, desk, self.put_back.due(), Some(self.look_at)];
        due.into_iter().flatten().min().unwrap_or(self.look_at)
    }

    /// Whether addresses can be given now. A doubt outlasts that the store was away.
    fn gate(&self) -> Gate {
        match (&self.gate, &self.away) {
            (Gate::Starting | Gate::Open, Some(reason)) => Gate::Away(Arc::clone(reason)),
            (gate, _) => gate.clone(),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.gate(), Gate::Open)
    }

    /// Passes on all that follows from what has come.
    fn turn(&mut self) {
        let now = now();
        self.turned = now.mono;
        if self.machine.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.machine.handle(Input::Timeout, now);
        }
        self.look_for_losses(now.mono);
        self.put_back(now);
        // What the machine answers at once may be what something else waits for.
        for _ in 0..MOST_TURNS {
            if !self.turn_desk(now) {
                break;
            }
        }
        if self.look_at <= now.mono {
            self.look_at = now.mono + self.settings.look;
            self.look();
        }
        self.begin();
    }

    /// Asks the machine what is to be asked, and passes on what it says; whether it has answered.
    fn turn_desk(&mut self, now: Now) -> bool {
        let gate = self.gate();
        let (blocks, trouble) = ((&self.machine, &self.local), self.trouble.as_deref());
        for (request, ask) in self.desk.turn(&gate, &self.ground, blocks, trouble, now) {
            self.machine.handle(Input::Ask { request, ask }, now);
        }
        let mut answered = false;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Store { op, what } => self.queued.push_back(vec![(Some(op), what)]),
                Output::Together(ops) => {
                    let ops = ops.into_iter().map(|(op, what)| (Some(op), what));
                    self.queued.push_back(ops.collect());
                }
                Output::Answer { request, answer } => {
                    let fill = || self.machine.fill();
                    self.desk.answered(request, answer, fill, now);
                    answered = true;
                }
            }
        }
        answered
    }

    /// Begins what may be under way at once.
    fn begin(&mut self) {
        while self.work.len() < AT_ONCE {
            let Some(ops) = self.queued.pop_front() else { break };
            let (numbers, ops): (Vec<_>, Vec<_>) = ops.into_iter().unzip();
            let ops: Vec<_> = ops.into_iter().map(|what| self.with_document(what)).collect();
            let store = self.store.clone();
            self.work.spawn(async move {
                let carried = carry_out_all(store, ops).await;
                Done::Carried(numbers.into_iter().zip(carried).collect())
            });
        }
    }

    /// An operation, with the document that it changes where that is at hand.
    fn with_document(&self, what: StoreOp) -> (StoreOp, Option<Document>) {
        let at_hand = match &what {
            StoreOp::Swap { key, expect: Some(revision), value: Some(_) } => {
                self.documents.at(key, *revision).cloned()
            }
            _ => None,
        };
        (what, at_hand)
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        // One that was cut off by a panic is missed by the machine, which then reads.
        let Ok(done) = done else { return };
        match done {
            Done::Carried(all) => all.into_iter().for_each(|(op, one)| self.carried(op, one)),
            Done::Handles(handles) => self.look_at_handles(&handles),
            Done::Cluster(collector, ops) => self.collected(collector, ops),
            Done::PutBack(done) => self.was_put_back(done),
        }
    }

    fn carried(&mut self, op: Option<u64>, Carried { key, outcome, document }: Carried) {
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
        if matches!(ask, Ask::Recorded(_)) {
            self.looks_for_losses.get_or_insert(again::LAG);
            self.put_back.look_again(Instant::now());
        }
        self.desk.take(ask, Instant::now());
    }
}

/// How long a node waits for its first look, and so when it looks ever after: nodes that start together do not read
/// together.
fn first_look(look: Duration, seed: u64) -> Duration {
    // The upper half of a product with an odd number depends on every bit of the seed.
    let [a, b, c, d, ..] = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    look.mul_f64(f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX))
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
    Now { mono: Instant::now(), wall: Timestamp::from_nanos(nanos) }
}

/// How many of this node's blocks the store is asked about at once.
const AT_ONCE: usize = 64;
/// How often what follows is looked for at once: a release, what it was waited for with, and what is claimed then.
const MOST_TURNS: usize = 8;
/// How many messages are taken before what follows from them is done.
const TOGETHER: usize = 256;
/// How long an address rests after its release, where nothing else is said.
pub const COOLDOWN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_mins(5);
