//! Every serialised form and its conversion.
pub mod admin;
pub mod cni;
pub mod error;
pub mod flannel;
pub mod frame;
