//! The RIB against its slow twin, and whole networks of RIBs on a virtual clock.

mod oracle;
mod simulation;
mod world;
