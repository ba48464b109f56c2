//! BGP peers by the hundred, and the speakers that reflect between them.
//!
//! ```text
//!   crowd: one thread, real TCP sessions ═══ veth ═══ speaker: Russet, BIRD or FRR
//!     10.9.1.0, 10.9.1.1, …                              10.9.0.1, port 179
//! ```
//!
//! The crowd's messages are encoded before the clock starts; what comes back is looked at no closer than is
//! needed to know which routes it has, so that the crowd is not what is measured. It tells its own time on a
//! processor besides.

mod client;
mod crowd;
mod routes;
mod speaker;

pub use self::{
    crowd::Crowd,
    routes::{Kind, Shape},
    speaker::{Program, Speaker, Stage},
};
