//! How a pod meets its node. `bridge` is the value that is there.

pub mod bridge;

/// Ranks of the sysctls, lowest first: what must be set before forwarding is turned on.
pub(crate) const RANK_BEFORE_FORWARDING: u8 = 0;
pub(crate) const RANK_FORWARDING: u8 = 10;
pub(crate) const RANK_DEVICE: u8 = 20;
