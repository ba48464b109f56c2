//! Network namespaces and what is built by hand in them.
//!
//! `namespace` makes and enters them, `wire` writes the messages of rtnetlink, `rtnl` sends them and reads
//! what is there, `site` builds two nodes and their pods out of them, `state` compares two of those. Nothing here uses a driver of
//! Russet's: it is what Russet is held to, and only the socket and the byte writer are shared.

pub mod namespace;
pub mod objects;
pub mod rtnl;
pub mod site;
pub mod state;
pub mod wire;

pub use self::{namespace::Namespace, rtnl::Rtnl};
