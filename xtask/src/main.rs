//! Russet's own tooling: `cargo xtask demo|test|bench|instructions|fuzz|vm-test|swap|ci|setup`.
//!
//! `setup` knows which programs the tests need and where Debian has them, `run` starts other programs and
//! says what it starts, `fuzz` looks for bytes that break a target, `instructions`
//! counts what the innermost work costs, `vm` plays topologies on another kernel, `swap` changes a node between
//! flanneld and Russet, `layers` holds the crates to the architecture's map.

mod demo;
mod fuzz;
mod instructions;
mod layers;
mod run;
mod setup;
mod swap;
mod vm;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{instructions::Then, run::Cargo};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Russet's own tooling", version)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds, brings up three nodes in namespaces and shows what Russet does
    Demo,
    /// Installs what the tests need (as root on Debian; else says what is missing) and runs them all
    Test {
        /// Only tests whose name holds this
        filter: Option<String>,
    },
    /// Measures against baselines in the same run; prints a table and writes JSON
    Bench {
        /// Names of figures; all when none is given
        figures: Vec<String>,
    },
    /// Counts the instructions of the BGP speaker's innermost work, and compares with the numbers in the repository
    Instructions {
        /// Writes down what was counted
        #[arg(long)]
        accept: bool,
    },
    /// Looks for bytes that break a target, guided by coverage (needs cargo-fuzz)
    Fuzz {
        /// A target of fuzz/src/lib.rs
        target: String,
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Boots another kernel (emulated) and plays topologies there
    VmTest {
        /// Topology files; those that differ by kernel when none is given
        topologies: Vec<PathBuf>,
    },
    /// Changes a node from a real flanneld to Russet and back under traffic, for each backend
    Swap {
        /// The program
        #[arg(long, value_name = "PATH")]
        flanneld: PathBuf,
    },
    /// What CI runs: formatting, lints, documentation, tests
    Ci,
    /// Installs what the tests need, and nothing else
    Setup,
}

fn main() -> ExitCode {
    match dispatch(Args::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("xtask: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<()> {
    match task {
        Task::Demo => demo::run(),
        Task::Test { filter } => test(filter.as_deref()),
        Task::Bench { figures } => bench(&figures),
        Task::Instructions { accept } => {
            instructions::run(if accept { Then::Accept } else { Then::Compare })
        }
        Task::Fuzz { target, seconds } => fuzz::run(&target, seconds),
        Task::VmTest { topologies } => vm::run(&topologies),
        Task::Swap { flanneld } => swap::swap(&flanneld),
        Task::Ci => ci(),
        Task::Setup => setup::install(),
    }
}

/// Unit, property and end-to-end tests. The binaries come first: the end-to-end tests run them.
fn test(filter: Option<&str>) -> Result<()> {
    setup::install()?;
    Cargo::new(["build", "--workspace", "--bins"]).run()?;
    Cargo::new(["test", "--workspace", "--no-fail-fast"]).args(filter).run()?;
    // Apart, because the feature that lets time be simulated must not get into the binaries.
    let simulated = "crates/engine/simulated/Cargo.toml";
    Cargo::new(["test", "--manifest-path", simulated, "--target-dir", "target/simulated"])
        .args(filter)
        .run()
}

fn bench(figures: &[String]) -> Result<()> {
    setup::install()?;
    Cargo::new(["build", "--release", "--workspace", "--bins"]).run()?;
    // Not by `cargo run`: for one package alone features differ, and much would be built again.
    let mut bench = std::process::Command::new(run::root().join("target/release/russet-bench"));
    bench.args(figures);
    run::run(bench)
}

fn ci() -> Result<()> {
    Cargo::new(["fmt", "--all", "--check"]).run()?;
    Cargo::new(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()?;
    Cargo::new(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").run()?;
    test(None)?;
    vm::run(&[])
}
