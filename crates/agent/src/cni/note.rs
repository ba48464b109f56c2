//! What is remembered of an attachment besides its addresses, where that cannot be derived from its name.
//!
//! ```text
//! /var/lib/cni/networks/<network>/.russet-pod-<digest>    the attachment, its host link, what else it may send from
//! ```
//!
//! Calico names a pod's link after Kubernetes' names of the pod, which a DEL need not say; and the same name comes back with
//! every new sandbox of the pod, while the DEL of the old one may still be on its way. So a link belongs to the attachment
//! that took it last, and whoever had it before has none; its note says the rest until its DEL. A note is visible before the veth is made, durable
//! with the record, and goes with it. An attachment whose link has the usual name and that asks nothing has no
//! note.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
};

use russet_api::cni::{Text, digest, wire::Add};
use russet_core::model::PodId;
use russet_net::{IfName, Mac, Prefix};
use serde::{Deserialize, Serialize};

use super::{Key, name};
use crate::disk::Disk;

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) host_link: IfName,
    pub(super) asked: Asked,
}

/// What an ADD said of the pod that outlives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) allowed_sources: Vec<Prefix>,
    pub(super) named: Named,
    pub(super) mac: Option<Mac>,
}

/// What the runtime calls a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Named {
    /// An older agent did not note it.
    #[default]
    Unknown,
    /// By its container alone.
    Container,
    /// Namespace and name, as Kubernetes' runtime says them.
    Kubernetes(String, String),
}

impl Asked {
    pub(super) fn of(add: &Add) -> Self {
        let named = add.asks.kubernetes().map_or(Named::Container, |(namespace, pod)| {
            Named::Kubernetes(namespace.to_owned(), pod.to_owned())
        });
        Self {
            allowed_sources: add.asks.allowed_sources.iter().map(|source| source.0).collect(),
            named,
            mac: add.mac.map(|mac| mac.0),
        }
    }
}

/// The notes of all networks.
#[derive(Debug)]
pub(super) struct Notes {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    known: BTreeMap<Key, Note>,
}

/// What a file holds.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    container: String,
    ifname: Text<IfName>,
    host_link: Text<IfName>,
    allowed_sources: Vec<Text<Prefix>>,
    /// What follows an older agent did not write, and does not heed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kubernetes: Option<(String, String)>,
    /// That there is no name of Kubernetes', and not only none noted.
    #[serde(default)]
    unnamed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<Text<Mac>>,
}

impl Notes {
    pub(super) fn new(disk: Arc<dyn Disk>, root: PathBuf) -> Self {
        Self { disk, root, known: BTreeMap::new() }
    }

    /// Reads the notes of a network. What cannot be read says nothing, and goes.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub(super) fn load(&mut self, network: &str) -> io::Result<()> {
        let folder = self.root.join(network);
        for name in self.disk.list(&folder)?.iter().filter(|name| name.starts_with(NOTE)) {
            let path = folder.join(name);
            match read(network, &self.disk.read(&path)?) {
                Some((key, note)) => drop(self.known.insert(key, note)),
                None => self.disk.remove(&path)?,
            }
        }
        Ok(())
    }

    /// The node's end of an attachment's veth.
    pub(super) fn host_link(&self, key: &Key) -> IfName {
        let usual = || name::host_link(&key.network, &key.pod);
        self.known.get(key).map_or_else(usual, |note| note.host_link)
    }

    /// What its ADD said; nothing, where there is no note.
    pub(super) fn asked(&self, key: &Key) -> Asked {
        self.known.get(key).map(|note| note.asked.clone()).unwrap_or_default()
    }

    /// Whose link of that name is.
    pub(super) fn holder(&self, link: IfName) -> Option<&Key> {
        self.known.iter().find(|(_, note)| note.host_link == link).map(|(key, _)| key)
    }

    /// Keeps what is to be remembered, and returns the file that is to be made durable, if there is one.
    ///
    /// # Errors
    ///
    /// When the disk fails. There is no note then.
    pub(super) fn keep(&mut self, key: &Key, note: Note) -> io::Result<Option<PathBuf>> {
        if let Some(holder) = self.holder(note.host_link).filter(|holder| *holder != key).cloned() {
            // It has no link any more. What else is noted of it, its DEL asks for.
            let host_link = name::host_link(&holder.network, &holder.pod);
            self.write(&holder, Note { host_link, asked: self.asked(&holder) })?;
        }
        if note.asked.allowed_sources.is_empty()
            && note.host_link == name::host_link(&key.network, &key.pod)
        {
            self.forget(key)?;
            return Ok(None);
        }
        self.write(key, note).map(Some)
    }

    fn write(&mut self, key: &Key, note: Note) -> io::Result<PathBuf> {
        let path = self.path(key);
        let draft = path.with_file_name(format!("{DRAFT}{}", file_name(key)));
        self.disk.make_folder(&self.root.join(&key.network))?;
        self.disk.write(&draft, &written(key, &note))?;
        self.disk.rename(&draft, &path)?;
        self.known.insert(key.clone(), note);
        Ok(path)
    }

    /// Forgets the attachments of a network that have no record.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub(super) fn retain(&mut self, network: &str, pods: &BTreeSet<&PodId>) -> io::Result<()> {
        let stale = |key: &&Key| key.network == network && !pods.contains(&key.pod);
        let stale: Vec<Key> = self.known.keys().filter(stale).cloned().collect();
        stale.iter().try_for_each(|key| self.forget(key))
    }

    /// Forgets an attachment. That there is no note of it is success.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub(super) fn forget(&mut self, key: &Key) -> io::Result<()> {
        if self.known.contains_key(key) {
            self.disk.remove(&self.path(key))?;
            self.known.remove(key);
        }
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(&key.network).join(file_name(key))
    }
}

