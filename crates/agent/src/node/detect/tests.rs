//! One node with the links of a usual one, and what each method finds on it.

use russet_desired::Flag;
use russet_kernel::observe::{RouteView, Scope};

use super::*;
use crate::node::tests::link;

#[test]
fn each_method_finds_what_calico_node_finds() {
    // Calico looks from the last link to the first.
    for (method, wanted) in [
        ("first-found", "eth1 172.16.5.7/20"),
        ("interface=eth0", "eth0 192.168.77.1/24"),
        ("interface=nothing,eth.*", "eth1 172.16.5.7/20"),
        ("interface=docker0", "docker0 172.17.0.1/16"),
        ("skip-interface=eth1,ens.*", "eth0 192.168.77.1/24"),
        ("cidr=192.168.0.0/16", "eth0 192.168.77.1/24"),
        ("cidr=203.0.113.0/24,172.17.0.0/16", "docker0 172.17.0.1/16"),
        ("can-reach=192.168.77.9", "eth0 192.168.77.1/24"),
        ("can-reach=198.51.100.1", "eth0 192.168.77.1/24"),
        ("kubernetes-internal-ip", "eth0 192.168.77.1/24"),
    ] {
        assert_eq!(v4(method).unwrap(), wanted, "{method}");
    }
}

#[test]
fn what_is_ours_or_a_tunnel_or_not_global_is_never_found() {
    assert!(v4("cidr=10.50.0.0/16").is_err(), "a bridge of ours");
    let err = v4("skip-interface=eth.*").unwrap_err();
    assert_eq!(err, "no IPv4 address of this node is found by skip-interface=eth.*");
    assert!(v4("interface=lo").is_err(), "no loopback address");
    assert!(v4("can-reach=2001:db8::1").is_err(), "of the other family");
}

#[test]
fn both_families_are_found_and_a_temporary_address_comes_last() {
    let wanted = Detection { v4: Wish::Nothing, v6: Wish::Detected(Method::FirstFound) };
    let found = detect(&node(), &wanted, &[]).unwrap();
    assert_eq!(found.v4, None);
    assert_eq!(shown(found.v6.unwrap()), "eth0 fd77::1/64");
    let none = Detection { v4: Wish::Nothing, v6: Wish::Nothing };
    assert!(detect(&node(), &none, &[]).is_err());
}

#[test]
fn an_address_that_is_told_has_the_subnet_of_its_link() {
    let given = |text: &str| match text.parse() {
        Ok(addr) => Given::Alone(addr),
        Err(_) => Given::OnSubnet(text.parse().unwrap()),
    };
    for (text, wanted) in [
        ("192.168.77.1", "eth0 192.168.77.1/24"),
        ("192.168.77.1/28", "eth0 192.168.77.1/28"),
        ("203.0.113.9", "- 203.0.113.9/32"),
    ] {
        let wanted_of = Detection { v4: Wish::Given(given(text)), v6: Wish::Nothing };
        assert_eq!(shown(detect(&node(), &wanted_of, &[]).unwrap().v4.unwrap()), wanted);
    }
}

fn v4(method: &str) -> Result<String, String> {
    let wanted = Detection { v4: Wish::Detected(method.parse().unwrap()), v6: Wish::Nothing };
    let internal = ["192.168.77.1".parse().unwrap(), "fd77::1".parse().unwrap()];
    detect(&node(), &wanted, &internal).map(|found| shown(found.v4.unwrap()))
}

fn shown(found: Found) -> String {
    let link = found.link.map_or("-".to_owned(), |link| link.to_string());
    format!("{link} {}", found.addr)
}

fn node() -> NodeView {
    let mut eth0 = link(2, "eth0", 0, [192, 168, 77, 1], 24);
    let of = |text: &str, scope, second_choice| AddressView {
        addr: text.parse().unwrap(),
        len: 64,
        scope,
        lasting: Flag::On,
        second_choice,
    };
    eth0.addresses.push(of("fd77::abcd", Scope::Global, Flag::On));
    eth0.addresses.push(of("fd77::1", Scope::Global, Flag::Off));
    eth0.addresses.push(of("fe80::1", Scope::Link, Flag::Off));
    let links = vec![
        link(1, "lo", 0, [127, 0, 0, 1], 8),
        eth0,
        link(3, "eth1", 0, [172, 16, 5, 7], 20),
        link(4, "docker0", 0, [172, 17, 0, 1], 16),
        link(5, "cni0", GROUP, [10, 50, 7, 1], 24),
        link(6, "vxlan.calico", 0, [10, 65, 0, 1], 32),
        link(7, "cali82111e10a96", 0, [169, 254, 1, 1], 32),
    ];
    let default = RouteView {
        dst: "0.0.0.0/0".parse().unwrap(),
        metric: 0,
        protocol: 3,
        link: Some("eth0".parse().unwrap()),
        via: Some([192, 168, 77, 254].into()),
    };
    NodeView { links, routes: [default].into() }
}
