//! Functions that take any bytes and must hold whatever they are.
//!
//! Each is a target: `cargo xtask fuzz NAME` looks for bytes that break it, guided by coverage, and the
//! tests replay `corpus/NAME/`, where bytes that were interesting once are kept. What breaks a target
//! becomes a file there.

mod file;
pub mod raw;
mod wire;

pub use self::{
    file::{store_file, store_snapshot},
    wire::store_wire,
};

/// One that is looked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them. A folder of that name lies in `corpus/`.
pub const TARGETS: &[Target] = &[
    Target { name: "store_file", run: store_file },
    Target { name: "store_snapshot", run: store_snapshot },
    Target { name: "store_wire", run: store_wire },
];
