//! Drivers: what `desired` says, made so in one Linux kernel.
//!
//! Every driver lists what it owns, compares (a pure function), and applies the difference in batches. It
//! works from any starting point, so a restart, a crash and somebody's `ip route flush` are the same case.
//! Nothing in here is async: each lane is a plain thread on a blocking netlink socket.

pub mod address;
mod batch;
pub mod conntrack;
pub mod engine;
pub mod error;
pub mod fdb;
pub mod host;
pub mod lane;
pub mod legacy;
pub mod link;
pub mod monitor;
pub mod neighbour;
pub mod netlink;
pub mod netns;
pub mod next_hop;
pub mod nft;
pub mod observe;
pub mod offload;
pub mod pod;
pub mod port;
pub mod probe;
pub mod reconcile;
pub mod route;
pub mod sys;
pub mod sysctl;
pub mod trace;
pub mod tun;
pub mod wireguard;

pub use self::{
    error::{KernelError, one_line},
    host::Host,
};
