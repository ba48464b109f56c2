//! The names of flannel's keys in the store.
//!
//! ```text
//!   <prefix>/config
//!   <prefix>/subnets/10.50.50.0-24
//!   <prefix>/subnets/10.50.19.0-24&fd00:50:0:43::-64        both families
//!   <prefix>/russet/subnets/fd00:50:0:43::-64               IPv6 alone: ours, which flannel does not watch
//! ```

use russet_core::{Fault, model::LeaseKey};
use russet_net::{Family, Prefix};

use crate::error::FormError;

/// The keys below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// What a key of the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKey {
    Config,
    Lease(LeaseKey),
    /// A key where a lease should be, whose name is none.
    BadLease(Fault),
    /// None of flannel's and none of ours.
    Other,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new("/coreos.com/network")
    }
}

impl Keys {
    /// `prefix` as flannel's `-etcd-prefix`, with or without a slash at its end.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// What all keys begin with.
    pub fn all(&self) -> String {
        format!("{}/", self.prefix)
    }

    pub fn config(&self) -> String {
        format!("{}/config", self.prefix)
    }

    pub fn lease(&self, key: LeaseKey) -> String {
        let dir = if key.v4().is_some() { SUBNETS } else { RUSSET_SUBNETS };
        format!("{}{dir}{key}", self.prefix)
    }

    /// Where something of ours that is no lease lies, such as the cluster's id.
    pub fn ours(&self, name: &str) -> String {
        format!("{}/russet/{name}", self.prefix)
    }

    pub fn read(&self, key: &[u8]) -> StoreKey {
        let Ok(key) = str::from_utf8(key) else { return StoreKey::Other };
        let Some(rest) = key.strip_prefix(&self.prefix) else { return StoreKey::Other };
        if rest == "/config" {
            return StoreKey::Config;
        }
        let lease = if let Some(name) = rest.strip_prefix(SUBNETS) {
            read_name(name).and_then(|key| lies_right(key, name, key.v4().is_some()))
        } else if let Some(name) = rest.strip_prefix(RUSSET_SUBNETS) {
            read_name(name).and_then(|key| lies_right(key, name, key.v4().is_none()))
        } else {
            return StoreKey::Other;
        };
        lease.map_or_else(|err| StoreKey::BadLease(err.into()), StoreKey::Lease)
    }
}

const SUBNETS: &str = "/subnets/";
const RUSSET_SUBNETS: &str = "/russet/subnets/";

/// Two names of one lease would be two keys of one fact, so only the canonical one counts (RFC 5952).
fn lies_right(key: LeaseKey, name: &str, right_place: bool) -> Result<LeaseKey, FormError> {
    let canonical = key.to_string();
    if canonical != name {
        return Err(bad(name, &format!("its canonical form is {canonical}")));
    }
    if right_place { Ok(key) } else { Err(bad(name, "it lies in the wrong folder")) }
}

fn read_name(name: &str) -> Result<LeaseKey, FormError> {
    let mut subnets = name.split('&').map(|text| read_subnet(name, text));
    let first = subnets.next().unwrap_or_else(|| Err(bad(name, "it is empty")))?;
    let second = subnets.next().transpose()?;
    let key = match (first.family(), second) {
        (Family::V4, second) => LeaseKey::new(Some(first), second),
        (Family::V6, None) => LeaseKey::new(None, Some(first)),
        (Family::V6, Some(_)) => None,
    };
    match key {
        Some(key) if subnets.next().is_none() => Ok(key),
        _ => Err(bad(name, "one IPv4 subnet, one IPv6 subnet or IPv4&IPv6 is wanted")),
    }
}

fn read_subnet(name: &str, text: &str) -> Result<Prefix, FormError> {
    let form = || bad(name, "ADDRESS-LENGTH is wanted");
    let (addr, len) = text.rsplit_once('-').ok_or_else(form)?;
    let addr = addr.parse().map_err(|_| form())?;
    let len = len.parse().map_err(|_| form())?;
    Prefix::new(addr, len).map_err(|err| bad(name, &err.reason))
}

/// A name from outside is shown up to here.
const MOST_NAME: usize = 80;

fn bad(name: &str, reason: &str) -> FormError {
    let name: String = name.chars().take(MOST_NAME).collect();
    FormError::new("lease key", format!("{name:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_s_name_and_key_agree() {
        for name in [
            "/subnets/10.50.50.0-24",
            "/subnets/10.50.5.0-24&fd00:50:0:22::-64",
            "/russet/subnets/fd00:50:0:22::-64",
        ] {
            let name = format!("/coreos.com/network{name}");
            let keys = Keys::default();
            let StoreKey::Lease(key) = keys.read(name.as_bytes()) else { panic!("{name}") };
            assert_eq!(keys.lease(key), name);
        }
    }

    #[test]
    fn a_name_that_is_no_lease_is_told() {
        for name in [
            "",
            "10.50.50.0",
            "10.50.50.1-24",
            "10.50.50.0-33",
            "10.50.50.0-024",
            "10.50.50.0-+24",
            "fd00:50::-64",
            "fd00:50::-64&10.50.5.0-24",
            "10.50.5.0-24&10.50.6.0-24",
            "10.50.5.0-24&fd00:50::-64&fd00:51::-64",
            "10.50.5.0-24&fd00:0050::-64",
            "../../etc-24",
        ] {
            let read = Keys::new("/x/").read(format!("/x/subnets/{name}").as_bytes());
            assert!(matches!(read, StoreKey::BadLease(_)), "{name}: {read:?}");
        }
    }

    #[test]
    fn other_keys_are_nobody_s_business() {
        let keys = Keys::default();
        assert_eq!(keys.read(keys.config().as_bytes()), StoreKey::Config);
        for other in ["/coreos.com/network/configs", "/coreos.com", "/coreos.com/network2/config"] {
            assert_eq!(keys.read(other.as_bytes()), StoreKey::Other);
        }
        assert_eq!(keys.read(b"\xff"), StoreKey::Other);
        assert_eq!(keys.read(keys.ours("cluster").as_bytes()), StoreKey::Other);
    }
}
