//! Hands out the pod addresses of a node's subnets.
//!
//! The order is host-local's: the address after the one that was handed out last, wrapping, so an address
//! that a pod gave back rests as long as possible. The base, the gateway (base + 1) and an IPv4 subnet's
//! broadcast address are never given. What is taken and what was last comes from outside, where it is
//! recorded on disk; nothing is remembered here.

use std::{collections::BTreeSet, net::IpAddr};

use russet_net::{Family, Prefix};

/// A pod's address in one subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub addr: IpAddr,
    /// The subnet's prefix length in bits.
    pub len: u8,
    pub gateway: IpAddr,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    #[error("subnet {subnet} has no free address left ({taken} are taken)")]
    Exhausted { subnet: Prefix, taken: usize },
    #[error("address {0} is taken")]
    Taken(IpAddr),
    #[error("address {addr} is {what} of {subnet} and no pod's")]
    Reserved { addr: IpAddr, what: &'static str, subnet: Prefix },
    #[error("address {0} is in none of this node's subnets")]
    Foreign(IpAddr),
    #[error("two addresses of one family are asked for: {0} and {1}")]
    Twice(IpAddr, IpAddr),
    #[error("subnet {0} is too small for a gateway and a pod")]
    TooSmall(Prefix),
}

/// The addresses of one subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: Prefix,
    gateway: IpAddr,
    /// Offsets from the base: the first and the last that a pod may have.
    first: u128,
    last: u128,
}

impl Range {
    /// # Errors
    ///
    /// When there is no room for a gateway and one pod.
    pub fn new(subnet: Prefix) -> Result<Self, IpamError> {
        let too_small = IpamError::TooSmall(subnet);
        let size = subnet.offset_of(subnet.last()).unwrap_or_default();
        let last = match subnet.family() {
            // The broadcast address.
            Family::V4 => size.saturating_sub(1),
            Family::V6 => size,
        };
        let gateway = subnet.nth(GATEWAY).ok_or_else(|| too_small.clone())?;
        let first = GATEWAY + 1;
        if first <= last { Ok(Self { subnet, gateway, first, last }) } else { Err(too_small) }
    }

    pub const fn subnet(self) -> Prefix {
        self.subnet
    }

    pub const fn gateway(self) -> IpAddr {
        self.gateway
    }

    /// The free address that comes next after `last`.
    ///
    /// # Errors
    ///
    /// When every address is taken.
    pub fn next(
        self,
        last: Option<IpAddr>,
        taken: &BTreeSet<IpAddr>,
    ) -> Result<Assigned, IpamError> {
        let after = last
            .and_then(|last| self.subnet.offset_of(last))
            .map(|offset| offset + 1)
            .filter(|offset| (self.first..=self.last).contains(offset))
            .unwrap_or(self.first);
        // Among as many addresses as are taken, and one more, is a free one, or there is none at all. So
        // the loop ends long before it has counted a /64.
        let tries = taken.len() as u128 + 1;
        let wrapped = (after..=self.last).chain(self.first..after);
        let within = usize::try_from(tries).unwrap_or(usize::MAX);
        wrapped
            .take(within)
            .filter_map(|offset| self.subnet.nth(offset))
            .find(|addr| !taken.contains(addr))
            .map(|addr| self.assign(addr))
            .ok_or(IpamError::Exhausted { subnet: self.subnet, taken: taken.len() })
    }

    /// The address that was asked for, if a pod may have it.
    ///
    /// # Errors
    ///
    /// When it is another's, not a pod's, or not one of ours.
    pub fn exactly(self, addr: IpAddr, taken: &BTreeSet<IpAddr>) -> Result<Assigned, IpamError> {
        let offset = self.subnet.offset_of(addr).ok_or(IpamError::Foreign(addr))?;
        let reserved = |what| IpamError::Reserved { addr, what, subnet: self.subnet };
        match offset {
            0 => Err(reserved("the base")),
            GATEWAY => Err(reserved("the gateway")),
            _ if offset > self.last => Err(reserved("the broadcast address")),
            _ if taken.contains(&addr) => Err(IpamError::Taken(addr)),
            _ => Ok(self.assign(addr)),
        }
    }

    fn assign(self, addr: IpAddr) -> Assigned {
        Assigned { addr, len: self.subnet.len(), gateway: self.gateway }
    }
}

/// What is known of the addresses that are out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    pub taken: BTreeSet<IpAddr>,
    /// What was handed out last in each subnet, in the order of the subnets.
    pub last: Vec<Option<IpAddr>>,
}

/// Picks one address in each subnet, those that are asked for first.
///
/// # Errors
///
/// When one of them cannot be had; none is handed out then.
pub fn assign(
    subnets: &[Prefix],
    in_use: &InUse,
    asked: &[IpAddr],
) -> Result<Vec<Assigned>, IpamError> {
    if let Some(foreign) = asked.iter().find(|ip| !subnets.iter().any(|net| net.contains(**ip))) {
        return Err(IpamError::Foreign(*foreign));
    }
    let one = |(n, subnet): (usize, &Prefix)| {
        let range = Range::new(*subnet)?;
        let mut here: Vec<_> = asked.iter().copied().filter(|ip| subnet.contains(*ip)).collect();
        here.dedup();
        match here.as_slice() {
            [] => range.next(in_use.last.get(n).copied().flatten(), &in_use.taken),
            [addr] => range.exactly(*addr, &in_use.taken),
            [first, second, ..] => Err(IpamError::Twice(*first, *second)),
        }
    };
    subnets.iter().enumerate().map(one).collect()
}

