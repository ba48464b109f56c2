//! A core that says what it is told to say and remembers what it was told, and addresses and endpoints of no store.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use russet_core::{
    addressing::blocks::HandleId,
    model::{PodFact, PodId, PodNetwork, calico::Workload},
};
use tokio::sync::mpsc;

use super::{Core, Line, NotReady};
use crate::{
    endpoints::Say,
    ipam::{Ask, Deny, MOST_ASKS, Told, What, Wish},
};

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

/// Stands in for the task that has the addresses, one for each handle, out of `10.9.0.0/16`, and for the one that keeps the
/// pods' endpoints.
#[derive(Clone, Debug, Default)]
pub struct FakeAddresses(Arc<Mutex<Given>>);

#[derive(Debug, Default)]
struct Given {
    held: BTreeMap<HandleId, IpAddr>,
    recorded: BTreeSet<HandleId>,
    /// What the last one asked for.
    wish: Option<Wish>,
    /// Each pod's endpoint, by namespace and name.
    listed: BTreeMap<(String, String), Workload>,
    deny: Option<Deny>,
    /// What is to be answered later, when it says so.
    silent: bool,
    /// The same of endpoints.
    keeps_endpoints: bool,
    last: u16,
}

impl FakeAddresses {
    /// A line to it, for one life of the lane. It answers until the lane is gone.
    pub fn line(&self) -> Line {
        let (asks, mut asked) = mpsc::channel(MOST_ASKS);
        let (tell, told) = mpsc::channel(MOST_ASKS);
        let (says, said) = mpsc::channel(MOST_ASKS);
        let (this, tell_gone) = (self.clone(), tell.clone());
        thread::spawn(move || this.keep(said, &tell_gone));
        let this = self.clone();
        thread::spawn(move || {
            while let Some(ask) = asked.blocking_recv() {
                while held(&this.0).silent {
                    thread::sleep(Duration::from_millis(1));
                }
                let answer = held(&this.0).answer(ask);
                if answer.is_some_and(|answer| tell.blocking_send(answer).is_err()) {
                    return;
                }
            }
        });
        Line { asks, says, told }
    }

    fn keep(&self, mut said: mpsc::Receiver<Say>, tell: &mpsc::Sender<Told>) {
        let Ok(node) = NODE.parse() else { return };
        while let Some(say) = said.blocking_recv() {
            match say {
                Say::Attached(pod) => _ = held(&self.0).listed.insert(pod.names(&node), *pod),
                Say::Gone { ticket, pod } => {
                    while held(&self.0).keeps_endpoints {
                        // What a life of the lane has not been answered, the next one asks for anew.
                        if said.is_closed() {
                            return;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                    let name = pod.names(&node);
                    let mut state = held(&self.0);
                    if state.listed.get(&name).is_some_and(|it| it.container == pod.container) {
                        state.listed.remove(&name);
                    }
                    drop(state);
                    let _ = tell.blocking_send(Told { ticket, what: What::Unlisted });
                }
            }
        }
    }

    /// The endpoints that pods have, by namespace and name, of a node that is called `n1`.
    pub fn listed(&self) -> BTreeMap<(String, String), Workload> {
        held(&self.0).listed.clone()
    }

    pub fn forget_endpoints(&self) {
        held(&self.0).listed.clear();
    }

    /// Takes no endpoint away until it is told to.
    pub fn keep_endpoints(&self, keep: bool) {
        held(&self.0).keeps_endpoints = keep;
    }

    /// Says this to every ADD from now on; `None` is to serve them.
    pub fn deny(&self, deny: Option<Deny>) {
        held(&self.0).deny = deny;
    }

    /// Says nothing until it is told to speak again.
    pub fn be_silent(&self, silent: bool) {
        held(&self.0).silent = silent;
    }

    /// What the last pod that was to be given addresses asked of them.
    pub fn wish(&self) -> Option<Wish> {
        held(&self.0).wish.clone()
    }

    /// Who has which address.
    pub fn held(&self) -> BTreeMap<String, IpAddr> {
        held(&self.0).held.iter().map(|(handle, addr)| (handle.to_string(), *addr)).collect()
    }

    /// The handles that the lane said it has records of when it started last.
    pub fn recorded(&self) -> Vec<String> {
        held(&self.0).recorded.iter().map(ToString::to_string).collect()
    }
}

const NODE: &str = "n1";

impl Given {
    fn answer(&mut self, ask: Ask) -> Option<Told> {
        match ask {
            Ask::Recorded(recorded) => {
                self.recorded = recorded.into_keys().collect();
                None
            }
            Ask::Give { ticket, handle, wish, .. } => {
                self.wish = Some(wish);
                let what = if let Some(deny) = &self.deny {
                    What::Denied(deny.clone())
                } else {
                    self.last += 1;
                    let [high, low] = self.last.to_be_bytes();
                    let fresh = IpAddr::from([10, 9, high, low]);
                    What::Given(vec![*self.held.entry(handle).or_insert(fresh)])
                };
                Some(Told { ticket, what })
            }
            Ask::Free { ticket, handle } => {
                self.held.remove(&handle);
                ticket.map(|ticket| Told { ticket, what: What::Freed })
            }
        }
    }
}
