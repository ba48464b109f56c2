//! Names of objects.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use russet_net::ParseError;

/// An object's name, or a node's: letters, digits, `-`, `_` and `.`, so that it can be part of a key.
/// Cheap to copy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// A workload endpoint's name holds those of its node and its pod with their dashes doubled.
    pub const MOST_OCTETS: usize = 1_024;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// None is below it: no character of a name is before the dash.
    pub fn lowest() -> Self {
        Self("-".into())
    }
}

/// An object is looked up by its bare name; both are ordered by their bytes.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > Self::MOST_OCTETS {
            "it is longer than 1024 octets"
        } else if !text.bytes().all(fits) {
            "letters, digits, -, _ and . are wanted"
        } else if matches!(text, "." | "..") {
            "it is reserved"
        } else {
            return Ok(Self(text.into()));
        };
        let shown: String = text.chars().take(MOST_SHOWN).collect();
        Err(ParseError::new(&shown, "a name", reason))
    }
}

/// Whom settings are for: `default` is for all, `node.node-1` for one; what has another name is for nobody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Cluster,
    Node(Name),
    Nobody,
}

impl Scope {
    /// Of the settings of that name.
    pub fn of(settings: &Name) -> Self {
        if settings.as_str() == "default" {
            return Self::Cluster;
        }
        let node = settings.as_str().strip_prefix("node.");
        node.and_then(|node| node.parse().ok()).map_or(Self::Nobody, Self::Node)
    }
}

/// What comes from outside is shown up to here.
const MOST_SHOWN: usize = 60;

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_for_all_or_for_one_node() {
        let scope = |text: &str| Scope::of(&text.parse().unwrap());
        assert_eq!(scope("default"), Scope::Cluster);
        assert_eq!(scope("node.node-1.example"), Scope::Node("node-1.example".parse().unwrap()));
        assert_eq!(scope("node."), Scope::Nobody);
        assert_eq!(scope("mine"), Scope::Nobody);
    }

    #[test]
    fn a_name_can_be_part_of_a_key() {
        assert!("default-ipv4-ippool".parse::<Name>().is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "é", &"a".repeat(1_025)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
