//! Which link and addresses a node speaks to its peers by, as it is told.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use regex::Regex;
use russet_net::{Family, IfName};

use super::Detection;

/// Which link and addresses the node speaks to its peers by. What is `None` is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// The first that is there counts; without any, the link of the public address or of the default route.
    pub choices: Vec<LinkChoice>,
    pub public_ip: Option<Ipv4Addr>,
    pub public_ipv6: Option<Ipv6Addr>,
    /// Calico's way: the addresses are looked for, and they tell the link.
    pub detection: Option<Detection>,
}

impl Uplink {
    /// The public address of a family, where it is told.
    pub fn public(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_ip.map(IpAddr::V4),
            Family::V6 => self.public_ipv6.map(IpAddr::V6),
        }
    }
}

/// One way to say which link is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChoice {
    Name(IfName),
    /// The link that has this address.
    Address(IpAddr),
    /// The link with an address like this; if there is none, with a name like this.
    Pattern(Pattern),
    /// The link that leads to this address.
    Reaches(IpAddr),
}

impl FromStr for LinkChoice {
    type Err = russet_net::ParseError;

    /// An address or a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(addr) => Ok(Self::Address(addr)),
            Err(_) => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for LinkChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "interface {name}"),
            Self::Address(addr) => write!(f, "an interface with address {addr}"),
            Self::Pattern(pattern) => write!(f, "an interface like {:?}", pattern.0.as_str()),
            Self::Reaches(addr) => write!(f, "an interface that leads to {addr}"),
        }
    }
}

/// A regular expression; two are the same when they are written alike.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    pub fn is_like(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl FromStr for Pattern {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Regex::new(text).map(Self)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}
