//! Which machine the figures are of, told on top of every report.

use std::{fmt, fs, time::SystemTime};

use serde::Serialize;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_mb: u64,
    pub kernel: String,
    /// `2026-11-22`
    pub date: String,
    /// The load of the last minute when the run began: other programs disturb.
    pub load: String,
}

impl Machine {
    /// Looks at the machine. What cannot be found out is left empty.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            cpu: cpu_model(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: memory_mb(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            date: date(since.as_secs() / 86_400),
            load: read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_mb, kernel, date, load } = self;
        write!(
            f,
            "{cpu}, {cores} cores, {memory_mb} MB, Linux {kernel}, {date}, load at start {load}"
        )
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    let field = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(field).unwrap_or_else(|| "unknown processor".to_owned())
}

fn memory_mb(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1_024 / 1_000_000
}

/// The date of a day since 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> String {
    // Counted in eras of 400 years from 0000-03-01, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(11_017), "2000-03-01");
        assert_eq!(date(20_779), "2026-11-22");
    }

    #[test]
    fn the_processor_and_the_memory_are_read() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: A CPU\n"), "A CPU");
        assert_eq!(cpu_model(""), "unknown processor");
        assert_eq!(memory_mb("MemTotal:        8000000 kB\nMemFree: 1 kB\n"), 8_192);
    }
}
