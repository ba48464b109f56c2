//! The names of Calico's keys in etcd.
//!
//! ```text
//!   /calico/resources/v3/projectcalico.org/ippools/default-ipv4-ippool
//!   /calico/resources/v3/projectcalico.org/workloadendpoints/<namespace>/<name>
//!   /calico/ipam/v2/config
//!   /calico/ipam/v2/assignment/ipv4/block/10.244.3.64-26
//!   /calico/ipam/v2/host/node-1/ipv4/block/10.244.3.64-26
//!   /calico/ipam/v2/handle/k8s-pod-network.0a1b
//! ```

use std::fmt;

use russet_core::{
    Fault,
    model::calico::{Affinity, HandleId, Name},
};
use russet_net::{Family, Prefix};

use super::kind::{Group, Kind};
use crate::error::FormError;

/// A key of something that Calico keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Resource(ResourceId),
    IpamConfig,
    Block(Prefix),
    BlockAffinity(Affinity, Prefix),
    Handle(HandleId),
}

/// An object of the API by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceId {
    pub kind: Kind,
    /// Of kinds that lie in namespaces, and only of these.
    pub namespace: Option<Name>,
    pub name: Name,
}

/// What a key of the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKey {
    Known(Key),
    /// A key in one of Calico's places, whose name is none that Calico gives.
    Bad(Fault),
    /// Status reports, and what is not Calico's.
    Other,
}

impl Key {
    /// What all keys begin with.
    pub const ALL: &str = "/calico/";
    /// What those of objects begin with.
    pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
    /// What those of addresses begin with.
    pub const IPAM: &str = "/calico/ipam/v2/";

    /// What the keys of one kind begin with.
    pub fn all_of(kind: Kind) -> String {
        format!("{}{}/", Self::RESOURCES, plural(kind))
    }

    pub fn read(key: &[u8]) -> StoreKey {
        let Ok(text) = str::from_utf8(key) else { return StoreKey::Other };
        let read = if let Some(rest) = text.strip_prefix(Self::RESOURCES) {
            resource(rest)
        } else if let Some(rest) = text.strip_prefix(Self::IPAM) {
            ipam(rest)
        } else {
            return StoreKey::Other;
        };
        match read {
            // Two names of one thing would be two keys of one fact, so only the canonical one counts.
            Ok(Some(key)) if key.to_string() != text => {
                StoreKey::Bad(bad(text, &format!("its canonical form is {key}")).into())
            }
            Ok(Some(key)) => StoreKey::Known(key),
            Ok(None) => StoreKey::Other,
            Err(reason) => StoreKey::Bad(bad(text, &reason).into()),
        }
    }
}

fn resource(rest: &str) -> Result<Option<Key>, String> {
    let (plural, rest) = rest.split_once('/').ok_or("there is no name")?;
    let Some(kind) = Kind::of_plural(plural) else { return Ok(None) };
    let (namespace, name) = match (kind.is_namespaced(), rest.split_once('/')) {
        (true, Some((namespace, name))) => (Some(parsed(namespace)?), name),
        (true, None) => return Err(format!("a {kind} lies in a namespace")),
        (false, _) => (None, rest),
    };
    Ok(Some(Key::Resource(ResourceId { kind, namespace, name: parsed(name)? })))
}

fn ipam(rest: &str) -> Result<Option<Key>, String> {
    let parts: Vec<&str> = rest.split('/').collect();
    Ok(Some(match parts[..] {
        ["config"] => Key::IpamConfig,
        ["handle", id] => Key::Handle(parsed(id)?),
        ["assignment", family, "block", cidr] => Key::Block(block(family, cidr)?),
        ["host", name, family, "block", cidr] => {
            Key::BlockAffinity(Affinity::Host(parsed(name)?), block(family, cidr)?)
        }
        ["virtual", name, family, "block", cidr] => {
            Key::BlockAffinity(Affinity::Virtual(parsed(name)?), block(family, cidr)?)
        }
        _ => return Ok(None),
    }))
}

fn block(family: &str, cidr: &str) -> Result<Prefix, String> {
    let (addr, len) = cidr.rsplit_once('-').ok_or("ADDRESS-LENGTH is wanted")?;
    let cidr: Prefix = parsed(&format!("{addr}/{len}"))?;
    if folder(cidr.family()) == family {
        Ok(cidr)
    } else {
        Err(format!("{cidr} does not lie in {family}"))
    }
}

