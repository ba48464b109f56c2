//! Plays a topology: what must hold before, what is watched, the steps, what must hold after.
//!
//! A client of the lab like any other: everything goes over the control socket. `check` looks whether a
//! condition holds, `step` does what is done to the cluster, `watch` keeps numbered packets flowing, `quiet` looks
//! at what a process does meanwhile, `describe` says it all in words.

mod check;
mod describe;
mod quiet;
mod step;
mod watch;

use std::{
    fmt::Display,
    fs,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use russet_net::Family;

use crate::{
    control::{Client, PodStatus, Reply, Request, Status},
    programs::Programs,
    topology::{
        Expect, Topology,
        form::{self, When},
    },
};

/// A running lab and what is known of it.
#[derive(Debug)]
pub struct Lab {
    pub topology: Topology,
    pub client: Client,
    programs: Programs,
}

/// How a scenario went.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub held: usize,
    /// What did not hold, in words, with the reason.
    pub failed: Vec<String>,
}

/// Hears how it goes.
pub trait Teller {
    /// Something was done, or found to hold.
    fn done(&mut self, what: &dyn Display, took: Duration);
    /// Something could not be done, or did not hold.
    fn failed(&mut self, what: &dyn Display, took: Duration, why: &str);
}

impl Lab {
    pub fn new(topology: Topology, client: Client) -> Result<Self> {
        Ok(Self { topology, client, programs: Programs::beside_this_one()? })
    }

    /// Plays the whole scenario. A step that cannot be done ends it; a condition that does not hold does not.
    pub fn play(&self, teller: &mut dyn Teller) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let has_steps = !self.topology.steps.is_empty();
        self.look(When::Before, teller, &mut outcome);
        if !has_steps {
            self.look(When::After, teller, &mut outcome);
        }
        // What never worked cannot be watched; the reader has been told already.
        if !outcome.failed.is_empty() {
            return Ok(outcome);
        }
        let (watches, quiets) = (self.watches()?, self.quiets()?);
        for step in &self.topology.steps {
            let start = Instant::now();
            let done = self.step(step);
            let took = start.elapsed();
            if let Err(err) = done {
                let why = format!("{err:#}");
                teller.failed(&describe::Step(step), took, &why);
                outcome.failed.push(format!("{}: {why}", describe::Step(step)));
                break;
            }
            teller.done(&describe::Step(step), took);
        }
        for watch in watches {
            watch.end(teller, &mut outcome)?;
        }
        for quiet in quiets {
            quiet.end(self, teller, &mut outcome);
        }
        if has_steps && outcome.failed.is_empty() {
            self.look(When::After, teller, &mut outcome);
        }
        Ok(outcome)
    }

    /// Looks at every condition that is meant for this moment. Without steps there is only one moment.
    fn look(&self, when: When, teller: &mut dyn Teller, outcome: &mut Outcome) {
        let once = self.topology.steps.is_empty();
        for expect in &self.topology.expect {
            let Expect::Eventually(eventually) = expect else { continue };
            let meant = match eventually.when {
                None => !once || when == When::Before,
                Some(wanted) => wanted == when,
            };
            if !meant {
                continue;
            }
            let start = Instant::now();
            let what = describe::Condition(eventually);
            match self.eventually(eventually) {
                Ok(()) => {
                    outcome.held += 1;
                    teller.done(&what, start.elapsed());
                }
                Err(err) => {
                    let why = format!("{err:#}");
                    teller.failed(&what, start.elapsed(), &why);
                    outcome.failed.push(format!("{what}: {why}"));
                }
            }
        }
    }

    fn watches(&self) -> Result<Vec<watch::Watch>> {
        let watched = self.topology.expect.iter().filter_map(|expect| match expect {
            Expect::Always(always) => Some(always),
            Expect::Eventually(_) | Expect::Quiet(_) => None,
        });
        watched.map(|always| watch::Watch::start(self, always)).collect()
    }

    fn quiets(&self) -> Result<Vec<quiet::Quiet>> {
        let looked_at = self.topology.expect.iter().filter_map(|expect| match expect {
            Expect::Quiet(quiet) => Some(quiet),
            Expect::Eventually(_) | Expect::Always(_) => None,
        });
        looked_at.map(|wanted| quiet::Quiet::start(self, wanted)).collect()
    }

    pub fn status(&self) -> Result<Status> {
        match self.client.ask(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            other => bail!("the lab answered {other:?}"),
        }
    }

    /// The address of a pod, a node, or of what is an address itself.
    pub fn address_of(&self, target: &str, family: Family) -> Result<std::net::IpAddr> {
        if let Some(addr) = form::address(target) {
            return Ok(addr);
        }
        if let Some(node) = self.topology.node(target) {
            return node.address(family).ok_or_else(|| anyhow!("{target} has no {family} address"));
        }
        let pods = self.status()?.pods;
        let pod = pods.iter().find(|pod| pod.name == target);
        let pod = pod.ok_or_else(|| anyhow!("pod {target} is not there"))?;
        let of_family =
            |pod: &PodStatus| pod.addresses.iter().copied().find(|a| Family::of(*a) == family);
        of_family(pod).ok_or_else(|| anyhow!("pod {target} has no {family} address"))
    }

    /// Runs a command in a node or pod to its end: exit status and what it wrote.
    pub fn exec(&self, place: &str, command: Vec<String>) -> Result<(i32, String)> {
        let input: OwnedFd = fs::File::open("/dev/null")?.into();
        let output = memory_file()?;
        let fds = [input.as_fd(), output.as_fd(), output.as_fd()];
        let request = Request::Exec { place: place.to_owned(), command, env: Vec::new() };
        match self.client.ask_with(&request, &fds)?.0 {
            Reply::Ended(status) => Ok((status, read_back(output)?)),
            other => bail!("the lab answered {other:?}"),
        }
    }
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A file that is nowhere but in memory, for what a command writes: no reader has to keep up with it.
fn memory_file() -> Result<OwnedFd> {
    rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC)
        .context("make a file in memory")
}

/// All that was written, whoever moved the position.
fn read_back(file: OwnedFd) -> Result<String> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::from(file);
    let len = usize::try_from(file.metadata()?.len())?.min(MAX_OUTPUT);
    let mut octets = vec![0; len];
    file.read_exact_at(&mut octets, 0)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

const MAX_OUTPUT: usize = 4 << 20;
