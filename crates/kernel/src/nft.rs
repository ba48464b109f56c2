//! `nf_tables` without a program: our tables, and our rules in the chains of others.
//!
//! One socket of `NETLINK_NETFILTER` carries everything (`kernel`); it owns our tables, so it lives as long
//! as the driver. What is wanted becomes steps (`plan`), steps become messages (`object`, `rule`, `expr`,
//! `interval`), and what the kernel refuses is left out and reported (`reconcile`). What others' chains do
//! to forwarded packets is in `foreign`, and `monitor` tells when somebody else changed something.
//!
//! ```text
//!  Patches ──▶ Nft ──▶ reconcile ──▶ plan ──▶ kernel ══▶ table russet (ip, ip6)
//!               │                                ║
//!               └─────▶ foreign ─────────────────╚═════▶ forward chains of others
//! ```

mod expr;
#[cfg(test)]
mod fake;
mod foreign;
mod found;
mod interval;
mod kernel;
mod leftover;
mod monitor;
pub(crate) mod number;
mod object;
mod plan;
mod reconcile;
mod rule;
pub(crate) mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::mem;

use russet_desired::{Key, Patches};
use russet_net::Family;

use self::{foreign::Foreign, kernel::Kernel, leftover::Leftovers, reconcile::Reconciler};
pub use self::{
    foreign::{COMMENT, DroppingChain, ForeignFamily, Why},
    kernel::Ownership,
    monitor::Monitor,
    reconcile::Refused,
};
use crate::{
    netlink::NetlinkError,
    reconcile::{DriftKind, Sync},
};

/// Everything of `nf_tables` in one network namespace. One thread owns it.
#[derive(Debug)]
pub struct Nft {
    ours: Reconciler<Kernel>,
    foreign: Foreign,
    leftovers: Leftovers,
}

impl Nft {
    /// Opens the socket in the thread's network namespace. Nothing is read or claimed yet.
    ///
    /// # Errors
    ///
    /// When the kernel has no netfilter netlink.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            ours: Reconciler::new(Kernel::open()?),
            foreign: Foreign::default(),
            leftovers: Leftovers::default(),
        })
    }

    /// A socket that tells when somebody else changed what concerns us.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or subscribed.
    pub fn monitor(&self) -> Result<Monitor, NetlinkError> {
        Monitor::open(self.ours.ruleset().port()?)
    }

    /// Takes the newer wishes about sets, elements, chains and foreign accepts out of `patches`. Cheap:
    /// the kernel is not touched until [`Self::apply`].
    pub fn update(&mut self, patches: &mut Patches) {
        self.ours.update(
            mem::take(&mut patches.sets),
            mem::take(&mut patches.elements),
            mem::take(&mut patches.chains),
        );
        self.foreign.update(mem::take(&mut patches.foreign_accepts));
        self.leftovers.update(mem::take(&mut patches.leftovers));
    }

    /// Says that every wish has been told, so what is ours and unwished may go.
    pub fn complete(&mut self) {
        self.ours.complete();
    }

    /// Reads the kernel back: at start, when the monitor says so, and on a deadline.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be listed. What was known stays.
    pub fn resync(&mut self) -> Result<(), NetlinkError> {
        self.ours.resync()?;
        self.foreign.resync(self.ours.ruleset_mut())
    }

    /// Sends what is missing or too much, and returns what was refused; that stays pending and is tried
    /// again by the next call.
    ///
    /// # Errors
    ///
    /// When the socket fails. Everything stays pending, and the next call reads back first.
    pub fn apply(&mut self) -> Result<Vec<Refused>, NetlinkError> {
        let mut refused = self.ours.apply()?;
        let sync = self.ours.sync();
        refused.extend(self.foreign.apply(self.ours.ruleset_mut(), sync)?);
        if sync == Sync::Complete && refused.is_empty() {
            refused.extend(self.leftovers.apply(self.ours.ruleset_mut())?);
        }
        Ok(refused)
    }

    /// What somebody else had changed or taken away and is as it should be again, since the last call.
    pub fn take_repaired(&mut self) -> Vec<(Key, DriftKind)> {
        let mut repaired = self.ours.take_repaired();
        repaired.append(&mut self.foreign.take_repaired());
        repaired
    }

    /// Whether others can change our table of that family.
    pub fn ownership(&self, family: Family) -> Ownership {
        self.ours.ruleset().ownership(family)
    }

    /// The foreign chains that drop forwarded packets, as of the last [`Self::resync`].
    pub fn dropping_chains(&self) -> Vec<DroppingChain> {
        self.foreign.dropping()
    }
}
