//! Packets that flow the whole time: what is lost while other things happen is counted by number.

use std::{
    fs,
    io::PipeWriter,
    os::fd::{AsFd, OwnedFd},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{Lab, Outcome, Teller, describe, memory_file, read_back};
use crate::{
    control::{Reply, Request},
    probe::Summary,
    topology::form::Always,
    world::eventually,
};

/// A prober that runs until its input closes.
pub(super) struct Watch {
    always: Always,
    since: Instant,
    input: PipeWriter,
    prober: JoinHandle<Result<i32>>,
    output: OwnedFd,
    errors: OwnedFd,
}

impl Watch {
    /// Starts the prober and waits for its first answer: from then on, each loss is a loss.
    pub(super) fn start(lab: &Lab, always: &Always) -> Result<Self> {
        let interval = always.interval.map_or(INTERVAL, |period| period.0);
        let interval = interval.as_millis().to_string();
        let more = ["--count", "0", "--interval", &interval, "--until-eof", "--json"];
        let command = lab.probe(&always.reach, &more)?;
        let (reader, input) = std::io::pipe()?;
        let (output, errors) = (memory_file()?, memory_file()?);
        let request = Request::Exec { place: always.reach.from.clone(), command, env: Vec::new() };
        let fds: [OwnedFd; 3] = [reader.into(), output.try_clone()?, errors.try_clone()?];
        let client = lab.client.clone();
        let prober = thread::spawn(move || {
            let fds = [fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()];
            match client.ask_with(&request, &fds)?.0 {
                Reply::Ended(status) => Ok(status),
                other => bail!("the lab answered {other:?}"),
            }
        });
        let watch =
            Self { always: always.clone(), since: Instant::now(), input, prober, output, errors };
        let begun = eventually(BEGIN_WITHIN, || watch.has_begun().then_some(()));
        begun.with_context(|| format!("no answer comes: {}", describe::Watch(always)))?;
        Ok(watch)
    }

    /// The prober says on standard error when the first answer has come.
    fn has_begun(&self) -> bool {
        let file = self.errors.try_clone().map(fs::File::from);
        file.and_then(|file| file.metadata()).is_ok_and(|meta| meta.len() > 0)
    }

    /// Ends the prober and tells what was lost.
    pub(super) fn end(self, teller: &mut dyn Teller, outcome: &mut Outcome) -> Result<()> {
        drop(self.input);
        let ended = self.prober.join().map_err(|_| anyhow!("a watch panicked"))?;
        ended.context("run the prober")?;
        let text = read_back(self.output)?;
        let summary: Summary = serde_json::from_str(text.trim())
            .with_context(|| format!("the prober said {text:?}"))?;
        let what = describe::Watch(&self.always);
        let took = self.since.elapsed();
        if summary.lost <= self.always.lost {
            outcome.held += 1;
            teller.done(&format!("{what}: {} of {} lost", summary.lost, summary.sent), took);
        } else {
            let why = summary.to_string();
            teller.failed(&what, took, &why);
            outcome.failed.push(format!("{what}: {why}"));
        }
        Ok(())
    }
}

const INTERVAL: Duration = Duration::from_millis(10);
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
