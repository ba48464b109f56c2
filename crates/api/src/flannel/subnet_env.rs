//! `subnet.env`: what a node's CNI plugins need to know, in flannel's exact order.
//!
//! ```text
//!   FLANNEL_NETWORK=10.50.0.0/16
//!   FLANNEL_SUBNET=10.50.59.1/24           the base + 1
//!   FLANNEL_IPV6_NETWORK=fd00:50::/48
//!   FLANNEL_IPV6_SUBNET=fd00:50:0:60::1/64
//!   FLANNEL_MTU=1450
//!   FLANNEL_IPMASQ=true
//! ```

use std::fmt::{self, Write as _};

use russet_core::model::{Flag, LeaseKey, NetworkConfig};
use russet_net::{Family, Mtu, Prefix};

use crate::error::FormError;

/// The content of `subnet.env`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetEnv {
    pub v4: Option<Subnets>,
    pub v6: Option<Subnets>,
    pub mtu: Mtu,
    pub masquerade: Flag,
}

/// The cluster's network and this node's part of it, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnets {
    pub network: Prefix,
    pub subnet: Prefix,
}

impl SubnetEnv {
    pub fn new(config: &NetworkConfig, own: LeaseKey, mtu: Mtu, masquerade: Flag) -> Self {
        let of = |family| {
            let network = config.pool(family)?.network();
            Some(Subnets { network, subnet: own.of(family)? })
        };
        Self { v4: of(Family::V4), v6: of(Family::V6), mtu, masquerade }
    }

    /// What the node held when the file was written.
    pub fn key(&self) -> Option<LeaseKey> {
        LeaseKey::new(self.v4.map(|s| s.subnet), self.v6.map(|s| s.subnet))
    }

    pub fn write(&self) -> String {
        let mut text = String::new();
        for (names, subnets) in [(V4, self.v4), (V6, self.v6)] {
            if let Some(Subnets { network, subnet }) = subnets {
                let gateway = subnet.nth(1).unwrap_or(subnet.addr());
                // Writing to a `String` cannot fail.
                let _ = writeln!(text, "{}={network}", names.network);
                let _ = writeln!(text, "{}={gateway}/{}", names.subnet, subnet.len());
            }
        }
        let _ = writeln!(text, "{MTU}={}", self.mtu);
        let _ = writeln!(text, "{IPMASQ}={}", self.masquerade.is_on());
        text
    }

    /// Reads what flannel or we have written; other lines are ignored.
    ///
    /// # Errors
    ///
    /// When a line that should be there is not, or is not of its form.
    pub fn read(text: &str) -> Result<Self, FormError> {
        let lines = Lines(text);
        let mtu = lines.get(MTU).ok_or_else(|| missing(MTU))?;
        let mtu = mtu.parse::<u32>().map_err(|err| bad(MTU, &err))?;
        let masquerade = match lines.get(IPMASQ) {
            None | Some("false") => Flag::Off,
            Some("true") => Flag::On,
            Some(_) => return Err(bad(IPMASQ, &"true or false is wanted")),
        };
        Ok(Self {
            v4: lines.subnets(V4, Family::V4)?,
            v6: lines.subnets(V6, Family::V6)?,
            mtu: Mtu::try_from(mtu).map_err(|err| bad(MTU, &err))?,
            masquerade,
        })
    }
}

#[derive(Clone, Copy)]
struct Names {
    network: &'static str,
    subnet: &'static str,
}

const V4: Names = Names { network: "FLANNEL_NETWORK", subnet: "FLANNEL_SUBNET" };
const V6: Names = Names { network: "FLANNEL_IPV6_NETWORK", subnet: "FLANNEL_IPV6_SUBNET" };
const MTU: &str = "FLANNEL_MTU";
const IPMASQ: &str = "FLANNEL_IPMASQ";

struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let value = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix('=');
        self.0.lines().find_map(value)
    }

    fn subnets(&self, names: Names, family: Family) -> Result<Option<Subnets>, FormError> {
        match (self.prefix(names.network, family)?, self.prefix(names.subnet, family)?) {
            (Some(network), Some(subnet)) => Ok(Some(Subnets { network, subnet })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(missing(names.network)),
            (Some(_), None) => Err(missing(names.subnet)),
        }
    }

    /// The subnet that the address lies in: the line bears the gateway.
    fn prefix(&self, name: &'static str, family: Family) -> Result<Option<Prefix>, FormError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let parsed = || {
            let (addr, len) = text.split_once('/')?;
            Prefix::around(addr.parse().ok()?, len.parse().ok()?).ok()
        };
        match parsed() {
            Some(prefix) if prefix.family() == family => Ok(Some(prefix)),
            _ => Err(bad(name, &format_args!("ADDRESS/LENGTH of {family} is wanted"))),
        }
    }
}

fn missing(name: &str) -> FormError {
    FormError::new(FORM, format!("{name} is missing"))
}

fn bad(name: &str, reason: &dyn fmt::Display) -> FormError {
    FormError::new(FORM, format!("{name}: {reason}"))
}

const FORM: &str = "subnet.env";

#[cfg(test)]
mod tests {
    use super::*;

    const DUAL: &str = "FLANNEL_NETWORK=10.50.0.0/16\n\
                        FLANNEL_SUBNET=10.50.59.1/24\n\
                        FLANNEL_IPV6_NETWORK=fd00:50::/48\n\
                        FLANNEL_IPV6_SUBNET=fd00:50:0:60::1/64\n\
                        FLANNEL_MTU=1450\n\
                        FLANNEL_IPMASQ=true\n";

    #[test]
    fn what_is_read_is_written_again_byte_for_byte() {
        let env = SubnetEnv::read(DUAL).unwrap();
        assert_eq!(env.write(), DUAL);
        assert_eq!(env.key().unwrap().to_string(), "10.50.59.0-24&fd00:50:0:60::-64");
    }

    #[test]
    fn a_family_that_is_not_there_has_no_lines() {
        let env = SubnetEnv { v6: None, ..SubnetEnv::read(DUAL).unwrap() };
        assert!(!env.write().contains("IPV6"));
        assert_eq!(SubnetEnv::read(&env.write()), Ok(env));
    }

    #[test]
    fn a_torn_file_is_refused_by_the_line_that_is_wrong() {
        for (text, part) in [
            ("", "FLANNEL_MTU is missing"),
            ("FLANNEL_MTU=x\n", "FLANNEL_MTU"),
            ("FLANNEL_MTU=1450\nFLANNEL_SUBNET=10.50.59.1/24\n", "FLANNEL_NETWORK is missing"),
            (
                "FLANNEL_MTU=1450\nFLANNEL_NETWORK=10.50.0.0/16\nFLANNEL_SUBNET=10.5",
                "FLANNEL_SUBNET",
            ),
            ("FLANNEL_MTU=1450\nFLANNEL_IPMASQ=maybe\n", "true or false"),
        ] {
            let told = SubnetEnv::read(text).unwrap_err().to_string();
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
}
