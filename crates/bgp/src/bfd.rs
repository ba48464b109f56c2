//! Bidirectional forwarding detection (RFC 5880, 5881, 5882, 5883): says within milliseconds that a peer
//! is silent, where BGP's own hold time takes seconds.
//!
//! ```text
//!   datagram + its TTL ─▶ table: is it for us, which session ─▶ wire: is it well formed
//!                                                                  │
//!   Up, Down ◀── session: three-way handshake, timers, polls ◀─────┘
//! ```
//!
//! [`Sessions`] is what a shell holds. It feeds each datagram and each timeout with the time it happened,
//! drains [`Sessions::poll_output`] to `None`, and waits until [`Sessions::poll_timeout`] or the next
//! datagram. Asynchronous mode only: we never ask for demand mode, but obey a peer that does. There is no
//! echo, and a packet with authentication is refused, as is right where none is agreed (RFC 5880 §6.8.6).

mod session;
#[cfg(test)]
mod simulation;
mod table;
mod wire;

pub use self::{
    session::{Down, Input, Output, Role, Session, Timing},
    table::{Arrival, Hops, Path, Refusal, Sessions, TooManySessions},
    wire::{
        Detection, Diagnostic, Discriminator, Flags, Interval, LENGTH, Packet, PacketError, State,
    },
};
