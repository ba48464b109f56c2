//! The owner's knowledge as an operator sees it: pure functions from the world to rows.

use russet_api::admin::{LeaseRow, NetworkStatus, PodRow, Refused, RouteRow, SHOWN, UplinkStatus};
use russet_core::{
    Calc,
    calc::{PeerView, Standing},
    model::{Attachment, Backend, Ends, Own, Sealer, Settings, TransportConfig, Tunnel},
    world::World,
};
use russet_desired::{Key, RouteKey, RouteSpec};
use russet_net::Family;

/// Every lease, readable or not, our own first.
pub fn leases(calc: &Calc) -> impl Iterator<Item = LeaseRow> + '_ {
    let (ours, theirs): (Vec<_>, Vec<_>) =
        calc.peers().partition(|peer| peer.standing == Standing::Own);
    ours.into_iter().chain(theirs).map(|peer| lease(calc, &peer))
}

fn lease(calc: &Calc, peer: &PeerView<'_>) -> LeaseRow {
    let said = |family| peer.lease.as_ref().and_then(|lease| lease.public(family));
    LeaseRow {
        subnets: peer.key.subnets().map(|subnet| subnet.to_string()).collect(),
        public_ips: Family::BOTH.into_iter().filter_map(said).map(|ip| ip.to_string()).collect(),
        backend: peer.lease.as_ref().map(|lease| backend(&lease.backend)).unwrap_or_default(),
        transport: transport(peer.standing).into(),
        revision: calc.world().lease(peer.key).map_or(0, |holding| holding.rev),
        problem: match peer.standing {
            Standing::Refused(fault) => Some(crate::one_line(fault)),
            _ => None,
        },
    }
}

