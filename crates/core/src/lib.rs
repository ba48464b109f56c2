//! The pure middle: facts in, desired kernel state and store writes out.
//!
//! ```text
//!   Change ──▶ world::World ──▶ calc::Calc ──▶ desired::Patches ──▶ (kernel)
//!                                  │ asks
//!                 addressing  attachment  transport  distribution  policy
//!
//!   LeaseInput + time ──▶ lease::LeaseMachine ──▶ LeaseOutput (store writes as values)
//!   what is wanted + time ──▶ errand::Errands ──▶ which command of the operator's is run next
//! ```
//!
//! Nothing in here names a clock, a socket, a file, a thread or a source of randomness: `now` is an
//! argument, randomness is a seed. `model` has the words, `world` what is known, `calc` what follows from
//! it; the four choices of the design each have a module by their name, and `choices` says which of
//! their values go together.

pub mod addressing;
pub mod attachment;
pub mod calc;
pub mod change;
pub mod choices;
pub mod distribution;
pub mod errand;
pub mod error;
pub mod ipam;
pub mod lease;
pub mod model;
pub mod policy;
pub mod transport;
pub mod world;

pub use self::{
    calc::Calc,
    change::{Change, Fact, FactId, Source},
    error::{ConfigFault, Fault},
    world::World,
};
