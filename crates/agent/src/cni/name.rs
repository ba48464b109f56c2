//! Names and MAC addresses of pod links, derived, so that nothing has to remember them.

use std::{fmt::Write as _, net::IpAddr};

use russet_api::cni::digest;
use russet_core::model::PodId;
use russet_net::{IfName, Mac, sha1};

/// The usual name of the host's end of a pod's veth: `rst` and 11 hex digits of a digest of the attachment.
pub fn host_link(network: &str, pod: &PodId) -> IfName {
    by_attachment(USUAL, network, pod)
}

/// The same with another beginning, of four letters at most.
pub fn by_attachment(links: &str, network: &str, pod: &PodId) -> IfName {
    let hex = digest(&format!("{network}/{}/{}", pod.container, pod.ifname));
    name(links, &hex)
}

/// Calico's name: of the pod, where Kubernetes has named it, else of the container (libcalico-go:
/// `VethNameForWorkload`; cni-plugin: `cmdAdd`). `None` where a container's id makes no name of a link.
pub fn as_calico(links: &str, kubernetes: Option<(&str, &str)>, pod: &PodId) -> Option<IfName> {
    if let Some((namespace, name_of_pod)) = kubernetes {
        return Some(name(links, &hex(&sha1(&format!("{namespace}.{name_of_pod}")))));
    }
    let id: String = pod.container.chars().take(DIGITS).collect();
    format!("{links}{id}").parse().ok()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut hex, octet| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{octet:02x}");
        hex
    })
}

/// 15 octets of ASCII at most, without a slash: always a link's name.
fn name(links: &str, hex: &str) -> IfName {
    format!("{links}{}", &hex[..DIGITS]).parse().unwrap_or_else(|_| unreachable!("a valid name"))
}

/// The MAC address of a pod's end. It comes from the address, so a neighbour that still remembers the
/// address' last holder is right about the next one too.
pub fn pod_mac(addr: IpAddr) -> Mac {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            Mac::local([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(_) => from_digest(&addr.to_string()),
    }
}

/// The MAC address of the host's end. It is never the lowest on its bridge by accident: the bridge's own is
/// set explicitly.
pub fn host_mac(link: IfName) -> Mac {
    from_digest(link.as_str())
}

fn from_digest(text: &str) -> Mac {
    let hex = digest(text);
    let octet = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap_or_default();
    Mac::local([octet(0), octet(1), octet(2), octet(3), octet(4), octet(5)])
}

const USUAL: &str = "rst";
const DIGITS: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attachment_has_a_link_name_of_its_own_and_always_the_same() {
        let pod = |container: &str, ifname: &str| PodId {
            container: container.to_owned(),
            ifname: ifname.parse().unwrap(),
        };
        let name = host_link("net", &pod("c1", "eth0"));
        assert_eq!(name.as_str().len(), 14);
        assert_eq!(name, host_link("net", &pod("c1", "eth0")));
        for other in [host_link("net2", &pod("c1", "eth0")), host_link("net", &pod("c1", "eth1"))] {
            assert_ne!(name, other);
        }
    }

    #[test]
    fn calico_s_names_are_calico_s() {
        let pod =
            PodId { container: "c0ffee0123456789".to_owned(), ifname: "eth0".parse().unwrap() };
        let named = as_calico("cali", Some(("namespace", "podname")), &pod).unwrap();
        assert_eq!(named.as_str(), "cali82111e10a96", "(libcalico-go: conversion_test.go)");
        assert_eq!(as_calico("cali", None, &pod).unwrap().as_str(), "calic0ffee01234");
        let short = PodId { container: "c1".to_owned(), ..pod };
        assert_eq!(as_calico("cali", None, &short).unwrap().as_str(), "calic1");
    }

    #[test]
    fn an_address_has_its_mac() {
        assert_eq!(pod_mac([10, 50, 7, 9].into()).to_string(), "0a:58:0a:32:07:09");
        assert!(pod_mac("fd00::9".parse().unwrap()).is_unicast());
    }
}
