//! Addresses claimed ahead: a few that this node has of the store before a pod asks, so that an ADD waits for no write, and is
//! served while the store is away.
//!
//! ```text
//!   asked ─ Given ─▶ held ─ an ADD ─▶ passing ─ the store has it as the pod's ─▶ free for the next
//!                     └─ too many, or not what pods ask for any more ─▶ going ─┘
//! ```
//!
//! Each has a handle of its own and is given by a compare-and-swap like any other, so nothing is handed out on belief. What
//! a pod was given is in its record; that the store has it as the pod's follows by the way of what the store lacks (`again`),
//! and so across a restart. It is released where it is, be that before or after.
//!
//! They are claimed where this node's blocks have room for many more, so that no pod elsewhere is refused what nobody uses
//! here; and not beside a Calico, whose tools take them for leaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use russet_core::{
    addressing::blocks::{
        Claimant, HandleId,
        block::TYPE,
        machine::{self, BlockMachine, Now, Want},
    },
    model::calico::Name,
};

use super::{
    ask::{Ask, What},
    desk::{Desk, Purpose},
    gc::Local,
    wish::{Beside, Ground, Wish},
};

#[derive(Debug)]
pub(super) struct Ahead {
    node: Name,
    /// How many are wanted at most.
    most: usize,
    claims: BTreeMap<usize, Claim>,
    /// What pods ask for: as the last one did that asked for nothing of its own.
    usual: Wish,
    /// What that is of the pools, as they are.
    wants: Vec<Want>,
    /// When a claim that was refused is tried again.
    again: Option<Instant>,
    /// Whether what was being passed on when this life began has been looked for.
    looked: bool,
}

#[derive(Debug)]
enum Claim {
    Asked,
    Held(Held),
    /// A pod has it, and the store does not know that yet.
    Passing(HandleId),
    Going,
}

#[derive(Debug)]
struct Held {
    addresses: Vec<IpAddr>,
    since: Instant,
}

impl Ahead {
    pub(super) fn new(node: Name, most: usize) -> Self {
        Self {
            node,
            most,
            claims: BTreeMap::new(),
            usual: Wish::default(),
            wants: Vec::new(),
            again: None,
            looked: false,
        }
    }

    fn handle(&self, number: usize) -> Option<HandleId> {
        HandleId::ahead(&self.node, number).ok()
    }

    /// The handles that are spoken for. What an earlier life claimed in vain is not among them, and is a leak.
    pub(super) fn handles(&self) -> impl Iterator<Item = HandleId> {
        self.claims.keys().filter_map(|number| self.handle(*number))
    }

