//! Texts with a meaning: what a topology file writes in one word.
//!
//! Each is a newtype that parses once. The JSON schema gives it a `format`, and `schema` runs the very same
//! parser by that name, so that a bad word is found with its line together with all other faults.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use russet_net::{IfName, Prefix};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name of a topology, a node, a pod or a process: 1 to 32 of `a-z 0-9 -`, beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    pub const MAX_LEN: usize = 32;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that stands in our own source, where it can be seen to be one.
    pub(crate) fn known(name: &'static str) -> Self {
        debug_assert!(name.parse::<Self>().is_ok(), "{name:?}");
        Self(name.to_owned())
    }

    /// This name with more behind it; its end gives way when both are too long together.
    pub(crate) fn with_suffix(&self, suffix: &'static str) -> Self {
        let room = Self::MAX_LEN.saturating_sub(suffix.len());
        Self(self.0.chars().take(room).chain(suffix.chars()).collect())
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is no name: wanted is a letter, then letters, digits and dashes, all lower case, at most {} in all",
                Self::MAX_LEN
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A length of time: `250ms`, `10s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// A lab that waits longer than this for one thing has been forgotten.
    pub const MAX: Duration = Duration::from_hours(1);
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            _ => 0,
        };
        number
            .parse::<u64>()
            .ok()
            .filter(|_| scale > 0)
            .and_then(|n| n.checked_mul(scale))
            .map(Duration::from_millis)
            .filter(|period| *period <= Self::MAX)
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no length of time: wanted is one like 250ms, 10s or 2m, at most an hour"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:?}", self.0))
    }
}

/// A subnet in canonical form: `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr(pub Prefix);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|err: russet_net::ParseError| err.to_string())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link of a place: `n1/eth0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAt {
    /// A node, a pod or `router`.
    pub place: Name,
    pub link: IfName,
}

impl FromStr for LinkAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, link) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} names no link: wanted is PLACE/LINK, like n1/eth0"))?;
        let link = link.parse().map_err(|err: russet_net::ParseError| err.to_string())?;
        Ok(Self { place: place.parse()?, link })
    }
}

impl fmt::Display for LinkAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.place, self.link))
    }
}

/// Says whether `text` is of the named format; an unknown format holds no text back.
pub(crate) fn check_format(format: &str, text: &str) -> Result<(), String> {
    match format {
        "name" => text.parse::<Name>().map(drop),
        "period" => text.parse::<Period>().map(drop),
        "cidr" => text.parse::<Cidr>().map(drop),
        "link-at" => text.parse::<LinkAt>().map(drop),
        "ip" => text
            .parse::<std::net::IpAddr>()
            .map(drop)
            .map_err(|_| format!("{text:?} is no IP address")),
        _ => Ok(()),
    }
}

/// Gives a word its serde and schema forms: a string with a format.
macro_rules! word {
    ($word:ty, $name:literal, $format:literal) => {
        impl<'de> Deserialize<'de> for $word {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $word {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $word {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

word!(Name, "Name", "name");
word!(Period, "Period", "period");
word!(Cidr, "Cidr", "cidr");
word!(LinkAt, "LinkAt", "link-at");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_unit() {
        assert_eq!("250ms".parse(), Ok(Period(Duration::from_millis(250))));
        assert_eq!("2m".parse(), Ok(Period(Duration::from_mins(2))));
        for bad in ["", "10", "s", "-1s", "1h", "99999999999999999999s", "1.5s", "100m"] {
            assert!(bad.parse::<Period>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_short_and_lower_case() {
        assert!("n1".parse::<Name>().is_ok());
        for bad in ["", "N1", "1n", "a_b", "a/b", &"a".repeat(33)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
