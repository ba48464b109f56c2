//! How much is kept for members that do not read.

/// Bounds of what a family's groups keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Octets of chunks, for each group. Beyond, the oldest go, and who has not read them walks the table.
    pub log_octets: usize,
    /// Destinations that a walk looks at in one go, so that nothing waits long and few octets are ready.
    pub walk: usize,
    /// The largest table that is encoded as a whole for who joins; in a larger one each walks.
    pub snapshot: usize,
    /// Destinations that are gone. Whoever would need more is too slow, and starts over with a new session.
    pub empty: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { log_octets: 16 * 1_024 * 1_024, walk: 16_384, snapshot: 1 << 21, empty: 1 << 20 }
    }
}
