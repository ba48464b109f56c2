//! The operator's commands, as the owner sees them: what is wanted of them leaves, and what they came to comes back in
//! at the front door, as something that the node observes of itself.

use std::time::Instant;

use russet_api::admin::Pending;
use russet_core::{
    errand::{self, Problem},
    lease::LeaseInput,
};

use super::Owner;
use crate::errands::Report;

impl Owner {
    pub(super) fn errands(&mut self, report: Report, now: Instant) {
        let Report { prepared, problems } = report;
        self.errands.problems = problems;
        if self.errands.prepared != prepared {
            self.errands.prepared = prepared;
            // Only what is prepared is new: that the node has no uplink any more stays true.
            if let Some(mut node) = self.calc.world().node().cloned() {
                node.underlay.prepared.clone_from(&self.errands.prepared);
                self.lease_input(LeaseInput::Underlay(node.underlay.clone()), now);
                self.change_node(node);
                self.tell_lease_of_config(now);
            }
        }
    }

    pub(super) fn pass_errands(&mut self) {
        let generation = self.calc.generation();
        if self.errands.passed.replace(generation) == Some(generation) {
            return;
        }
        let wanted = errand::wanted(&self.calc);
        self.outlets.errands.send_if_modified(|known| {
            let same = *known == wanted;
            if !same {
                *known = wanted;
            }
            !same
        });
    }
}

/// Commands that failed, as an operator sees them.
pub(super) fn pending(problems: &[Problem]) -> impl Iterator<Item = Pending> {
    problems.iter().map(|problem| Pending {
        object: match problem.peer {
            Some(peer) => format!("{} for {peer}", problem.name),
            None => problem.name.to_owned(),
        },
        reason: match problem.failures {
            1 => format!("{}; it is tried again", problem.reason),
            n => format!("{}; it failed {n} times and is tried again", problem.reason),
        },
        cause: problem.peer.map(|peer| format!("lease {peer}")),
    })
}
