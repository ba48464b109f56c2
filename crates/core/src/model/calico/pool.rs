//! An IP pool: addresses that are cut into blocks, and how packets to them cross the underlay.

use std::{collections::BTreeSet, net::IpAddr};

use russet_desired::Flag;
use russet_net::{Family, Prefix, Selector};

use crate::choices::When;

/// A pool of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    cidr: Prefix,
    block_len: BlockLen,
    encapsulation: Encapsulation,
    disabled: Flag,
    /// Whether Calico's controllers let nobody take from it: it overlaps another, or it is going.
    pub withheld: Flag,
    /// Whether packets that leave all pools take the node's address.
    pub nat_outgoing: Flag,
    /// Whether BGP announces its blocks.
    pub bgp_export: Flag,
    /// The nodes that take blocks from it.
    pub nodes: Selector,
    /// The namespaces whose pods are given its addresses.
    pub namespaces: Selector,
    pub assignment: Assignment,
    pub uses: BTreeSet<Use>,
}

/// How packets to a pool's addresses cross the underlay. There is no way to say two at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// As they are; routers know the way, or BGP tells them.
    #[default]
    None,
    Ipip(When),
    Vxlan(When),
}

/// Who decides that an address of a pool is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assignment {
    #[default]
    Automatic,
    /// Only who asks for the pool by name.
    Manual,
}

/// What a pool's addresses may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Workload,
    Tunnel,
    LoadBalancer,
}

impl Use {
    /// Of a pool that does not say.
    pub fn usual() -> BTreeSet<Self> {
        BTreeSet::from([Self::Workload, Self::Tunnel])
    }
}

/// The prefix length of a pool's blocks, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockLen {
    family: Family,
    bits: u8,
}

impl BlockLen {
    /// # Errors
    ///
    /// When the length is not within 20 to 32, or 116 to 128 of IPv6.
    pub fn new(family: Family, bits: u64) -> Result<Self, PoolFault> {
        let (min, max) = Self::range(family);
        let fits = u8::try_from(bits).ok().filter(|bits| (min..=max).contains(bits));
        let bits = fits.ok_or(PoolFault::BlockLen { bits, family, min, max })?;
        Ok(Self { family, bits })
    }

    /// Calico's default: 64 addresses.
    pub const fn usual(family: Family) -> Self {
        Self { family, bits: family.bits() - 6 }
    }

    /// At most 4,096 addresses.
    const fn range(family: Family) -> (u8, u8) {
        (family.bits() - 12, family.bits())
    }

    pub const fn get(self) -> u8 {
        self.bits
    }

    pub const fn family(self) -> Family {
        self.family
    }
}

/// What is wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    #[error("a block of {bits} bits is not within {min} to {max} for {family}")]
    BlockLen { bits: u64, family: Family, min: u8, max: u8 },

    #[error(
        "{cidr} is smaller than one of its blocks (/{len}); use a larger pool or smaller blocks"
    )]
    SmallerThanBlock { cidr: Prefix, len: u8 },

    #[error("{cidr} is IPv6 and IPIP carries IPv4 only; use vxlanMode, or none")]
    IpipOnIpv6 { cidr: Prefix },

    #[error("IPIP and VXLAN are both on; a pool has one encapsulation, so make one of them Never")]
    TwoEncapsulations,

    #[error("{cidr} overlaps {reserved}, whose addresses never leave their link")]
    LinkLocal { cidr: Prefix, reserved: Prefix },
}

impl Encapsulation {
    /// # Errors
    ///
    /// When both are on.
    pub const fn new(ipip: Option<When>, vxlan: Option<When>) -> Result<Self, PoolFault> {
        match (ipip, vxlan) {
            (None, None) => Ok(Self::None),
            (Some(when), None) => Ok(Self::Ipip(when)),
            (None, Some(when)) => Ok(Self::Vxlan(when)),
            (Some(_), Some(_)) => Err(PoolFault::TwoEncapsulations),
        }
    }
}

