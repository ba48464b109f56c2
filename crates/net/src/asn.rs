//! Autonomous system numbers.

use std::{fmt, str::FromStr};

use crate::ParseError;

/// An autonomous system number: 32 bits (RFC 6793).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(u32);

impl Asn {
    /// Belongs to nobody and is an error wherever it is received (RFC 7607).
    pub const ZERO: Self = Self(0);
    /// Stands for a number that does not fit in 16 bits (RFC 6793 §9).
    pub const TRANS: Self = Self(23_456);

    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number for a speaker that knows 16 bits only (RFC 6793 §4.2.2).
    pub fn in_two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(TRANS_IN_16)
    }
}

impl From<u16> for Asn {
    fn from(number: u16) -> Self {
        Self(number.into())
    }
}

impl FromStr for Asn {
    type Err = ParseError;

    /// Takes `65551` and `1.15` alike (RFC 5396).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseError::new(text, "an AS number", "a number of 32 bits is wanted");
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        match text.split_once('.') {
            Some((high, low)) if digits(high) && digits(low) => {
                let high: u16 = high.parse().map_err(|_| fail())?;
                let low: u16 = low.parse().map_err(|_| fail())?;
                Ok(Self(u32::from(high) << 16 | u32::from(low)))
            }
            None if digits(text) => text.parse().map(Self).map_err(|_| fail()),
            _ => Err(fail()),
        }
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AS{}", self.0)
    }
}

const TRANS_IN_16: u16 = 23_456;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_dotted_numbers_are_the_same() {
        assert_eq!("65551".parse::<Asn>(), "1.15".parse());
        assert_eq!("4294967295".parse::<Asn>().unwrap().get(), u32::MAX);
        for bad in ["", "+1", "-1", "4294967296", "1.65536", "1.", ".1", "1.2.3"] {
            assert!(bad.parse::<Asn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_does_not_fit_in_two_octets_is_as_trans() {
        assert_eq!(Asn::new(65_535).in_two_octets(), 65_535);
        assert_eq!(Asn::from(Asn::new(65_536).in_two_octets()), Asn::TRANS);
    }
}
