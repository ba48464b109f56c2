//! Netlink, spoken directly: many messages to a system call, errors by message.
//!
//! `message` writes and reads the bytes, `socket` carries them, `error` says what was refused. The words
//! of each family (what a route or a link looks like) belong to its driver. The messages are our own and
//! not `netlink-packet-route`'s, because that has no next-hop objects and no `nf_tables`, and because
//! writing straight into one buffer spares several allocations for each of 30,000 objects.

mod error;
mod message;
pub(crate) mod rt;
mod socket;

pub use self::{
    error::{NetlinkError, Refusal},
    message::{Attr, Attrs, Batch, Message, Messages, Writer, flags},
    socket::{Outcome, Protocol, ReceiveBuffer, Sent, Socket},
};
