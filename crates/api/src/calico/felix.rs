//! `FelixConfiguration`: what concerns a network; the rest is kept, and told by `Stored::unused`.

use russet_core::model::{Flag, calico::FelixConfiguration};

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
        let on = |key| spec.at(key).flag().map(Flag::from);
        let enabled = |key| spec.at(key).one_of(&[("Enabled", Flag::On), ("Disabled", Flag::Off)]);
        // Zero asks for what fits.
        let mtu = |key| spec.at(key).above_zero();
        let prefixes = spec.at("interfacePrefix").text().unwrap_or_default().split(',');
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
            wireguard_link: spec.at("wireguardInterfaceName").parsed(),
            wireguard_link_v6: spec.at("wireguardInterfaceNameV6").parsed(),
            mtu_links: spec.at("mtuIfacePattern").owned(),
            ipv6: on("ipv6Support"),
            link_prefixes: prefixes.filter(|p| !p.is_empty()).map(str::to_owned).collect(),
            route_protocol: spec.at("deviceRouteProtocol").ranged(),
            route_source: spec.at("deviceRouteSourceAddress").parsed(),
            route_source_v6: spec.at("deviceRouteSourceAddressIPv6").parsed(),
            remove_external_routes: on("removeExternalRoutes"),
            cluster_routes: enabled("programClusterRoutes"),
            nat_outgoing_address: spec.at("natOutgoingAddress").parsed(),
            ip_forwarding: enabled("ipForwarding"),
        })
    }
}
