//! A small node in a small network, for the tests of the calculation.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

pub mod blocks;

use std::collections::BTreeMap;

use russet_core::{
    Calc, Change, Fact, FactId, Source,
    model::{
        Backend, ExtensionConfig, ForeignRoute, IpipConfig, Lease, LeaseKey, NetworkConfig,
        NodeFact, PodFact, PodId, Pool, Prepared, Preset, Settings, TransportConfig, UdpConfig,
        UnderlayFact, Vtep, VxlanConfig, WireguardConfig, WireguardMode,
    },
};
use russet_desired::{Flag, RouteKey, RouteSpec, Sysctl, SysctlKey, SysctlSpec, Table, Tables};
use russet_net::{Family, IfName, Mac, Mtu, PublicKey, Vni};

pub fn settings() -> Settings {
    let settings = Settings::new("node-a", Preset::Flannel, "cni0".parse().unwrap());
    Settings { masquerade: Flag::On, commands: Flag::On, key: Some(public_key(0)), ..settings }
}

/// 0: vxlan; 1: vxlan with direct routing; 2: host-gw; 3: vxlan, dual stack; 4: another network; 5: udp;
/// 6: udp, dual stack; 7: wireguard; 8 to 11: wireguard, dual stack, in each of its modes;
/// 12: ipip; 13: ipip with direct routing; 14: alloc; 15: extension.
pub fn config(i: usize) -> NetworkConfig {
    let vxlan = VxlanConfig { direct_routing: Flag::from(i == 1), ..VxlanConfig::default() };
    let transport = match i {
        2 => TransportConfig::Direct,
        5 | 6 => TransportConfig::Udp(UdpConfig::default()),
        12 | 13 => {
            TransportConfig::Ipip(IpipConfig { direct_routing: Flag::from(i == 13), mtu: None })
        }
        14 => TransportConfig::Unmanaged,
        15 => TransportConfig::Extension(extension()),
        7..=11 => TransportConfig::Wireguard(WireguardConfig {
            mode: mode(i),
            ..WireguardConfig::default()
        }),
        _ => TransportConfig::Vxlan(vxlan),
    };
    let v4 = if i == 4 { "10.60.0.0/16" } else { "10.50.0.0/16" };
    let v6 = (i == 3 || i == 6 || (8..=11).contains(&i)).then(|| pool("fd00:50::/48"));
    NetworkConfig::new(Some(pool(v4)), v6, transport).unwrap()
}

/// Commands without a `PreStartupCommand`, which a node would have to run first.
pub fn extension() -> ExtensionConfig {
    ExtensionConfig {
        pre_startup: None,
        post_startup: Some("post".into()),
        subnet_add: Some("add $SUBNET".into()),
        subnet_remove: Some("remove $SUBNET".into()),
    }
}

const fn mode(i: usize) -> WireguardMode {
    match i {
        9 => WireguardMode::Auto,
        10 => WireguardMode::Over(Family::V4),
        11 => WireguardMode::Over(Family::V6),
        _ => WireguardMode::Separate,
    }
}

pub fn pool(network: &str) -> Pool {
    Pool::new(network.parse().unwrap(), None, None, None).unwrap()
}

pub fn node() -> NodeFact {
    NodeFact {
        underlay: UnderlayFact {
            link: "eth0".parse().unwrap(),
            mtu: Mtu::ETHERNET,
            v4: Some([192, 168, 77, 1].into()),
            v6: Some("fd77::1".parse().unwrap()),
            onlink: vec!["192.168.77.0/24".parse().unwrap(), "fd77::/64".parse().unwrap()],
            gateways: Vec::new(),
            router_advertised: false,
            spoils_checksums: Vec::new(),
            prepared: Prepared::new(),
        },
        foreign: vec![],
    }
}

pub fn foreign_route(dst: &str, link: &str) -> ForeignRoute {
    ForeignRoute { dst: dst.parse().unwrap(), link: Some(link.parse().unwrap()), protocol: 4 }
}

/// An empty text is no subnet.
pub fn lease_key(v4: &str, v6: &str) -> LeaseKey {
    LeaseKey::new(v4.parse().ok(), v6.parse().ok()).unwrap()
}

pub fn public_key(n: u8) -> PublicKey {
    PublicKey::new([n; 32])
}

pub fn mac(n: u8) -> Mac {
    Mac::local([2, 0, 0, 0, 0, n])
}

pub fn mtu(n: u32) -> Mtu {
    Mtu::try_from(n).unwrap()
}