fn file_name(key: &Key) -> String {
    let Key { network, pod } = key;
    let hex = digest(&format!("{network}/{}/{}", pod.container, pod.ifname));
    format!("{NOTE}{}", &hex[..NAME_LEN])
}

fn written(key: &Key, note: &Note) -> Vec<u8> {
    let written = Written {
        version: VERSION,
        container: key.pod.container.clone(),
        ifname: Text(key.pod.ifname),
        host_link: Text(note.host_link),
        allowed_sources: note.asked.allowed_sources.iter().copied().map(Text).collect(),
        kubernetes: match &note.asked.named {
            Named::Kubernetes(namespace, pod) => Some((namespace.clone(), pod.clone())),
            Named::Container | Named::Unknown => None,
        },
        unnamed: note.asked.named == Named::Container,
        mac: note.asked.mac.map(Text),
    };
    // Texts and a number: nothing in it can fail to become JSON.
    serde_json::to_vec(&written).unwrap_or_default()
}

fn read(network: &str, octets: &[u8]) -> Option<(Key, Note)> {
    let written: Written = serde_json::from_slice(octets).ok()?;
    let pod = PodId { container: written.container, ifname: written.ifname.0 };
    let sources = written.allowed_sources.into_iter().map(|source| source.0).collect();
    let named = match written.kubernetes {
        Some((namespace, pod)) => Named::Kubernetes(namespace, pod),
        None if written.unnamed => Named::Container,
        None => Named::Unknown,
    };
    let asked = Asked { allowed_sources: sources, named, mac: written.mac.map(|mac| mac.0) };
    let note = Note { host_link: written.host_link.0, asked };
    (written.version == VERSION).then(|| (Key { network: network.to_owned(), pod }, note))
}

const VERSION: u32 = 1;
/// What a note's name begins with; no address does.
const NOTE: &str = ".russet-pod-";
/// As an unfinished record: what a killed agent leaves is removed with these.
const DRAFT: &str = ".russet-new-";
/// Hex digits of the 64 that a digest has.
const NAME_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Files;

    #[test]
    fn a_note_is_there_after_a_restart_and_gone_when_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut notes = Notes::new(Arc::new(Files), folder.path().to_owned());
        let mut note = note("cali82111e10a96", &["192.0.2.0/24"]);
        note.asked.named = Named::Kubernetes("shop".to_owned(), "web-1".to_owned());
        note.asked.mac = Some("02:00:00:00:00:01".parse().unwrap());
        assert!(notes.keep(&key("c1"), note.clone()).unwrap().is_some());

        let mut again = Notes::new(Arc::new(Files), folder.path().to_owned());
        assert_eq!(again.host_link(&key("c1")), name::host_link("net", &key("c1").pod), "not yet");
        again.load("net").unwrap();
        assert_eq!(again.host_link(&key("c1")), note.host_link);
        assert_eq!(again.asked(&key("c1")), note.asked);
        again.retain("other", &BTreeSet::new()).unwrap();
        again.retain("net", &BTreeSet::from([&key("c1").pod])).unwrap();
        assert_eq!(again.host_link(&key("c1")), note.host_link);
        again.retain("net", &BTreeSet::new()).unwrap();
        again.forget(&key("c1")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("net")).unwrap().count(), 0);
    }

    #[test]
    fn a_link_belongs_to_the_attachment_that_took_it_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut notes = Notes::new(Arc::new(Files), folder.path().to_owned());
        let mut first = note("cali1", &[]);
        first.asked.named = Named::Kubernetes("shop".into(), "web".into());
        notes.keep(&key("c1"), first).unwrap();
        notes.keep(&key("c2"), note("cali1", &[])).unwrap();
        assert_eq!(notes.holder("cali1".parse().unwrap()), Some(&key("c2")));
        assert_eq!(notes.host_link(&key("c1")), name::host_link("net", &key("c1").pod));
        // Whose it was before is not forgotten with it, also by a later life.
        let mut again = Notes::new(Arc::new(Files), folder.path().to_owned());
        again.load("net").unwrap();
        for notes in [&notes, &again] {
            assert_eq!(
                notes.asked(&key("c1")).named,
                Named::Kubernetes("shop".into(), "web".into())
            );
            assert_eq!(notes.host_link(&key("c1")), name::host_link("net", &key("c1").pod));
        }
    }

    #[test]
    fn what_is_as_usual_has_no_note_and_what_is_torn_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut notes = Notes::new(Arc::new(Files), folder.path().to_owned());
        let usual = name::host_link("net", &key("c1").pod);
        let kept = notes.keep(&key("c1"), note(usual.as_str(), &[])).unwrap();
        assert_eq!(kept, None);
        std::fs::create_dir(folder.path().join("net")).unwrap();
        let torn = folder.path().join("net").join(format!("{NOTE}0"));
        std::fs::write(&torn, "{").unwrap();
        notes.load("net").unwrap();
        assert!(!torn.exists());
    }

    fn key(container: &str) -> Key {
        let pod = PodId { container: container.to_owned(), ifname: "eth0".parse().unwrap() };
        Key { network: "net".to_owned(), pod }
    }

    fn note(link: &str, sources: &[&str]) -> Note {
        let allowed_sources = sources.iter().map(|text| text.parse().unwrap()).collect();
        let asked = Asked { allowed_sources, ..Asked::default() };
        Note { host_link: link.parse().unwrap(), asked }
    }

    #[test]
    fn a_note_of_an_older_agent_is_read() {
        let text = br#"{"version":1,"container":"c1","ifname":"eth0","host_link":"cali1","allowed_sources":[]}"#;
        let (read_key, read_note) = read("net", text).unwrap();
        assert_eq!((read_key, read_note), (key("c1"), note("cali1", &[])));
    }
}
