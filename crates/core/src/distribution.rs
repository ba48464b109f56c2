//! How a node learns where the others' addresses are. `store` is the value that is there: every node's
//! lease says it.

pub mod bgp;
pub mod store;
