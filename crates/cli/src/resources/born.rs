//! What an object is born with: a random uid, and the time.

use std::{
    fs::File,
    io::Read,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use russet_api::calico::Born;
use serde_json::Value;

/// What a new object is given; what the operator's document says already stays, as with calicoctl.
pub fn now(said: &Value) -> Result<Born> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let mut octets = [0; 16];
    let mut source = File::open("/dev/urandom").context("open /dev/urandom")?;
    source.read_exact(&mut octets).context("read /dev/urandom")?;
    Ok(kept(said, &Born { uid: uuid_v4(octets), created: rfc3339(seconds) }))
}

/// What an object keeps of another that it takes the place of.
pub fn kept(there: &Value, else_: &Born) -> Born {
    let text = |name| {
        let text = there.get("metadata").and_then(|meta| meta.get(name)).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    Born {
        uid: text("uid").unwrap_or_else(|| else_.uid.clone()),
        created: text("creationTimestamp").unwrap_or_else(|| else_.created.clone()),
    }
}

/// A random UUID (RFC 9562 §5.4).
fn uuid_v4(mut octets: [u8; 16]) -> String {
    octets[6] = octets[6] & 0x0f | 0x40;
    octets[8] = octets[8] & 0x3f | 0x80;
    let hex: Vec<_> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().concat();
    [part(0..4), part(4..6), part(6..8), part(8..10), part(10..16)].join("-")
}

/// Seconds since 1970 as a date and a time in UTC: `2026-03-01T08:00:00Z`.
pub fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that a leap day is the last of its year, and lie in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_772_352_000, "2026-03-01T08:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn a_uid_has_the_form_of_version_4() {
        assert_eq!(uuid_v4([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid_v4([0; 16]), "00000000-0000-4000-8000-000000000000");
        let born = now(&json!({})).unwrap();
        assert_ne!(born.uid, now(&json!({})).unwrap().uid);
    }

    #[test]
    fn what_is_said_stays() {
        let born = now(&json!({"metadata": {"uid": "u", "creationTimestamp": null}})).unwrap();
        assert_eq!(born.uid, "u");
        assert!(born.created.ends_with('Z'));
    }
}
