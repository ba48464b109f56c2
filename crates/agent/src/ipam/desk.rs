//! Who waits for what: pods, releases, and this node's tunnels.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use russet_api::calico::shown_moment;
use russet_core::{
    addressing::blocks::{
        Claimant, HandleId,
        block::{NAMESPACE, NODE, POD, TIMESTAMP, TYPE},
        machine::{self, Answer, BlockMachine, Fill, MOST_WAITING, Now, Refusal},
    },
    model::calico::Name,
};
use tokio::sync::{mpsc, watch};

use super::{
    Gate,
    again::{Losses, Recorded},
    ahead::Ahead,
    ask::{Ask, Deny, MOST_ASKS, Told, What, tunnel_handle},
    gc::Local,
    wish::{Ground, Tunnel, Wish},
};

/// Whom an answer of the machine is for.
pub(super) enum Purpose {
    Give {
        ticket: u64,
        handle: HandleId,
        until: Instant,
        /// The addresses that are asked for by name.
        named: Vec<IpAddr>,
    },
    /// He was told that it takes too long; an address that comes yet is his in the store, when he asks again.
    Lapsed {
        handle: HandleId,
        named: Vec<IpAddr>,
    },
    Free(HandleId),
    Tunnel(Tunnel),
    /// What the store has lost of a handle.
    Again(HandleId),
    /// What is claimed ahead, by its number.
    Ahead(usize),
}

/// A release that is not done yet.
#[derive(Default)]
pub(super) struct Freeing {
    pub(super) tickets: Vec<u64>,
    state: Free,
}

#[derive(Default)]
enum Free {
    #[default]
    Waiting,
    Asked,
    Again(Instant),
}

/// A pod that has not been passed on yet.
pub(super) struct Give {
    pub(super) ticket: u64,
    pub(super) handle: HandleId,
    pub(super) pod: Option<(String, String)>,
    pub(super) wish: Wish,
    since: Instant,
}

pub(super) struct Desk {
    node: Name,
    told: mpsc::Sender<Told>,
    held: watch::Sender<BTreeMap<Tunnel, IpAddr>>,
    /// What this node's records say, as soon as the lane has told them.
    pub(super) recorded: Option<Recorded>,
    pub(super) losses: Losses,
    pub(super) ahead: Ahead,
    pub(super) tunnels_wanted: BTreeSet<Tunnel>,
    /// When those that were refused an address are asked for again.
    tunnels_again: BTreeMap<Tunnel, Instant>,
    /// Those whose address is of a history that is not the store's any more: it is asked for again.
    tunnels_unsure: BTreeSet<Tunnel>,
    pub(super) gives: Vec<Give>,
    pub(super) frees: BTreeMap<HandleId, Freeing>,
    waiting: BTreeMap<u64, Purpose>,
    next: u64,
}

impl Desk {
    pub(super) fn new(
        node: Name,
        told: mpsc::Sender<Told>,
        held: watch::Sender<BTreeMap<Tunnel, IpAddr>>,
    ) -> Self {
        Self {
            ahead: Ahead::new(node.clone(), 0),
            node,
            told,
            held,
            recorded: None,
            losses: Losses::default(),
            tunnels_wanted: BTreeSet::new(),
            tunnels_again: BTreeMap::new(),
            tunnels_unsure: BTreeSet::new(),
            gives: Vec::new(),
            frees: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: 0,
        }
    }

    /// The same, where so many addresses are claimed before a pod asks.
    pub(super) fn claiming_ahead(self, most: usize) -> Self {
        Self { ahead: Ahead::new(self.node.clone(), most), ..self }
    }

    pub(super) fn take(&mut self, ask: Ask, now: Instant) {
        match ask {
            Ask::Recorded(recorded) => self.recorded = Some(recorded),
            // What it would get might be released by what was asked before, and is tried again.
            Ask::Give { ticket, handle, .. } if self.frees.contains_key(&handle) => {
                self.call_off(ticket);
            }
            Ask::Give { ticket, .. } if self.gives.len() >= MOST_GIVES => self.refuse(ticket),
            Ask::Give { ticket, handle, pod, wish } => {
                self.ahead.asked(&wish);
                self.gives.push(Give { ticket, handle, pod, wish, since: now });
            }
            Ask::Free { ticket, handle } if !self.takes_free(&handle, ticket) => {
                tracing::debug!(op = "free addresses", subject = %handle, "too many wait; it is asked for again");
                if let Some(ticket) = ticket {
                    self.refuse(ticket);
                }
            }
            Ask::Free { ticket, handle } => {
                self.drop_gives(&handle);
                self.frees.entry(handle).or_default().tickets.extend(ticket);
            }
        }
    }

