//! Who has which address, on disk, in host-local's layout.
//!
//! ```text
//! /var/lib/cni/networks/<network>/10.50.7.9           containerID CR LF ifname
//!                                 last_reserved_ip.0  10.50.7.9       (.1 for the second subnet)
//!                                 lock                flock while something changes
//!                                 .russet-boot        ours: the boot in which the records were made
//! ```
//!
//! host-local can release what we took, and we what it took, so what is remembered here is only which file
//! names whom, and a file is read again before it is believed. A record gets its name when it is complete,
//! so a killed agent leaves none that says nothing. It is *visible* before the pod's veth is made, and
//! *durable* before the ADD is answered: [`Records::sync`] runs beside the kernel's work, because a power
//! failure takes the veth with it. A record that is removed need not be durably so: if it comes back after a
//! power failure, no pod lives any more, and [`Records::reclaim`] removes it again.
//!
//! A folder is ours when it has the boot's mark. Others, of other plugins, are neither listed nor reclaimed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use russet_core::{
    ipam::{self, Assigned, InUse, IpamError},
    model::PodId,
};
use russet_net::Prefix;

use crate::disk::{Disk, Lock, replace};

/// The pod records of all networks below one folder.
#[derive(Debug)]
pub struct Records {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    boot: String,
    networks: BTreeMap<String, Known>,
}

/// What is remembered of one network's files.
#[derive(Debug, Default)]
struct Known {
    /// Whether the folder and its mark were seen in this life.
    marked: bool,
    owners: BTreeMap<IpAddr, Owner>,
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner(String);

/// Why a record is not made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{op} {}", path.display())]
    Disk { op: &'static str, path: PathBuf, source: io::Error },
    #[error("pod address")]
    Ipam(#[from] IpamError),
    #[error("address {addr} is recorded for {}", by.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string))]
    Held { addr: IpAddr, by: Option<PodId> },
}

/// What was found on disk of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `None` when the file names no pod: it is torn, or of a form that we do not know.
    pub pod: Option<PodId>,
    pub addresses: Vec<IpAddr>,
}

/// What must be synced before an ADD is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsynced {
    pub files: Vec<PathBuf>,
    pub folder: PathBuf,
}

/// Whether the records of a network were made since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    Same,
    /// No pod of that time lives.
    Earlier,
}