fn parsed<T: std::str::FromStr<Err = russet_net::ParseError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|err: russet_net::ParseError| err.reason)
}

const fn folder(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// etcd's client calls this one kind as the other group does.
const fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::IpamConfiguration => kind.plural_in(Group::CrdV1),
        _ => kind.plural_in(Group::V3),
    }
}

struct Block(Prefix);

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/block/{}-{}", folder(self.0.family()), self.0.addr(), self.0.len())
    }
}

/// The key itself.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(id) => write!(f, "{}{id}", Self::RESOURCES),
            Self::IpamConfig => write!(f, "{}config", Self::IPAM),
            Self::Block(cidr) => write!(f, "{}assignment/{}", Self::IPAM, Block(*cidr)),
            Self::BlockAffinity(affinity, cidr) => {
                let (kind, name) = (affinity.kind(), affinity.name());
                write!(f, "{}{kind}/{name}/{}", Self::IPAM, Block(*cidr))
            }
            Self::Handle(id) => write!(f, "{}handle/{id}", Self::IPAM),
        }
    }
}

/// `ippools/default-ipv4-ippool`.
impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", plural(self.kind))?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        self.name.fmt(f)
    }
}

/// A name from outside is shown up to here.
const MOST_NAME: usize = 120;

fn bad(key: &str, reason: &str) -> FormError {
    let key: String = key.chars().take(MOST_NAME).collect();
    FormError::new("Calico's key", format!("{key:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_s_text_and_value_agree() {
        for text in [
            "/calico/resources/v3/projectcalico.org/ippools/default-ipv4-ippool",
            "/calico/resources/v3/projectcalico.org/workloadendpoints/default/node--1-k8s-web--7d4-eth0",
            "/calico/resources/v3/projectcalico.org/felixconfigurations/node.node-1",
            "/calico/resources/v3/projectcalico.org/bgpfilters/only-pods",
            "/calico/resources/v3/projectcalico.org/profiles/kns.kube-system",
            "/calico/ipam/v2/config",
            "/calico/ipam/v2/assignment/ipv4/block/10.244.3.64-26",
            "/calico/ipam/v2/assignment/ipv6/block/fd00:10:244::40-122",
            "/calico/ipam/v2/host/node-1/ipv4/block/10.244.3.64-26",
            "/calico/ipam/v2/virtual/load-balancer/ipv6/block/fd00::-122",
            "/calico/ipam/v2/handle/k8s-pod-network.0a1b2c",
        ] {
            let StoreKey::Known(key) = Key::read(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn a_name_in_calico_s_places_that_is_none_is_told() {
        for (text, part) in [
            ("resources/v3/projectcalico.org/ippools", "no name"),
            ("resources/v3/projectcalico.org/ippools/", "empty"),
            ("resources/v3/projectcalico.org/ippools/a/b", "letters, digits"),
            ("resources/v3/projectcalico.org/workloadendpoints/a", "namespace"),
            ("ipam/v2/assignment/ipv4/block/10.244.3.64", "ADDRESS-LENGTH"),
            ("ipam/v2/assignment/ipv4/block/10.244.3.65-26", "host bits"),
            ("ipam/v2/assignment/ipv4/block/10.244.3.64-026", "canonical"),
            ("ipam/v2/assignment/ipv4/block/fd00::-122", "does not lie in ipv4"),
            ("ipam/v2/assignment/ipv6/block/fd00:0::-122", "canonical"),
            ("ipam/v2/host//ipv4/block/10.244.3.64-26", "empty"),
            ("ipam/v2/handle/", "empty"),
        ] {
            let read = Key::read(format!("/calico/{text}").as_bytes());
            let StoreKey::Bad(fault) = read else { panic!("{text}: {read:?}") };
            assert!(fault.to_string().contains(part), "{part} is not in {fault}");
        }
    }

    #[test]
    fn other_keys_are_nobody_s_business() {
        for other in [
            "/calico/felix/v2/no-region/host/node-1/endpoint/x",
            "/calico/ipam/v2/host/node-1",
            "/calico/resources/v3/projectcalico.org/kubernetesservice/a/b",
            "/coreos.com/network/config",
        ] {
            assert_eq!(Key::read(other.as_bytes()), StoreKey::Other, "{other}");
        }
        assert_eq!(Key::read(b"\xff"), StoreKey::Other);
    }
}
