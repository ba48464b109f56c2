//! Numbers with a range.

use std::{fmt, num::NonZeroU16};

use crate::Family;

/// A number that lies outside what its meaning allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {got} is not within {min} to {max}")]
pub struct OutOfRange {
    what: &'static str,
    got: u64,
    min: u64,
    max: u64,
}

impl OutOfRange {
    pub const fn new(what: &'static str, got: u64, min: u64, max: u64) -> Self {
        Self { what, got, min, max }
    }

    /// The same of another number, which did not even fit in the type that was tried.
    #[must_use]
    pub const fn of(self, got: u64) -> Self {
        Self { got, ..self }
    }
}

/// A VXLAN network identifier: 24 bits (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    pub const MAX: Self = Self((1 << 24) - 1);

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = OutOfRange;

    fn try_from(raw: u32) -> Result<Self, Self::Error> {
        if raw <= Self::MAX.0 {
            Ok(Self(raw))
        } else {
            Err(OutOfRange::new("VNI", raw.into(), 0, Self::MAX.0.into()))
        }
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest packet that a link carries, in octets, its link-layer header not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u32);

impl Mtu {
    /// What every IPv4 link must carry (RFC 791 §3.2).
    pub const MIN: Self = Self(68);
    /// What every IPv6 link must carry (RFC 8200 §5).
    pub const MIN_V6: Self = Self(1_280);
    pub const MAX: Self = Self(65_535);
    pub const ETHERNET: Self = Self(1_500);

    pub const fn get(self) -> u32 {
        self.0
    }

    /// The MTU that is left when each packet carries `overhead` octets more.
    ///
    /// # Errors
    ///
    /// When what is left is below the minimum of `family`.
    pub fn less(self, overhead: u16, family: Family) -> Result<Self, OutOfRange> {
        let left = self.0.saturating_sub(overhead.into());
        let min = Self::min_of(family);
        if left >= min.0 {
            Ok(Self(left))
        } else {
            Err(OutOfRange::new("MTU", left.into(), min.0.into(), Self::MAX.0.into()))
        }
    }

    pub const fn min_of(family: Family) -> Self {
        match family {
            Family::V4 => Self::MIN,
            Family::V6 => Self::MIN_V6,
        }
    }
}

impl TryFrom<u32> for Mtu {
    type Error = OutOfRange;

    fn try_from(raw: u32) -> Result<Self, Self::Error> {
        if (Self::MIN.0..=Self::MAX.0).contains(&raw) {
            Ok(Self(raw))
        } else {
            Err(OutOfRange::new("MTU", raw.into(), Self::MIN.0.into(), Self::MAX.0.into()))
        }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A UDP or TCP port: above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

impl Port {
    /// Linux' own VXLAN port, older than the assigned one.
    pub const VXLAN_LINUX: Self = Self(NonZeroU16::new(8_472).unwrap());
    /// That of flannel's `wireguard` over IPv4, and over IPv6.
    pub const FLANNEL_WIREGUARD: Self = Self(NonZeroU16::new(51_820).unwrap());
    pub const FLANNEL_WIREGUARD_V6: Self = Self(NonZeroU16::new(51_821).unwrap());
    /// That of flannel's `udp`.
    pub const FLANNEL_UDP: Self = Self(NonZeroU16::new(8_285).unwrap());
    /// The assigned VXLAN port (RFC 7348 §8).
    pub const VXLAN: Self = Self(NonZeroU16::new(4_789).unwrap());

    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u32> for Port {
    type Error = OutOfRange;

    fn try_from(raw: u32) -> Result<Self, Self::Error> {
        u16::try_from(raw).ok().and_then(NonZeroU16::new).map(Self).ok_or(OutOfRange::new(
            "port",
            raw.into(),
            1,
            65_535,
        ))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vni_is_24_bits() {
        assert_eq!(Vni::try_from(0xff_ffff), Ok(Vni::MAX));
        assert_eq!(
            Vni::try_from(0x100_0000).unwrap_err().to_string(),
            "VNI 16777216 is not within 0 to 16777215"
        );
    }

    #[test]
    fn an_mtu_keeps_the_family_s_minimum() {
        let underlay = Mtu::try_from(1_340).unwrap();
        assert_eq!(underlay.less(50, Family::V6).unwrap().get(), 1_290);
        assert!(underlay.less(70, Family::V6).is_err());
        assert!(underlay.less(70, Family::V4).is_ok());
    }

    #[test]
    fn port_zero_is_no_port() {
        assert!(Port::try_from(0).is_err());
        assert!(Port::try_from(65_536).is_err());
        assert_eq!(Port::try_from(8_472), Ok(Port::VXLAN_LINUX));
    }
}
