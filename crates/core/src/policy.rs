//! What may pass, and under whose address. Orthogonal to the four choices.

pub mod forward;
pub mod masquerade;
