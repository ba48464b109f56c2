//! A reconciler with its kind forgotten, so that all kinds stand in one row.

use std::{sync::Arc, time::Instant};

use russet_desired::{
    Address, Engine, EnginePeer, Fdb, Key, Kind, Link, Neighbour, NextHop, Offload, Patch, Patches,
    Port, Route, Sysctl, WireguardDevice, WireguardPeer,
};

use super::{Driver, News, Path, Reconciler};
use crate::{Host, KernelError, netlink::Message};

/// Where a kind's wishes stand in a patch, and its keys among all keys.
pub trait Slot: Kind {
    fn take(patches: &mut Patches) -> Patch<Self>
    where
        Self: Sized;
    fn key(key: Self::Key) -> Key;
}

macro_rules! slots {
    ($($kind:ident $field:ident),+ $(,)?) => {$(
        impl Slot for $kind {
            fn take(patches: &mut Patches) -> Patch<Self> {
                std::mem::take(&mut patches.$field)
            }

            fn key(key: Self::Key) -> Key {
                Key::$kind(key)
            }
        }
    )+};
}

slots! {
    Sysctl sysctls,
    Link links,
    Engine engines,
    EnginePeer engine_peers,
    WireguardDevice wireguard_devices,
    WireguardPeer wireguard_peers,
    Port ports,
    Offload offloads,
    Address addresses,
    Neighbour neighbours,
    Fdb fdb,
    NextHop next_hops,
    Route routes,
}

/// Who sent an event, asked for only when it matters.
pub(super) type Author<'a> = &'a mut dyn FnMut() -> Option<Arc<str>>;

/// One kind of the row. See [`Reconciler`] for what each method does.
pub(super) trait Part {
    fn name(&self) -> &'static str;
    fn update(&mut self, patches: &mut Patches);
    fn complete(&mut self);
    fn mark_stale(&mut self, path: Path);
    fn is_stale(&self) -> bool;
    fn resync(&mut self, host: &mut Host, now: Instant) -> Result<(), KernelError>;
    fn observe(&mut self, host: &Host, message: &Message<'_>, by: Author<'_>, now: Instant);
    fn retry(&mut self);
    fn upsert(&mut self, host: &mut Host, now: Instant);
    fn remove(&mut self, host: &mut Host);
    fn is_pending(&self) -> bool;
    fn refused(&self) -> usize;
    /// How many objects are wanted.
    fn wanted(&self) -> usize;
    fn take_news(&mut self, into: &mut Vec<News<Key>>);
}

impl<K: Slot, D: Driver<K, Context = Host>> Part for Reconciler<K, D> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn update(&mut self, patches: &mut Patches) {
        Self::update(self, K::take(patches));
    }

    fn complete(&mut self) {
        Self::complete(self);
    }

    fn mark_stale(&mut self, path: Path) {
        Self::mark_stale(self, path);
    }

    fn is_stale(&self) -> bool {
        Self::is_stale(self)
    }

    fn resync(&mut self, host: &mut Host, now: Instant) -> Result<(), KernelError> {
        Self::resync(self, host, now)
    }

    fn observe(&mut self, host: &Host, message: &Message<'_>, by: Author<'_>, now: Instant) {
        if let Some(seen) = self.driver().decode(host, message) {
            Self::observe(self, host, seen, by, now);
        }
    }

    fn retry(&mut self) {
        Self::retry(self);
    }

    fn upsert(&mut self, host: &mut Host, now: Instant) {
        Self::upsert(self, host, now);
    }

    fn remove(&mut self, host: &mut Host) {
        Self::remove(self, host);
    }

    fn is_pending(&self) -> bool {
        Self::is_pending(self)
    }

    fn refused(&self) -> usize {
        Self::refused(self).len()
    }

    fn wanted(&self) -> usize {
        self.desired().len()
    }

    fn take_news(&mut self, into: &mut Vec<News<Key>>) {
        into.extend(Self::take_news(self).into_iter().map(|news| match news {
            News::Failed(key, err) => News::Failed(K::key(key), err),
            News::Cleared(key) => News::Cleared(K::key(key)),
            News::Repaired(key, drift) => News::Repaired(K::key(key), drift),
        }));
    }
}
