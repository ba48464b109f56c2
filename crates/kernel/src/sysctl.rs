//! Kernel settings that we need and do not own.
//!
//! `/proc/sys/net` shows the network namespace of the thread that looks. A setting is written in the order
//! of its rank, read back, and never put back: what it was before is told once, for `status`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use russet_desired::{Sysctl, SysctlKey, SysctlSpec, Table};

use crate::{
    Host, KernelError,
    netlink::{Message, rt},
    reconcile::{Change, Driver, Events, Refused, Seen},
};

/// Keeps sysctls.
#[derive(Debug)]
pub struct SysctlDriver {
    root: PathBuf,
    before: BTreeMap<String, String>,
}

impl Default for SysctlDriver {
    fn default() -> Self {
        Self::below("/proc/sys")
    }
}

/// What a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SysctlActual {
    Is(String),
    /// The kernel does not have it.
    Absent,
}

impl SysctlDriver {
    /// A driver for the files below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), before: BTreeMap::new() }
    }

    /// What each setting was before we set it for the first time, by path.
    pub fn before(&self) -> &BTreeMap<String, String> {
        &self.before
    }

    fn read(&self, key: &SysctlKey) -> Result<SysctlActual, KernelError> {
        match fs::read_to_string(self.file(key)) {
            Ok(text) => Ok(SysctlActual::Is(text.trim().to_owned())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(SysctlActual::Absent),
            Err(err) => Err(KernelError::file("read sysctl", key, &err)),
        }
    }

    fn file(&self, key: &SysctlKey) -> PathBuf {
        let plain =
            |part: &std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        self.root.join(Path::new(&key.path).components().filter(plain).collect::<PathBuf>())
    }

    fn write(&mut self, change: &Change<Sysctl, SysctlActual>) -> Result<(), KernelError> {
        let there = self.read(&change.key)?;
        if let SysctlActual::Is(text) = there {
            self.before.entry(change.key.path.clone()).or_insert(text);
        }
        fs::write(self.file(&change.key), change.wanted.value)
            .map_err(|err| KernelError::file("write sysctl", &change.key, &err))
    }
}

impl Driver<Sysctl> for SysctlDriver {
    type Context = Host;
    type Actual = SysctlActual;
    const EVENTS: Events = Events::Anonymous;

    fn list_owned(
        &mut self,
        _: &mut Host,
        desired: &Table<Sysctl>,
    ) -> Result<BTreeMap<SysctlKey, SysctlActual>, KernelError> {
        // One that cannot be read is refused by its own name when it is written.
        let read = |key: &SysctlKey| Some((key.clone(), self.read(key).ok()?));
        Ok(desired.keys().filter_map(read).collect())
    }

    fn is_met(&self, _: &Host, _: &SysctlKey, wanted: &SysctlSpec, actual: &SysctlActual) -> bool {
        match actual {
            SysctlActual::Is(text) => text == wanted.value,
            SysctlActual::Absent => wanted.optional.is_on(),
        }
    }

    /// The changes come sorted by key, and a key begins with its rank.
    fn upsert(
        &mut self,
        _: &mut Host,
        changes: &[Change<Sysctl, SysctlActual>],
    ) -> Vec<Refused<Sysctl>> {
        let mut refused = Vec::new();
        for change in changes {
            if change.wanted.optional.is_on() && !self.file(&change.key).exists() {
                continue;
            }
            if let Err(err) = self.write(change) {
                refused.push((change.key.clone(), err));
            }
        }
        refused
    }

    fn remove(&mut self, _: &mut Host, _: &[SysctlKey]) -> Vec<Refused<Sysctl>> {
        Vec::new()
    }

    fn settled(&self, _: &Host, key: &SysctlKey, _: &SysctlSpec) -> Option<SysctlActual> {
        self.read(key).ok()
    }

    /// The kernel tells of forwarding and a few others, by index; the files are few, so all are read.
    fn decode(&self, _: &Host, message: &Message<'_>) -> Option<Seen<Sysctl, SysctlActual>> {
        (message.kind == rt::RTM_NEWNETCONF).then_some(Seen::Unclear)
    }
}
