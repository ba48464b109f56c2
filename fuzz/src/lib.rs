//! Functions that take any bytes and must hold whatever they are.
//!
//! Each is a target: `cargo xtask fuzz NAME` looks for bytes that break it, guided by coverage, and the
//! tests replay `corpus/NAME/`, where bytes that were interesting once are kept. What breaks a target
//! becomes a file there.

mod bgp;
mod calico;
mod file;
pub mod raw;
mod selector;
mod wire;

pub use self::{
    bgp::{bgp_bfd, bgp_routes, bgp_session, bgp_stream},
    calico::api_calico,
    file::{store_file, store_snapshot},
    selector::net_selector,
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
    Target { name: "api_calico", run: api_calico },
    Target { name: "bgp_bfd", run: bgp_bfd },
    Target { name: "bgp_routes", run: bgp_routes },
    Target { name: "bgp_session", run: bgp_session },
    Target { name: "bgp_stream", run: bgp_stream },
    Target { name: "net_selector", run: net_selector },
    Target { name: "store_file", run: store_file },
    Target { name: "store_snapshot", run: store_snapshot },
    Target { name: "store_wire", run: store_wire },
];
