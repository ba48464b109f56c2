//! `FelixConfiguration`: what is heeded; the rest is kept, and told by `Stored::unused`. What else concerns a network is
//! checked all the same, so that a slip in it is met when it is written.

use std::net::{Ipv4Addr, Ipv6Addr};

use russet_core::model::{Flag, calico::FelixConfiguration};
use russet_net::{IfName, OutOfRange};

use super::{
    at::At,
    kind::Kind,
    stored::{Fields, Form, Layout},
};

impl Form for FelixConfiguration {
    const KIND: Kind = Kind::FelixConfiguration;
    // It is never changed, and Go's order of its fields, more than two hundred, is kept by nobody else.
    const ORDER: &'static [&'static str] = &[];
    const FIELDS: Fields = Fields::Some(&[
        "interfacePrefix",
        "ipipEnabled",
        "ipipMTU",
        "vxlanEnabled",
        "vxlanMTU",
        "vxlanMTUV6",
        "vxlanPort",
        "vxlanVNI",
        "wireguardEnabled",
        "wireguardEnabledV6",
        "wireguardMTU",
        "wireguardMTUV6",
        "wireguardListeningPort",
        "wireguardListeningPortV6",
        "wireguardInterfaceName",
        "wireguardInterfaceNameV6",
        "mtuIfacePattern",
        "ipv6Support",
        "deviceRouteProtocol",
        "deviceRouteSourceAddress",
        "deviceRouteSourceAddressIPv6",
        "removeExternalRoutes",
        "programClusterRoutes",
        "natOutgoingAddress",
        "ipForwarding",
    ]);

    fn read(root: &At<'_>, _: Layout) -> Option<Self> {
        let spec = root.at("spec");
        check_idle(&spec);
        let on = |key| spec.at(key).flag().map(Flag::from);
        // Zero asks for what fits.
        let mtu = |key| spec.at(key).above_zero();
        Some(Self {
            ipip: on("ipipEnabled"),
            ipip_mtu: mtu("ipipMTU"),
            vxlan: on("vxlanEnabled"),
            vxlan_mtu: mtu("vxlanMTU"),
            vxlan_mtu_v6: mtu("vxlanMTUV6"),
            vxlan_port: spec.at("vxlanPort").ranged(),
            vxlan_vni: spec.at("vxlanVNI").ranged(),
            wireguard: on("wireguardEnabled"),
            wireguard_v6: on("wireguardEnabledV6"),
            wireguard_mtu: mtu("wireguardMTU"),
            wireguard_mtu_v6: mtu("wireguardMTUV6"),
            wireguard_port: spec.at("wireguardListeningPort").ranged(),
            wireguard_port_v6: spec.at("wireguardListeningPortV6").ranged(),
        })
    }
}

/// Checks the form of what has no effect here.
fn check_idle(spec: &At<'_>) {
    for key in ["wireguardInterfaceName", "wireguardInterfaceNameV6"] {
        spec.idle(key).parsed::<IfName>();
    }
    for key in ["interfacePrefix", "mtuIfacePattern"] {
        spec.idle(key).text();
    }
    for key in ["ipv6Support", "removeExternalRoutes"] {
        spec.idle(key).flag();
    }
    for key in ["programClusterRoutes", "ipForwarding"] {
        spec.idle(key).one_of(&[("Enabled", ()), ("Disabled", ())]);
    }
    for key in ["deviceRouteSourceAddress", "natOutgoingAddress"] {
        spec.idle(key).parsed::<Ipv4Addr>();
    }
    spec.idle("deviceRouteSourceAddressIPv6").parsed::<Ipv6Addr>();
    spec.idle("deviceRouteProtocol").ranged::<RouteProtocol>();
}

/// Who made a route, as the kernel keeps it: never `unspec`, which would be everybody's.
struct RouteProtocol;

impl TryFrom<u32> for RouteProtocol {
    type Error = OutOfRange;

    fn try_from(raw: u32) -> Result<Self, Self::Error> {
        let fits = (1..=255).contains(&raw).then_some(Self);
        fits.ok_or(OutOfRange::new("route protocol", raw.into(), 1, 255))
    }
}
