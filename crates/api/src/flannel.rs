//! flannel's forms: the network configuration, the leases, and `subnet.env`.
//!
//! Byte for byte what flannel v0.28 writes and reads, so that either may run beside the other. Each file
//! converts one form by hand into the model's types and back; whatever comes in is hostile until then.
//! `net_conf` has the configuration, `lease_key` and `lease_value` the two halves of a lease in the store,
//! `subnet_env` the file that CNI plugins read, `folded` the one habit that all share: Go's JSON does not
//! mind the case of keys.

mod folded;
mod lease_key;
mod lease_value;
mod net_conf;
mod subnet_env;

pub use self::{
    lease_key::{Keys, StoreKey},
    lease_value::{read_lease, write_lease},
    net_conf::read_net_conf,
    subnet_env::SubnetEnv,
};
