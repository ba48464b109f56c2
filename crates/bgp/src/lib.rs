//! A BGP-4 speaker without I/O (RFC 4271): no clock, no socket, no thread.
//!
//! `wire` is what octets mean. What is received is hostile until `wire` has looked at it, and nothing in here
//! panics or allocates without bound on account of it.
//!
//! `fsm` is a session with one peer, `rib` the routes of all, with `bestpath`, `policy` and `reflector` to choose
//! and pass on, `update` what each peer is told; `speaker` puts what sessions say into the routes. `bfd` sees
//! whether a path is alive.

pub mod bestpath;
pub mod bfd;
pub mod fsm;
pub mod policy;
pub mod reflector;
pub mod rib;
pub mod speaker;
pub mod update;
pub mod wire;
