//! What nodes claim ahead, as their agents go about it: given to a pod without a word to the store, recorded, and passed on
//! afterwards.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    super::{
        HandleId,
        machine::{Answer, Ask},
    },
    sim::{Pod, Sim},
};

/// A node's addresses claimed ahead.
#[derive(Default)]
pub(super) struct Ahead {
    /// By number; what a life of the agent knows.
    claims: BTreeMap<usize, Claim>,
    /// What pods were given of it, and is not known to be theirs in the store. The disk knows it across lives.
    pub(super) records: BTreeMap<HandleId, Vec<IpAddr>>,
}

enum Claim {
    Asked,
    Held(Vec<IpAddr>),
    Passing(HandleId),
    Going,
}

impl Sim {
    /// What the node's agent speaks for. What an earlier life claimed in vain is nobody's.
    pub(super) fn ahead_handles(&self, n: usize) -> impl Iterator<Item = HandleId> {
        self.nodes[n].ahead.claims.keys().map(move |k| self.ahead_handle(n, *k))
    }

    fn ahead_handle(&self, n: usize, k: usize) -> HandleId {
        HandleId::ahead(&self.nodes[n].name, k).unwrap()
    }

    /// Claims what is missing, and asks again for what was not passed on.
    pub(super) fn claim_ahead(&mut self, n: usize) {
        let ahead = &self.nodes[n].ahead;
        let waits = ahead.records.iter().map(|(handle, all)| (handle.clone(), all.clone()));
        for (handle, addresses) in waits.collect::<Vec<_>>() {
            if !self.nodes[n].is_asked(&handle) {
                self.allocate(n, handle, &addresses);
            }
        }
        let missing = (0..self.plan.ahead).filter(|k| !self.nodes[n].ahead.claims.contains_key(k));
        for k in missing.filter(|_| !self.quiet).collect::<Vec<_>>() {
            self.nodes[n].ahead.claims.insert(k, Claim::Asked);
            self.allocate(n, self.ahead_handle(n, k), &[]);
        }
    }

    /// Starts a pod with what there is, and asks for it in its name.
    pub(super) fn start_with_ahead(&mut self, n: usize, handle: &HandleId) -> bool {
        let claims = &mut self.nodes[n].ahead.claims;
        let held = claims.iter_mut().find_map(|(_, claim)| match claim {
            Claim::Held(addresses) => {
                let addresses = std::mem::take(addresses);
                *claim = Claim::Passing(handle.clone());
                Some(addresses)
            }
            _ => None,
        });
        let Some(addresses) = held else { return false };
        for addr in &addresses {
            self.owners.given(*addr, handle);
        }
        self.tally.ahead += 1;
        self.tally.ahead_away += usize::from(self.is_away());
        self.nodes[n].pods.insert(handle.clone(), Pod::Running);
        self.nodes[n].ahead.records.insert(handle.clone(), addresses.clone());
        self.allocate(n, handle.clone(), &addresses);
        true
    }

    /// Another life knows nothing but the records: each is asked for again, and so is what is claimed ahead.
    pub(super) fn recover_ahead(&mut self, n: usize) {
        self.nodes[n].ahead.claims.clear();
        let records = self.nodes[n].ahead.records.clone();
        for (handle, addresses) in records {
            self.allocate(n, handle, &addresses);
        }
    }

    /// Takes an answer that is about what was claimed ahead; whether it is.
    pub(super) fn answered_ahead(
        &mut self,
        n: usize,
        handle: &HandleId,
        answer: Option<&Answer>,
    ) -> bool {
        if let Some(k) = handle.ahead_of(&self.nodes[n].name) {
            self.answered_claim(n, k, answer);
            return true;
        }
        let node = &mut self.nodes[n];
        let is_running = node.pods.get(handle) == Some(&Pod::Running);
        if is_running && matches!(answer, Some(Answer::Given(_))) {
            node.ahead.records.remove(handle);
            node.ahead
                .claims
                .retain(|_, claim| !matches!(claim, Claim::Passing(to) if to == handle));
        }
        if node.pods.get(handle) == Some(&Pod::Stopping) && answer.is_some() {
            // What was not passed on yet is freed where it is.
            node.ahead.records.remove(handle);
            let passing = |claim: &Claim| matches!(claim, Claim::Passing(to) if to == handle);
            let of = node.ahead.claims.iter_mut().find(|(_, claim)| passing(claim));
            if let Some((k, claim)) = of {
                *claim = Claim::Going;
                let k = *k;
                self.free_claim(n, k);
            }
        }
        is_running
    }

    fn answered_claim(&mut self, n: usize, k: usize, answer: Option<&Answer>) {
        let node = &mut self.nodes[n];
        let Some(claim) = node.ahead.claims.get(&k) else { return };
        match (claim, answer) {
            (Claim::Asked, Some(Answer::Given(given))) => {
                let addresses: Vec<_> = given.iter().map(|given| given.addr).collect();
                let with = |all: &Vec<IpAddr>| all.iter().any(|addr| addresses.contains(addr));
                let of = node.ahead.records.iter().find(|(_, all)| with(all));
                let next = of.map(|(pod, _)| Claim::Passing(pod.clone()));
                node.ahead.claims.insert(k, next.unwrap_or(Claim::Held(addresses)));
            }
            (Claim::Asked, _) | (Claim::Going, Some(_)) => _ = node.ahead.claims.remove(&k),
            (Claim::Going, None) => self.free_claim(n, k),
            (Claim::Held(_) | Claim::Passing(_), _) => {}
        }
    }

    fn free_claim(&mut self, n: usize, k: usize) {
        let handle = self.ahead_handle(n, k);
        self.ask(n, handle.clone(), Ask::ReleaseHandle(handle));
    }

    /// What nobody has been given goes, so that what is left is the pods'.
    pub(super) fn give_back_ahead(&mut self) {
        for n in 0..self.nodes.len() {
            assert!(self.nodes[n].ahead.records.is_empty(), "never passed on");
            let held = |(k, claim): (&usize, &Claim)| matches!(claim, Claim::Held(_)).then_some(*k);
            let held: Vec<_> = self.nodes[n].ahead.claims.iter().filter_map(held).collect();
            for k in held {
                self.nodes[n].ahead.claims.insert(k, Claim::Going);
                self.free_claim(n, k);
            }
        }
        self.settle();
    }
}