impl IpPool {
    /// A pool with Calico's defaults for all that is not given.
    ///
    /// # Errors
    ///
    /// Every fault at once. A pool that is disabled may be smaller than a block: it says which addresses
    /// belong to the cluster and hands none out.
    pub fn new(
        cidr: Prefix,
        block_len: Option<BlockLen>,
        encapsulation: Encapsulation,
        disabled: Flag,
    ) -> Result<Self, Vec<PoolFault>> {
        let block_len = block_len.unwrap_or(BlockLen::usual(cidr.family()));
        let mut faults = Vec::new();
        if block_len.get() < cidr.len() && !disabled.is_on() {
            faults.push(PoolFault::SmallerThanBlock { cidr, len: block_len.get() });
        }
        if cidr.family() == Family::V6 && matches!(encapsulation, Encapsulation::Ipip(_)) {
            faults.push(PoolFault::IpipOnIpv6 { cidr });
        }
        let local = link_local(cidr.family());
        if let Some(reserved) = local.filter(|reserved| reserved.overlaps(cidr)) {
            faults.push(PoolFault::LinkLocal { cidr, reserved });
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            cidr,
            block_len,
            encapsulation,
            disabled,
            withheld: Flag::Off,
            nat_outgoing: Flag::Off,
            bgp_export: Flag::On,
            nodes: Selector::all(),
            namespaces: Selector::all(),
            assignment: Assignment::default(),
            uses: Use::usual(),
        })
    }

    pub const fn cidr(&self) -> Prefix {
        self.cidr
    }

    pub fn family(&self) -> Family {
        self.cidr.family()
    }

    pub const fn block_len(&self) -> BlockLen {
        self.block_len
    }

    pub const fn encapsulation(&self) -> Encapsulation {
        self.encapsulation
    }

    pub const fn is_disabled(&self) -> bool {
        self.disabled.is_on()
    }

    /// Whether addresses are handed out from it.
    pub const fn gives(&self) -> bool {
        !self.disabled.is_on() && !self.withheld.is_on()
    }

    /// The block that an address of ours lies in.
    pub fn block_around(&self, addr: IpAddr) -> Option<Prefix> {
        let inside = self.cidr.contains(addr) && self.block_len.get() >= self.cidr.len();
        inside.then(|| Prefix::around(addr, self.block_len.get()).ok()).flatten()
    }
}

/// `169.254.0.0/16` and `fe80::/10`.
fn link_local(family: Family) -> Option<Prefix> {
    match family {
        Family::V4 => Prefix::new([169, 254, 0, 0].into(), 16).ok(),
        Family::V6 => Prefix::new([0xfe80, 0, 0, 0, 0, 0, 0, 0].into(), 10).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_calico_s_defaults() {
        let pool = new("10.244.0.0/16", None, Encapsulation::None, Flag::Off).unwrap();
        assert_eq!(pool.block_len().get(), 26);
        assert!(pool.gives() && pool.nodes.is_all() && pool.uses == Use::usual());
        let block = pool.block_around([10, 244, 3, 77].into());
        assert_eq!(block.unwrap().to_string(), "10.244.3.64/26");
        assert_eq!(pool.block_around([10, 245, 0, 0].into()), None);
        assert_eq!(BlockLen::usual(Family::V6).get(), 122);
    }

    #[test]
    fn block_lengths_have_bounds() {
        for (family, bits, good) in [
            (Family::V4, 19, false),
            (Family::V4, 20, true),
            (Family::V4, 32, true),
            (Family::V4, 33, false),
            (Family::V6, 115, false),
            (Family::V6, 116, true),
            (Family::V6, 128, true),
            (Family::V6, u64::MAX, false),
        ] {
            assert_eq!(BlockLen::new(family, bits).is_ok(), good, "{family} {bits}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_all_its_faults() {
        let both = Encapsulation::new(Some(When::Always), Some(When::CrossSubnet));
        assert_eq!(both, Err(PoolFault::TwoEncapsulations));
        let ipip = Encapsulation::Ipip(When::Always);
        let faults = new("fe80::/123", None, ipip, Flag::Off).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn a_disabled_pool_may_be_one_address() {
        let new = |disabled| new("10.0.0.7/32", None, Encapsulation::None, disabled);
        assert!(new(Flag::Off).is_err());
        let pool = new(Flag::On).unwrap();
        assert_eq!(pool.block_around([10, 0, 0, 7].into()), None);
    }

    fn new(
        cidr: &str,
        len: Option<BlockLen>,
        encapsulation: Encapsulation,
        disabled: Flag,
    ) -> Result<IpPool, Vec<PoolFault>> {
        IpPool::new(cidr.parse().unwrap(), len, encapsulation, disabled)
    }
}
