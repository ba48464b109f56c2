//! What each peer is told, encoded once for all that are told the same.
//!
//! ```text
//!   table ── changed ──▶ group ── select, policy, encode once ──▶ log of chunks ──▶ members, each a cursor
//!                          │                                        │
//!                          └── told: whose path is told ◀───────────┘ trimmed ──▶ a slow member walks the table
//! ```
//!
//! Peers with one [`Treatment`] form a [`Group`]. A flush encodes what has changed since the last one into
//! chunks: octets, shared, with an [`Audience`]. A path is not told to the peer that it is from, so a chunk of
//! one peer's routes is for all but that peer; and when the best path of a destination moves to a peer that
//! was told the former one, a withdrawal is for that peer only.
//!
//! A member is a place in the log. A chunk goes when all have read it, and the oldest go when there are too
//! many octets: who had not read them then walks the table for what changed since, and comes back to the log.
//! So nothing is queued per peer. Who joins reads a snapshot of the whole table, shared with others that join
//! at the time.
//!
//! *Why a walk is right.* It tells the state at the time a destination is visited, of every destination that
//! changed since the last chunk read; afterwards the chunks of later flushes are read from where the log stood
//! when the walk began. Chunks tell whole states, not differences, so one that is older than what the walk told
//! is followed by the newer one; and a chunk that leaves a member out is only ever preceded by one that took
//! the destination from it.

mod bounds;
mod chunk;
mod export;
mod group;
mod log;
mod member;
mod told;

pub use self::{
    bounds::Bounds,
    chunk::{Audience, Piece},
    export::{Scene, Treatment, learned},
    group::Group,
};
