//! The drivers against a real kernel, each test in a network namespace of its own that goes with it.
//!
//! They need root (or a user namespace) and the programs `ip` and `bridge`, which are the second opinion.
//! Without them a test fails and says so.

mod cost;
mod drivers;
mod inherit;
mod lane;
mod observe;
mod probe;
mod support;
