//! Names and indices of links.

use std::{fmt, str::FromStr};

use crate::ParseError;

/// A link's name: 1 to 15 octets without `/`, blanks or control characters (`dev_valid_name` in Linux).
///
/// Kept inline, so that a key that holds one stays small and `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName {
    octets: [u8; Self::MAX_LEN],
    len: u8,
}

impl IfName {
    /// `IFNAMSIZ` less the terminating zero.
    pub const MAX_LEN: usize = 15;

    pub fn as_str(&self) -> &str {
        // Built from a `str` and cut nowhere, so this is UTF-8; an empty name is the harmless fallback.
        str::from_utf8(&self.octets[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for IfName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason: &str| Err(ParseError::new(text, "a link name", reason));
        match text {
            "" | "." | ".." => return fail("it is reserved"),
            _ if text.len() > Self::MAX_LEN => return fail("it is longer than 15 octets"),
            _ if text.contains(|c: char| {
                c == '/' || c == ':' || c.is_whitespace() || c.is_control()
            }) =>
            {
                return fail("it holds a slash, a colon, a blank or a control character");
            }
            _ => {}
        }
        let mut octets = [0; Self::MAX_LEN];
        octets[..text.len()].copy_from_slice(text.as_bytes());
        // At most 15, by the check above.
        Ok(Self { octets, len: u8::try_from(text.len()).unwrap_or_default() })
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A link's number in one network namespace: above zero. It dies with its link; prefer [`IfName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(u32);

impl IfIndex {
    pub const fn new(raw: u32) -> Option<Self> {
        if raw == 0 { None } else { Some(Self(raw)) }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_at_most_15_octets() {
        assert_eq!("flannel-v6.9999".parse::<IfName>().unwrap().as_str(), "flannel-v6.9999");
        let err = "flannel-v6.10000".parse::<IfName>().unwrap_err();
        assert!(err.to_string().contains("longer than 15"), "{err}");
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "a\nb"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }
}
