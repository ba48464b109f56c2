//! A route reflector: Russet beside BIRD 2 and FRR, with one crowd of peers.
//!
//! Time is from when every peer begins to tell its routes until each holds those of all others. Time on a
//! processor is the speaker's in that span, memory its peak. What FRR takes longer than it works is mostly a
//! timer of its own. All peers dial at once, but for BIRD's, of which eight do.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};

use super::{Setup, rotation};
use crate::{
    bgp::{Crowd, Kind, Program, Shape, Speaker, Stage},
    process,
    report::{Bound, Figure, Row, Unit},
};

/// Every scenario, in turn.
pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "bgp", rows: Vec::new(), notes: Vec::new() };
    for scenario in SCENARIOS {
        scenario.measure(setup, &mut figure).with_context(|| scenario.name.to_owned())?;
    }
    Ok(figure)
}

/// How many peers tell how many routes, and what is wanted of it: seconds, seconds on a processor, octets.
struct Scenario {
    name: &'static str,
    shape: Shape,
    wanted: [f64; 3],
    extra: Extra,
}

/// What is measured besides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extra {
    Nothing,
    /// How long it takes until all sessions are established.
    Sessions,
    /// One peer takes its routes back; one hangs up.
    Loss,
    /// One more peer joins.
    Late,
}

/// What one speaker did in one round.
#[derive(Clone, Debug)]
struct Sample {
    converged: f64,
    processor: f64,
    peak: f64,
    crowd: f64,
    /// What [`Extra`] asks for.
    extra: Vec<f64>,
}

impl Scenario {
    fn measure(&self, setup: &Setup, figure: &mut Figure) -> Result<()> {
        let programs: &[Program] = match self.shape.kind {
            Kind::V4 => &[Program::Russet, Program::Bird, Program::Frr],
            // BIRD 2.0 has no EVPN.
            Kind::Evpn => &[Program::Russet, Program::Frr],
        };
        let stage = Stage::new(self.shape.peers + 1)?;
        let mut samples = vec![Vec::new(); programs.len()];
        let mut failed = BTreeMap::new();
        for round in 0..setup.effort.choose(1, 3) {
            for at in rotation(round, programs.len()) {
                let program = programs[at];
                if failed.contains_key(program.name()) {
                    continue;
                }
                eprintln!("  {}: {}", self.name, program.name());
                match self.once(setup, &stage, program) {
                    Ok(sample) => samples[at].push(sample),
                    // Another's failure is worth a line, and no end of what is measured of us.
                    Err(err) if program != Program::Russet => {
                        samples[at].clear();
                        failed.insert(program.name(), format!("{err:#}"));
                    }
                    Err(err) => return Err(err.context(program.name())),
                }
            }
        }
        for (name, why) in failed {
            figure.notes.push(format!("{}: {name} did not get to the end: {why}.", self.name));
        }
        let measured = programs.iter().zip(samples).filter(|(_, samples)| !samples.is_empty());
        let (programs, samples): (Vec<_>, Vec<_>) = measured.unzip();
        self.report(&programs, &samples, figure)
    }

    fn once(&self, setup: &Setup, stage: &Stage, program: Program) -> Result<Sample> {
        let speaker = stage.start(&setup.programs, program, self.shape.kind)?;
        let messages: Result<Vec<_>> =
            (0..self.shape.peers).map(|peer| self.shape.announcement(peer)).collect();
        let messages = messages?;
        stage.crowd.run(|| self.play(&speaker, program, &messages))
    }

    /// On a thread of the crowd's namespace.
    fn play(&self, speaker: &Speaker, program: Program, messages: &[Vec<u8>]) -> Result<Sample> {
        let mut crowd = Crowd::new(self.shape, Stage::target())?;
        let sessions = crowd.establish(self.shape.peers, program.at_once())?;
        let (before, own) = (speaker.usage()?, own_time()?);
        let converged = crowd.converge(messages)?;
        let (after, own_after) = (speaker.usage()?, own_time()?);
        let extra = match self.extra {
            Extra::Nothing => Vec::new(),
            Extra::Sessions => vec![sessions],
            Extra::Loss => self.lose(&mut crowd)?,
            Extra::Late => vec![crowd.join_late()?],
        };
        Ok(Sample {
            converged: converged.as_secs_f64(),
            processor: after.time.saturating_sub(before.time).as_secs_f64(),
            peak: octets(speaker.usage()?.peak),
            crowd: own_after.saturating_sub(own).as_secs_f64(),
            extra: extra.into_iter().map(|time| time.as_secs_f64()).collect(),
        })
    }

