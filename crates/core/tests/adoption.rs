//! What is wished for when another system was on the node before.

mod common;

use common::{config, mac, ready, ready_with, settings};
use russet_core::model::{Backend, Preset, Settings};
use russet_desired::Tables;
use russet_net::Mac;

#[test]
fn a_device_and_a_bridge_keep_the_mac_that_peers_and_pods_know() {
    let macs = [("flannel.1", mac(0x11)), ("cni0", mac(0x12)), ("eth9", mac(0x13))];
    let macs = macs.map(|(name, mac)| (name.parse().unwrap(), mac)).into();
    let calc = ready_with(Settings { macs, ..settings() }, config(0));
    assert_eq!(mac_of(&calc.tables(), "flannel.1"), Some(mac(0x11)));
    assert_eq!(mac_of(&calc.tables(), "cni0"), Some(mac(0x12)));
    let lease = calc.world().in_force().unwrap().advertise();
    let Backend::Vxlan { v4: Some(vtep), .. } = lease.backend else { panic!("{lease:?}") };
    assert_eq!(vtep.mac, mac(0x11), "what the lease says is what the device has");
}

#[test]
fn an_address_that_no_station_can_have_is_not_kept() {
    let multicast: Mac = "01:00:5e:00:00:01".parse().unwrap();
    let macs = [("flannel.1".parse().unwrap(), multicast)].into();
    let calc = ready_with(Settings { macs, ..settings() }, config(0));
    let usual = ready(config(0));
    assert_eq!(mac_of(&calc.tables(), "flannel.1"), mac_of(&usual.tables(), "flannel.1"));
}

#[test]
fn only_under_flannel_s_preset_is_anything_of_flannel_s_taken_over() {
    for (preset, inherits) in [(Preset::Flannel, true), (Preset::Russet, false)] {
        let tables = ready_with(Settings { preset, ..settings() }, config(0)).tables();
        assert!(tables.links.values().all(|link| link.inherits.is_on() == inherits));
        let chains: Vec<_> = tables.leftovers.keys().map(ToString::to_string).collect();
        let wanted = [
            "ip filter FLANNEL-FWD",
            "ip flannel-ipv4 forward",
            "ip flannel-ipv4 postrtg",
            "ip nat FLANNEL-POSTRTG",
        ];
        assert_eq!(chains, if inherits { wanted.to_vec() } else { vec![] });
    }
}

fn mac_of(tables: &Tables, link: &str) -> Option<Mac> {
    tables.links[&link.parse().unwrap()].mac
}
