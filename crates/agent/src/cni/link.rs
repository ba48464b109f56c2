//! Which link is a pod's, where links are named after pods and not after attachments.

use std::path::PathBuf;

use russet_api::cni::{CniError, Code, wire::Asks};
use russet_core::model::PodNetwork;
use russet_kernel::pod::Marked;
use russet_net::IfName;

use super::{
    Key,
    add::Wanted,
    lane::Lane,
    name,
    note::{Asked, Note},
    one_line,
};

impl Lane {
    /// The name of the node's end for an ADD. A pod's second interface cannot have the name that the first one has.
    pub(super) fn choose_link(&self, key: &Key, network: &PodNetwork, asks: &Asks) -> IfName {
        if network.links != CALICO {
            return name::by_attachment(network.links, &key.network, &key.pod);
        }
        let of_attachment = || name::by_attachment(CALICO, &key.network, &key.pod);
        let Some(named) = name::as_calico(CALICO, asks.kubernetes(), &key.pod) else {
            return of_attachment();
        };
        // Without a pod's name it is the beginning of the container's, which another may have too.
        let unnamed = asks.kubernetes().is_none();
        let beside =
            |holder: &Key| holder != key && (unnamed || holder.pod.container == key.pod.container);
        if self.notes.holder(named).is_some_and(beside) { of_attachment() } else { named }
    }

    /// Takes the link's name for a new attachment, and returns the note that is to be made durable, if any.
    pub(super) fn take_link(
        &mut self,
        pod: &Wanted<'_>,
        asked: Asked,
    ) -> Result<Option<PathBuf>, CniError> {
        self.free_link(pod)?;
        let note = Note { host_link: pod.host, asked };
        self.notes.keep(pod.key, note).map_err(|err| {
            CniError::new(Code::RECORDS, "write note of pod").with_details(err.to_string())
        })
    }

    /// An older sandbox of the same pod that still has the link loses it, as with Calico: its pod is gone, and its DEL,
    /// whenever it comes, must not find the new one's. A name that only one attachment can have is left alone.
    fn free_link(&mut self, pod: &Wanted<'_>) -> Result<(), CniError> {
        let Key { network, pod: id } = pod.key;
        if pod.host == name::by_attachment(pod.network.links, network, id) {
            return Ok(());
        }
        if let Some(older) = self.notes.holder(pod.host).filter(|older| *older != pod.key) {
            tracing::info!(pod = %older, ifname = %pod.host, op = "take over link");
            self.core.detached(&older.pod);
        }
        let kernel = |err| CniError::new(Code::KERNEL, one_line(&err));
        let there = self.kernel.host_link(pod.host).map_err(kernel)?;
        if there.is_some() && self.kernel.mark(pod.host).map_err(kernel)? == Marked::Yes {
            self.kernel.remove_marked().map_err(kernel)?;
        }
        Ok(())
    }
}

/// What Calico's links begin with; they are named as Calico names them.
const CALICO: &str = "cali";
