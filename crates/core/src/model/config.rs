//! The network's configuration: pools of addresses, and the transport between the nodes.
//!
//! Flannel's whole network is one pool per family; Calico's is any number, each with a transport of its own. The bounds and defaults here are flannel's; where the
//! text came from and how it is spelt is `api::flannel`'s business, but each fault names the key as
//! flannel's documentation spells it.

use std::net::IpAddr;

use russet_desired::Flag;
use russet_net::{Family, Mtu, Port, Prefix, PresharedKey, Vni};

use crate::{
    error::ConfigFault,
    model::{ExtensionConfig, LeaseKey, calico::BlockLen},
};

/// A checked network configuration: pools, and for each how packets to it cross the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// IPv4 first.
    pools: Vec<Pool>,
    /// No two alike; a pool names its own by the place.
    transports: Vec<TransportConfig>,
}

impl NetworkConfig {
    /// One pool of a family, or one of each, all with one transport, as flannel has it. Returns `None` when there is
    /// no pool, or one of the other family.
    pub fn new(v4: Option<Pool>, v6: Option<Pool>, transport: TransportConfig) -> Option<Self> {
        let fits = |pool: Option<Pool>, family| pool.is_none_or(|p| p.family() == family);
        let some = v4.is_some() || v6.is_some();
        let pools = v4.into_iter().chain(v6).collect();
        (some && fits(v4, Family::V4) && fits(v6, Family::V6))
            .then(|| Self { pools, transports: vec![transport] })
    }

    /// Any number of pools, each with a transport of its own.
    pub fn of_pools(pools: impl IntoIterator<Item = (Pool, TransportConfig)>) -> Self {
        let mut all = Self { pools: Vec::new(), transports: Vec::new() };
        for (pool, transport) in pools {
            let known = all.transports.iter().position(|known| *known == transport);
            let place = known.unwrap_or_else(|| {
                all.transports.push(transport);
                all.transports.len() - 1
            });
            all.pools.push(Pool { transport: place, ..pool });
        }
        all.pools.sort_unstable_by_key(|pool| pool.network);
        all
    }

    /// The same without some of its pools.
    #[must_use]
    pub fn only(&self, keep: impl Fn(Pool) -> bool) -> Self {
        let kept = self.pools().filter(|pool| keep(*pool));
        Self::of_pools(kept.map(|pool| (pool, self.transport_of(pool).clone())))
    }

    /// The family's first pool; of flannel's, the only one.
    pub fn pool(&self, family: Family) -> Option<Pool> {
        self.pools().find(|pool| pool.family() == family)
    }

    /// IPv4 first.
    pub fn pools(&self) -> impl Iterator<Item = Pool> {
        self.pools.iter().copied()
    }

    /// The pool that a subnet lies in: the smallest, should pools overlap.
    pub fn pool_of(&self, subnet: Prefix) -> Option<Pool> {
        let around = self.pools().filter(|pool| pool.network.covers(subnet));
        around.max_by_key(|pool| pool.network.len())
    }

    /// IPv4 first.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::BOTH.into_iter().filter(|family| self.pool(*family).is_some())
    }

    /// The transport of the first pool; of flannel's, of all.
    pub fn transport(&self) -> &TransportConfig {
        self.transports.first().unwrap_or(&TransportConfig::Direct)
    }

    /// Every transport that some pool has, in the order by which [`Pool::transport`] names them.
    pub fn transports(&self) -> &[TransportConfig] {
        &self.transports
    }

    pub fn transport_of(&self, pool: Pool) -> &TransportConfig {
        self.transports.get(pool.transport).unwrap_or(&TransportConfig::Direct)
    }

    /// Whether some pool of the family crosses so.
    pub fn crosses(&self, family: Family, by: impl Fn(&TransportConfig) -> bool) -> bool {
        self.pools().any(|pool| pool.family() == family && by(self.transport_of(pool)))
    }

    /// Whether a node that holds this lease can serve the network: a subnet of each family, of any length.
    pub fn holds(&self, key: LeaseKey) -> bool {
        self.pools().all(|pool| key.of(pool.family()).is_some_and(|s| pool.network().covers(s)))
    }

    /// Whether a lease is one that this configuration could have given: each family's subnet, of the
    /// configured length, within the pool's bounds.
    pub fn fits(&self, key: LeaseKey) -> bool {
        Family::BOTH.into_iter().all(|family| match (self.pool(family), key.of(family)) {
            (Some(pool), Some(subnet)) => pool.gives(subnet),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        })
    }
}

