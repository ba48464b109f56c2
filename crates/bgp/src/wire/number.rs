//! Numbers of BGP with a range or a look-alike.

use std::{fmt, net::Ipv4Addr, time::Duration};

use russet_net::OutOfRange;

/// A BGP identifier: any number but zero, unique in its AS (RFC 6286), written like an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(u32);

impl RouterId {
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for RouterId {
    type Error = OutOfRange;

    fn try_from(raw: u32) -> Result<Self, Self::Error> {
        if raw == 0 {
            return Err(OutOfRange::new("BGP identifier", 0, 1, u32::MAX.into()));
        }
        Ok(Self(raw))
    }
}

impl TryFrom<Ipv4Addr> for RouterId {
    type Error = OutOfRange;

    fn try_from(addr: Ipv4Addr) -> Result<Self, Self::Error> {
        u32::from(addr).try_into()
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(self.0), f)
    }
}

/// A cluster of route reflectors and their clients (RFC 4456 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u32);

impl ClusterId {
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<RouterId> for ClusterId {
    /// A reflector's cluster is its own unless told (RFC 4456 §7).
    fn from(id: RouterId) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Ipv4Addr::from(self.0), f)
    }
}

/// What tells the paths of one destination from one peer apart (RFC 7911). Means nothing but to its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(u32);

impl PathId {
    /// Where add-path is not in use.
    pub const NONE: Self = Self(0);

    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Seconds of silence before a peer is held dead: zero (never) or at least 3 (RFC 4271 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldTime(u16);

impl HoldTime {
    /// What RFC 4271 §10 suggests.
    pub const USUAL: Self = Self(90);

    pub const fn get(self) -> u16 {
        self.0
    }

    /// `None`: the peer is never held dead.
    pub fn period(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_secs(self.0.into()))
    }
}

impl TryFrom<u16> for HoldTime {
    type Error = OutOfRange;

    fn try_from(secs: u16) -> Result<Self, Self::Error> {
        match secs {
            1 | 2 => Err(OutOfRange::new("hold time", secs.into(), 3, u16::MAX.into())),
            secs => Ok(Self(secs)),
        }
    }
}

impl fmt::Display for HoldTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_time_is_zero_or_at_least_three_seconds() {
        assert!(HoldTime::try_from(1).is_err());
        assert!(HoldTime::try_from(2).is_err());
        assert_eq!(HoldTime::try_from(0).unwrap().period(), None);
        assert_eq!(HoldTime::try_from(3).unwrap().period(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_identifier_is_not_zero_and_reads_like_an_address() {
        assert!(RouterId::try_from(0).is_err());
        assert_eq!(RouterId::try_from(0x0a00_0001).unwrap().to_string(), "10.0.0.1");
    }
}
