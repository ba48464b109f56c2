//! A small node in a small network of blocks, as Calico has it.

use std::sync::Arc;

use russet_core::{
    Calc, Change, Fact, FactId, Source,
    choices::Distribution,
    model::{
        Backend, Ends, IpipConfig, Lease, LeaseKey, NetworkConfig, NodeName, Pool, PoolHabits,
        Preset, Settings, TransportConfig, VxlanConfig, VxlanEnd, WireguardConfig,
        calico::BlockLen,
    },
};
use russet_desired::Flag;
use russet_net::{Family, Mac, Port, Prefix, Vni};

use super::{node, public_key};

pub fn settings() -> Settings {
    let settings = Settings::new("node-a", Preset::Calico, "unused".parse().unwrap());
    Settings { key: Some(public_key(1)), ..settings }
}

/// A node that routers teach the ways that no tunnel is for.
pub fn by_routers() -> Settings {
    Settings { distribution: Distribution::Bgp, ..settings() }
}

pub fn vxlan() -> TransportConfig {
    TransportConfig::Vxlan(VxlanConfig {
        vni: Vni::try_from(4_096).unwrap(),
        port: Port::VXLAN,
        ..VxlanConfig::default()
    })
}

pub const fn ipip() -> TransportConfig {
    TransportConfig::Ipip(IpipConfig { direct_routing: Flag::Off, mtu: None })
}

pub fn wireguard() -> TransportConfig {
    TransportConfig::Wireguard(WireguardConfig::default())
}

pub fn pool(cidr: &str, transport: TransportConfig, cross: bool) -> (Pool, TransportConfig) {
    let cidr: Prefix = cidr.parse().unwrap();
    let habits = PoolHabits { direct_routing: Flag::from(cross), ..PoolHabits::default() };
    (Pool::of_blocks(cidr, BlockLen::usual(cidr.family()), habits), transport)
}

/// 0: vxlan in both families; 1: vxlan and ipip; 2: direct; 3: vxlan across subnets, direct elsewhere;
/// 4: left to others, and ipip; 5: no pool at all; 6: ipip everywhere; 7: left to others; 8: left to others, and vxlan
/// for IPv6; 9: all sealed.
pub fn config(i: usize) -> NetworkConfig {
    let (one, two, six) = ("10.244.0.0/16", "10.245.0.0/16", "fd00:10:244::/64");
    NetworkConfig::of_pools(match i {
        0 => vec![pool(one, vxlan(), false), pool(six, vxlan(), false)],
        1 => vec![pool(one, vxlan(), false), pool(two, ipip(), true)],
        2 => vec![pool(one, TransportConfig::Direct, false)],
        3 => vec![pool(one, vxlan(), true), pool(two, TransportConfig::Direct, false)],
        4 => vec![pool(one, TransportConfig::Unmanaged, false), pool(two, ipip(), false)],
        5 => vec![],
        6 => vec![pool(one, ipip(), false), pool(two, ipip(), false)],
        7 => vec![pool(one, TransportConfig::Unmanaged, false)],
        8 => vec![pool(one, TransportConfig::Unmanaged, false), pool(six, vxlan(), false)],
        _ => vec![pool(one, wireguard(), false), pool(six, wireguard(), false)],
    })
}

/// A node at `192.168.subnet.n` whose tunnels end as the letters say: `i`pip, `v`xlan, vxlan by `6`, `w`ireguard.
pub fn host(subnet: u8, n: u8, tunnels: &str) -> Lease {
    let end = |addr, mac| VxlanEnd { addr, mac: Mac::local([2, 0, 0, 0, mac, n]) };
    let has = |letter| tunnels.contains(letter);
    let ends = Ends {
        ipip: has('i').then(|| [10, 245, 200, n].into()),
        vxlan_v4: has('v').then(|| end([10, 244, 200, n].into(), 4)),
        vxlan_v6: has('6').then(|| end(format!("fd00:10:244::c8:{n}").parse().unwrap(), 6)),
        wireguard_v4: has('w').then(|| public_key(n)),
        ..Ends::default()
    };
    Lease {
        public_ip: Some([192, 168, subnet, n].into()),
        public_ipv6: Some(format!("fd77::{n}").parse().unwrap()),
        backend: Backend::Ends(Arc::new(ends)),
    }
}

pub fn name(n: u8) -> NodeName {
    let own = n == 0;
    let name = if own { "node-a".to_owned() } else { format!("n{n}") };
    name.parse().unwrap()
}

pub fn key(prefix: &str) -> LeaseKey {
    let prefix: Prefix = prefix.parse().unwrap();
    let of = |family| (prefix.family() == family).then_some(prefix);
    LeaseKey::new(of(Family::V4), of(Family::V6)).unwrap()
}

pub fn upsert(id: FactId, fact: Fact, rev: u64) -> Change {
    Change::Upsert { id, fact, rev }
}

pub fn is_at(n: u8, lease: Lease) -> Change {
    upsert(FactId::Host(name(n)), Fact::Host(Box::new(lease)), u64::from(n) + 10)
}

pub fn holds(n: u8, prefix: &str) -> Change {
    upsert(FactId::Lease(key(prefix)), Fact::Held(name(n)), 100)
}

/// In sync, with a block and tunnels of its own.
pub fn ready(config: NetworkConfig) -> Calc {
    ready_with(settings(), config)
}

pub fn ready_with(settings: Settings, config: NetworkConfig) -> Calc {
    let mut calc = Calc::new(settings);
    calc.apply(Source::ALL.map(Change::Resync));
    calc.apply([
        upsert(FactId::Config, Fact::Config(config), 1),
        upsert(FactId::Node, Fact::Node(Box::new(node())), 1),
        is_at(0, host(77, 1, "iv6")),
        holds(0, "10.244.7.0/26"),
    ]);
    calc.apply(Source::ALL.map(Change::InSync));
    calc
}
