//! The userspace transports: a process that owns TUN and socket, and outlives the agent.
//!
//! ```text
//!   pods ─▶ TUN ─▶ outbound: split ─▶ table: whose? ─▶ outbox: trains ─▶ UDP socket ─▶ peer
//!   pods ◀─ TUN ◀─ inbound:  join  ◀─ admit: the peer's own? ◀───────── UDP socket ◀─ peer
//!                  agent ─▶ control: patches of peers, status, handing over
//! ```
//!
//! Packets move in batches: the kernel hands over TCP and UDP in one piece, `split` cuts it, `outbox` makes trains
//! that go out in one message; what came together is joined by `join` and handed to the kernel in one piece. The
//! wire is flannel's `udp`, the payload is the bare inner packet; or WireGuard's, where `tunnel` seals before the outbox and
//! opens before anything is admitted, and `clock` lets its time pass. `packet` looks at what is hostile, `icmp` is what
//! a sender of our own node is told, `table` finds the peer, `counters` counts.
//! `engine` has the threads, `control` the socket that they are managed by, `handover` the change of processes,
//! `succession` that of those who seal, with the `passage` between the two.

mod clock;
pub mod control;
pub mod counters;
pub mod engine;
mod greetings;
mod handover;
pub mod icmp;
mod inbound;
pub mod join;
pub mod key;
mod lull;
mod outbound;
pub mod outbox;
pub mod packet;
pub mod passage;
mod report;
#[cfg(test)]
mod samples;
pub mod shared;
pub mod socket;
pub mod split;
mod succession;
pub mod table;
pub mod tunnel;
pub mod virtio;
mod worker;

pub use self::handover::TakeOverError;
