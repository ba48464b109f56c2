//! How many instructions the BGP speaker's innermost work takes, held to numbers in the repository: a count says on any
//! machine and under any load what a time says on none.
//!
//! Each work is counted twice under valgrind, done a few times and more often: what only prepares it is in both and
//! falls out of the difference.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    run::{Cargo, root},
    setup,
};

/// What becomes of a count that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More than [`MOST_MORE`] above the number is a failure.
    Compare,
    /// The number becomes what was counted.
    Accept,
}

/// Counts everything, and compares or writes down.
pub fn run(then: Then) -> Result<()> {
    setup::install_for_instructions()?;
    Cargo::new(["build", "--release", "-p", "russet-bgp", "--example", "instructions"]).run()?;
    let file = root().join("crates/bgp/instructions.txt");
    let known = read(&fs::read_to_string(&file).unwrap_or_default())?;
    let mut counted = BTreeMap::new();
    for work in WORKS {
        let few = count(work, FEW)?;
        counted.insert(work.to_owned(), count(work, MANY)?.saturating_sub(few) / (MANY - FEW));
    }
    if then == Then::Accept {
        return fs::write(&file, write(&counted)).with_context(|| file.display().to_string());
    }
    let mut more = Vec::new();
    for (work, now) in &counted {
        let was = known.get(work).copied().unwrap_or(0);
        println!("{work:<10} {now:>12} instructions, {was:>12} known");
        if is_more(*now, was) {
            more.push(work.as_str());
        }
    }
    if more.is_empty() {
        return Ok(());
    }
    bail!(
        "{} takes more instructions; `cargo xtask instructions --accept` if that is as it should be",
        more.join(", ")
    )
}

/// Instructions of the whole program when it does the work so many times.
fn count(work: &str, times: u64) -> Result<u64> {
    let example = root().join("target/release/examples/instructions");
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg::<PathBuf>(example)
        .args([work, &times.to_string()])
        .output()
        .context("start valgrind")?;
    let told = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        bail!("count {work}: {told}");
    }
    collected(&told).with_context(|| format!("no count in what valgrind says: {told}"))
}

/// The number behind `Collected :`.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

fn is_more(now: u64, was: u64) -> bool {
    now > was + was / MOST_MORE
}

fn read(text: &str) -> Result<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (work, number) = line.split_once(' ').context("a line has a name and a number")?;
        Ok((work.to_owned(), number.trim().parse().with_context(|| line.to_owned())?))
    };
    text.lines().map(line).collect()
}

fn write(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().fold(String::new(), |text, (work, count)| text + &format!("{work} {count}\n"))
}

const WORKS: [&str; 3] = ["decode", "best-path", "encode"];
const FEW: u64 = 2;
const MANY: u64 = 6;
/// One part of so many: what another compiler may differ by.
const MOST_MORE: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_found_and_kept_and_a_twentieth_more_is_too_much() {
        let told = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(told), Some(123_456));
        assert_eq!(collected("==7== killed"), None);
        let counts = BTreeMap::from([("encode".to_owned(), 5), ("decode".to_owned(), 7)]);
        assert_eq!(read(&write(&counts)).unwrap(), counts);
        assert!(!is_more(105, 100) && is_more(106, 100));
        // A work that nobody has counted before is no regression to pass over.
        assert!(is_more(1, 0));
    }
}
