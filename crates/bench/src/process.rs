//! What a process uses, as /proc tells it.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Memory of a process in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What is resident (`VmRSS`), pages shared with other processes included.
    pub resident: u64,
    /// The most that ever was (`VmHWM`).
    pub peak: u64,
    /// Shared pages by their share (`Pss`).
    pub proportional: u64,
}

pub fn memory(pid: u32) -> Result<Memory> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
    let field = |text, key| kib(text, key).with_context(|| format!("no {key} of process {pid}"));
    Ok(Memory {
        resident: field(&status, "VmRSS")?,
        peak: field(&status, "VmHWM")?,
        proportional: field(&rollup, "Pss")?,
    })
}

/// The time that all threads of a process spent on a processor.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list threads")?;
    let mut nanos = 0;
    for task in tasks {
        let path = task?.path().join("schedstat");
        nanos += on_processor(&read(&path.to_string_lossy())?).context("read schedstat")?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// How often the threads of a process have gone to sleep by themselves, and so woken.
pub fn switches(pid: u32) -> Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list threads")?;
    let mut switches = 0;
    for task in tasks {
        let status = read(&task?.path().join("status").to_string_lossy())?;
        let key = "voluntary_ctxt_switches";
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        switches += line.and_then(|text| text.trim().parse::<u64>().ok()).context(key)?;
    }
    Ok(switches)
}

/// The time that the calling thread spent on a processor.
pub fn thread_time() -> Result<Duration> {
    let nanos = on_processor(&read("/proc/thread-self/schedstat")?).context("read schedstat")?;
    Ok(Duration::from_nanos(nanos))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// The value of `Key:   123 kB`, in octets.
fn kib(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// The first of the three numbers: nanoseconds spent on a processor (Documentation/scheduler/sched-stats).
fn on_processor(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmRSSX:\t 1 kB\nVmHWM:\t  900 kB\nVmRSS:\t  12 kB\n";
        assert_eq!(kib(text, "VmRSS"), Some(12 * 1_024));
        assert_eq!(kib(text, "Pss"), None);
    }

    #[test]
    fn the_first_number_of_schedstat_is_the_time_on_a_processor() {
        assert_eq!(on_processor("123456 789 10\n"), Some(123_456));
        assert_eq!(on_processor(""), None);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        assert!(processor_time(pid).unwrap() > Duration::ZERO);
    }
}
