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
        block::{Given, TYPE, TakeError},
        machine::{self, BlockMachine, Now, Want},
    },
    model::calico::Name,
};
use russet_net::Family;

use super::{
    ask::What,
    desk::{Desk, Give, Purpose},
    gc::Local,
    wish::{Beside, Ground, Wish},
};

#[derive(Debug)]
pub(super) struct Ahead {
    node: Name,
    /// How many are wanted at most.
    most: usize,
    claims: BTreeMap<usize, Claim>,
    usual: Usual,
    /// What that is of the pools, as they are.
    wants: Vec<Want>,
    /// When a claim that was refused is tried again.
    again: Option<Instant>,
    /// When one whose block the watch has not told of yet is looked for again.
    recheck: Option<Instant>,
    /// Whether what an earlier life has left has been looked at.
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
    given: Vec<Given>,
    since: Instant,
}

/// What pods ask for that ask for nothing of their own: as the last few did.
#[derive(Debug, Default)]
struct Usual {
    wish: Wish,
    /// Another, and how many asked for that one after the other.
    other: Option<(Wish, u8)>,
}

impl Usual {
    fn asked(&mut self, wish: &Wish, at_once: bool) {
        let is_plain = wish.ips.is_empty() && wish.pools_v4.is_empty() && wish.pools_v6.is_empty();
        if !is_plain {
            return;
        }
        let before = self.other.take().filter(|(other, _)| other == wish).map_or(0, |(_, n)| n);
        if at_once || before + 1 >= ENOUGH {
            self.wish = wish.clone();
        } else if *wish != self.wish {
            self.other = Some((wish.clone(), before + 1));
        }
    }
}

impl Ahead {
    pub(super) fn new(node: Name, most: usize) -> Self {
        Self {
            node,
            most,
            claims: BTreeMap::new(),
            usual: Usual::default(),
            wants: Vec::new(),
            again: None,
            recheck: None,
            looked: false,
        }
    }

    /// A pod asks for this.
    pub(super) fn asked(&mut self, wish: &Wish) {
        let at_once = self.claims.is_empty();
        self.usual.asked(wish, at_once);
    }

    fn handle(&self, number: usize) -> Option<HandleId> {
        HandleId::ahead(&self.node, number).ok()
    }

    /// The handles that are spoken for. What an earlier life claimed in vain is not among them, and is a leak.
    pub(super) fn handles(&self) -> impl Iterator<Item = HandleId> {
        self.claims.keys().filter_map(|number| self.handle(*number))
    }