    /// Whether there is room for a release. Of a leak nobody waits for it: the next look finds it again.
    fn takes_free(&self, handle: &HandleId, ticket: Option<u64>) -> bool {
        let most = if ticket.is_some() { MOST_KEPT } else { MOST_FREES };
        self.frees.contains_key(handle) || self.frees.len() < most
    }

    /// Whoever asked asks again; of a release his note stands.
    fn refuse(&self, ticket: u64) {
        let refusal = Refusal::Busy;
        self.tell(ticket, What::Denied(Deny::Refused { refusal, fill: Vec::new() }));
    }

    /// Who is to be freed is not given anything.
    fn drop_gives(&mut self, handle: &HandleId) {
        let (off, on): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.gives).into_iter().partition(|give| give.handle == *handle);
        self.gives = on;
        for give in off {
            self.call_off(give.ticket);
        }
    }

    fn call_off(&self, ticket: u64) {
        let refusal = Refusal::CalledOff;
        self.tell(ticket, What::Denied(Deny::Refused { refusal, fill: Vec::new() }));
    }

    /// The handles that are in use, or about to be; `None` before the lane has told its records.
    pub(super) fn in_use(&self) -> Option<BTreeSet<HandleId>> {
        let mut all: BTreeSet<_> = self.recorded.as_ref()?.keys().cloned().collect();
        all.extend(self.gives.iter().map(|give| give.handle.clone()));
        all.extend(self.frees.keys().cloned());
        all.extend(self.waiting.values().filter_map(|purpose| match purpose {
            Purpose::Give { handle, .. } => Some(handle.clone()),
            _ => None,
        }));
        all.extend(self.ahead.handles());
        all.extend(Tunnel::ALL.iter().filter_map(|tunnel| tunnel_handle(*tunnel, &self.node).ok()));
        Some(all)
    }

    /// When something is to be done without any message. What was due at the last turn and is there still waits for a
    /// message; what came due since is told, though it is past.
    pub(super) fn due(&self, turned: Instant) -> Option<Instant> {
        let gives = self.gives.iter().map(|give| give.since + AWAY_PATIENCE);
        let waiting = self.waiting.values().filter_map(|purpose| match purpose {
            Purpose::Give { until, .. } => Some(*until),
            _ => None,
        });
        let frees = self.frees.values().filter_map(|freeing| match freeing.state {
            Free::Again(at) => Some(at),
            Free::Waiting | Free::Asked => None,
        });
        let tunnels = self.tunnels_again.values().copied();
        let due = gives.chain(waiting).chain(frees).chain(tunnels).chain(self.losses.due());
        let due = due.chain(self.ahead.due());
        due.filter(|at| *at > turned).min()
    }

    pub(super) fn pools_changed(&mut self) {
        self.tunnels_again.clear();
        self.ahead.pools_changed();
    }

    /// The store's history is another: it may not know what this node's tunnels hold, or know it as somebody else's.
    pub(super) fn other_history(&mut self) {
        self.tunnels_unsure.extend(self.held.borrow().keys());
        self.tunnels_again.clear();
        self.ahead.other_history();
    }

    /// What the machine is to be asked now. Who has waited too long is told so.
    pub(super) fn turn(
        &mut self,
        gate: &Gate,
        ground: &Ground,
        blocks: (&BlockMachine, &Local),
        trouble: Option<&str>,
        now: Now,
    ) -> Vec<(u64, machine::Ask)> {
        if matches!(gate, Gate::Open | Gate::Away(_)) {
            self.give_ahead(ground, blocks.1, now.mono);
        }
        self.lapse(gate, trouble, now.mono);
        let Gate::Open = gate else { return Vec::new() };
        let mut asks = Vec::new();
        self.pass_frees(&mut asks, now.mono);
        self.pass_losses(&mut asks, now);
        self.pass_gives(ground, &mut asks, now);
        self.pass_tunnels(ground, &mut asks, now);
        self.keep_ahead(ground, blocks, &mut asks, now);
        self.pass_frees(&mut asks, now.mono);
        asks
    }

    fn lapse(&mut self, gate: &Gate, trouble: Option<&str>, now: Instant) {
        let why = match gate {
            Gate::Open => None,
            Gate::Starting => Some(Deny::Starting),
            Gate::Away(reason) => Some(Deny::Away(reason.to_string())),
            Gate::Doubted(doubt) => Some(Deny::Doubted(doubt.clone())),
        };
        let mut denied = Vec::new();
        if let Some(why) = &why {
            self.gives.retain(|give| {
                let waits = give.since + AWAY_PATIENCE > now;
                if !waits {
                    denied.push((give.ticket, why.clone()));
                }
                waits
            });
        }
        for purpose in self.waiting.values_mut() {
            let Purpose::Give { ticket, until, handle, named } = purpose else { continue };
            if *until <= now {
                let late = || Deny::Late(trouble.map(str::to_owned));
                denied.push((*ticket, why.clone().unwrap_or_else(late)));
                let (handle, named) = (handle.clone(), std::mem::take(named));
                *purpose = Purpose::Lapsed { handle, named };
            } else if why.is_some() {
                *until = (*until).min(now + AWAY_PATIENCE);
            }
        }
        for (ticket, why) in denied {
            self.tell(ticket, What::Denied(why));
        }
    }

    fn pass_frees(&mut self, asks: &mut Vec<(u64, machine::Ask)>, now: Instant) {
        let asked = self.frees.values().filter(|f| matches!(f.state, Free::Asked)).count();
        let mut room = MOST_FREES.saturating_sub(asked);
        for (handle, freeing) in &mut self.frees {
            let ready = match freeing.state {
                Free::Waiting => true,
                Free::Again(at) => at <= now,
                Free::Asked => false,
            };
            if !ready || room == 0 {
                continue;
            }
            room -= 1;
            freeing.state = Free::Asked;
            self.waiting.insert(self.next, Purpose::Free(handle.clone()));
            asks.push((self.next, machine::Ask::ReleaseHandle(handle.clone())));
            self.next += 1;
        }
    }

    fn pass_gives(&mut self, ground: &Ground, asks: &mut Vec<(u64, machine::Ask)>, now: Now) {
        for Give { ticket, handle, pod, wish, since } in std::mem::take(&mut self.gives) {
            match ground.wants(&wish) {
                Err(err) => self.tell(ticket, What::Denied(err.into())),
                Ok(wants) => {
                    if let Err(taken) = self.claim_named(&wants, &handle) {
                        let (refusal, fill) = (taken.into(), Vec::new());
                        self.tell(ticket, What::Denied(Deny::Refused { refusal, fill }));
                        continue;
                    }
                    let mut secondary = self.attributes(now);
                    secondary.extend(names_of(pod));
                    let who = Claimant { handle: handle.clone(), secondary };
                    let until = since + PATIENCE;
                    let named = wants.iter().filter_map(|want| want.wished).collect();
                    let purpose = Purpose::Give { ticket, handle, until, named };
                    self.ask(purpose, machine::Ask::Allocate { who, wants }, asks);
                }
            }
        }
    }

    fn pass_tunnels(&mut self, ground: &Ground, asks: &mut Vec<(u64, machine::Ask)>, now: Now) {
        for tunnel in self.tunnels_wanted.clone() {
            let is = |purpose: &Purpose| matches!(purpose, Purpose::Tunnel(is) if *is == tunnel);
            let later = self.tunnels_again.get(&tunnel).is_some_and(|at| *at > now.mono);
            let sure =
                self.held.borrow().contains_key(&tunnel) && !self.tunnels_unsure.contains(&tunnel);
            if later || sure || self.waiting.values().any(is) {
                continue;
            }
            let (want, handle) = match (ground.tunnel(tunnel), tunnel_handle(tunnel, &self.node)) {
                (Ok(want), Ok(handle)) => (want, handle),
                (Err(error), _) => {
                    self.tunnel_denied(tunnel, &error.to_string(), now.mono);
                    continue;
                }
                (_, Err(error)) => {
                    self.tunnel_denied(tunnel, &error.to_string(), now.mono);
                    continue;
                }
            };
            let mut secondary = self.attributes(now);
            secondary.insert(TYPE.to_owned(), tunnel.kind().to_owned());
            let who = Claimant { handle, secondary };
            let ask = machine::Ask::Allocate { who, wants: vec![want] };
            self.ask(Purpose::Tunnel(tunnel), ask, asks);
        }
    }

    pub(super) fn ask(
        &mut self,
        purpose: Purpose,
        ask: machine::Ask,
        asks: &mut Vec<(u64, machine::Ask)>,
    ) {
        self.waiting.insert(self.next, purpose);
        asks.push((self.next, ask));
        self.next += 1;
    }

    /// Whether something is under way for a handle.
    pub(super) fn is_spoken_for(&self, handle: &HandleId) -> bool {
        let mut waiting = self.waiting.values();
        self.frees.contains_key(handle)
            || self.gives.iter().any(|give| give.handle == *handle)
            || waiting.any(|purpose| match purpose {
                Purpose::Give { handle: of, .. }
                | Purpose::Lapsed { handle: of, .. }
                | Purpose::Again(of) => of == handle,
                _ => false,
            })
    }

    /// Who has asked for an address by name, and has not been answered.
    pub(super) fn named_by(&self, addr: IpAddr) -> Option<HandleId> {
        let waiting = self.waiting.values().find_map(|purpose| match purpose {
            Purpose::Give { handle, named, .. } | Purpose::Lapsed { handle, named } => {
                named.contains(&addr).then(|| handle.clone())
            }
            _ => None,
        });
        waiting.or_else(|| self.losses.of(addr))
    }

    /// Whether a pod has been passed on to the machine and has no answer.
    pub(super) fn are_pods_waiting(&self) -> bool {
        self.waiting.values().any(|purpose| matches!(purpose, Purpose::Give { .. }))
    }

    /// Whether it is on its way back to the store.
    pub(super) fn is_freeing(&self, handle: &HandleId) -> bool {
        self.frees.contains_key(handle)
    }

    /// The addresses that this node's tunnels hold.
    pub(super) fn tunnels(&self) -> BTreeMap<Tunnel, IpAddr> {
        self.held.borrow().clone()
    }

    /// The tunnels whose address the store is known to have given, each as its handle and that.
    pub(super) fn tunnels_for_sure(&self) -> Recorded {
        let held = self.held.borrow();
        let sure = held.iter().filter(|(tunnel, _)| !self.tunnels_unsure.contains(tunnel));
        let of = |(tunnel, addr): (&Tunnel, &IpAddr)| {
            Some((tunnel_handle(*tunnel, &self.node).ok()?, vec![*addr]))
        };
        sure.filter_map(of).collect()
    }

    /// Whose handle it is, if it is a tunnel's of this node.
    pub(super) fn tunnel_of(&self, handle: &HandleId) -> Option<Tunnel> {
        let is_of =
            |tunnel: &Tunnel| tunnel_handle(*tunnel, &self.node).is_ok_and(|of| of == *handle);
        Tunnel::ALL.into_iter().find(is_of)
    }

    /// Its address is asked for again, whichever that is.
    pub(super) fn unsure_of(&mut self, tunnel: Tunnel) {
        self.tunnels_unsure.insert(tunnel);
    }

    fn tunnel_denied(&mut self, tunnel: Tunnel, reason: &str, now: Instant) {
        tracing::warn!(
            op = "give tunnel address",
            subject = tunnel.kind(),
            reason,
            "it is asked for again"
        );
        self.tunnels_again.insert(tunnel, now + TUNNEL_RETRY);
    }

    /// What is recorded of every address.
    pub(super) fn attributes(&self, now: Now) -> BTreeMap<String, String> {
        let moment = shown_moment(now.wall.nanos());
        let pairs = [(NODE, self.node.to_string()), (TIMESTAMP, moment)];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Takes an answer of the machine's.
    pub(super) fn answered(
        &mut self,
        request: u64,
        answer: Result<Answer, Refusal>,
        fill: impl FnOnce() -> Vec<Fill>,
        now: Now,
    ) {
        match (self.waiting.remove(&request), answer) {
            (Some(Purpose::Give { ticket, handle, .. }), Ok(Answer::Given(given))) => {
                let addresses: Vec<_> = given.into_iter().map(|given| given.addr).collect();
                // Told first thing by the lane; before that nothing is freed for others.
                if let Some(recorded) = &mut self.recorded {
                    recorded.insert(handle, addresses.clone());
                }
                self.tell(ticket, What::Given(addresses));
            }
            (Some(Purpose::Give { ticket, .. }), Err(refusal)) => {
                let full = matches!(refusal, Refusal::Exhausted(_) | Refusal::BlockLimit(_));
                let fill = if full { fill() } else { Vec::new() };
                self.tell(ticket, What::Denied(Deny::Refused { refusal, fill }));
            }
            (Some(Purpose::Free(handle)), Ok(_)) => self.freed(&handle),
            (Some(Purpose::Free(handle)), Err(_)) => {
                if let Some(freeing) = self.frees.get_mut(&handle) {
                    freeing.state = Free::Again(now.mono + FREE_RETRY);
                }
            }
            (Some(Purpose::Tunnel(tunnel)), Ok(Answer::Given(given))) => {
                if let Some(given) = given.first() {
                    let addr = given.addr;
                    self.tunnels_unsure.remove(&tunnel);
                    self.held.send_modify(|held| _ = held.insert(tunnel, addr));
                }
            }
            (Some(Purpose::Ahead(number)), Ok(Answer::Given(given))) => {
                self.claimed(number, given, now.mono);
            }
            (Some(Purpose::Ahead(number)), _) => self.not_claimed(number, now.mono),
            (Some(Purpose::Again(handle)), Ok(_)) => self.taken_again(&handle),
            (Some(Purpose::Again(handle)), Err(refusal)) => self.not_taken_again(&handle, &refusal),
            (Some(Purpose::Tunnel(tunnel)), Err(refusal)) => {
                self.tunnel_denied(tunnel, &refusal.to_string(), now.mono);
            }
            _ => {}
        }
    }

    fn freed(&mut self, handle: &HandleId) {
        self.losses.forget(handle);
        if let Some(recorded) = &mut self.recorded {
            recorded.remove(handle);
        }
        let tickets = self.frees.remove(handle).map(|freeing| freeing.tickets);
        self.freed_ahead(handle);
        for ticket in self.free_passing(handle, tickets.unwrap_or_default()).into_iter().flatten() {
            self.tell(ticket, What::Freed);
        }
    }

    /// The lane has no more asks out than the line takes answers.
    pub(super) fn tell(&self, ticket: u64, what: What) {
        if self.told.try_send(Told { ticket, what }).is_err() {
            tracing::error!(op = "answer attach lane", "it is gone, or does not listen");
        }
    }
}

impl Tunnel {
    const ALL: [Self; 5] =
        [Self::Ipip, Self::Vxlan, Self::VxlanV6, Self::Wireguard, Self::WireguardV6];
}

/// What is recorded of a pod's names.
pub(super) fn names_of(pod: Option<(String, String)>) -> impl Iterator<Item = (String, String)> {
    let pairs = pod.into_iter().flat_map(|(namespace, pod)| [(NAMESPACE, namespace), (POD, pod)]);
    pairs.map(|(name, value)| (name.to_owned(), value))
}

/// How many releases the machine has at once, and of leaks are known at once: pods that wait come first.
const MOST_FREES: usize = 256;
/// How many releases are kept at most, and how many pods that have not been passed on.
const MOST_KEPT: usize = MOST_ASKS;
const MOST_GIVES: usize = MOST_WAITING;
/// How long a pod waits for an address: less than its runtime does, which asks again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same while the store is away.
const AWAY_PATIENCE: Duration = Duration::from_secs(2);
const FREE_RETRY: Duration = Duration::from_secs(2);
const TUNNEL_RETRY: Duration = Duration::from_secs(5);
