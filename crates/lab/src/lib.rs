//! A topology as a value: namespaces, processes, faults.
//!
//! A lab is a cluster in namespaces of its own. `topology` is the value, `world` builds and keeps it from within,
//! `control` is how it is asked, `scenario` plays steps and expectations as a client, `cli` is the command.
//! `probe` and `capture` are what is looked through: numbered packets, and packets decoded.

pub mod capture;
pub mod cli;
pub mod control;
pub mod probe;
mod programs;
pub mod rtnl;
pub mod scenario;
mod shadow;
mod space;
pub mod topology;
mod world;
