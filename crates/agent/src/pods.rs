//! The attach lane's view of the owner: what a pod is given, read without waiting; who came and went, told.

use std::{net::IpAddr, sync::Arc};

use russet_core::model::{PodFact, PodId, PodNetwork};
use russet_kernel::conntrack::Conntrack;
use tokio::sync::{mpsc, watch};

use crate::{
    cni::{Core, Existing, NotReady},
    one_line,
    owner::Input,
};

/// Hands the attach lane what the owner decided, and the owner what the attach lane did.
#[derive(Debug)]
pub struct PodDesk {
    given: watch::Receiver<Option<Arc<PodNetwork>>>,
    inputs: mpsc::Sender<Input>,
}

impl PodDesk {
    pub const fn new(
        given: watch::Receiver<Option<Arc<PodNetwork>>>,
        inputs: mpsc::Sender<Input>,
    ) -> Self {
        Self { given, inputs }
    }

    fn tell(&self, input: Input) {
        // The owner is gone only when the agent stops; a restart reads the records.
        let _ = self.inputs.blocking_send(input);
    }
}

impl Core for PodDesk {
    fn pod_network(&self) -> Result<PodNetwork, NotReady> {
        let given = self.given.borrow();
        given.as_deref().cloned().ok_or_else(|| NotReady {
            reason: "this node has no network configuration or no subnet yet; see russet status"
                .into(),
            existing: Existing::Fine,
        })
    }

    fn recovered(&self, pods: &[(PodId, PodFact)]) {
        self.tell(Input::Recovered(pods.to_vec()));
    }

    fn attached(&self, id: PodId, fact: PodFact) {
        self.tell(Input::Attached(id, fact));
    }

    fn detached(&self, id: &PodId) {
        self.tell(Input::Detached(id.clone()));
    }

    fn forget_flows(&self, addresses: &[IpAddr]) -> Result<(), String> {
        let addresses = addresses.iter().copied().collect();
        let forgotten = Conntrack::open().and_then(|mut flows| flows.forget(&addresses));
        forgotten.map(|_| ()).map_err(|err| one_line(&err))
    }
}
