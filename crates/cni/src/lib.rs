//! The CNI plugin: a short process with one thread and no state, between a runtime and the agent.
//!
//! ```text
//!   runtime ─▶ env + conf (api) ─▶ run ─▶ agent: connect, send, wait ─▶ result (api) ─▶ runtime
//!                                   │        ▲ namespace + netlink socket (netns)
//!                                   └▶ spool: a DEL that nobody could take
//! ```
//!
//! Under the names `calico` and `calico-ipam` it is Calico's two plugins: `calico` has what differs.
//! Under the name `flannel` it is flannel's plugin instead: `flannel` adds what `subnet.env` says and hands on, `delegate`
//! runs the plugin that does the work.
//!
//! `run` decides, `netns` enters the pod's namespace, `agent` asks, `spool` keeps a DEL for later, `install`
//! puts the plugin and its network where runtimes look for them.

mod agent;
mod calico;
mod delegate;
mod flannel;
pub mod install;
mod netns;
mod run;
pub mod spool;

pub use self::run::{Called, Printed, run};