fn transport(standing: Standing<'_>) -> &'static str {
    match standing {
        Standing::Own => "here",
        Standing::Tunnel => "vxlan",
        Standing::Engine => "udp",
        Standing::Ipip => "ipip",
        Standing::Extension => "extension",
        Standing::Foreign => "others",
        Standing::Sealed => "wireguard",
        Standing::Direct => "direct",
        Standing::Refused(_) | Standing::Unknown => "none",
    }
}

fn backend(backend: &Backend) -> String {
    match backend {
        Backend::Vxlan { .. } => "vxlan".into(),
        Backend::HostGw => "host-gw".into(),
        Backend::Udp => "udp".into(),
        Backend::Ipip => "ipip".into(),
        Backend::Wireguard { .. } => "wireguard".into(),
        Backend::Extension(_) => "extension".into(),
        Backend::Foreign(name) => name.to_string(),
        Backend::Ends(ends) => has_ends(ends),
    }
}

/// The tunnels that a node has an end of: any of them is what the pool may choose.
fn has_ends(ends: &Ends) -> String {
    let all = [Tunnel::Vxlan, Tunnel::Ipip, Tunnel::Wireguard];
    let has = |tunnel: &Tunnel| Family::BOTH.iter().any(|family| ends.has(*tunnel, *family));
    let names: Vec<_> = all.into_iter().filter(has).map(|tunnel| tunnel.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

/// Facts that are left out, at most [`SHOWN`]: a change of the backend leaves out every peer at once, and the
/// answer must fit into a frame.
pub fn refused(calc: &Calc) -> Vec<Refused> {
    let rows = calc.refusals().iter().take(SHOWN);
    rows.map(|(id, fault)| Refused { fact: id.to_string(), reason: crate::one_line(fault) })
        .collect()
}

/// The routes that are wanted; `state_of` knows what the kernel said.
pub fn routes(calc: &Calc, state_of: impl Fn(&Key) -> String) -> Vec<RouteRow> {
    let row = |(key, spec): (&RouteKey, &RouteSpec)| RouteRow {
        dst: key.dst.to_string(),
        via: spec.via.hop().map_or_else(|| "blackhole".into(), |hop| hop.via.to_string()),
        link: spec.via.hop().map_or_else(String::new, |hop| hop.link.to_string()),
        state: state_of(&Key::Route(*key)),
    };
    calc.tables().routes.iter().map(row).collect()
}

/// This node's pods.
pub fn pods(world: &World) -> impl Iterator<Item = PodRow> + '_ {
    world.pods().map(|(id, pod)| PodRow {
        container: id.container.clone(),
        interface: id.ifname.to_string(),
        network: pod.network.clone(),
        addresses: pod.addresses.iter().map(ToString::to_string).collect(),
        host_link: pod.host_link.to_string(),
        mtu: pod.mtu.get(),
    })
}

/// The network in force.
pub fn network(calc: &Calc, lease_expires_in_s: Option<u64>) -> Option<NetworkStatus> {
    let footing = calc.world().in_force()?;
    let networks = footing.config.pools();
    let own = calc.world().me().map(|me| me.own);
    let mut transports: Vec<_> = footing.config.transports().iter().collect();
    if transports.is_empty() {
        transports.push(footing.config.transport());
    }
    let sealer = calc.world().settings.sealer;
    let transports: Vec<_> = transports.into_iter().map(|it| transport_name(it, sealer)).collect();
    Some(NetworkStatus {
        transport: transports.join(", "),
        networks: networks.map(|pool| pool.network().to_string()).collect(),
        subnets: own.into_iter().flat_map(Own::subnets).map(|subnet| subnet.to_string()).collect(),
        pod_mtu: footing.pod_mtu.get(),
        bridge: bridge(&calc.world().settings),
        lease_expires_in_s,
    })
}

fn transport_name(transport: &TransportConfig, sealer: Sealer) -> String {
    match transport {
        TransportConfig::Vxlan(vxlan) if vxlan.direct_routing.is_on() => {
            "vxlan with direct routing".into()
        }
        TransportConfig::Vxlan(_) => "vxlan".into(),
        TransportConfig::Direct => "direct".into(),
        TransportConfig::Udp(_) => "udp".into(),
        TransportConfig::Ipip(ipip) if ipip.direct_routing.is_on() => {
            "ipip with direct routing".into()
        }
        TransportConfig::Ipip(_) => "ipip".into(),
        TransportConfig::Unmanaged => "others (alloc)".into(),
        TransportConfig::Extension(_) => "commands (extension)".into(),
        TransportConfig::Wireguard(_) => match sealer {
            Sealer::Kernel => "wireguard (kernel)".into(),
            Sealer::Engine => "wireguard (engine)".into(),
        },
    }
}

fn bridge(settings: &Settings) -> Option<String> {
    match settings.attachment {
        Attachment::Bridge => Some(settings.bridge.to_string()),
        Attachment::Routed => None,
    }
}

/// The link to the other nodes.
pub fn uplink(calc: &Calc) -> Option<UplinkStatus> {
    let underlay = &calc.world().in_force()?.underlay;
    let addresses = Family::BOTH.into_iter().filter_map(|family| underlay.addr(family));
    Some(UplinkStatus {
        link: underlay.link.to_string(),
        mtu: underlay.mtu.get(),
        addresses: addresses.map(|ip| ip.to_string()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use russet_core::{Change, FactId, Fault, model::Preset};

    use russet_core::model::LeaseKey;

    use super::*;

    #[test]
    fn a_status_names_some_of_the_refused_however_many_there_are() {
        let mut calc = Calc::new(Settings::new("n1", Preset::Flannel, "cni0".parse().unwrap()));
        let bad = |n: usize| {
            let subnet = format!("10.{}.{}.0/24", n / 256, n % 256).parse().ok();
            let key = LeaseKey::new(subnet, None).unwrap();
            Change::Bad { id: FactId::Lease(key), fault: Fault::ConfigGone }
        };
        calc.apply((0..5_000).map(bad));
        assert_eq!(calc.refusals().len(), 5_000);
        assert_eq!(refused(&calc).len(), SHOWN);
    }
}
