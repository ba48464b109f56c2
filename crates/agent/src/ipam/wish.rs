//! What the cluster's objects and a pod's wishes make of pools. Pure.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use russet_api::calico::{Key, Kind, ResourceId};
use russet_core::{
    addressing::blocks::{
        BlockPool, Reserved,
        machine::{BlockConfig, Borrowing, Want},
    },
    model::calico::{
        Claims, Encapsulation, IpPool, IpReservation, IpamConfiguration, Name, NoPool, PoolRef,
        PoolRequest, Use,
    },
};
use russet_net::{Family, Labels};

use crate::resources::{Known, Object, Picture};

/// What addresses are given from, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    pub pools: BTreeMap<Name, IpPool>,
    pub reservations: BTreeMap<Name, IpReservation>,
    pub settings: IpamConfiguration,
    pub labels: Labels,
    pub beside: Beside,
}

/// Who of Calico's writes blocks, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beside {
    #[default]
    Nobody,
    Calico,
    /// One that knows no rest, or of which it cannot be told.
    OlderCalico,
}

/// What a pod asks of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub pools_v4: Vec<String>,
    pub pools_v6: Vec<String>,
    /// `None`: when there is a pool of the family for it.
    pub v4: Option<bool>,
    pub v6: Option<bool>,
    /// At most one of each family.
    pub ips: Vec<IpAddr>,
}

/// Why a wish cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    #[error("{0} and {1} are asked for, and a pod has one {2} address")]
    Two(IpAddr, IpAddr, Family),
    #[error("{0:?} is asked for, and is neither a pool's name nor its prefix")]
    Pool(String),
    #[error("address {0} is asked for, and no {1} address is wanted")]
    Unwanted(IpAddr, Family),
    #[error("no address of any family is wanted")]
    Nothing,
    #[error(transparent)]
    NoPool(#[from] NoPool),
}

/// A tunnel's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tunnel {
    Ipip,
    Vxlan,
    VxlanV6,
    Wireguard,
    WireguardV6,
}

impl Tunnel {
    pub const fn family(self) -> Family {
        match self {
            Self::Ipip | Self::Vxlan | Self::Wireguard => Family::V4,
            Self::VxlanV6 | Self::WireguardV6 => Family::V6,
        }
    }

    /// As handles begin: `ipip-tunnel-addr-<node>`.
    pub const fn handle(self) -> &'static str {
        match self {
            Self::Ipip => "ipip-tunnel-addr",
            Self::Vxlan => "vxlan-tunnel-addr",
            Self::VxlanV6 => "vxlan-v6-tunnel-addr",
            Self::Wireguard => "wireguard-tunnel-addr",
            Self::WireguardV6 => "wireguard-v6-tunnel-addr",
        }
    }

    /// As the attribute `type` has it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Ipip => "ipipTunnelAddress",
            Self::Vxlan => "vxlanTunnelAddress",
            Self::VxlanV6 => "vxlanV6TunnelAddress",
            Self::Wireguard => "wireguardTunnelAddress",
            Self::WireguardV6 => "wireguardV6TunnelAddress",
        }
    }

    /// Whether it carries a pool's packets.
    const fn is_of(self, encapsulation: Encapsulation) -> bool {
        match self {
            Self::Ipip => matches!(encapsulation, Encapsulation::Ipip(_)),
            Self::Vxlan | Self::VxlanV6 => matches!(encapsulation, Encapsulation::Vxlan(_)),
            Self::Wireguard | Self::WireguardV6 => true,
        }
    }
}

impl Ground {
    /// What a picture says, for a node.
    pub fn of(picture: &Picture, node: &Name) -> Self {
        let mut ground = Self::default();
        for (key, known) in picture.iter() {
            ground.put(node, key, Some(known));
        }
        ground
    }

    /// Takes one key. Returns whether it was about this.
    pub fn put(&mut self, node: &Name, key: &Key, known: Option<&Known>) -> bool {
        let value = known.and_then(|known| known.value.as_ref());
        match key {
            Key::IpamConfig => {
                self.settings = match value {
                    Some(Object::IpamConfiguration(settings)) => *settings,
                    _ => IpamConfiguration::default(),
                };
            }
            Key::Resource(ResourceId { kind: Kind::IpPool, name, .. }) => match value {
                Some(Object::Pool(pool)) => {
                    self.pools.insert(name.clone(), pool.as_ref().clone());
                }
                _ => _ = self.pools.remove(name),
            },
            Key::Resource(ResourceId { kind: Kind::IpReservation, name, .. }) => match value {
                Some(Object::Reservation(one)) => {
                    self.reservations.insert(name.clone(), one.as_ref().clone());
                }
                _ => _ = self.reservations.remove(name),
            },
            Key::Resource(ResourceId { kind: Kind::ClusterInformation, .. }) => {
                self.beside = match value {
                    Some(Object::Cluster(cluster)) if !cluster.knows_rest() => Beside::OlderCalico,
                    Some(Object::Cluster(cluster)) if cluster.has_calico() => Beside::Calico,
                    Some(Object::Cluster(_)) => Beside::Nobody,
                    // One that cannot be read may say anything.
                    _ if known.is_some() => Beside::OlderCalico,
                    _ => Beside::Nobody,
                };
            }
            Key::Resource(ResourceId { kind: Kind::Node, name, .. }) if name == node => {
                self.labels = match value {
                    Some(Object::Node(node)) => node.labels.clone(),
                    _ => Labels::default(),
                };
            }
            _ => return false,
        }
        true
    }

