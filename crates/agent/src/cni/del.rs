//! DEL: the link is marked to go, and what is left of the pod goes after it.
//!
//! ```text
//!   asked ─▶ spool note ─▶ link marked ─▶ answered ─▶ link gone ─▶ flows forgotten ─▶ record gone ─▶ note gone
//! ```
//!
//! At any point an agent that starts anew goes on from the note, the mark or the record.

use std::net::IpAddr;

use russet_api::cni::{CniError, Code};
use russet_kernel::pod::Marked;

use super::{
    Key,
    lane::{Lane, records_error},
    one_line,
    reap::{Going, forget},
};

impl Lane {
    /// Detaches a pod, known or not.
    pub(super) fn del(&mut self, key: &Key) -> Result<(), CniError> {
        self.unpark(key, "a DEL of it came");
        if self.going.contains_key(key) {
            return Ok(());
        }
        let found = self.records.find(&key.network, &key.pod);
        let addresses = found.map_err(|err| records_error(&err))?;
        self.core.detached(&key.pod);
        let host_link = self.notes.host_link(key);
        match self.kernel.mark(host_link) {
            Ok(Marked::Yes) => {
                self.let_go(key.clone(), addresses);
                Ok(())
            }
            Ok(Marked::Gone) => self.finish(key, &addresses),
            Err(err) if err.is_foreign() => {
                tracing::warn!(pod = %key, ifname = %host_link, error = one_line(&err), op = "leave link");
                self.finish(key, &addresses)
            }
            Err(err) => Err(CniError::new(Code::KERNEL, one_line(&err))),
        }
    }

    /// Hands a marked link to the reaper.
    pub(super) fn let_go(&mut self, key: Key, addresses: Vec<IpAddr>) {
        if let Err(error) = self.spool.begin(&key) {
            // Only an agent that is killed in the next moments would need it.
            tracing::warn!(pod = %key, %error, op = "note DEL");
        }
        self.generation += 1;
        self.going.insert(key.clone(), self.generation);
        self.reaper.take(Going { key, addresses, generation: self.generation });
    }

    /// A link is gone: the record goes, unless a newer attachment of the same name has it.
    pub(super) fn reaped(&mut self, gone: &Going) {
        if self.going.get(&gone.key) != Some(&gone.generation) {
            return;
        }
        self.going.remove(&gone.key);
        if let Err(err) = self.release(&gone.key) {
            tracing::warn!(pod = %gone.key, error = err.msg, op = "release pod address");
        }
    }

    /// Waits for what is being removed of an attachment, because it is to be made again.
    pub(super) fn finish_going(&mut self, key: &Key) -> Result<(), CniError> {
        if self.going.remove(key).is_none() {
            return Ok(());
        }
        let kernel = |err| CniError::new(Code::KERNEL, one_line(&err));
        self.kernel.remove_marked().map_err(kernel)?;
        let found = self.records.find(&key.network, &key.pod);
        let addresses = found.map_err(|err| records_error(&err))?;
        self.finish(key, &addresses)
    }

    /// There is no link: forgets the flows, then the record.
    fn finish(&mut self, key: &Key, addresses: &[IpAddr]) -> Result<(), CniError> {
        forget(self.core.as_ref(), addresses);
        self.release(key)
    }

    /// Gives back what an attachment has. With blocks that is done when the datastore has it back.
    pub(super) fn release(&mut self, key: &Key) -> Result<(), CniError> {
        if self.blocks.is_some() {
            return self.free(key);
        }
        self.forget(key)
    }

    /// Removes the record, and what else is on disk of an attachment.
    pub(super) fn forget(&mut self, key: &Key) -> Result<(), CniError> {
        let released = self.records.release(&key.network, &key.pod);
        released.map_err(|err| records_error(&err))?;
        if let Err(error) = self.notes.forget(key) {
            // It names a link that is gone; the next attachment of that name takes it over.
            tracing::warn!(pod = %key, %error, op = "remove note of pod");
        }
        self.spool.end(key);
        Ok(())
    }

    /// Does the DELs that came while nobody was there, or for which there was no room, and returns whose. One that fails
    /// stays for the next time.
    pub(super) fn drain_spool(&mut self) -> Vec<Key> {
        let mut done = Vec::new();
        if !self.takes_releases() {
            self.owe();
            return done;
        }
        for key in self.spool.waiting() {
            if !self.takes_releases() {
                self.owe();
                break;
            }
            match self.del(&key) {
                Ok(()) => {
                    tracing::info!(pod = %key, op = "do spooled DEL");
                    done.push(key);
                }
                Err(err) => tracing::warn!(pod = %key, error = err.msg, op = "do spooled DEL"),
            }
        }
        done
    }
}
