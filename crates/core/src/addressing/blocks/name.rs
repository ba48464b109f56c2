//! The words of this addressing: nodes, handles, owners of blocks, and moments of the wall clock.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc, time::Duration};

use russet_net::ParseError;

/// A node, by the name that it has in the store. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The longest name that Kubernetes lets an object have, in bytes.
    pub const MAX: usize = 253;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A node is looked up by its bare name; both are ordered by their bytes.
impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bounded(text, "a node's name", Self::MAX).map(Self)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Who holds addresses: a container, a tunnel (`k8s-pod-network.<container>`, `ipip-tunnel-addr-<node>`).
///
/// Opaque here. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(Arc<str>);

impl HandleId {
    /// In bytes. Longer than any that Calico makes, and small enough that no block outgrows the store.
    pub const MAX: usize = 512;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it holds the addresses that a Windows node can give to nobody.
    pub fn is_windows_reserved(&self) -> bool {
        self.0.eq_ignore_ascii_case(WINDOWS_RESERVED)
    }
}

impl FromStr for HandleId {
    type Err = ParseError;

    /// Cuts off what follows a carriage return: blocks that were migrated from host-local have such handles.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.split('\r').next().unwrap_or_default();
        bounded(text, "a handle", Self::MAX).map(Self)
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whom a block has an affinity to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// `host:<node>`
    Host(NodeName),
    /// `virtual:<name>`: a controller that hands out addresses of no node.
    Virtual(NodeName),
}

impl Owner {
    pub const fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Host(node) => Some(node),
            Self::Virtual(_) => None,
        }
    }
}

impl FromStr for Owner {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("host", name)) => name.parse().map(Self::Host),
            Some(("virtual", name)) => name.parse().map(Self::Virtual),
            _ => Err(ParseError::new(
                text,
                "a block's affinity",
                "it begins neither with host: nor with virtual:",
            )),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "host:{name}"),
            Self::Virtual(name) => write!(f, "virtual:{name}"),
        }
    }
}

/// A moment of the wall clock: nanoseconds since 1970. What is written in the store for others to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The moment `span` earlier, or 1970.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn bounded(text: &str, what: &'static str, max: usize) -> Result<Arc<str>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::new(text, what, "it is empty"));
    }
    if text.len() > max {
        let shown: String = text.chars().take(40).collect();
        return Err(ParseError::new(&shown, what, format!("it is longer than {max} bytes")));
    }
    Ok(text.into())
}

const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_from_a_migration_is_cut_at_its_carriage_return() {
        assert_eq!("abc\r\neth0".parse::<HandleId>().unwrap().as_str(), "abc");
        assert!("\reth0".parse::<HandleId>().is_err());
        assert!("x".repeat(HandleId::MAX + 1).parse::<HandleId>().is_err());
    }

    #[test]
    fn an_owner_reads_what_it_writes() {
        for text in ["host:n1", "virtual:load-balancer", "host:a:b"] {
            assert_eq!(text.parse::<Owner>().unwrap().to_string(), text);
        }
        for text in ["n1", "host:", "", "other:x"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