    /// What the machine goes by: every pool that gives, since a pod may ask for one that does not choose its node. Beside an
    /// older Calico no address rests in its block: it goes to the end of the block's queue, as Calico's own do.
    pub fn config(&self, cooldown: Duration) -> BlockConfig {
        let giving = self.pools.iter().filter(|(_, pool)| pool.gives());
        let pools = giving.filter_map(|(name, pool)| {
            let read = BlockPool::new(pool.cidr(), pool.block_len().get());
            read.map_err(
                |error| tracing::warn!(op = "read pool", pool = %name, %error, "it gives nothing"),
            )
            .ok()
        });
        let reserved = self.reservations.values().flat_map(|one| one.cidrs.iter().copied());
        let by_hand = self.settings.claims == Claims::ByHand;
        let most = usize::try_from(self.settings.max_blocks()).unwrap_or(usize::MAX);
        let strict = self.settings.is_strict();
        BlockConfig {
            pools: pools.collect(),
            reserved: Reserved::new(reserved.collect()),
            borrowing: if strict { Borrowing::Never } else { Borrowing::Allowed },
            blocks_per_node: if by_hand { 0 } else { most },
            cooldown: match self.beside {
                Beside::OlderCalico => Duration::ZERO,
                Beside::Calico | Beside::Nobody => cooldown,
            },
        }
    }

    /// Whether an address is kept from all pods.
    pub fn is_reserved(&self, addr: IpAddr) -> bool {
        let mut reserved = self.reservations.values().flat_map(|one| &one.cidrs);
        reserved.any(|cidr| cidr.contains(addr))
    }

    /// The addresses of a pod: which families, from which pools.
    ///
    /// # Errors
    ///
    /// When it asks for what cannot be.
    pub fn wants(&self, wish: &Wish) -> Result<Vec<Want>, WishError> {
        let mut wants = Vec::new();
        for (family, pools, wanted) in
            [(Family::V4, &wish.pools_v4, wish.v4), (Family::V6, &wish.pools_v6, wish.v6)]
        {
            let mut ips = wish.ips.iter().copied().filter(|ip| Family::of(*ip) == family);
            let (wished, second) = (ips.next(), ips.next());
            if let (Some(first), Some(second)) = (wished, second) {
                return Err(WishError::Two(first, second, family));
            }
            if let (Some(ip), Some(false)) = (wished, wanted) {
                return Err(WishError::Unwanted(ip, family));
            }
            let optional = wanted.is_none() && wished.is_none() && pools.is_empty();
            if wanted == Some(false) || (optional && !self.has(family)) {
                continue;
            }
            // An address says its pool by itself.
            let pools = match wished {
                Some(_) if pools.is_empty() => Vec::new(),
                _ => self.choose(family, pools, Use::Workload)?,
            };
            wants.push(Want { family, pools, wished });
        }
        if !wants.is_empty() {
            return Ok(wants);
        }
        match (wish.v4, wish.v6) {
            (Some(false), Some(false)) => Err(WishError::Nothing),
            (Some(false), _) => Err(NoPool::NoneChosen(Family::V6).into()),
            _ => Err(NoPool::NoneChosen(Family::V4).into()),
        }
    }

    /// What a tunnel's address is taken from.
    ///
    /// # Errors
    ///
    /// When no pool of that encapsulation has addresses for tunnels.
    pub fn tunnel(&self, tunnel: Tunnel) -> Result<Want, NoPool> {
        let family = tunnel.family();
        let request = PoolRequest { node_labels: self.labels.clone(), ..PoolRequest::default() };
        let chosen = request.choose(&self.pools, family, Use::Tunnel)?;
        let of = chosen.into_iter().filter(|(_, pool)| tunnel.is_of(pool.encapsulation()));
        let pools: Vec<_> = of.map(|(_, pool)| pool.cidr()).collect();
        if pools.is_empty() {
            Err(NoPool::NoneChosen(family))
        } else {
            Ok(Want { family, pools, wished: None })
        }
    }

    fn has(&self, family: Family) -> bool {
        self.choose(family, &[], Use::Workload).is_ok()
    }

    fn choose(
        &self,
        family: Family,
        asked: &[String],
        usage: Use,
    ) -> Result<Vec<russet_net::Prefix>, WishError> {
        let read = |text: &String| match (text.parse(), text.parse()) {
            (Ok(cidr), _) => Ok(PoolRef::Cidr(cidr)),
            (_, Ok(name)) => Ok(PoolRef::Name(name)),
            _ => Err(WishError::Pool(text.clone())),
        };
        let cni = asked.iter().map(read).collect::<Result<_, _>>()?;
        let node_labels = self.labels.clone();
        let request = PoolRequest { cni, node_labels, ..PoolRequest::default() };
        let chosen = request.choose(&self.pools, family, usage)?;
        Ok(chosen.into_iter().map(|(_, pool)| pool.cidr()).collect())
    }
}
