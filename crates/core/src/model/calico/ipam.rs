//! What was taken from the pools, block by block: affinities, handles, and how both are given.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use russet_desired::Flag;
use russet_net::ParseError;

use super::Name;
use crate::addressing::blocks::Handle;

/// Whose a block is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Affinity {
    Host(Name),
    /// Of no node: `load-balancer`.
    Virtual(Name),
}

impl Affinity {
    /// `host` or `virtual`, as keys and objects spell it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Virtual(_) => "virtual",
        }
    }

    pub const fn name(&self) -> &Name {
        match self {
            Self::Host(name) | Self::Virtual(name) => name,
        }
    }

    /// The node that it belongs to.
    pub const fn host(&self) -> Option<&Name> {
        match self {
            Self::Host(name) => Some(name),
            Self::Virtual(_) => None,
        }
    }
}

/// As a block has it: `host:node-1`.
impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.name())
    }
}

impl FromStr for Affinity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("host", name)) => name.parse().map(Self::Host),
            Some(("virtual", name)) => name.parse().map(Self::Virtual),
            _ => {
                let shown: String = text.chars().take(60).collect();
                Err(ParseError::new(&shown, "an affinity", "host:NODE or virtual:NAME is wanted"))
            }
        }
    }
}

/// How far the claim of a block has come; every step is a write of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AffinityState {
    /// Written before the block: it may not be there, or be another's. Counts for nothing with others.
    Pending,
    Confirmed,
    /// Written before the block goes.
    PendingDeletion,
}

/// A node's claim of a block; the two are its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockAffinity {
    pub state: AffinityState,
    /// Whether it is about to be removed, where the store cannot compare when it removes.
    pub deleted: bool,
}

/// Who holds addresses: `k8s-pod-network.<container>`, `vxlan-tunnel-addr-<node>`; anything that can be part
/// of a key. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(Arc<str>);

impl HandleId {
    /// Longer than any that Calico makes, and short enough for a block full of them.
    pub const MOST_OCTETS: usize = 512;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of a text is a handle. What follows a carriage return is cut off: blocks that were migrated from host-local
    /// have such handles.
    ///
    /// # Errors
    ///
    /// With what is wrong.
    pub fn within(text: &str) -> Result<&str, &'static str> {
        let text = text.split('\r').next().unwrap_or_default();
        let bad = |c: char| c == '/' || c.is_control();
        if text.is_empty() {
            Err("it is empty")
        } else if text.len() > Self::MOST_OCTETS {
            Err("it is longer than 512 octets")
        } else if text.contains(bad) {
            Err("it holds a slash or a control character")
        } else {
            Ok(text)
        }
    }

    /// The handle of an address that a node has claimed ahead, before any pod asks for it: `ahead-addr-<node>-<number>`.
    ///
    /// # Errors
    ///
    /// When the node's name is too long for a key.
    pub fn ahead(node: &Name, number: usize) -> Result<Self, ParseError> {
        format!("{AHEAD}-{node}-{number}").parse()
    }

    /// Which of a node's addresses claimed ahead it has, if it is such a handle.
    pub fn ahead_of(&self, node: &Name) -> Option<usize> {
        let rest = self.0.strip_prefix(AHEAD)?.strip_prefix('-')?;
        let number = rest.strip_prefix(node.as_str())?.strip_prefix('-')?;
        // No other text is the same number: a handle is one of a node's only as that is written.
        number.parse().ok().filter(|n: &usize| n.to_string() == number)
    }

    /// Whether it holds the addresses that a Windows node can give to nobody.
    pub fn is_windows_reserved(&self) -> bool {
        self.0.eq_ignore_ascii_case(WINDOWS_RESERVED)
    }
}

impl FromStr for HandleId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::within(text).map(|handle| Self(handle.into())).map_err(|reason| {
            let text = text.split('\r').next().unwrap_or_default();
            let shown: String = text.chars().take(60).collect();
            ParseError::new(&shown, "a handle", reason)
        })
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

const AHEAD: &str = "ahead-addr";
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

/// How many addresses of which blocks a handle holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpamHandle {
    pub counts: Handle,
    /// Whether it is about to be removed, where the store cannot compare when it removes.
    pub deleted: bool,
}

/// How nodes come to blocks and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpamConfiguration {
    pub claims: Claims,
    /// `None` is Calico's limit.
    pub max_blocks: Option<NonZeroU32>,
}

/// A node that may neither borrow nor claim could never give an address, so there is no way to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// Nodes claim blocks by themselves, and borrow from others' unless `strict`.
    Automatic { strict: Flag },
    /// Blocks are given to nodes by hand, and nobody borrows.
    ByHand,
}

impl IpamConfiguration {
    /// The most blocks of one node where nothing else is said.
    pub const USUAL_MAX_BLOCKS: u32 = 20;

    pub fn max_blocks(&self) -> u32 {
        self.max_blocks.map_or(Self::USUAL_MAX_BLOCKS, NonZeroU32::get)
    }

    /// Whether addresses come from a node's own blocks only.
    pub const fn is_strict(&self) -> bool {
        match self.claims {
            Claims::Automatic { strict } => strict.is_on(),
            Claims::ByHand => true,
        }
    }
}

impl Default for IpamConfiguration {
    fn default() -> Self {
        Self { claims: Claims::Automatic { strict: Flag::Off }, max_blocks: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_affinity_is_written_as_it_is_read() {
        for text in ["host:node-1", "virtual:load-balancer"] {
            assert_eq!(text.parse::<Affinity>().unwrap().to_string(), text);
        }
        for bad in ["", "node-1", "host:", "host:a/b", "HOST:a"] {
            assert!(bad.parse::<Affinity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_handle_can_be_part_of_a_key() {
        assert!("k8s-pod-network.0a1b".parse::<HandleId>().is_ok());
        // From a migration.
        assert_eq!("abc\r\neth0".parse::<HandleId>().unwrap().as_str(), "abc");
        for bad in ["", "a/b", "a\nb", "\reth0", &"a".repeat(513)] {
            assert!(bad.parse::<HandleId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_node_claims_ahead_has_handles_that_are_no_other_node_s() {
        let [one, other]: [Name; 2] = ["n1", "n1-1"].map(|name| name.parse().unwrap());
        let handle = HandleId::ahead(&other, 0).unwrap();
        assert_eq!(handle.as_str(), "ahead-addr-n1-1-0");
        assert_eq!((handle.ahead_of(&other), handle.ahead_of(&one)), (Some(0), None));
        for text in
            ["ahead-addr-n1-00", "ahead-addr-n1-+1", "ahead-addr-n1-", "k8s-pod-network.n1-0"]
        {
            assert_eq!(text.parse::<HandleId>().unwrap().ahead_of(&one), None, "{text}");
        }
    }
}
