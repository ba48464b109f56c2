//! Address prefixes in canonical form.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ParseError;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The length of a whole address in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A prefix whose host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpNet);

impl Prefix {
    /// # Errors
    ///
    /// When the length does not fit the family, or the address has host bits.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, ParseError> {
        let prefix = Self::around(addr, len)?;
        if prefix.addr() == addr {
            Ok(prefix)
        } else {
            let reason = format!("it has host bits set; the subnet is {prefix}");
            Err(ParseError::new(&format!("{addr}/{len}"), "a subnet", reason))
        }
    }

    /// The prefix of length `len` that `addr` lies in.
    ///
    /// # Errors
    ///
    /// When the length does not fit the family.
    pub fn around(addr: IpAddr, len: u8) -> Result<Self, ParseError> {
        IpNet::new(addr, len)
            .map(|net| Self(net.trunc()))
            .map_err(|err| ParseError::new(&format!("{addr}/{len}"), "a subnet", err.to_string()))
    }

    /// The prefix that holds `addr` and nothing else.
    pub fn host(addr: IpAddr) -> Self {
        Self(addr.into())
    }

    /// Every address of a family: `0.0.0.0/0` or `::/0`.
    pub fn all(family: Family) -> Self {
        Self(match family {
            Family::V4 => IpNet::V4(Ipv4Net::default()),
            Family::V6 => IpNet::V6(Ipv6Net::default()),
        })
    }

    /// The first address: the base.
    pub fn addr(self) -> IpAddr {
        self.0.addr()
    }

    /// The last address: the broadcast address of an IPv4 subnet.
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// The prefix length in bits.
    // A length of zero is the whole family, so there is nothing that `is_empty` could mean.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> u8 {
        self.0.prefix_len()
    }

    pub fn is_host(self) -> bool {
        self.len() == self.family().bits()
    }

    pub fn family(self) -> Family {
        Family::of(self.addr())
    }

    pub fn contains(self, addr: IpAddr) -> bool {
        self.0.contains(&addr)
    }

    /// Whether every address of `other` is one of ours.
    pub fn covers(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The address `n` above the base, or `None` beyond the last.
    pub fn nth(self, n: u128) -> Option<IpAddr> {
        let addr = match self.addr() {
            IpAddr::V4(base) => {
                let n = u32::try_from(n).ok()?;
                IpAddr::V4(u32::from(base).checked_add(n)?.into())
            }
            IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(n)?.into()),
        };
        self.contains(addr).then_some(addr)
    }

    /// How far `addr` lies above the base, or `None` when it is not one of ours.
    pub fn offset_of(self, addr: IpAddr) -> Option<u128> {
        self.contains(addr).then(|| bits(addr) - bits(self.addr()))
    }

    /// The prefix of the same length that follows, or `None` at the end of the family.
    pub fn next(self) -> Option<Self> {
        let step = 1_u128.checked_shl((self.family().bits() - self.len()).into())?;
        let addr = match self.addr() {
            IpAddr::V4(base) => {
                IpAddr::V4(u32::from(base).checked_add(u32::try_from(step).ok()?)?.into())
            }
            IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(step)?.into()),
        };
        Self::new(addr, self.len()).ok()
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl FromStr for Prefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason: &str| ParseError::new(text, "a subnet", reason);
        let (addr, len) = text.split_once('/').ok_or_else(|| fail("there is no /LENGTH"))?;
        let addr = addr.parse().map_err(|_| fail("the address is no IP address"))?;
        let len = len.parse().map_err(|_| fail("the length is no number"))?;
        Self::new(addr, len).map_err(|err| fail(&err.reason))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u32::from(addr).into(),
        IpAddr::V6(addr) => addr.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_refused_and_the_subnet_is_named() {
        let err = "10.50.7.1/24".parse::<Prefix>().unwrap_err();
        assert!(err.to_string().contains("10.50.7.0/24"), "{err}");
        assert!("10.50.7.0/33".parse::<Prefix>().is_err());
        assert!("10.50.7.0".parse::<Prefix>().is_err());
    }

    #[test]
    fn addresses_are_counted_from_the_base() {
        let subnet = prefix("10.50.7.0/24");
        assert_eq!(subnet.nth(1), Some([10, 50, 7, 1].into()));
        assert_eq!(subnet.nth(256), None);
        assert_eq!(subnet.offset_of([10, 50, 7, 9].into()), Some(9));
        assert_eq!(subnet.offset_of([10, 50, 8, 9].into()), None);
    }

    #[test]
    fn the_next_subnet_ends_with_the_family() {
        assert_eq!(prefix("10.50.255.0/24").next(), Some(prefix("10.51.0.0/24")));
        assert_eq!(prefix("255.255.255.0/24").next(), None);
        assert_eq!(prefix("fd00:50::/64").next(), Some(prefix("fd00:50:0:1::/64")));
        assert_eq!(prefix("::/0").next(), None);
        assert_eq!(prefix("0.0.0.0/0").next(), None);
    }

    #[test]
    fn overlap_is_symmetric_and_never_crosses_families() {
        assert!(prefix("10.50.0.0/16").overlaps(prefix("10.50.7.0/24")));
        assert!(prefix("10.50.7.0/24").overlaps(prefix("10.50.0.0/16")));
        assert!(!prefix("10.50.7.0/24").overlaps(prefix("10.50.8.0/24")));
        assert!(!prefix("0.0.0.0/0").overlaps(prefix("::/0")));
    }
}
