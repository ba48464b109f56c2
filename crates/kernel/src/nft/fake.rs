//! Our tables in memory, with refusals on demand.

use std::collections::BTreeSet;

use russet_net::{Family, Prefix};

use super::{
    found::Found,
    kernel::{Fault, Ruleset, StepOutcome},
    plan::{Op, Step},
};
use crate::netlink::{NetlinkError, Refusal};

/// A kernel that takes everything but what it was told to refuse.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) held: Found,
    /// Elements that are refused with `EINVAL`.
    pub(crate) bad_elements: BTreeSet<Prefix>,
    /// Chains and sets of which every step is refused with `EBUSY`.
    pub(crate) bad_objects: BTreeSet<&'static str>,
    /// Objects that are gone although they were listed: removing them is refused with `ENOENT`.
    pub(crate) gone: BTreeSet<&'static str>,
    pub(crate) room: Option<usize>,
    /// What was tried, by transaction.
    pub(crate) tried: Vec<Vec<Step>>,
}

impl Fake {
    fn judge(&self, step: &Step) -> StepOutcome {
        let refuse = |errno| Err(Fault::Refused(Refusal::new(errno)));
        let name = step.name.as_str();
        match &step.op {
            Op::Add(_, members)
                if members.iter().any(|one| self.bad_elements.contains(&one.prefix)) =>
            {
                refuse(libc::EINVAL)
            }
            _ if step.is_removal() && self.gone.contains(name) => refuse(libc::ENOENT),
            _ if self.bad_objects.contains(name) => refuse(libc::EBUSY),
            _ => Ok(()),
        }
    }
}

impl Ruleset for Fake {
    fn list_owned(&mut self) -> Result<Found, NetlinkError> {
        Ok(self.held.clone())
    }

    fn transact(&mut self, steps: &[Step]) -> Result<Vec<StepOutcome>, NetlinkError> {
        self.tried.push(steps.to_vec());
        let outcomes: Vec<_> = steps.iter().map(|step| self.judge(step)).collect();
        if outcomes.iter().all(Result::is_ok) {
            for step in steps {
                self.held.note(step.clone());
            }
        }
        Ok(outcomes)
    }

    fn claim(&mut self) -> Result<Vec<(Family, Fault)>, NetlinkError> {
        Ok(Vec::new())
    }

    fn room(&self) -> usize {
        self.room.unwrap_or(usize::MAX)
    }
}
