//! Selectors: which objects, said by their labels, in Calico's language.
//!
//! ```text
//!   expr := and ('||' and)*        and := op ('&&' op)*
//!   op   := '!'* ( has(L) | all() | global() | L == S | L != S | L contains S | L starts with S
//!                | L ends with S | L in {S, …} | L not in {S, …} | '(' expr ')' )
//! ```
//!
//! Here is the value: it evaluates, writes its canonical text, and has an id that is the same for every way
//! to write it. `selector/parse` reads it. What comes from outside is bounded in length and in depth, so
//! that neither reading nor evaluating can exhaust the stack.

mod parse;

use std::{collections::BTreeSet, fmt, str::FromStr};

use sha2::{Digest, Sha224};

use self::parse::MOST_OPEN;
pub use self::parse::SelectorError;
use crate::Labels;

/// A checked selector. Two that are written differently and mean the same node by node are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Node);

/// The most octets that a selector's text may have.
const MOST_OCTETS: usize = 64 * 1_024;

impl Selector {
    /// Chooses everything, as the empty text does.
    pub const fn all() -> Self {
        Self(Node::All)
    }

    /// Whether it is the one that chooses everything; another may do so too.
    pub const fn is_all(&self) -> bool {
        matches!(self.0, Node::All)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.matches(labels)
    }

    /// Calico's id of a selector: `s:` and the hash of the canonical text, in 38 digits of base 64.
    pub fn id(&self) -> String {
        let hash = Sha224::digest(format!("s:{self}"));
        format!("s:{}", base64_url(&hash))
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MOST_OCTETS {
            return Err(SelectorError::too_long(text.len(), MOST_OCTETS));
        }
        let selector = Self(parse::parse(text)?);
        // The canonical text may be longer and deeper than what was read, and must be one that can be read.
        let octets = selector.to_string().len();
        if octets > MOST_OCTETS {
            return Err(SelectorError::too_long(octets, MOST_OCTETS));
        }
        if selector.0.depth() > MOST_OPEN {
            return Err(SelectorError::too_deep());
        }
        Ok(selector)
    }
}

/// The canonical text.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}

/// A part of a selector. `And` and `Or` have at least two parts, and `Not` holds no `Not`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Node {
    All,
    Global,
    Has(String),
    Compare(String, Op, String),
    OneOf(String, BTreeSet<String>),
    NoneOf(String, BTreeSet<String>),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Op {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

impl Node {
    /// A label that is not there differs from every value and is none of a set.
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Has(name) => labels.get(name).is_some(),
            Self::Compare(name, op, value) => op.holds(labels.get(name), value),
            Self::OneOf(name, set) => labels.get(name).is_some_and(|have| set.contains(have)),
            Self::NoneOf(name, set) => labels.get(name).is_none_or(|have| !set.contains(have)),
            Self::Not(part) => !part.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    /// How many parentheses are open at the deepest place of the canonical text.
    fn depth(&self) -> usize {
        match self {
            Self::Not(part) => part.depth(),
            Self::And(parts) | Self::Or(parts) => {
                1 + parts.iter().map(Self::depth).max().unwrap_or_default()
            }
            _ => 0,
        }
    }
}

impl Op {
    fn holds(self, have: Option<&str>, value: &str) -> bool {
        match self {
            Self::Equal => have == Some(value),
            Self::NotEqual => have != Some(value),
            Self::Contains => have.is_some_and(|have| have.contains(value)),
            Self::StartsWith => have.is_some_and(|have| have.starts_with(value)),
            Self::EndsWith => have.is_some_and(|have| have.ends_with(value)),
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(name) => write!(f, "has({name})"),
            Self::Compare(name, op, value) => write!(f, "{name} {} {}", op.text(), Quoted(value)),
            Self::OneOf(name, set) => write!(f, "{name} in {}", Set(set)),
            Self::NoneOf(name, set) => write!(f, "{name} not in {}", Set(set)),
            Self::Not(part) => write!(f, "!{part}"),
            Self::And(parts) => group(f, parts, " && "),
            Self::Or(parts) => group(f, parts, " || "),
        }
    }
}

fn group(f: &mut fmt::Formatter<'_>, parts: &[Node], between: &str) -> fmt::Result {
    f.write_str("(")?;
    for (i, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if i == 0 { "" } else { between })?;
    }
    f.write_str(")")
}

/// A value in double quotes, or in single ones where it has a double one: no value has both.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Quoted(value))?;
        }
        f.write_str("}")
    }
}

/// Base 64 in the alphabet for addresses of the web, without padding (RFC 4648 §5).
fn base64_url(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(octets.len().div_ceil(3) * 4);
    for group in octets.chunks(3) {
        let at = |n: usize| usize::from(group.get(n).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=group.len() {
            // Six bits are below 64.
            text.push(char::from(DIGITS[bits >> (18 - 6 * digit) & 0x3f]));
        }
    }
    text
}
