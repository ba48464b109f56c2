//! What a process does meanwhile: a break must not make it spin, or fill the disk with complaints.

use anyhow::{Result, anyhow, bail};

use super::{Lab, Outcome, Teller, describe};
use crate::{
    control::{Reply, Request, Usage},
    topology::form,
};

/// A process and what it had used when the steps began.
pub(super) struct Quiet {
    quiet: form::Quiet,
    before: Usage,
}

impl Quiet {
    pub(super) fn start(lab: &Lab, quiet: &form::Quiet) -> Result<Self> {
        Ok(Self { quiet: quiet.clone(), before: usage(lab, quiet)? })
    }

    /// Tells what was used since, and whether that is too much.
    pub(super) fn end(self, lab: &Lab, teller: &mut dyn Teller, outcome: &mut Outcome) {
        let what = describe::Quiet(&self.quiet);
        let used = usage(lab, &self.quiet).and_then(|now| self.used(&now));
        match used {
            Ok((cpu, lines)) => {
                outcome.held += 1;
                let used = format!("{what}: {cpu:?}, {}", super::count(lines, "line"));
                teller.done(&used, cpu);
            }
            Err(err) => {
                let why = format!("{err:#}");
                teller.failed(&what, std::time::Duration::ZERO, &why);
                outcome.failed.push(format!("{what}: {why}"));
            }
        }
    }

    fn used(&self, now: &Usage) -> Result<(std::time::Duration, u64)> {
        if now.starts != self.before.starts {
            bail!("it was started again");
        }
        let cpu = now.cpu.saturating_sub(self.before.cpu);
        let lines = now.lines.saturating_sub(self.before.lines);
        if cpu > self.quiet.cpu.0 || lines > self.quiet.lines {
            bail!("it took {cpu:?} of a processor and wrote {lines} lines");
        }
        Ok((cpu, lines))
    }
}

fn usage(lab: &Lab, quiet: &form::Quiet) -> Result<Usage> {
    let request = Request::Usage { node: quiet.node.clone(), process: quiet.process.to_string() };
    match lab.client.ask(&request)? {
        Reply::Usage(usage) => Ok(usage),
        other => Err(anyhow!("the lab answered {other:?}")),
    }
}