/// How packets cross the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportConfig {
    Vxlan(VxlanConfig),
    /// flannel's `host-gw`.
    Direct,
    Udp(UdpConfig),
    Ipip(IpipConfig),
    Wireguard(WireguardConfig),
    /// flannel's `alloc`: subnets are leased, and who carries packets between them is somebody else's business.
    Unmanaged,
    /// flannel's `extension`: commands of the operator's carry packets between them.
    Extension(ExtensionConfig),
}

impl TransportConfig {
    /// Whether nothing of ours carries packets between the nodes.
    pub const fn is_carried_by_others(&self) -> bool {
        matches!(self, Self::Unmanaged | Self::Extension(_))
    }

    /// The family of the underlay that a family's packets cross by; `None` where a peer's addresses decide.
    pub const fn outer(&self, family: Family) -> Option<Family> {
        match self {
            Self::Wireguard(wireguard) => match wireguard.mode {
                WireguardMode::Separate => Some(family),
                WireguardMode::Auto => None,
                WireguardMode::Over(outer) => Some(outer),
            },
            Self::Vxlan(_)
            | Self::Direct
            | Self::Udp(_)
            | Self::Ipip(_)
            | Self::Unmanaged
            | Self::Extension(_) => Some(family),
        }
    }
}

/// Which family of the underlay sealed packets cross by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireguardMode {
    /// Each family's by its own, with a device and a port of its own.
    #[default]
    Separate,
    /// Both by one device, over whichever family seems the more likely to reach the peer.
    Auto,
    /// Both by one device, over this family (`ipv4`, `ipv6`).
    Over(Family),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireguardConfig {
    pub mode: WireguardMode,
    /// Where this node listens; peers say in their leases where they do.
    pub port: Port,
    /// Where it listens for what crosses by IPv6, in [`WireguardMode::Separate`] alone.
    pub port_v6: Port,
    pub psk: Option<PresharedKey>,
    /// Seconds; zero is none.
    pub keepalive: u16,
    /// The *underlay's* MTU, as with vxlan; `None` takes the underlay link's.
    pub mtu: Option<Mtu>,
}

