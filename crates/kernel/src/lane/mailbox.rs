//! How wishes reach the lane: merged on the way, so that the queue is never longer than there are keys.

use std::{
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use russet_desired::{Flag, Patches};
use rustix::event::{EventfdFlags, eventfd};

use crate::{KernelError, netlink::NetlinkError};

/// Counts the patches that a lane was given; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// What waits for the lane. Readable when there is something.
#[derive(Debug)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    bell: OwnedFd,
}

/// Everything that was asked since the last look.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) patches: Patches,
    /// Of the newest patch in it, or before it.
    pub(super) generation: Generation,
    pub(super) complete: Option<Complete>,
    pub(super) resync: Option<Resync>,
    pub(super) stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Complete;
#[derive(Clone, Copy, Debug)]
pub(super) struct Resync;
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop;

impl Mail {
    pub(super) fn is_empty(&self) -> bool {
        self.patches.is_empty() && self.complete.is_none() && self.resync.is_none()
    }
}

impl Mailbox {
    pub(super) fn new() -> Result<Self, KernelError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = eventfd(0, flags).map_err(NetlinkError::from)?;
        Ok(Self { mail: Mutex::default(), bell })
    }

    /// Changes what waits, and wakes the lane.
    pub(super) fn post<T>(&self, change: impl FnOnce(&mut Mail) -> T) -> T {
        let result = change(&mut self.lock());
        // It can only be full of rings, which is as good.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        result
    }

    pub(super) fn patch(&self, newer: Patches) -> Generation {
        self.post(|mail| {
            mail.patches.merge(newer);
            mail.generation.0 += 1;
            mail.generation
        })
    }

    /// Takes all that waits. What comes after the bell was looked at rings it anew.
    pub(super) fn take(&self) -> Option<Mail> {
        rustix::io::read(&self.bell, &mut [0_u8; 8]).ok()?;
        let mut mail = self.lock();
        let generation = mail.generation;
        Some(mem::replace(&mut *mail, Mail { generation, ..Mail::default() }))
    }

    /// A panic of another thread cannot have left it half changed: all changes are single assignments or
    /// merges of whole patches.
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Mail {
    /// Whether the lane is to end.
    pub(super) fn stops(&self) -> Flag {
        self.stop.is_some().into()
    }
}