    fn lose(&self, crowd: &mut Crowd) -> Result<Vec<Duration>> {
        let (total, each) = (self.shape.total(), self.shape.each);
        let last = self.shape.peers - 1;
        // The others hold the routes of all but themselves; then of one less, and of two.
        let withdrawn = crowd.say(last, &self.shape.withdrawal(last), total - 2 * each)?;
        crowd.say(last, &self.shape.announcement(last)?, total - each)?;
        let down = crowd.hang_up(last, total - 2 * each)?;
        Ok(vec![withdrawn, down])
    }

    fn report(
        &self,
        programs: &[Program],
        samples: &[Vec<Sample>],
        figure: &mut Figure,
    ) -> Result<()> {
        let [seconds, processor, peak] = self.wanted;
        let row = |what: &str, unit, of: &dyn Fn(&Sample) -> f64| {
            compare(&format!("{}: {what}", self.name), unit, programs, samples, of)
        };
        figure.rows.push(
            row("until all hold all", Unit::Seconds, &|s| s.converged)?
                .must(Bound::MedianAtMost(seconds)),
        );
        figure.rows.push(
            row("time on a processor", Unit::Seconds, &|s| s.processor)?
                .must(Bound::MedianAtMost(processor)),
        );
        figure
            .rows
            .push(row("peak memory", Unit::Octets, &|s| s.peak)?.must(Bound::MedianAtMost(peak)));
        for (place, (what, limit)) in self.extra.rows().iter().enumerate() {
            let row = row(what, Unit::Seconds, &|s| s.extra[place])?;
            figure.rows.push(row.must(Bound::MedianAtMost(*limit)));
        }
        let crowds = programs.iter().zip(samples);
        let crowds = crowds.map(|(program, samples)| {
            let crowd: Vec<_> =
                samples.iter().map(|sample| format!("{:.2} s", sample.crowd)).collect();
            format!("{} {}", program.name(), crowd.join(", "))
        });
        let crowds: Vec<_> = crowds.collect();
        let note =
            format!("{}: the crowd's own time on a processor: {}.", self.name, crowds.join("; "));
        figure.notes.push(note);
        Ok(())
    }
}

/// One quantity of ours beside the others'.
fn compare(
    what: &str,
    unit: Unit,
    programs: &[Program],
    samples: &[Vec<Sample>],
    of: &dyn Fn(&Sample) -> f64,
) -> Result<Row> {
    let values: Vec<Vec<f64>> =
        samples.iter().map(|samples| samples.iter().map(of).collect()).collect();
    let ours = values.first().context("nobody was measured")?;
    let mut row = Row::of(what, unit, ours)?;
    for (program, theirs) in programs.iter().zip(&values).skip(1) {
        row = row.versus(program.name(), ours, theirs)?;
    }
    Ok(row)
}

impl Extra {
    /// What it measures, and how many seconds that may take.
    const fn rows(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Nothing => &[],
            Self::Sessions => &[("all sessions established", 2.0)],
            Self::Loss => &[("one peer withdraws its routes", 0.05), ("one peer is down", 0.05)],
            Self::Late => &[("one more peer joins and holds all", 0.3)],
        }
    }
}

/// The time of the calling thread on a processor.
fn own_time() -> Result<Duration> {
    process::thread_time()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn octets(value: u64) -> f64 {
    value as f64
}

const fn v4(peers: usize, each: usize) -> Shape {
    Shape { peers, each, per_set: None, kind: Kind::V4 }
}

const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "10 peers × 10,000 routes",
        shape: v4(10, 10_000),
        wanted: [0.2, 0.2, 30e6],
        extra: Extra::Loss,
    },
    Scenario {
        name: "50 × 10,000",
        shape: v4(50, 10_000),
        wanted: [1.0, 1.0, 120e6],
        extra: Extra::Late,
    },
    Scenario {
        name: "50 × 10,000, ten for each set of attributes",
        shape: Shape { per_set: Some(10), ..v4(50, 10_000) },
        wanted: [2.0, 2.0, 160e6],
        extra: Extra::Nothing,
    },
    Scenario {
        name: "200 × 100",
        shape: v4(200, 100),
        wanted: [0.3, 0.3, 40e6],
        extra: Extra::Nothing,
    },
    Scenario {
        name: "500 × 10",
        shape: v4(500, 10),
        wanted: [0.5, 0.5, 60e6],
        extra: Extra::Sessions,
    },
    Scenario {
        name: "EVPN type 2, 20 × 2,000",
        shape: Shape { peers: 20, each: 2_000, per_set: None, kind: Kind::Evpn },
        wanted: [0.15, 0.15, 40e6],
        extra: Extra::Nothing,
    },
];
