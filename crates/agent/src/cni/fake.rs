//! A core that says what it is told to say and remembers what it was told.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use russet_core::model::{PodFact, PodId, PodNetwork};

use super::{Core, NotReady};

/// Stands in for the agent.
#[derive(Debug)]
pub struct FakeCore {
    network: Mutex<Result<PodNetwork, NotReady>>,
    pods: Mutex<BTreeMap<PodId, PodFact>>,
    forgotten: Mutex<Vec<IpAddr>>,
}

impl FakeCore {
    pub fn new(network: Result<PodNetwork, NotReady>) -> Self {
        Self { network: Mutex::new(network), pods: Mutex::default(), forgotten: Mutex::default() }
    }

    /// Changes what is said from now on.
    pub fn say(&self, network: Result<PodNetwork, NotReady>) {
        *held(&self.network) = network;
    }

    /// The pods that are attached.
    pub fn pods(&self) -> BTreeMap<PodId, PodFact> {
        held(&self.pods).clone()
    }

    /// The addresses whose flows were to be forgotten, in order.
    pub fn forgotten(&self) -> Vec<IpAddr> {
        held(&self.forgotten).clone()
    }
}

impl Core for FakeCore {
    fn pod_network(&self) -> Result<PodNetwork, NotReady> {
        held(&self.network).clone()
    }

    fn recovered(&self, pods: &[(PodId, PodFact)]) {
        held(&self.pods).extend(pods.iter().cloned());
    }

    fn attached(&self, id: PodId, fact: PodFact) {
        held(&self.pods).insert(id, fact);
    }

    fn detached(&self, id: &PodId) {
        held(&self.pods).remove(id);
    }

    fn forget_flows(&self, addresses: &[IpAddr]) -> Result<(), String> {
        held(&self.forgotten).extend(addresses);
        Ok(())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
