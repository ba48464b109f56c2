//! WireGuard's keys: 32 octets, written in base64 as `wg` writes them.

use std::{fmt, str::FromStr};

use crate::ParseError;

/// A node's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A key that two nodes share besides. Nobody sees it in a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresharedKey([u8; 32]);

impl PublicKey {
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    pub const fn octets(&self) -> [u8; 32] {
        self.0
    }
}

impl PresharedKey {
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The key itself, for whoever seals with it or hands it to who does.
    pub const fn reveal(&self) -> [u8; 32] {
        self.0
    }
}

impl FromStr for PublicKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = decode(text);
        octets.map(Self).ok_or_else(|| ParseError::new(text, "a WireGuard key", WANTED))
    }
}

impl FromStr for PresharedKey {
    type Err = ParseError;

    /// The text is not told again: it may be nearly the key.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets = decode(text);
        octets.map(Self).ok_or_else(|| ParseError::new("…", "a preshared key", WANTED))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(…)")
    }
}

/// 32 octets are 43 digits of 6 bits and one `=`.
fn encode(octets: [u8; 32]) -> String {
    let mut text = String::with_capacity(TEXT_LEN);
    for group in octets.chunks(3) {
        let at = |n: usize| u32::from(group.get(n).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=group.len() {
            let place = usize::try_from(bits >> (18 - 6 * digit) & 0x3f).unwrap_or_default();
            text.push(char::from(DIGITS[place]));
        }
    }
    text.push('=');
    text
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_suffix('=').filter(|_| text.len() == TEXT_LEN)?.bytes();
    let mut octets = [0; 32];
    let (mut bits, mut have, mut at) = (0_u32, 0, 0);
    for digit in digits {
        let value = DIGITS.iter().position(|other| *other == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        have += 6;
        if have >= 8 {
            have -= 8;
            *octets.get_mut(at)? = u8::try_from(bits >> have & 0xff).ok()?;
            at += 1;
        }
    }
    // The two bits that are left over say nothing, and are zero.
    (bits & ((1 << have) - 1) == 0).then_some(octets)
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const TEXT_LEN: usize = 44;
const WANTED: &str = "44 characters of base64 are wanted, as `wg` writes a key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_it_is_read() {
        for octets in [[0; 32], [0xff; 32], std::array::from_fn(|n| u8::try_from(n * 7).unwrap())] {
            let key = PublicKey::new(octets);
            assert_eq!(key.to_string().len(), 44);
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        let known = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let key: PublicKey = known.parse().unwrap();
        assert_eq!(key.octets(), std::array::from_fn(|n| u8::try_from(n).unwrap()));
    }

    #[test]
    fn what_is_no_key_is_refused_and_a_secret_is_never_told() {
        for text in ["", "AAAA", &"A".repeat(44), &"*".repeat(43), &format!("{}B=", "A".repeat(42))]
        {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
        let err = "hunter2".parse::<PresharedKey>().unwrap_err().to_string();
        assert!(!err.contains("hunter2"), "{err}");
        let secret = PresharedKey::new([7; 32]);
        assert_eq!(format!("{secret:?}"), "PresharedKey(…)");
    }
}