pub fn pod_id(n: u8) -> PodId {
    PodId { container: format!("pod{n}"), ifname: "eth0".parse().unwrap() }
}

pub fn pod(n: u8, size: u32) -> PodFact {
    PodFact {
        network: "cbr0".to_owned(),
        host_link: format!("veth{n}").parse().unwrap(),
        addresses: vec![[10, 50, 7, n + 2].into()],
        mtu: mtu(size),
        allowed_sources: Vec::new(),
    }
}

/// A peer's lease of vxlan at `192.168.subnet.n` with the MAC number `n`.
pub fn vxlan_lease(subnet: u8, n: u8) -> Lease {
    let vtep = Vtep { vni: Vni::try_from(1).unwrap(), mac: mac(n) };
    Lease {
        public_ip: Some([192, 168, subnet, n].into()),
        public_ipv6: None,
        backend: Backend::Vxlan { v4: Some(vtep), v6: None },
    }
}

pub fn upsert_lease(key: &str, lease: Lease, rev: u64) -> Change {
    Change::Upsert {
        id: FactId::Lease(lease_key(key, "")),
        fact: Fact::Lease(Box::new(lease)),
        rev,
    }
}

/// A calculation that has its configuration, its node and its lease, and is in sync.
pub fn ready(config: NetworkConfig) -> Calc {
    ready_with(settings(), config)
}

/// The same on a node with other settings.
pub fn ready_with(settings: Settings, config: NetworkConfig) -> Calc {
    let own = lease_key("10.50.7.0/24", "");
    let mut calc = Calc::new(settings);
    let upsert = |id, fact| Change::Upsert { id, fact, rev: 1 };
    calc.apply([
        upsert(FactId::Config, Fact::Config(config)),
        upsert(FactId::Node, Fact::Node(Box::new(node()))),
        upsert(FactId::Own, Fact::Own(own)),
    ]);
    calc.apply(Source::ALL.map(Change::InSync));
    calc
}

pub fn new_config(config: NetworkConfig) -> Change {
    Change::Upsert { id: FactId::Config, fact: Fact::Config(config), rev: 2 }
}

pub fn new_node(node: NodeFact) -> Change {
    Change::Upsert { id: FactId::Node, fact: Fact::Node(Box::new(node)), rev: 2 }
}

pub fn own(v4: &str, v6: &str) -> Change {
    Change::Upsert { id: FactId::Own, fact: Fact::Own(lease_key(v4, v6)), rev: 2 }
}

/// Why a lease is refused.
pub fn told(calc: &Calc, subnet: &str) -> String {
    let key: LeaseKey = lease_key(subnet, "");
    calc.refusals().get(&FactId::Lease(key)).map(ToString::to_string).unwrap_or_default()
}

/// As `ip route` has them.
pub fn routes(tables: &Tables) -> Vec<String> {
    let line = |(key, spec): (&RouteKey, &RouteSpec)| {
        let hop = spec.via.hop().map(|hop| tables.next_hops[&hop].onlink.is_on());
        let onlink = if hop == Some(true) { " onlink" } else { "" };
        format!("{key} {}{onlink}", spec.via)
    };
    tables.routes.iter().map(line).collect()
}

pub fn keys<K: ToString>(keys: impl Iterator<Item = K>) -> Vec<String> {
    keys.map(|key| key.to_string()).collect()
}

pub fn sysctl(tables: &Tables, path: &str) -> Option<&'static str> {
    let table: &Table<Sysctl> = &tables.sysctls;
    let is_it = |(key, _): &(&SysctlKey, &SysctlSpec)| key.path == path;
    table.iter().find(is_it).map(|(_, spec)| spec.value)
}

pub fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub fn shuffle(changes: &mut [Change], mut seed: u64) {
    for i in (1..changes.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let j = usize::try_from(seed >> 33).unwrap() % (i + 1);
        changes.swap(i, j);
    }
}

/// The last change of each fact; a claim's revision is its own, so no two of one fact compete.
/// Changes of different facts, so that their order says nothing.
pub fn one_each(changes: Vec<Change>) -> Vec<Change> {
    let id = |change: &Change| match change {
        Change::Upsert { id, .. } | Change::Bad { id, .. } | Change::Remove { id } => id.clone(),
        Change::Resync(_) | Change::InSync(_) => FactId::Config,
    };
    changes.into_iter().map(|c| (id(&c), c)).collect::<BTreeMap<_, _>>().into_values().collect()
}
