//! Where a peer is.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use russet_net::{IfName, ParseError};

/// A peer's address, which tells it from all others. One that holds on its link only (`fe80::/10`) comes with
/// the link, because each link may have the same (RFC 4007 §6).
///
/// ```
/// use russet_bgp::speaker::PeerAddr;
///
/// let peer: PeerAddr = "fe80::1%eth1".parse()?;
/// assert_eq!(peer.link.map(|link| link.to_string()), Some("eth1".to_owned()));
/// assert_eq!(peer.to_string(), "fe80::1%eth1");
/// # Ok::<(), russet_net::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddr {
    pub ip: IpAddr,
    /// `None` for an address that holds everywhere.
    pub link: Option<IfName>,
}

impl PeerAddr {
    /// Stands for whoever is found.
    pub const ANYBODY: Self = Self { ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED), link: None };
}

impl From<IpAddr> for PeerAddr {
    fn from(ip: IpAddr) -> Self {
        Self { ip, link: None }
    }
}

impl FromStr for PeerAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, link) = match text.split_once('%') {
            Some((ip, link)) => (ip, Some(link.parse()?)),
            None => (text, None),
        };
        let ip = ip
            .parse()
            .map_err(|_| ParseError::new(text, "a peer's address", "it is no IP address"))?;
        Ok(Self { ip, link })
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link {
            Some(link) => write!(f, "{}%{link}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}
