//! Every serialised form and its conversion.
pub mod admin;
pub mod bgp;
pub mod calico;
pub mod cni;
pub mod error;
pub mod flannel;
pub mod frame;
pub mod manifest;
