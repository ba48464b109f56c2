//! The datastore: the etcd API client and the embedded server.
//!
//! One contract ([`contract`]): *a snapshot, then every change in order; compare-and-swap writes;
//! leases that expire*. [`client`] speaks it to a real etcd cluster and to [`server`], the small
//! store in this crate that answers the same calls from one file. There is no second code path: the
//! lab, the tests and a large cluster differ only in what listens at the endpoint.
//!
//! ```text
//!  agent ── EtcdClient ──┐                     ┌── etcd
//!    ▲                   ├── etcd v3 (gRPC) ───┤
//!    └── WatchEvent ─ Watch                    └── server::serve (russet store)
//! ```

mod bolt;
pub mod client;
pub mod config;
pub mod contract;
pub mod error;
mod etcd_db;
pub mod migrate;
pub mod proto;
mod random;
pub mod server;
pub mod snapshot;

pub use client::{EtcdClient, Guard, Watch, Write};
pub use config::{ClientConfig, ClientSettings, ConfigFaults};
pub use contract::{
    CreateOutcome, Delivery, Expect, KeyChange, KeyValue, LeaseId, Part, Place, Revision,
    ServerRef, Snapshot, SnapshotReason, WatchEvent, WatchRequest, WriteOutcome,
};
pub use error::{Refusal, StoreError};