impl Default for WireguardConfig {
    fn default() -> Self {
        Self {
            mode: WireguardMode::Separate,
            port: Port::FLANNEL_WIREGUARD,
            port_v6: Port::FLANNEL_WIREGUARD_V6,
            psk: None,
            keepalive: 0,
            mtu: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpipConfig {
    /// Whether a peer on a shared link is reached without encapsulation (`cross-subnet`).
    pub direct_routing: Flag,
    /// The underlay's MTU; `None` takes the underlay link's.
    pub mtu: Option<Mtu>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpConfig {
    /// Where every node listens.
    pub port: Port,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self { port: Port::FLANNEL_UDP }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanConfig {
    pub vni: Vni,
    pub port: Port,
    /// The *underlay's* MTU, as flannel has it; `None` takes the underlay link's.
    pub mtu: Option<Mtu>,
    /// The same for IPv6.
    pub mtu_v6: Option<Mtu>,
    pub gbp: Flag,
    pub learning: Flag,
    /// Whether a peer on a shared link is reached without encapsulation (`cross-subnet`).
    pub direct_routing: Flag,
}

impl VxlanConfig {
    /// The underlay's MTU for packets of a family.
    pub const fn mtu_of(&self, family: Family) -> Option<Mtu> {
        match family {
            Family::V4 => self.mtu,
            Family::V6 => self.mtu_v6,
        }
    }
}

impl Default for VxlanConfig {
    fn default() -> Self {
        Self {
            // A constant within range.
            vni: Vni::try_from(1).unwrap_or(Vni::MAX),
            port: Port::VXLAN_LINUX,
            mtu: None,
            mtu_v6: None,
            gbp: Flag::Off,
            learning: Flag::Off,
            direct_routing: Flag::Off,
        }
    }
}

/// One family's addresses, cut into subnets of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    network: Prefix,
    /// The first and the last subnet that may be leased; both have the pool's length.
    min: Prefix,
    max: Prefix,
    /// The place of its transport among the configuration's.
    transport: usize,
    pub habits: PoolHabits,
}

/// What a pool says of itself where pools do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolHabits {
    /// Whether a peer on a shared link is reached without encapsulation (`CrossSubnet`). The transport may say so too.
    pub direct_routing: Flag,
    /// Whether packets that leave the network take the node's address (`natOutgoing`); `None` is the node's own wish.
    pub nat_outgoing: Option<Flag>,
    /// Whether routers are told of its subnets (not `disableBGPExport`).
    pub bgp_export: Flag,
}

impl Default for PoolHabits {
    fn default() -> Self {
        Self { direct_routing: Flag::Off, nat_outgoing: None, bgp_export: Flag::On }
    }
}

impl Pool {
    /// Cuts `network` into subnets: what is not given has flannel's default.
    ///
    /// # Errors
    ///
    /// Every fault at once.
    pub fn new(
        network: Prefix,
        len: Option<u64>,
        min: Option<IpAddr>,
        max: Option<IpAddr>,
    ) -> Result<Self, Vec<ConfigFault>> {
        let bounds = Bounds::of(network.family());
        let len = bounds.subnet_len(network, len).map_err(|fault| vec![fault])?;
        let min = match min {
            Some(addr) => bound(bounds.keys.min, network, len, addr),
            // The first subnet is skipped: its base is the network's own.
            None => Ok(subnet_around(network.addr(), len, network).next().unwrap_or(network)),
        };
        let max = match max {
            Some(addr) => bound(bounds.keys.max, network, len, addr),
            None => Ok(subnet_around(network.last(), len, network)),
        };
        match (min, max) {
            (Ok(min), Ok(max)) if min <= max => {
                Ok(Self { network, min, max, transport: 0, habits: PoolHabits::default() })
            }
            (Ok(min), Ok(max)) => Err(vec![bounds.above(min, max)]),
            (min, max) => Err([min.err(), max.err()].into_iter().flatten().collect()),
        }
    }

    /// The whole of `network` cut into blocks, the first one included.
    pub fn of_blocks(network: Prefix, len: BlockLen, habits: PoolHabits) -> Self {
        let block = |addr| subnet_around(addr, len.get(), network);
        let (min, max) = (block(network.addr()), block(network.last()));
        Self { network, min, max, transport: 0, habits }
    }

    pub const fn network(self) -> Prefix {
        self.network
    }

    /// The place of its transport in [`NetworkConfig::transports`].
    pub const fn transport(self) -> usize {
        self.transport
    }

    pub const fn min(self) -> Prefix {
        self.min
    }

    pub const fn max(self) -> Prefix {
        self.max
    }

    pub fn family(self) -> Family {
        self.network.family()
    }

    pub fn subnet_len(self) -> u8 {
        self.min.len()
    }

    /// Whether `subnet` is one that may be leased from this pool.
    pub fn gives(self, subnet: Prefix) -> bool {
        subnet.family() == self.family()
            && subnet.len() == self.subnet_len()
            && (self.min..=self.max).contains(&subnet)
    }

    /// The subnet that lies so many behind the first.
    pub fn subnet(self, index: u128) -> Option<Prefix> {
        let step = 1_u128.checked_shl((self.family().bits() - self.subnet_len()).into())?;
        let from_base = self.network.offset_of(self.min.addr())?;
        let addr = self.network.nth(from_base.checked_add(index.checked_mul(step)?)?)?;
        let subnet = Prefix::around(addr, self.subnet_len()).ok()?;
        self.gives(subnet).then_some(subnet)
    }

    /// How many subnets lie before this one of ours.
    pub fn index_of(self, subnet: Prefix) -> Option<u128> {
        let shift = self.family().bits() - self.subnet_len();
        let from = self.network.offset_of(self.min.addr())?;
        let to = self.network.offset_of(subnet.addr()).filter(|_| self.gives(subnet))?;
        Some(to.checked_sub(from)?.checked_shr(shift.into()).unwrap_or(0))
    }

    /// Every subnet that may be leased, in order.
    pub fn subnets(self) -> impl Iterator<Item = Prefix> {
        std::iter::successors(Some(self.min), |subnet| subnet.next())
            .take_while(move |subnet| *subnet <= self.max)
    }
}

/// The subnet of length `len` around an address; `network` stands in for a length that does not fit,
/// which the callers have ruled out.
fn subnet_around(addr: IpAddr, len: u8, network: Prefix) -> Prefix {
    Prefix::around(addr, len).unwrap_or(network)
}

/// The subnet that a bound names, if it names one.
fn bound(key: &'static str, network: Prefix, len: u8, addr: IpAddr) -> Result<Prefix, ConfigFault> {
    let subnet = subnet_around(addr, len, network);
    if !network.covers(subnet) {
        return Err(ConfigFault::OutsideNetwork { key, subnet, network });
    }
    if subnet.addr() != addr {
        return Err(ConfigFault::NotOnBoundary { key, addr, len, right: subnet.addr() });
    }
    Ok(subnet)
}

/// flannel's bounds of one family.
struct Bounds {
    keys: Keys,
    /// The length when none is given, where the network leaves room for it.
    usual: u8,
    /// The longest subnet that still has a gateway and a pod.
    longest: u8,
}

struct Keys {
    network: &'static str,
    len: &'static str,
    min: &'static str,
    max: &'static str,
}

/// A network holds at least four subnets.
const ROOM: u8 = 2;

impl Bounds {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self { keys: KEYS_V4, usual: 24, longest: 30 },
            Family::V6 => Self { keys: KEYS_V6, usual: 64, longest: 126 },
        }
    }

    fn subnet_len(&self, network: Prefix, asked: Option<u64>) -> Result<u8, ConfigFault> {
        let max = self.longest - ROOM;
        if network.len() > max {
            return Err(ConfigFault::NetworkTooSmall { key: self.keys.network, network, max });
        }
        let shortest = network.len() + ROOM;
        let Some(len) = asked else { return Ok(self.usual.max(shortest)) };
        u8::try_from(len).ok().filter(|len| (shortest..=self.longest).contains(len)).ok_or(
            ConfigFault::SubnetLen {
                key: self.keys.len,
                len,
                min: shortest,
                max: self.longest,
                network,
            },
        )
    }

    fn above(&self, min: Prefix, max: Prefix) -> ConfigFault {
        ConfigFault::MinAboveMax {
            min_key: self.keys.min,
            min: min.addr(),
            max_key: self.keys.max,
            max: max.addr(),
        }
    }
}

const KEYS_V4: Keys =
    Keys { network: "Network", len: "SubnetLen", min: "SubnetMin", max: "SubnetMax" };
const KEYS_V6: Keys = Keys {
    network: "IPv6Network",
    len: "IPv6SubnetLen",
    min: "IPv6SubnetMin",
    max: "IPv6SubnetMax",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_subnet_is_a_24th_or_two_bits_below_the_network() {
        for (network, want) in [
            ("10.50.0.0/16", 24),
            ("10.50.0.0/22", 24),
            ("10.50.0.0/23", 25),
            ("10.50.0.0/28", 30),
            ("fd00:50::/48", 64),
            ("fd00:50::/62", 64),
            ("fd00:50::/63", 65),
            ("fd00:50::/124", 126),
        ] {
            assert_eq!(pool(network).subnet_len(), want, "{network}");
        }
    }

    #[test]
    fn the_first_subnet_is_skipped_and_the_last_is_not() {
        let pool = pool("10.50.0.0/22");
        let subnets: Vec<_> = pool.subnets().map(|s| s.to_string()).collect();
        assert_eq!(subnets, ["10.50.1.0/24", "10.50.2.0/24", "10.50.3.0/24"]);
    }

    #[test]
    fn a_pool_at_the_end_of_the_family_ends() {
        let pool = pool("255.255.252.0/22");
        assert_eq!(pool.subnets().count(), 3);
        assert_eq!(pool.max().to_string(), "255.255.255.0/24");
    }

    #[test]
    fn a_network_without_room_is_refused() {
        for network in ["10.50.0.0/29", "fd00:50::/125"] {
            let faults = Pool::new(prefix(network), None, None, None).unwrap_err();
            assert!(matches!(faults[..], [ConfigFault::NetworkTooSmall { .. }]), "{faults:?}");
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_with_the_bounds() {
        for len in [0, 17, 31, 256, u64::MAX] {
            let faults = Pool::new(prefix("10.50.0.0/16"), Some(len), None, None).unwrap_err();
            assert!(faults[0].to_string().contains("18 to 30"), "{}", faults[0]);
        }
    }

    #[test]
    fn both_bounds_are_checked_and_both_faults_told() {
        let addr = |text: &str| Some(text.parse().unwrap());
        let network = prefix("10.50.0.0/16");
        let new = |min, max| Pool::new(network, None, min, max);

        assert_eq!(new(addr("10.50.5.7"), addr("10.51.0.0")).unwrap_err().len(), 2);
        let faults = new(addr("10.50.9.0"), addr("10.50.8.0")).unwrap_err();
        assert!(matches!(faults[..], [ConfigFault::MinAboveMax { .. }]), "{faults:?}");
        let faults = new(addr("fd00::"), None).unwrap_err();
        assert!(matches!(faults[..], [ConfigFault::OutsideNetwork { .. }]), "{faults:?}");
        assert!(new(addr("10.50.8.0"), addr("10.50.8.0")).is_ok());
    }

    fn pool(network: &str) -> Pool {
        Pool::new(prefix(network), None, None, None).unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }
}
