//! What nftables should hold: one table `russet` per family, whose chains stand still while the elements
//! of its sets move; and one accept in a foreign chain that would drop what we route.

use std::fmt;

use russet_net::{Family, IfName, Prefix};

use crate::{Flag, Kind};

/// A chain of our table with all its rules. A change replaces the rules in one transaction.
#[derive(Debug)]
pub enum Chain {}

impl Kind for Chain {
    type Key = ChainKey;
    type Value = ChainSpec;
    const NAME: &'static str = "nftables chain";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainKey {
    pub family: Family,
    pub name: &'static str,
}

impl fmt::Display for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} russet {}", table_family(self.family), self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSpec {
    /// `None`: a chain that is only jumped to.
    pub base: Option<BaseChain>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    pub kind: ChainType,
    pub hook: Hook,
    /// `NF_IP_PRI_NAT_SRC` is 100. The policy is always accept.
    pub priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// All the matches, then the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `meta mark & mask == value`
    Mark { mask: u32, value: u32 },
    /// `ip saddr @set`, or `!= @set`
    InSet { field: Field, set: &'static str, negate: Flag },
    /// `ip daddr 224.0.0.0/4`, or `!=`
    Within { field: Field, prefix: Prefix, negate: Flag },
    /// `iifname NAME`, or `!=`
    InputLink { name: IfName, negate: Flag },
    /// `iifname "rst*"`
    InputLinkStarts(&'static str),
    /// `iifname . ip saddr @set`, or `!= @set`, with a set of [`SetKind::LinkPrefixes`]
    InputLinkAndSource { set: &'static str, negate: Flag },
    /// `fib saddr . iif oif missing`: what is sent back to the source would not leave by the link that it came in by.
    Misplaced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Source,
    Destination,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    /// `masquerade`, with `fully-random` when on.
    Masquerade {
        fully_random: Flag,
    },
}

/// A named set of our table.
#[derive(Debug)]
pub enum Set {}

impl Kind for Set {
    type Key = SetKey;
    type Value = SetSpec;
    const NAME: &'static str = "nftables set";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetKey {
    pub family: Family,
    pub name: &'static str,
}

impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} russet @{}", table_family(self.family), self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetSpec {
    pub kind: SetKind,
}

/// What the set's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// Single addresses of the table's family, hashed: cheap to change.
    Addresses,
    /// Prefixes of the table's family, as intervals: few, and they seldom change.
    Prefixes,
    /// Pairs of a link's name and a prefix of the table's family, as intervals (Linux 5.6).
    LinkPrefixes,
}

/// One element of a set of ours.
#[derive(Debug)]
pub enum Element {}

impl Kind for Element {
    type Key = ElementKey;
    type Value = ElementSpec;
    const NAME: &'static str = "nftables element";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementKey {
    pub set: SetKey,
    /// There in a set of [`SetKind::LinkPrefixes`], and only there.
    pub link: Option<IfName>,
    /// A whole address in a set of [`SetKind::Addresses`].
    pub prefix: Prefix,
}

impl fmt::Display for ElementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link {
            None => write!(f, "{} {}", self.set, self.prefix),
            Some(link) => write!(f, "{} {link} . {}", self.set, self.prefix),
        }
    }
}

/// An element is there or is not: there is nothing else to say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementSpec;

/// Accept rules with our comment, for the traffic of these prefixes, kept in every *foreign* base chain of
/// the forward hook that drops: behind its rules when its policy drops, before them when a rule drops
/// everything. An accept in our own table could not undo that drop.
#[derive(Debug)]
pub enum ForeignAccept {}

impl Kind for ForeignAccept {
    type Key = Prefix;
    type Value = ForeignAcceptSpec;
    const NAME: &'static str = "foreign accept";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignAcceptSpec;

/// A chain that the system before us left in a foreign table: it goes, with the rules that lead to it, once, when all
/// of ours is in its place.
#[derive(Debug)]
pub enum Leftover {}

impl Kind for Leftover {
    type Key = LeftoverKey;
    type Value = LeftoverSpec;
    const NAME: &'static str = "leftover chain";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftoverKey {
    pub family: Family,
    pub table: &'static str,
    pub chain: &'static str,
}

impl fmt::Display for LeftoverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", table_family(self.family), self.table, self.chain)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftoverSpec {
    /// Whether the table is that system's own, and goes with its last chain.
    pub with_table: Flag,
}

/// The family word of `nft`.
fn table_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
