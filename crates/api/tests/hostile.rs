//! Whatever comes from outside, nothing panics and what is accepted is in range.

use proptest::prelude::*;
use russet_api::flannel::{Keys, StoreKey, SubnetEnv, read_lease, read_net_conf, write_lease};
use russet_core::model::Preset;

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_net_conf(&bytes, Preset::Flannel);
        let _ = read_lease(&bytes);
        let _ = Keys::default().read(&bytes);
        let _ = SubnetEnv::read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn almost_a_configuration_never_panics(text in net_conf()) {
        for preset in [Preset::Flannel, Preset::Russet] {
            if let Ok(config) = read_net_conf(text.as_bytes(), preset) {
                for pool in config.pools() {
                    prop_assert!(pool.network().covers(pool.min()), "{}", text);
                    prop_assert!(pool.network().covers(pool.max()), "{}", text);
                    prop_assert!(pool.subnets().next().is_some_and(|subnet| pool.gives(subnet)));
                }
            }
        }
    }

    #[test]
    fn a_lease_that_is_read_is_written_and_read_again(text in lease()) {
        if let Ok(lease) = read_lease(text.as_bytes()) {
            let written = write_lease(&lease);
            let again = read_lease(written.as_bytes()).unwrap();
            prop_assert_eq!(again.public_ip, lease.public_ip);
            prop_assert_eq!(again.public_ipv6, lease.public_ipv6);
            prop_assert_eq!(write_lease(&again), written);
        }
    }

    #[test]
    fn a_key_that_is_read_is_written_again(name in "[0-9a-f:.&-]{0,40}") {
        let keys = Keys::default();
        let text = format!("/coreos.com/network/subnets/{name}");
        if let StoreKey::Lease(key) = keys.read(text.as_bytes()) {
            prop_assert_eq!(keys.lease(key), text);
        }
    }
}

/// Objects with the right keys and values of every kind.
fn net_conf() -> impl Strategy<Value = String> {
    let keys = [
        "Network",
        "SubnetLen",
        "SubnetMin",
        "SubnetMax",
        "EnableIPv4",
        "EnableIPv6",
        "IPv6Network",
        "IPv6SubnetLen",
        "IPv6SubnetMin",
        "IPv6SubnetMax",
    ];
    let backend = object(&["Type", "VNI", "Port", "MTU", "DirectRouting"]);
    (object(&keys), backend).prop_map(|(conf, backend)| {
        let comma = if conf.len() > 2 { "," } else { "" };
        format!("{}{comma}\"Backend\":{backend}}}", conf.trim_end_matches('}'))
    })
}

fn lease() -> impl Strategy<Value = String> {
    let data = object(&["VNI", "VtepMAC"]);
    (object(&["PublicIP", "PublicIPv6", "BackendType"]), data).prop_map(|(lease, data)| {
        let comma = if lease.len() > 2 { "," } else { "" };
        format!("{}{comma}\"BackendData\":{data}}}", lease.trim_end_matches('}'))
    })
}

fn object(keys: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    let members: Vec<_> =
        keys.iter().map(|key| prop::option::weighted(0.6, (Just(*key), value()))).collect();
    members.prop_map(|members| {
        let members =
            members.into_iter().flatten().map(|(key, value)| format!("\"{key}\":{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

fn value() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "10.50.0.0/16",
        "0.0.0.0/0",
        "255.255.255.0/24",
        "10.50.0.0/28",
        "fd00:50::/48",
        "::/0",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:0/124",
        "10.50.7.0",
        "255.255.255.255",
        "fd77::1",
        "::ffff:1.2.3.4",
        "vxlan",
        "host-gw",
        "02:00:00:00:00:01",
        "",
    ]);
    prop_oneof![
        4 => word.prop_map(|word| format!("\"{word}\"")),
        2 => any::<i64>().prop_map(|n| n.to_string()),
        2 => (0..130_u8).prop_map(|n| n.to_string()),
        1 => any::<bool>().prop_map(|b| b.to_string()),
        1 => any::<f64>().prop_map(|n| if n.is_finite() { n.to_string() } else { "null".to_owned() }),
        1 => Just("null".to_owned()),
        1 => Just("[{}]".to_owned()),
    ]
}
