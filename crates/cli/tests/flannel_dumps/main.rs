//! A node is put into the state that a running flanneld left on it, recorded from a real one
//! (`vectors/flannel/kernel`), and `russet flanneld` takes it over under traffic: no packet is lost, and what
//! the node shows afterwards differs only where the rules of adoption say.

mod dump;
mod listing;

use std::process::Command;

use self::{dump::Dump, listing::Listing};

#[test]
fn vxlan_is_taken_over() {
    replay("vxlan", Loses::Nothing);
}

#[test]
fn vxlan_of_both_families_is_taken_over() {
    replay("vxlan-dual", Loses::Nothing);
}

#[test]
fn vxlan_with_direct_routes_is_taken_over() {
    replay("vxlan-direct", Loses::Nothing);
}

#[test]
fn host_gw_is_taken_over() {
    replay("host-gw", Loses::Nothing);
}

/// The device of `udp` ends with the process that holds it, and its route with the device.
#[test]
fn udp_is_taken_over_once_flanneld_has_ended() {
    replay("udp", Loses::WhatFlanneldTookAlong);
}

/// What the swap itself may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loses {
    Nothing,
    WhatFlanneldTookAlong,
}

fn replay(name: &str, loses: Loses) {
    let dump = Dump::read(name);
    let place = tempfile::tempdir().expect("a folder");
    let file = place.path().join("topology.yaml");
    let topology = dump.topology(place.path(), loses == Loses::Nothing);
    std::fs::write(&file, topology.to_string()).expect("written");

    let out = Command::new(env!("CARGO_BIN_EXE_russet"))
        .args(["lab", "run"])
        .arg(&file)
        .output()
        .expect("start russet");
    let told = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    assert!(out.status.success(), "{}\n{}", told(&out.stdout), told(&out.stderr));

    let before = Listing::read(&place.path().join("before"));
    let after = Listing::read(&place.path().join("after"));
    before.has_what_is_flannels(&dump.listing());
    let after = match loses {
        Loses::Nothing => after,
        Loses::WhatFlanneldTookAlong => after.without("flannel0"),
    };
    after.equals(&before.taken_over(&dump.peers(), dump.bridge_mtu_after()));
}
