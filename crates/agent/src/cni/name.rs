//! Names and MAC addresses of pod links, derived, so that nothing has to remember them.

use std::net::IpAddr;

use russet_api::cni::digest;
use russet_core::model::PodId;
use russet_net::{IfName, Mac};

/// The name of the host's end of a pod's veth: `rst` and 11 hex digits of a digest of the attachment.
pub fn host_link(network: &str, pod: &PodId) -> IfName {
    let hex = digest(&format!("{network}/{}/{}", pod.container, pod.ifname));
    // 14 octets of ASCII without a slash: always a link's name.
    format!("{PREFIX}{}", &hex[..DIGITS]).parse().unwrap_or_else(|_| unreachable!("a valid name"))
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

const PREFIX: &str = "rst";
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
    fn an_address_has_its_mac() {
        assert_eq!(pod_mac([10, 50, 7, 9].into()).to_string(), "0a:58:0a:32:07:09");
        assert!(pod_mac("fd00::9".parse().unwrap()).is_unicast());
    }
}