impl Records {
    /// `root` is host-local's folder, `boot` what the kernel calls its present life.
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf, boot: impl Into<String>) -> Self {
        Self { disk, root, boot: boot.into(), networks: BTreeMap::new() }
    }

    /// Takes an address in each subnet for a pod. It is visible to others when this returns, and durable
    /// after [`Self::sync`].
    ///
    /// # Errors
    ///
    /// When there is none, or the disk fails. Nothing stays taken then.
    pub fn reserve(
        &mut self,
        network: &str,
        pod: &PodId,
        subnets: &[Prefix],
        asked: &[IpAddr],
    ) -> Result<(Vec<Assigned>, Unsynced), RecordError> {
        let folder = self.root.join(network);
        self.mark(network)?;
        let _lock = self.lock(&folder)?;
        self.refresh(network)?;
        let taken = self.known(network).owners.keys().copied().collect();
        let last = (0..subnets.len()).map(|n| self.last(&folder, n)).collect();
        let assigned = ipam::assign(subnets, &InUse { taken, last }, asked)?;
        let taken: Vec<IpAddr> = assigned.iter().map(|one| one.addr).collect();
        let files = self.write_all(&folder, pod, &taken)?;
        let owners = assigned.iter().map(|one| (one.addr, Owner::of(pod)));
        self.known(network).owners.extend(owners);
        for (n, one) in assigned.iter().enumerate() {
            // Only a hint where to go on; without it the search begins at the first address. A fresh file,
            // because ext4 takes milliseconds to write over one (`auto_da_alloc`).
            let path = folder.join(last_name(n));
            let _ = self.disk.remove(&path);
            let _ = self.disk.write(&path, one.addr.to_string().as_bytes());
        }
        Ok((assigned, Unsynced { files, folder }))
    }

    /// Records exactly these addresses for a pod, and no others. They are visible to others when this returns, and
    /// durable after [`Self::sync`].
    ///
    /// # Errors
    ///
    /// When one is recorded for another pod, or the disk fails. Nothing new stays taken then.
    pub fn record(
        &mut self,
        network: &str,
        pod: &PodId,
        addresses: &[IpAddr],
    ) -> Result<Unsynced, RecordError> {
        let folder = self.root.join(network);
        self.mark(network)?;
        let _lock = self.lock(&folder)?;
        self.refresh(network)?;
        for addr in addresses {
            // What is remembered may have been released and given by somebody else.
            match self.read(&folder.join(addr.to_string()))? {
                Some(owner) if !owner.is(pod) => {
                    return Err(RecordError::Held { addr: *addr, by: owner.pod() });
                }
                _ => {}
            }
        }
        let old = self.owned_by(network, pod)?;
        let files = self.write_all(&folder, pod, addresses)?;
        self.known(network).owners.extend(addresses.iter().map(|addr| (*addr, Owner::of(pod))));
        for addr in old.into_iter().filter(|addr| !addresses.contains(addr)) {
            self.erase(network, addr)?;
        }
        Ok(Unsynced { files, folder })
    }

    /// Makes what was reserved durable. Any number of threads may do so.
    ///
    /// # Errors
    ///
    /// When the disk fails; the ADD must not be acknowledged then.
    pub fn sync(disk: &dyn Disk, what: &Unsynced) -> io::Result<()> {
        what.files.iter().try_for_each(|file| disk.sync(file))?;
        disk.sync_folder(&what.folder)
    }

    /// The addresses of a pod.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn find(&mut self, network: &str, pod: &PodId) -> Result<Vec<IpAddr>, RecordError> {
        self.refresh(network)?;
        self.owned_by(network, pod)
    }

    /// Gives a pod's addresses back. That it has none is success.
    ///
    /// # Errors
    ///
    /// When the disk fails; what could not be removed stays taken.
    pub fn release(&mut self, network: &str, pod: &PodId) -> Result<Vec<IpAddr>, RecordError> {
        let folder = self.root.join(network);
        if self.list(&folder)?.is_empty() {
            return Ok(Vec::new());
        }
        let _lock = self.lock(&folder)?;
        self.refresh(network)?;
        let mut found = self.owned_by(network, pod)?;
        if found.is_empty() {
            // Somebody may have given a file that we know another owner.
            self.known(network).owners.clear();
            self.refresh(network)?;
            found = self.owned_by(network, pod)?;
        }
        for ip in &found {
            self.erase(network, *ip)?;
        }
        Ok(found)
    }

    /// The networks whose records are ours.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn networks(&self) -> Result<Vec<String>, RecordError> {
        let mut ours = Vec::new();
        for name in self.list(&self.root)? {
            if self.disk.read(&self.root.join(&name).join(BOOT)).is_ok() {
                ours.push(name);
            }
        }
        Ok(ours)
    }

    /// Every record of a network, read anew, and what a killed agent left half done removed.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn read_all(&mut self, network: &str) -> Result<(Boot, Vec<Record>), RecordError> {
        let folder = self.root.join(network);
        let _lock = self.lock(&folder)?;
        for draft in self.list(&folder)?.iter().filter(|name| name.starts_with(DRAFT)) {
            let path = folder.join(draft);
            self.disk.remove(&path).map_err(told("remove", &path))?;
        }
        self.known(network).owners.clear();
        self.refresh(network)?;
        let boot = self.boot_of(&folder);
        Ok((boot, self.records(network)))
    }

    /// After a reboot: releases every record that `lives` does not vouch for, then says that the records
    /// are of this boot. What was made in this boot is never touched.
    ///
    /// # Errors
    ///
    /// When the disk fails. It can be done again.
    pub fn reclaim(
        &mut self,
        network: &str,
        lives: impl Fn(&PodId) -> bool,
    ) -> Result<Vec<IpAddr>, RecordError> {
        let (boot, records) = self.read_all(network)?;
        if boot == Boot::Same {
            return Ok(Vec::new());
        }
        let _lock = self.lock(&self.root.join(network))?;
        let dead = records.into_iter().filter(|record| !record.pod.as_ref().is_some_and(&lives));
        let dead: Vec<IpAddr> = dead.flat_map(|record| record.addresses).collect();
        for ip in &dead {
            self.erase(network, *ip)?;
        }
        self.write_mark(network)?;
        Ok(dead)
    }

    /// The pods whose records [`Self::reclaim`] would release.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn dead(
        &mut self,
        network: &str,
        lives: impl Fn(&PodId) -> bool,
    ) -> Result<Vec<PodId>, RecordError> {
        let (boot, records) = self.read_all(network)?;
        if boot == Boot::Same {
            return Ok(Vec::new());
        }
        let pods = records.into_iter().filter_map(|record| record.pod);
        Ok(pods.filter(|pod| !lives(pod)).collect())
    }

    fn records(&self, network: &str) -> Vec<Record> {
        let mut by_owner: BTreeMap<&Owner, Vec<IpAddr>> = BTreeMap::new();
        for (ip, owner) in self.networks.get(network).into_iter().flat_map(|known| &known.owners) {
            by_owner.entry(owner).or_default().push(*ip);
        }
        by_owner
            .into_iter()
            .map(|(owner, addresses)| Record { pod: owner.pod(), addresses })
            .collect()
    }

    /// The addresses whose files name the pod now.
    fn owned_by(&mut self, network: &str, pod: &PodId) -> Result<Vec<IpAddr>, RecordError> {
        let folder = self.root.join(network);
        let owners = &self.known(network).owners;
        let known: Vec<IpAddr> =
            owners.iter().filter(|(_, owner)| owner.is(pod)).map(|(ip, _)| *ip).collect();
        let mut found = Vec::new();
        for ip in known {
            match self.read(&folder.join(ip.to_string()))? {
                Some(owner) if owner.is(pod) => found.push(ip),
                Some(owner) => drop(self.known(network).owners.insert(ip, owner)),
                None => drop(self.known(network).owners.remove(&ip)),
            }
        }
        Ok(found)
    }

    fn erase(&mut self, network: &str, ip: IpAddr) -> Result<(), RecordError> {
        let path = self.root.join(network).join(ip.to_string());
        self.disk.remove(&path).map_err(told("remove", &path))?;
        self.known(network).owners.remove(&ip);
        Ok(())
    }

    /// Learns which files came and which went since the last look.
    fn refresh(&mut self, network: &str) -> Result<(), RecordError> {
        let folder = self.root.join(network);
        let there: BTreeSet<IpAddr> =
            self.list(&folder)?.iter().filter_map(|name| name.parse().ok()).collect();
        self.known(network).owners.retain(|ip, _| there.contains(ip));
        for ip in there {
            if self.known(network).owners.contains_key(&ip) {
                continue;
            }
            if let Some(owner) = self.read(&folder.join(ip.to_string()))? {
                self.known(network).owners.insert(ip, owner);
            }
        }
        Ok(())
    }

    /// Writes a record for each address, or none.
    fn write_all(
        &self,
        folder: &Path,
        pod: &PodId,
        addresses: &[IpAddr],
    ) -> Result<Vec<PathBuf>, RecordError> {
        let mut written = Vec::new();
        for addr in addresses {
            let name = addr.to_string();
            let (draft, path) = (folder.join(format!("{DRAFT}{name}")), folder.join(&name));
            let done = self
                .disk
                .write(&draft, Owner::of(pod).0.as_bytes())
                .and_then(|()| self.disk.rename(&draft, &path));
            if let Err(source) = done {
                // Best effort: what stays is named after us, and goes with the DEL that follows.
                for path in written.iter().chain([&draft]) {
                    let _ = self.disk.remove(path);
                }
                return Err(RecordError::Disk { op: "write", path, source });
            }
            written.push(path);
        }
        Ok(written)
    }

    /// Makes the folder ours, before the first record in it.
    fn mark(&mut self, network: &str) -> Result<(), RecordError> {
        if self.known(network).marked {
            return Ok(());
        }
        let folder = self.root.join(network);
        self.disk.make_folder(&folder).map_err(told("make", &folder))?;
        match self.disk.read(&folder.join(BOOT)) {
            Ok(_) => self.known(network).marked = true,
            Err(_) => self.write_mark(network)?,
        }
        Ok(())
    }

    fn write_mark(&mut self, network: &str) -> Result<(), RecordError> {
        let path = self.root.join(network).join(BOOT);
        replace(self.disk.as_ref(), &path, self.boot.as_bytes()).map_err(told("write", &path))?;
        self.known(network).marked = true;
        Ok(())
    }

    fn boot_of(&self, folder: &Path) -> Boot {
        match self.disk.read(&folder.join(BOOT)) {
            Ok(boot) if boot == self.boot.as_bytes() => Boot::Same,
            _ => Boot::Earlier,
        }
    }

    fn last(&self, folder: &Path, n: usize) -> Option<IpAddr> {
        let octets = self.disk.read(&folder.join(last_name(n))).ok()?;
        str::from_utf8(&octets).ok()?.trim().parse().ok()
    }

    fn read(&self, path: &Path) -> Result<Option<Owner>, RecordError> {
        match self.disk.read(path) {
            Ok(octets) => Ok(Some(Owner::read(&octets))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Disk { op: "read", path: path.to_owned(), source }),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, RecordError> {
        self.disk.list(folder).map_err(told("list", folder))
    }

    fn lock(&self, folder: &Path) -> Result<Lock, RecordError> {
        self.disk.lock(folder).map_err(told("lock", folder))
    }

    fn known(&mut self, network: &str) -> &mut Known {
        self.networks.entry(network.to_owned()).or_default()
    }
}

impl Owner {
    /// As host-local 1.1 writes it.
    fn of(pod: &PodId) -> Self {
        Self(format!("{}\r\n{}", pod.container, pod.ifname))
    }

    fn read(octets: &[u8]) -> Self {
        Self(String::from_utf8_lossy(octets).trim().to_owned())
    }

    /// host-local before 0.7 wrote the container alone; such a record is every interface's.
    fn is(&self, pod: &PodId) -> bool {
        self.0 == pod.container || *self == Self::of(pod)
    }

    fn pod(&self) -> Option<PodId> {
        let (container, ifname) = self.0.split_once("\r\n")?;
        Some(PodId { container: container.to_owned(), ifname: ifname.parse().ok()? })
    }
}

fn last_name(n: usize) -> String {
    format!("last_reserved_ip.{n}")
}

fn told(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::Disk { op, path, source }
}

/// The boot in which a folder's records were made; its presence makes the folder ours.
const BOOT: &str = ".russet-boot";
/// What an unfinished record's name begins with; no address does.
const DRAFT: &str = ".russet-new-";

#[cfg(test)]
mod tests;
