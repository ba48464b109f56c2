//! DELs in files: those that the plugin left while we were away, and those that are under way here.
//!
//! Between the removal of a pod's link and that of its record a killed agent would leave an address that
//! nobody asks for any more. So a DEL under way is in the spool too, and the next start does it again. Such
//! a file need not be durable: after a power failure there is no pod, and the record is reclaimed.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use russet_api::cni::{
    Text,
    spool::{SUFFIX, decode, encode, file_name},
    wire::Pod,
};
use russet_core::model::PodId;

use super::Key;
use crate::disk::Disk;

/// The folder of DELs.
#[derive(Debug)]
pub(super) struct Spool {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Files of what is under way.
    going: BTreeSet<String>,
}

impl Spool {
    pub(super) fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder, going: BTreeSet::new() }
    }

    /// The DELs that wait. A file that cannot be read was never acknowledged, and goes.
    pub(super) fn waiting(&self) -> Vec<Key> {
        let names = self.disk.list(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(path = %self.folder.display(), %error, op = "list spool");
            Vec::new()
        });
        let names =
            names.iter().filter(|name| name.ends_with(SUFFIX) && !self.going.contains(*name));
        names.filter_map(|name| self.read(&self.folder.join(name))).collect()
    }

    /// Whether a DEL of this attachment waits, or is under way.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.disk.read(&self.folder.join(file_name(&pod_of(key)))).is_ok()
    }

    fn read(&self, path: &Path) -> Option<Key> {
        let octets = self.disk.read(path).ok()?;
        match decode(&octets) {
            Ok(pod) => Some(key_of(&pod)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, op = "read spooled DEL");
                let _ = self.disk.remove(path);
                None
            }
        }
    }

    /// Notes that a DEL is under way.
    pub(super) fn begin(&mut self, key: &Key) -> io::Result<()> {
        let pod = pod_of(key);
        let name = file_name(&pod);
        let path = self.folder.join(&name);
        let draft = self.folder.join(format!("{name}.agent"));
        self.disk.make_folder(&self.folder)?;
        self.disk.write(&draft, &encode(&pod))?;
        self.disk.rename(&draft, &path)?;
        self.going.insert(name);
        Ok(())
    }

    /// Leaves a DEL that could not go on to the next time; its note stands.
    pub(super) fn put_off(&mut self, key: &Key) {
        self.going.remove(&file_name(&pod_of(key)));
    }

    /// Notes that a DEL is done.
    pub(super) fn end(&mut self, key: &Key) {
        let name = file_name(&pod_of(key));
        if let Err(error) = self.disk.remove(&self.folder.join(&name)) {
            tracing::warn!(path = %self.folder.display(), %error, op = "remove spooled DEL");
        }
        self.going.remove(&name);
    }
}

pub(super) fn key_of(pod: &Pod) -> Key {
    let id = PodId { container: pod.container.clone(), ifname: pod.ifname.0 };
    Key { network: pod.network.clone(), pod: id }
}

fn pod_of(key: &Key) -> Pod {
    let Key { network, pod } = key;
    Pod { network: network.clone(), container: pod.container.clone(), ifname: Text(pod.ifname) }
}
