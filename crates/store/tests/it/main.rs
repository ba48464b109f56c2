//! The client and the server against each other and against the real programs.
//!
//! Needs Debian's `etcd` and `etcdctl`; a missing one is a failure. Everything listens on loopback
//! at free ports, in directories that vanish with the test.

mod auth;
mod backend;
mod contract;
mod differential;
mod etcdctl;
mod hostile;
mod migrate;
mod proxy;
mod python;
mod server;
mod snapshot;
mod tls;
mod watch;
