//! Where a route leads (RFC 4271 §5.1.3, RFC 4760 §3, RFC 2545, RFC 8950).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::reader::Reader;

/// The address that packets for a route go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    V4(Ipv4Addr),
    /// With the sender's link-local address when both are on one link (RFC 2545 §3).
    V6 {
        global: Ipv6Addr,
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    pub const fn addr(self) -> IpAddr {
        match self {
            Self::V4(addr) => IpAddr::V4(addr),
            Self::V6 { global, .. } => IpAddr::V6(global),
        }
    }

    /// Reads the next hop of `MP_REACH_NLRI`; `None` when its length is none that an address has.
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(octets);
        match octets.len() {
            4 => reader.v4().map(Self::V4),
            16 => Some(Self::V6 { global: reader.v6()?, link_local: None }),
            32 => Some(Self::V6 { global: reader.v6()?, link_local: reader.v6() }),
            _ => None,
        }
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::V4(addr) => out.extend(addr.octets()),
            Self::V6 { global, link_local } => {
                out.extend(global.octets());
                out.extend(link_local.iter().flat_map(Ipv6Addr::octets));
            }
        }
    }

    pub(super) const fn len(self) -> u8 {
        match self {
            Self::V4(_) => 4,
            Self::V6 { link_local: None, .. } => 16,
            Self::V6 { link_local: Some(_), .. } => 32,
        }
    }

    /// Whether packets can go there at all (RFC 4271 §6.3): not unspecified, not a group, not reserved.
    pub(super) fn is_usable(self) -> bool {
        match self {
            Self::V4(addr) => !addr.is_unspecified() && addr.octets()[0] < FIRST_V4_GROUP,
            // The first half is unspecified where a router has no address but its link-local one.
            Self::V6 { global, link_local } => {
                !global.is_multicast() && (!global.is_unspecified() || link_local.is_some())
            }
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::V4(addr),
            IpAddr::V6(global) => Self::V6 { global, link_local: None },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V6 { global, link_local: Some(local) } => write!(f, "{global} ({local})"),
            _ => fmt::Display::fmt(&self.addr(), f),
        }
    }
}

/// 224.0.0.0 and everything above.
const FIRST_V4_GROUP: u8 = 224;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_has_one_of_three_lengths() {
        for len in 0..=48_u8 {
            let octets: Vec<_> = (1..=len).collect();
            let read = NextHop::read(&octets);
            assert_eq!(read.is_some(), [4, 16, 32].contains(&len), "{len}");
            let Some(next_hop) = read else { continue };
            let mut out = Vec::new();
            next_hop.write(&mut out);
            assert_eq!((out.as_slice(), next_hop.len()), (octets.as_slice(), len));
        }
    }
}
