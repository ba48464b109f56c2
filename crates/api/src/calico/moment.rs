//! A moment as Go's Kubernetes types write it: `2026-03-01T08:00:00Z`, in whole seconds (RFC 3339).

/// The nanoseconds since 1970. Fractions and other zones are read too; before 1970 there is nothing.
pub(super) fn read(text: &str) -> Option<u64> {
    let (date, clock) = text.split_once(['T', 't'])?;
    let [year, month, day] = fields(date, '-')?;
    let (clock, zone) = clock.split_at(clock.find(['Z', 'z', '+', '-'])?);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [hour, minute, second] = fields(clock, ':')?;
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    if !fits || second > 60 || year > 9_999 {
        return None;
    }
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    let seconds = u64::try_from(seconds - offset(zone)?).ok()?;
    seconds.checked_mul(NANOS)?.checked_add(nanos(fraction)?)
}

/// The text of nanoseconds since 1970; what is below a second is left out.
pub(super) fn text(nanos: u64) -> String {
    moment(nanos / NANOS)
}

/// The text of seconds since 1970, in UTC: `2026-03-01T08:00:00Z` (RFC 3339).
pub fn moment(seconds: u64) -> String {
    // Seconds that are more are no clock's.
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let (day, second) = (seconds / DAY, seconds % DAY);
    let (year, month, date) = civil(day);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The same as Go shows a time in UTC: `2026-03-01 08:01:02.3 +0000 UTC`, the fraction without zeros at its end.
pub fn shown_moment(nanos: u64) -> String {
    let whole = text(nanos).replace('T', " ").replace('Z', "");
    let fraction = format!("{:09}", nanos % NANOS);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{whole}{dot}{fraction} +0000 UTC")
}

fn fields(text: &str, sep: char) -> Option<[i64; 3]> {
    let mut parts = text.split(sep).map(number);
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn nanos(fraction: &str) -> Option<u64> {
    if fraction.is_empty() {
        return Some(0);
    }
    let digits = fraction.get(..fraction.len().min(9)).filter(|_| number(fraction).is_some())?;
    let places = u32::try_from(9 - digits.len()).ok()?;
    Some(digits.parse::<u64>().ok()? * 10_u64.pow(places))
}

/// In seconds, east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => return Some(0),
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (number(hours).filter(|h| *h < 24)? * 60 + number(minutes)?) * 60)
}

/// The days since 1970 of a date (Howard Hinnant: `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The other way round.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

const NANOS: u64 = 1_000_000_000;
const DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_in_every_zone_and_with_fractions() {
        let at = 1_772_352_062;
        for (written, nanos) in [
            ("2026-03-01T08:01:02Z", 0),
            ("2026-03-01T08:01:02.3Z", 300_000_000),
            ("2026-03-01T10:01:02.000000001+02:00", 1),
            ("2026-03-01T00:31:02-07:30", 0),
        ] {
            assert_eq!(read(written), Some(at * NANOS + nanos), "{written}");
        }
        assert_eq!(shown_moment(at * NANOS + 300_000_000), "2026-03-01 08:01:02.3 +0000 UTC");
        assert_eq!(shown_moment(at * NANOS), "2026-03-01 08:01:02 +0000 UTC");
        assert_eq!(text(at * NANOS + 7), "2026-03-01T08:01:02Z");
        assert_eq!(read("2024-02-29T00:00:00Z").map(text).as_deref(), Some("2024-02-29T00:00:00Z"));
    }

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
            assert_eq!(moment(seconds), date);
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in [
            "",
            "2026-03-01",
            "2026-13-01T00:00:00Z",
            "2026-03-01T08:01Z",
            "1969-12-31T23:59:59Z",
            "2026-03-01T08:01:02",
            "2026-03-01T08:01:02.xZ",
            "+2026-03-01T08:01:02Z",
            "é",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0..18_446_744_073_u64) {
            prop_assert_eq!(read(&text(seconds * NANOS)), Some(seconds * NANOS));
        }
    }
}