/// The gateway's distance from the base.
const GATEWAY: u128 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_handed_out_in_turn_and_a_returned_one_rests() {
        let range = range("10.50.7.0/29");
        let mut taken = BTreeSet::new();
        let mut last = None;
        let mut order = Vec::new();
        for _ in 0..5 {
            let addr = range.next(last, &taken).unwrap().addr;
            taken.insert(addr);
            last = Some(addr);
            order.push(addr.to_string());
        }
        assert_eq!(order, ["10.50.7.2", "10.50.7.3", "10.50.7.4", "10.50.7.5", "10.50.7.6"]);
        assert!(matches!(range.next(last, &taken), Err(IpamError::Exhausted { taken: 5, .. })));

        taken.remove(&ip("10.50.7.3"));
        taken.remove(&ip("10.50.7.5"));
        assert_eq!(range.next(Some(ip("10.50.7.3")), &taken).unwrap().addr, ip("10.50.7.5"));
        assert_eq!(range.next(Some(ip("10.50.7.6")), &taken).unwrap().addr, ip("10.50.7.3"));
    }

    #[test]
    fn an_ipv6_subnet_gives_its_last_address_and_no_end_is_counted() {
        let range = range("fd00:50::/126");
        let taken = BTreeSet::from([ip("fd00:50::2")]);
        assert_eq!(range.next(None, &taken).unwrap().addr, ip("fd00:50::3"));
        let wide = self::range("fd00:50::/64");
        let last = Some(wide.subnet().last());
        assert_eq!(wide.next(last, &BTreeSet::new()).unwrap().addr, ip("fd00:50::2"));
    }

    #[test]
    fn a_last_address_from_another_subnet_means_begin_at_the_beginning() {
        let range = range("10.50.7.0/24");
        assert_eq!(
            range.next(Some(ip("10.9.9.9")), &BTreeSet::new()).unwrap().addr,
            ip("10.50.7.2")
        );
    }

    #[test]
    fn a_wish_is_granted_when_it_can_be() {
        let range = range("10.50.7.0/24");
        let taken = BTreeSet::from([ip("10.50.7.9")]);
        assert_eq!(range.exactly(ip("10.50.7.77"), &taken).unwrap().addr, ip("10.50.7.77"));
        for (wish, wanted) in [
            ("10.50.7.0", "the base"),
            ("10.50.7.1", "the gateway"),
            ("10.50.7.255", "the broadcast"),
            ("10.50.7.9", "is taken"),
            ("10.50.8.1", "none of this node's"),
        ] {
            let err = range.exactly(ip(wish), &taken).unwrap_err().to_string();
            assert!(err.contains(wanted), "{err}");
        }
    }

    #[test]
    fn a_dual_stack_pod_gets_one_of_each() {
        let subnets = ["10.50.7.0/24", "fd00:50::/64"].map(|text| text.parse().unwrap());
        let in_use = InUse { last: vec![Some(ip("10.50.7.4")), None], ..InUse::default() };
        let got = assign(&subnets, &in_use, &[ip("fd00:50::99")]).unwrap();
        assert_eq!([got[0].addr, got[1].addr], [ip("10.50.7.5"), ip("fd00:50::99")]);
        assert_eq!([got[0].gateway, got[1].gateway], [ip("10.50.7.1"), ip("fd00:50::1")]);

        let twice = assign(&subnets, &in_use, &[ip("10.50.7.8"), ip("10.50.7.9")]).unwrap_err();
        assert_eq!(twice, IpamError::Twice(ip("10.50.7.8"), ip("10.50.7.9")));
        let same = assign(&subnets, &in_use, &[ip("10.50.7.8"), ip("10.50.7.8")]).unwrap();
        assert_eq!(same[0].addr, ip("10.50.7.8"));
        let foreign = assign(&subnets, &in_use, &[ip("192.0.2.1")]).unwrap_err();
        assert_eq!(foreign, IpamError::Foreign(ip("192.0.2.1")));
    }

    #[test]
    fn a_subnet_without_room_is_refused() {
        for small in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
            assert!(
                matches!(Range::new(small.parse().unwrap()), Err(IpamError::TooSmall(_))),
                "{small}"
            );
        }
        assert!(Range::new("10.0.0.0/30".parse().unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_handed_out_is_free_and_a_pod_s_and_nothing_free_is_missed(
            taken in proptest::collection::btree_set(0_u8..16, 0..16),
            last in proptest::option::of(0_u8..20),
        ) {
            let range = range("10.0.0.0/28");
            let taken: BTreeSet<_> = taken.into_iter().map(host).collect();
            let last = last.map(host);
            // The obvious twin: walk the circle from behind `last` and take the first that is free.
            let start = last.and_then(|ip| range.subnet().offset_of(ip)).map_or(2, |n| n + 1);
            let start = if (2..=14).contains(&start) { start } else { 2 };
            let wanted = (0..13)
                .map(|step| range.subnet().nth(2 + (start - 2 + step) % 13).unwrap())
                .find(|addr| !taken.contains(addr));
            prop_assert_eq!(range.next(last, &taken).ok().map(|got| got.addr), wanted);
        }
    }

    fn host(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(subnet: &str) -> Range {
        Range::new(subnet.parse().unwrap()).unwrap()
    }
}
