//! BGP communities as Calico's objects write them.

use std::{fmt, str::FromStr};

use russet_net::ParseError;

/// A community: `64512:100` (RFC 1997), or a large one: `64512:100:7` (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    Standard(u16, u16),
    Large(u32, u32, u32),
}

impl FromStr for Community {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(':').collect();
        let parsed = match parts[..] {
            [a, b] => number(a).zip(number(b)).map(|(a, b)| Self::Standard(a, b)),
            [a, b, c] => {
                number(a).zip(number(b)).zip(number(c)).map(|((a, b), c)| Self::Large(a, b, c))
            }
            _ => None,
        };
        let wanted = "two numbers of 16 bits, or three of 32 bits, with : between are wanted";
        let shown: String = text.chars().take(40).collect();
        parsed.ok_or_else(|| ParseError::new(&shown, "a community", wanted))
    }
}

/// `parse` alone would take a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_community_is_written_as_it_is_read() {
        for text in ["64512:100", "65536:1:4294967295"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        for bad in ["", "1", "1:", "65536:1", "1:2:3:4", "+1:2", "1:2:4294967296", "a:b"] {
            assert!(bad.parse::<Community>().is_err(), "{bad}");
        }
    }
}
