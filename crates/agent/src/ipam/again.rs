//! Takes again what the store has lost of this node's pods.
//!
//! A block that was deleted by hand, or a store that was emptied and is accepted all the same, does not know of addresses
//! that pods here live with, and would have them given to others. A record says which: each is asked for by name, for
//! the handle that had it. Whoever was given it meanwhile keeps it, and that is told. The same of this node's tunnels, which
//! `calicoctl delete node` gives back although the node lives; a tunnel takes another address where its own is somebody's.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use russet_core::addressing::blocks::{
    Claimant, HandleId,
    block::{TYPE, TakeError},
    machine::{self, Now, Refusal, Want},
};
use russet_net::Family;

use super::desk::{Desk, Purpose, names_of};

/// What the records say that handles have.
pub(super) type Recorded = BTreeMap<HandleId, Vec<IpAddr>>;

/// What is lost of a handle.
#[derive(Debug)]
struct Lost {
    addresses: Vec<IpAddr>,
    /// When it is asked for, the next time.
    at: Instant,
    /// Why it was not given, the last time.
    why: Option<String>,
    /// Namespace and name of the pod, where that is known here.
    pod: Option<(String, String)>,
}

/// The handles that have lost something.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<HandleId, Lost>);

impl Losses {
    /// Takes what the store lacks now. It may only lag: a write of ours is known here before the watch tells it.
    pub(super) fn seen(&mut self, lacking: Recorded, patience: Duration, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (handle, addresses) in lacking {
            let known = before.remove(&handle);
            let fresh = || Lost { addresses: Vec::new(), at: now + patience, why: None, pod: None };
            let lost = Lost { addresses, ..known.unwrap_or_else(fresh) };
            self.0.insert(handle, lost);
        }
    }

    /// What a pod has been given is to be passed on to it, at once.
    pub(super) fn passed(
        &mut self,
        pod: HandleId,
        addresses: Vec<IpAddr>,
        named: Option<(String, String)>,
        now: Instant,
    ) {
        self.0.insert(pod, Lost { addresses, at: now, why: None, pod: named });
    }

    /// Whose lost address it is.
    pub(super) fn of(&self, addr: IpAddr) -> Option<HandleId> {
        let mut lost = self.0.iter().filter(|(_, lost)| lost.addresses.contains(&addr));
        lost.next().map(|(handle, _)| handle.clone())
    }

    pub(super) fn has(&self, handle: &HandleId) -> bool {
        self.0.contains_key(handle)
    }

    /// It is nobody's any more.
    pub(super) fn forget(&mut self, handle: &HandleId) {
        self.0.remove(handle);
    }

    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        self.0.values().map(|lost| lost.at)
    }
}

impl Desk {
    /// Asks for what is lost, in front of whoever wants something new.
    pub(super) fn pass_losses(&mut self, asks: &mut Vec<(u64, machine::Ask)>, now: Now) {
        let ready = self.losses.0.iter().filter(|(_, lost)| lost.at <= now.mono);
        let ready =
            ready.map(|(handle, lost)| (handle.clone(), wants(&lost.addresses), lost.pod.clone()));
        for (handle, wants, pod) in ready.collect::<Vec<_>>() {
            if let Some(lost) = self.losses.0.get_mut(&handle) {
                lost.at = now.mono + RETRY;
            }
            if self.is_spoken_for(&handle) {
                continue;
            }
            for addr in wants.iter().filter_map(|want| want.wished) {
                self.ahead.named(addr, &handle);
            }
            let mut secondary = self.attributes(now);
            secondary.extend(names_of(pod));
            if let Some(tunnel) = self.tunnel_of(&handle) {
                secondary.insert(TYPE.to_owned(), tunnel.kind().to_owned());
            }
            let who = Claimant { handle: handle.clone(), secondary };
            self.ask(Purpose::Again(handle), machine::Ask::Allocate { who, wants }, asks);
        }
    }

    pub(super) fn taken_again(&mut self, handle: &HandleId) {
        if let Some(lost) = self.losses.0.remove(handle)
            && !self.ahead.is_passing(handle)
        {
            tracing::info!(op = "take address again", subject = %handle, addresses = ?lost.addresses, "the datastore knows it again");
        }
    }

    pub(super) fn not_taken_again(&mut self, handle: &HandleId, refusal: &Refusal) {
        if let (Some(tunnel), Refusal::Take(TakeError::Taken { .. })) =
            (self.tunnel_of(handle), refusal)
        {
            // A tunnel can have another address, and the node says so.
            self.losses.forget(handle);
            self.unsure_of(tunnel);
            return;
        }
        // Who called it off gives it back.
        if *refusal == Refusal::CalledOff {
            return;
        }
        let Some(lost) = self.losses.0.get_mut(handle) else { return };
        let why = refusal.to_string();
        if lost.why.as_ref() != Some(&why) {
            tracing::error!(op = "take address again", subject = %handle, addresses = ?lost.addresses, reason = why, "the datastore does not know that it is in use; it is tried again");
            lost.why = Some(why);
        }
    }
}

/// At most one of a family: a pod has no more.
fn wants(addresses: &[IpAddr]) -> Vec<Want> {
    let of = |family| addresses.iter().copied().find(|addr| Family::of(*addr) == family);
    let want = |family| Some(Want { family, pools: Vec::new(), wished: Some(of(family)?) });
    Family::BOTH.into_iter().filter_map(want).collect()
}

/// The watch is behind a write by less than that.
pub(super) const LAG: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(15);
