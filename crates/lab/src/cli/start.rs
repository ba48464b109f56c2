//! Brings a lab up: its folder, the first stage, and the supervisor's progress until it is ready.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    control::{self, Client},
    programs::Programs,
    topology::{Stores, Topology},
    world::stage::{self, Life},
};

/// Prints how far it is, with the time since the beginning.
#[derive(Debug)]
pub(super) struct Lines {
    since: Instant,
}

impl Default for Lines {
    fn default() -> Self {
        Self { since: Instant::now() }
    }
}

impl Lines {
    pub(super) fn line(&self, what: &str) {
        println!("{:7.2} s  {what}", self.since.elapsed().as_secs_f64());
    }
}

/// A lab that is up; the first stage is kept when the lab is to end with us.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) client: Client,
    pub(super) outer: Child,
}

/// Starts the lab and waits until it is ready.
pub(super) fn start(
    topology: &Topology,
    text: &str,
    life: Life,
    lines: &mut Lines,
) -> Result<Started> {
    let dir = control::lab_dir(&topology.name)?;
    let client = Client::new(&dir);
    if client.is_alive() {
        let name = &topology.name;
        bail!("{name} is up already; end it with: russet lab down --lab {name}");
    }
    fresh(&dir, text, topology.stores)?;
    let stage = if life == Life::WithStarter { "outer" } else { "outer-detached" };
    let line = Programs::beside_this_one()?.stage(stage, &dir);
    let (program, args) = line.split_first().ok_or_else(|| anyhow!("no program"))?;
    let log = fs::File::create(stage::log_path(&dir))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut outer = command.spawn().context("start the lab")?;
    let ready = follow(&mut outer, lines);
    if let Err(err) = ready {
        // It ends by itself; what it wrote is kept for the reader.
        let _ = outer.wait();
        let told = fs::read_to_string(stage::log_path(&dir)).unwrap_or_default();
        eprintln!("{}", tails(&dir, &told));
        return Err(err);
    }
    Ok(Started { client, outer })
}

/// An empty folder with the topology in it. What a lab that was killed left behind goes.
fn fresh(dir: &Path, text: &str, stores: Stores) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    fs::create_dir(dir).with_context(|| format!("create {}", dir.display()))?;
    if stores == Stores::Etcd {
        fs::write(stage::stores_path(dir), "")?;
    }
    Ok(fs::write(stage::topology_path(dir), text)?)
}

/// Prints the supervisor's progress until it is ready.
fn follow(outer: &mut Child, lines: &mut Lines) -> Result<()> {
    let stdout = outer.stdout.take().ok_or_else(|| anyhow!("no output"))?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match line.split_at_checked(2) {
            _ if line == "ready" => return Ok(()),
            Some(("+ ", stretch)) => lines.line(stretch),
            Some(("! ", why)) => bail!("{why}"),
            _ => {}
        }
    }
    bail!("the lab ended before it was ready")
}

/// The last lines of every log of a lab.
pub(super) fn tails(dir: &Path, supervisor: &str) -> String {
    let mut text = String::new();
    if !supervisor.trim().is_empty() {
        text.push_str(&tail("supervisor", supervisor));
    }
    let entries = fs::read_dir(dir.join("logs")).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let log = fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if !log.trim().is_empty() {
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
            text.push_str(&tail(&name.unwrap_or_default(), &log));
        }
    }
    format!("{text}logs are in {}", dir.display())
}

fn tail(name: &str, log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
    format!("--- {name}\n{}\n", last.join("\n"))
}

const TAIL: usize = 12;
