//! `russet lab run`: a topology from end to end, told as it goes.

use std::{
    fmt::Display,
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{down, is_watched, start};
use crate::{
    scenario::{Lab, Teller},
    topology::{Setting, Stores, Topology},
    world::stage::{self, Life},
};

/// What becomes of a lab in which something does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    Down,
    Keep,
}

impl From<bool> for Afterwards {
    fn from(keep: bool) -> Self {
        if keep { Self::Keep } else { Self::Down }
    }
}

pub(super) fn run(
    file: &Path,
    stores: Stores,
    settings: &[Setting],
    afterwards: Afterwards,
) -> Result<ExitCode> {
    let (topology, text) = Topology::read(file, settings)?;
    let topology = topology.upon(stores);
    let began = Instant::now();
    println!("{}", topology.name);
    if let Some(summary) = &topology.summary {
        println!("{summary}\n");
    }
    let life = if afterwards == Afterwards::Keep { Life::OfItsOwn } else { Life::WithStarter };
    let mut started = start::start(&topology, &text, life, &mut start::Lines::default())?;
    println!();
    let lab = Lab::new(topology, started.client.clone())?;
    let outcome = lab.play(&mut Printer)?;
    let took = began.elapsed().as_secs_f64();
    if outcome.failed.is_empty() {
        println!("\nall {} hold, {took:.1} s", outcome.held);
        down(&started.client)?;
        let _ = started.outer.wait();
        return Ok(ExitCode::SUCCESS);
    }
    let dir = started.client.dir();
    let told = fs::read_to_string(stage::log_path(dir)).unwrap_or_default();
    println!("\n{}", start::tails(dir, &told));
    let (failed, held) = (outcome.failed.len(), outcome.held);
    println!("{failed} failed, {held} held, {took:.1} s");
    if afterwards == Afterwards::Keep {
        println!("{} is still up", lab.topology.name);
    } else {
        // The folder stays, for its logs.
        lab.client.ask(&crate::control::Request::Down)?;
        let _ = started.outer.wait();
    }
    Ok(ExitCode::FAILURE)
}

/// One line for each thing that was done or found.
struct Printer;

impl Teller for Printer {
    fn done(&mut self, what: &dyn Display, took: Duration) {
        println!("  {}  {what}  {}", paint("ok  ", GREEN), time(took));
    }

    fn failed(&mut self, what: &dyn Display, took: Duration, why: &str) {
        let why = why.replace('\n', "\n        ");
        println!("  {}  {what}  {}\n        {why}", paint("FAIL", RED), time(took));
    }
}

fn time(took: Duration) -> String {
    match took.as_millis() {
        ms @ 0..1_000 => format!("({ms} ms)"),
        _ => format!("({:.1} s)", took.as_secs_f64()),
    }
}

fn paint(text: &str, colour: &str) -> String {
    if is_watched() { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

const GREEN: &str = "32";
const RED: &str = "31";
