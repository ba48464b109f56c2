//! How most drivers speak: one message for each key, written into one batch.

use std::fmt;

use russet_desired::Kind;

use crate::{
    KernelError,
    netlink::{Batch, NetlinkError, Socket},
    reconcile::{Refused, refuse_all},
};

/// Which refusals are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerate {
    Nothing,
    /// What is to be removed is gone already.
    Absence,
}

/// Writes a message for each item with `write` and sends them all. What `write` refuses is not sent.
pub(crate) fn send_each<K: Kind, I>(
    socket: &mut Socket,
    op: &'static str,
    tolerate: Tolerate,
    items: impl IntoIterator<Item = (K::Key, I)>,
    mut write: impl FnMut(&mut Batch, &K::Key, I) -> Result<(), NetlinkError>,
) -> Vec<Refused<K>>
where
    K::Key: fmt::Display,
{
    let mut batch = Batch::new();
    let mut sent = Vec::new();
    let mut refused = Vec::new();
    for (key, item) in items {
        match write(&mut batch, &key, item) {
            Ok(()) => sent.push(key),
            Err(err) => refused.push((key, err.into())),
        }
    }
    debug_assert_eq!(batch.len(), sent.len(), "one message for each key");
    match socket.batch(&mut batch) {
        Ok(outcomes) => {
            for (key, outcome) in sent.into_iter().zip(outcomes) {
                let Err(refusal) = outcome else { continue };
                let err = NetlinkError::refused(op, &key, refusal);
                if tolerate == Tolerate::Nothing || !err.is_not_found() {
                    refused.push((key, err.into()));
                }
            }
        }
        Err(err) => refused.extend(refuse_all::<K>(sent, &KernelError::from(err))),
    }
    refused
}