    fn held(&self) -> impl Iterator<Item = (usize, &Held)> {
        self.claims.iter().filter_map(|(number, claim)| match claim {
            Claim::Held(held) => Some((*number, held)),
            _ => None,
        })
    }

    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        self.again.into_iter().chain(self.recheck)
    }

    pub(super) fn pools_changed(&mut self) {
        self.again = None;
    }

    /// The store's history is another: what is held is asked for again, and may be somebody's by now.
    pub(super) fn other_history(&mut self) {
        self.claims.retain(|_, claim| !matches!(claim, Claim::Held(_)));
        self.again = None;
    }

    /// Whether it is time to look once more for what the watch had not told of.
    pub(super) fn is_to_be_rechecked(&mut self, now: Instant) -> bool {
        self.recheck.take_if(|at| *at <= now).is_some()
    }

    /// Drops what the store does not have as ours any more: somebody has freed it by hand. A block that the watch tells of as
    /// it was before the claim says nothing; one that it does not tell of may be new.
    pub(super) fn drop_lost(&mut self, local: &Local, lag: Duration, now: Instant) {
        let (mut lost, mut young) = (Vec::new(), None);
        for (number, held) in self.held() {
            let Some(handle) = self.handle(number) else { continue };
            let is_lost = |given: &Given| match local.has(given, &handle) {
                Some(has) => !has,
                None if held.since + lag <= now => true,
                None => {
                    young = young.into_iter().chain([held.since + lag]).min();
                    false
                }
            };
            if held.given.iter().any(is_lost) {
                lost.push((number, handle));
            }
        }
        self.recheck = young;
        for (number, handle) in lost {
            tracing::warn!(op = "claim addresses ahead", subject = %handle, "somebody has released what was claimed ahead");
            self.claims.remove(&number);
        }
    }

    /// Gives a pod what it wants, if it is there.
    fn pass(&mut self, ground: &Ground, wants: &[Want], pod: &HandleId) -> Option<Vec<IpAddr>> {
        let fits = |claim: &&mut Claim| match claim {
            Claim::Held(held) => fits(ground, wants, &held.given),
            _ => false,
        };
        let claim = self.claims.values_mut().find(fits)?;
        let before = std::mem::replace(claim, Claim::Passing(pod.clone()));
        let Claim::Held(Held { given, .. }) = before else { return None };
        // In the order in which they are wanted.
        let of = |want: &Want| given.iter().find(|given| Family::of(given.addr) == want.family);
        Some(wants.iter().filter_map(of).map(|given| given.addr).collect())
    }

    /// Takes out of what is held what somebody is given by name.
    pub(super) fn named(&mut self, addr: IpAddr, by: &HandleId) {
        let has = |held: &Held| held.given.iter().any(|given| given.addr == addr);
        let of = self.held().find(|(_, held)| has(held)).map(|(number, _)| number);
        if let Some(number) = of {
            self.claims.insert(number, Claim::Passing(by.clone()));
        }
    }

    /// The claim that a pod has, while it is not known to be passed on.
    fn passing_to(&self, pod: &HandleId) -> Option<usize> {
        let mut claims = self.claims.iter();
        claims.find_map(|(n, claim)| matches!(claim, Claim::Passing(to) if to == pod).then_some(*n))
    }

    pub(super) fn is_passing(&self, pod: &HandleId) -> bool {
        self.passing_to(pod).is_some()
    }

    /// Who has been given something that the store does not know as theirs.
    pub(super) fn passing(&self) -> impl Iterator<Item = &HandleId> {
        self.claims.values().filter_map(|claim| match claim {
            Claim::Passing(to) => Some(to),
            _ => None,
        })
    }

    /// How many there should be where so many addresses are left, as those that are there say.
    fn wanted(&self, left: usize) -> Wanted {
        let here = self.claims.values();
        let here = here.filter(|claim| matches!(claim, Claim::Held(_) | Claim::Asked)).count();
        let all = left + self.held().count();
        if here < self.most && (here + 1) * ONE_OF <= all {
            Wanted::More
        } else if here > self.most || here * FEW_OF > all {
            Wanted::Fewer
        } else {
            Wanted::Same
        }
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
    pub(super) fn give_ahead(&mut self, ground: &Ground, local: &Local, now: Instant) {
        if self.gives.is_empty() || self.ahead.most == 0 {
            return;
        }
        for give in std::mem::take(&mut self.gives) {
            match self.find_ahead(ground, local, &give, now) {
                Some(addresses) => self.tell(give.ticket, What::Given(addresses)),
                None => self.gives.push(give),
            }
        }
    }

    fn find_ahead(
        &mut self,
        ground: &Ground,
        local: &Local,
        give: &Give,
        now: Instant,
    ) -> Option<Vec<IpAddr>> {
        let recorded = self.recorded.as_ref()?.get(&give.handle);
        if let Some(addresses) = recorded {
            // Asked again before it is passed on: the same. Else what he has in the store is his.
            return self.ahead.is_passing(&give.handle).then(|| addresses.clone());
        }
        // Who asked before and was told that it takes too long may have something, too.
        let is_new = !self.is_spoken_for(&give.handle) && !local.knows(&give.handle);
        if !give.wish.ips.is_empty() || !is_new {
            return None;
        }
        let wants = ground.wants(&give.wish).ok()?;
        let addresses = self.ahead.pass(ground, &wants, &give.handle)?;
        if let Some(recorded) = &mut self.recorded {
            recorded.insert(give.handle.clone(), addresses.clone());
        }
        self.losses.passed(give.handle.clone(), addresses.clone(), give.pod.clone(), now);
        Some(addresses)
    }

    /// Who has what is asked for by name, though the store may not know it as theirs yet. What nobody has is taken out of what
    /// is claimed ahead.
    pub(super) fn claim_named(&mut self, wants: &[Want], by: &HandleId) -> Result<(), TakeError> {
        for addr in wants.iter().filter_map(|want| want.wished) {
            let recorded = self.recorded.as_ref();
            let has = |pod: &&HandleId| {
                recorded.and_then(|all| all.get(*pod)).is_some_and(|all| all.contains(&addr))
            };
            let pod = self.ahead.passing().filter(|pod| *pod != by).find(has).cloned();
            if pod.is_some() {
                return Err(TakeError::Taken { addr, by: pod });
            }
            self.ahead.named(addr, by);
        }
        Ok(())
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
        self.ahead.wants = match ground.wants(&self.ahead.usual.wish) {
            Ok(wants) if ground.beside == Beside::Nobody => wants,
            _ => Vec::new(),
        };
        self.look_at_earlier(ground, local);
        self.settle_passing();
        self.free_unfit(ground);
        if self.are_pods_waiting() {
            return;
        }
        let left = machine.left_for(&self.ahead.wants, now);
        if self.ahead.wanted(left) == Wanted::Fewer {
            let last = self.ahead.held().last().map(|(number, _)| number);
            if let Some(number) = last {
                self.free_claim(number);
            }
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
        let Some((number, handle)) = self.vacant() else { return };
        let mut secondary = self.attributes(now);
        secondary.insert(TYPE.to_owned(), KIND.to_owned());
        let who = Claimant { handle, secondary };
        let wants = self.ahead.wants.clone();
        self.ahead.claims.insert(number, Claim::Asked);
        self.ask(Purpose::Ahead(number), machine::Ask::Allocate { who, wants }, asks);
    }

    /// A number that nothing has, for one more.
    fn vacant(&self) -> Option<(usize, HandleId)> {
        // As many again may be on their way to pods, or back.
        let mut numbers = (0..self.ahead.most * 2).filter(|n| !self.ahead.claims.contains_key(n));
        numbers.find_map(|number| {
            let handle = self.ahead.handle(number)?;
            (!self.is_freeing(&handle)).then_some((number, handle))
        })
    }

    pub(super) fn claimed(&mut self, number: usize, given: Vec<Given>, now: Instant) {
        // An earlier life has given it to a pod, or somebody has named it meanwhile.
        let of = self.recorded.iter().flatten();
        let has = |all: &Vec<IpAddr>| given.iter().any(|given| all.contains(&given.addr));
        let pod = of.filter(|(_, all)| has(all)).map(|(pod, _)| pod.clone()).next();
        let pod = pod.or_else(|| given.iter().find_map(|given| self.named_by(given.addr)));
        let claim = match pod {
            Some(pod) => Claim::Passing(pod),
            None => Claim::Held(Held { given, since: now }),
        };
        self.ahead.claims.insert(number, claim);
    }

    /// A claim was refused. There may be something of it all the same, which is a leak.
    pub(super) fn not_claimed(&mut self, number: usize, now: Instant) {
        self.ahead.claims.remove(&number);
        self.ahead.again = Some(now + RETRY);
    }

    /// What an earlier life has left: what it gave to pods and did not pass on is known as theirs, so that it is released
    /// with them; what is not what pods ask for goes. The rest is claimed again.
    fn look_at_earlier(&mut self, ground: &Ground, local: &Local) {
        if std::mem::replace(&mut self.ahead.looked, true) {
            return;
        }
        let mut earlier: BTreeMap<usize, Vec<Given>> = BTreeMap::new();
        for (given, by) in local.held() {
            if let Some(number) = by.ahead_of(&self.ahead.node) {
                earlier.entry(number).or_default().push(given);
            }
        }
        for (number, given) in earlier {
            let has = |all: &Vec<IpAddr>| given.iter().any(|given| all.contains(&given.addr));
            let pod = self.recorded.iter().flatten().find(|(_, all)| has(all));
            if let Some((pod, _)) = pod {
                self.ahead.claims.insert(number, Claim::Passing(pod.clone()));
            } else if !fits(ground, &self.ahead.wants, &given) {
                self.free_claim(number);
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
        self.free_claim(number);
        self.frees.entry(handle).or_default().tickets.extend(tickets);
        None
    }

    /// A handle has nothing any more.
    pub(super) fn freed_ahead(&mut self, handle: &HandleId) {
        if let Some(number) = handle.ahead_of(&self.ahead.node) {
            self.ahead.claims.remove(&number);
        }
    }

    /// Gives back what is not what pods ask for any more, or is kept from all of them.
    fn free_unfit(&mut self, ground: &Ground) {
        let is_unfit = |held: &Held| !fits(ground, &self.ahead.wants, &held.given);
        let unfit = self.ahead.held().filter(|(_, held)| is_unfit(held));
        for number in unfit.map(|(number, _)| number).collect::<Vec<_>>() {
            self.free_claim(number);
        }
    }

    fn free_claim(&mut self, number: usize) {
        if let Some(handle) = self.ahead.handle(number) {
            self.ahead.claims.insert(number, Claim::Going);
            self.frees.entry(handle).or_default();
        }
    }
}

/// Whether the addresses are one for each want, out of its pools, and may be given.
fn fits(ground: &Ground, wants: &[Want], given: &[Given]) -> bool {
    let is_of = |want: &Want, addr: IpAddr| {
        Family::of(addr) == want.family && want.pools.iter().any(|pool| pool.contains(addr))
    };
    given.len() == wants.len()
        && wants.iter().all(|want| given.iter().any(|given| is_of(want, given.addr)))
        && !given.iter().any(|given| ground.is_reserved(given.addr))
}

/// One of so many that are left is claimed ahead, and no more stay so than one of those few.
const ONE_OF: usize = 8;
const FEW_OF: usize = 4;
/// How many pods in a row ask for something else before that is what is claimed.
const ENOUGH: u8 = 3;
/// How soon a claim that was refused is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// As the attribute `type` has it.
const KIND: &str = "claimedAhead";
