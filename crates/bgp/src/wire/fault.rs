//! What becomes of a message that is not as it should be (RFC 7606, RFC 7607).

use super::{Notification, Reason, attributes::name_of};

/// The worst that befell an UPDATE that could be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Good,
    /// Attributes are left out; the routes stand.
    Discard,
    /// The routes count as withdrawn.
    TreatAsWithdraw,
}

/// What is wrong with one attribute of an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", name_of(*attribute))]
pub struct AttributeFault {
    /// The attribute's type.
    pub attribute: u8,
    pub what: &'static str,
    pub outcome: Outcome,
}

/// A message that cannot be parsed: the session has to be closed, with this told to the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({reason})")]
pub struct Reset {
    pub reason: Reason,
    /// What RFC 4271 §6 asks to be sent back.
    pub data: Vec<u8>,
    pub what: &'static str,
}

impl Reset {
    pub(crate) const fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, data: Vec::new(), what }
    }

    pub(crate) fn with(reason: Reason, what: &'static str, data: &[u8]) -> Self {
        // What a peer sent goes back to it, but not without bound.
        let data = data.iter().copied().take(MOST_DATA).collect();
        Self { reason, data, what }
    }
}

impl From<Reset> for Notification {
    fn from(reset: Reset) -> Self {
        Self { reason: reset.reason, data: reset.data }
    }
}

const MOST_DATA: usize = 2_048;