    /// How many pods could be given something now.
    pub(super) fn held(&self) -> usize {
        self.claims.values().filter(|claim| matches!(claim, Claim::Held(_))).count()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    pub(super) fn pools_changed(&mut self) {
        self.again = None;
    }

    /// The store's history is another: what is held is asked for again, and may be somebody's by now.
    pub(super) fn other_history(&mut self) {
        self.claims.retain(|_, claim| !matches!(claim, Claim::Held(_)));
        self.again = None;
    }

    /// Drops what the store does not have as ours any more: somebody has freed it by hand. The watch may lag.
    pub(super) fn drop_lost(&mut self, local: &Local, lag: Duration, now: Instant) {
        let held = |(number, claim): (&usize, &Claim)| match claim {
            Claim::Held(held) if held.since + lag <= now => {
                Some((HandleId::ahead(&self.node, *number).ok()?, held.addresses.clone()))
            }
            _ => None,
        };
        let held: BTreeMap<_, _> = self.claims.iter().filter_map(held).collect();
        for (handle, addresses) in local.lacking(held.iter()) {
            tracing::warn!(op = "claim addresses ahead", subject = %handle, ?addresses, "somebody has released what was claimed ahead");
            let number = handle.ahead_of(&self.node);
            self.claims.retain(|of, _| Some(*of) != number);
        }
    }

    /// Gives a pod what it wants, if it is there.
    fn pass(&mut self, wants: &[Want], pod: &HandleId) -> Option<Vec<IpAddr>> {
        if wants != self.wants {
            return None;
        }
        self.claims.values_mut().find_map(|claim| {
            let Claim::Held(held) = claim else { return None };
            let addresses = std::mem::take(&mut held.addresses);
            *claim = Claim::Passing(pod.clone());
            Some(addresses)
        })
    }

    /// The claim that a pod has, while it is not known to be passed on.
    fn passing_to(&self, pod: &HandleId) -> Option<usize> {
        let mut claims = self.claims.iter();
        claims.find_map(|(n, claim)| matches!(claim, Claim::Passing(to) if to == pod).then_some(*n))
    }

    pub(super) fn is_passing(&self, pod: &HandleId) -> bool {
        self.passing_to(pod).is_some()
    }

    /// How many there should be where so many addresses are left, as those that are there say.
    fn wanted(&self, left: usize) -> Wanted {
        let here = self.claims.values();
        let here = here.filter(|claim| matches!(claim, Claim::Held(_) | Claim::Asked)).count();
        let all = left + self.held();
        if here < self.most && (here + 1) * ONE_OF <= all {
            Wanted::More
        } else if here > self.most || here * FEW_OF > all {
            Wanted::Fewer
        } else {
            Wanted::Same
        }
    }

    /// A number that nothing has, for one more.
    fn vacant(&self) -> Option<usize> {
        // As many again may be on their way to pods, or back.
        (0..self.most * 2).find(|number| !self.claims.contains_key(number))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    More,
    Same,
    Fewer,
}

impl Desk {
    /// Gives pods what is claimed ahead.
    pub(super) fn give_ahead(&mut self, ground: &Ground, now: Now) {
        if self.gives.is_empty() || self.ahead.most == 0 {
            return;
        }
        for give in std::mem::take(&mut self.gives) {
            // Asked again before it is passed on: the same.
            let same = self.recorded.as_ref().and_then(|all| all.get(&give.handle));
            if let Some(addresses) = same.filter(|_| self.ahead.is_passing(&give.handle)) {
                self.tell(give.ticket, What::Given(addresses.clone()));
                continue;
            }
            let plain = give.wish.ips.is_empty()
                && give.wish.pools_v4.is_empty()
                && give.wish.pools_v6.is_empty();
            if plain && self.ahead.usual != give.wish {
                self.ahead.usual = give.wish.clone();
            }
            // Who asked before may have something in the store, which is what he gets.
            let is_new = self.recorded.as_ref().is_some_and(|all| !all.contains_key(&give.handle))
                && !self.is_spoken_for(&give.handle);
            let wants = ground.wants(&give.wish).ok().filter(|_| plain && is_new);
            match wants.and_then(|wants| self.ahead.pass(&wants, &give.handle)) {
                Some(addresses) => {
                    if let Some(recorded) = &mut self.recorded {
                        recorded.insert(give.handle.clone(), addresses.clone());
                    }
                    self.losses.passed(give.handle, addresses.clone(), give.pod, now.mono);
                    self.tell(give.ticket, What::Given(addresses));
                }
                None => self.gives.push(give),
            }
        }
    }

    /// Claims what is missing, and gives back what is too much. Pods that wait come first.
    pub(super) fn keep_ahead(
        &mut self,
        ground: &Ground,
        (machine, local): (&BlockMachine, &Local),
        asks: &mut Vec<(u64, machine::Ask)>,
        now: Now,
    ) {
        if self.ahead.most == 0 || self.recorded.is_none() {
            return;
        }
        self.look_for_passing(local);
        self.settle_passing();
        let wants = match ground.wants(&self.ahead.usual) {
            Ok(wants) if ground.beside == Beside::Nobody => wants,
            _ => Vec::new(),
        };
        if self.ahead.wants != wants {
            self.ahead.wants = wants;
            self.free_unfit(now.mono);
        }
        if self.are_pods_waiting() {
            return;
        }
        let left = machine.left_for(&self.ahead.wants, now);
        if self.ahead.wanted(left) == Wanted::Fewer {
            self.free_one(now.mono);
        }
        let is_early = self.ahead.again.is_some_and(|at| at > now.mono);
        if self.ahead.wants.is_empty() || is_early {
            return;
        }
        self.ahead.again = None;
        // Together they are few writes.
        for _ in 0..self.ahead.most {
            if self.ahead.wanted(left) == Wanted::More {
                self.claim(asks, now);
            }
        }
    }

    fn claim(&mut self, asks: &mut Vec<(u64, machine::Ask)>, now: Now) {
        let vacant = self.ahead.vacant();
        let Some((number, handle)) = vacant.and_then(|n| Some((n, self.ahead.handle(n)?))) else {
            return;
        };
        let mut secondary = self.attributes(now);
        secondary.insert(TYPE.to_owned(), KIND.to_owned());
        let who = Claimant { handle, secondary };
        let wants = self.ahead.wants.clone();
        self.ahead.claims.insert(number, Claim::Asked);
        self.ask(Purpose::Ahead(number), machine::Ask::Allocate { who, wants }, asks);
    }

    pub(super) fn claimed(&mut self, number: usize, addresses: Vec<IpAddr>, now: Instant) {
        // An earlier life has given it to a pod.
        let of = self.recorded.iter().flatten();
        let pod = of.filter(|(_, all)| all.iter().any(|addr| addresses.contains(addr)));
        let claim = match pod.map(|(pod, _)| pod.clone()).next() {
            Some(pod) => Claim::Passing(pod),
            None => Claim::Held(Held { addresses, since: now }),
        };
        self.ahead.claims.insert(number, claim);
        self.free_unfit(now);
    }

    /// A claim was refused. There may be something of it all the same, which is a leak.
    pub(super) fn not_claimed(&mut self, number: usize, now: Instant) {
        self.ahead.claims.remove(&number);
        self.ahead.again = Some(now + RETRY);
    }

    /// What an earlier life gave to pods and did not pass on: it is known as theirs, so that it is released with them.
    fn look_for_passing(&mut self, local: &Local) {
        if std::mem::replace(&mut self.ahead.looked, true) {
            return;
        }
        let node = self.ahead.node.clone();
        for (addr, by) in local.held() {
            let of = self.recorded.iter().flatten().find(|(_, all)| all.contains(&addr));
            if let (Some(number), Some((pod, _))) = (by.ahead_of(&node), of) {
                self.ahead.claims.insert(number, Claim::Passing(pod.clone()));
            }
        }
    }

    /// What the store has as its pod's is free for the next.
    fn settle_passing(&mut self) {
        let passing = self.ahead.claims.iter().filter_map(|(number, claim)| match claim {
            Claim::Passing(pod) => Some((*number, pod)),
            _ => None,
        });
        let is_done = |pod: &HandleId| !self.losses.has(pod) && !self.is_spoken_for(pod);
        let done: BTreeSet<_> = passing.filter(|(_, pod)| is_done(pod)).map(|(n, _)| n).collect();
        self.ahead.claims.retain(|number, _| !done.contains(number));
    }

    /// A pod is gone whose address was claimed ahead. What was not passed on is released where it is; whoever waits for
    /// the one waits for the other.
    pub(super) fn free_passing(&mut self, pod: &HandleId, tickets: Vec<u64>) -> Option<Vec<u64>> {
        let Some(number) = self.ahead.passing_to(pod) else { return Some(tickets) };
        let Some(handle) = self.ahead.handle(number) else { return Some(tickets) };
        self.ahead.claims.insert(number, Claim::Going);
        self.frees.entry(handle).or_default().tickets.extend(tickets);
        None
    }

    /// A handle has nothing any more.
    pub(super) fn freed_ahead(&mut self, handle: &HandleId) {
        if let Some(number) = handle.ahead_of(&self.ahead.node) {
            self.ahead.claims.remove(&number);
        }
    }

    /// Gives back what is not what pods ask for any more.
    fn free_unfit(&mut self, now: Instant) {
        let wants = &self.ahead.wants;
        let fits = |addresses: &[IpAddr]| {
            addresses.len() == wants.len()
                && wants.iter().all(|want| {
                    addresses.iter().any(|addr| want.pools.iter().any(|pool| pool.contains(*addr)))
                })
        };
        let unfit = self.ahead.claims.iter().filter_map(|(number, claim)| match claim {
            Claim::Held(held) if !fits(&held.addresses) => Some(*number),
            _ => None,
        });
        for number in unfit.collect::<Vec<_>>() {
            self.free_claim(number, now);
        }
    }

    fn free_one(&mut self, now: Instant) {
        let mut held = self.ahead.claims.iter();
        let last = held.rfind(|(_, claim)| matches!(claim, Claim::Held(_)));
        if let Some(number) = last.map(|(number, _)| *number) {
            self.free_claim(number, now);
        }
    }

    fn free_claim(&mut self, number: usize, now: Instant) {
        if let Some(handle) = self.ahead.handle(number) {
            self.ahead.claims.insert(number, Claim::Going);
            self.take(Ask::Free { ticket: None, handle }, now);
        }
    }
}

/// One of so many that are left is claimed ahead, and no more stay so than one of those few.
const ONE_OF: usize = 8;
const FEW_OF: usize = 4;
/// How soon a claim that was refused is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// As the attribute `type` has it.
const KIND: &str = "claimedAhead";
