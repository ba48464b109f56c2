//! Spans of time as Go writes them: `120s`, `1h30m0s`, `1.5s`.

use std::{fmt, str::FromStr, time::Duration};

/// A span that is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoDuration(pub(super) Duration);

#[derive(Debug)]
pub(super) struct NoDuration;

impl fmt::Display for NoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a span of time such as 120s or 1h30m is wanted")
    }
}

impl FromStr for GoDuration {
    type Err = NoDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if text.is_empty() {
            return Err(NoDuration);
        }
        let mut rest = text;
        let mut sum = Duration::ZERO;
        while !rest.is_empty() {
            let (part, tail) = part(rest).ok_or(NoDuration)?;
            sum = sum.checked_add(part).ok_or(NoDuration)?;
            rest = tail;
        }
        Ok(Self(sum))
    }
}

/// One number with its unit, and what follows it.
fn part(text: &str) -> Option<(Duration, &str)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let (_, nanos) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
    let unit = UNITS.iter().map(|(unit, _)| *unit).find(|unit| rest.starts_with(unit))?;
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut sum =
        if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(*nanos)? };
    let mut scale = *nanos;
    for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
        scale /= 10;
        sum = sum.checked_add(scale.checked_mul(digit.into())?)?;
    }
    Some((Duration::from_nanos(sum), rest.get(unit.len()..)?))
}

/// In nanoseconds; a unit stands before those that it begins with.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("120s", 120_000),
            ("1h30m0s", 5_400_000),
            ("1.5s", 1_500),
            (".25s", 250),
            ("100ms", 100),
            ("1m0.001s", 60_001),
        ] {
            assert_eq!(text.parse::<GoDuration>().unwrap().0.as_millis(), millis, "{text}");
        }
        for bad in ["", "1", "s", "-1s", "1d", "1s ", "99999999999h", ".s", "1e3s"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
        }
    }
}
