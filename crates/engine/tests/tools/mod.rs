//! What every test here needs.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Runs `ip` in the thread's network namespace; several lines are joined by `&& ip`.
pub fn ip(line: &str) {
    let status = Command::new("sh").args(["-c", &format!("ip {line}")]).status().unwrap();
    assert!(status.success(), "ip {line}");
}

/// Waits for something, for 10 s at most.
pub fn eventually<T>(ready: impl Fn() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(it) = ready() {
            return it;
        }
        assert!(Instant::now() < until, "not within 10 s");
        thread::sleep(Duration::from_millis(5));
    }
}
