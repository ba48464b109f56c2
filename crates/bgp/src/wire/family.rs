//! Address families: what kind of route a message speaks of (RFC 4760).

use std::{fmt, str::FromStr};

use russet_net::ParseError;

/// A family that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ipv4Unicast,
    Ipv6Unicast,
    L2vpnEvpn,
}

impl Family {
    pub const ALL: [Self; 3] = [Self::Ipv4Unicast, Self::Ipv6Unicast, Self::L2vpnEvpn];

    pub const fn wire(self) -> AfiSafi {
        match self {
            Self::Ipv4Unicast => AfiSafi { afi: 1, safi: 1 },
            Self::Ipv6Unicast => AfiSafi { afi: 2, safi: 1 },
            Self::L2vpnEvpn => AfiSafi { afi: 25, safi: 70 },
        }
    }

    /// Dense, from zero: for tables with a row for each family.
    pub const fn index(self) -> usize {
        match self {
            Self::Ipv4Unicast => 0,
            Self::Ipv6Unicast => 1,
            Self::L2vpnEvpn => 2,
        }
    }

    const fn bit(self) -> u8 {
        1 << self.index()
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
            Self::L2vpnEvpn => "l2vpn-evpn",
        })
    }
}

impl FromStr for Family {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|family| family.to_string() == text).ok_or_else(|| {
            let reason = "ipv4-unicast, ipv6-unicast or l2vpn-evpn is wanted";
            ParseError::new(text, "an address family", reason)
        })
    }
}

/// A family as it stands in a message, spoken by us or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    pub afi: u16,
    pub safi: u8,
}

impl AfiSafi {
    /// `None`: we do not speak it.
    pub fn family(self) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.wire() == self)
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => family.fmt(f),
            None => write!(f, "AFI {} SAFI {}", self.afi, self.safi),
        }
    }
}

/// Some of the families that we speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilySet(u8);

impl FamilySet {
    pub const EMPTY: Self = Self(0);

    #[must_use]
    pub const fn with(self, family: Family) -> Self {
        Self(self.0 | family.bit())
    }

    pub const fn contains(self, family: Family) -> bool {
        self.0 & family.bit() != 0
    }

    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        families.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(|family| family.to_string()).collect();
        f.pad(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_found_by_its_numbers_and_by_its_name() {
        for family in Family::ALL {
            assert_eq!(family.wire().family(), Some(family));
            assert_eq!(family.to_string().parse(), Ok(family));
        }
        assert_eq!(AfiSafi { afi: 1, safi: 128 }.family(), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in_and_no_more() {
        let set = FamilySet::EMPTY.with(Family::L2vpnEvpn).with(Family::Ipv4Unicast);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Family::Ipv4Unicast, Family::L2vpnEvpn]);
        assert!(!set.contains(Family::Ipv6Unicast));
        assert!(set.both(FamilySet::EMPTY.with(Family::Ipv6Unicast)).is_empty());
    }
}
