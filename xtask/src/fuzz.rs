//! `cargo xtask fuzz`: coverage-guided search from the committed corpus.
//!
//! What it finds on the way stays below `target/`; what breaks the target is printed by cargo-fuzz, and
//! belongs into `fuzz/corpus/` with the mending.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{Cargo, root};

/// Runs one target for a while.
pub fn run(target: &str, seconds: u32) -> Result<()> {
    let there = Command::new("cargo-fuzz").arg("--version").output().is_ok();
    if !there {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz");
    }
    let found = root().join("target/fuzz-corpus").join(target);
    std::fs::create_dir_all(&found)?;
    let found = found.to_string_lossy().into_owned();
    let kept = root().join("fuzz/corpus").join(target).to_string_lossy().into_owned();
    let time = format!("-max_total_time={seconds}");
    let words = ["fuzz", "run", "--fuzz-dir", "fuzz/libfuzzer", "--target-dir", "target/fuzz"];
    Cargo::new(words)
        .args([target, &found, &kept, "--", &time])
        // The coverage runtime wants flags that a stable compiler has but does not offer.
        .env("RUSTC_BOOTSTRAP", "1")
        .run()
}
