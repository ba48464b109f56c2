//! What the lanes report, kept for whoever asks: what is pending and why, what was repaired and who broke it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use russet_api::admin::{Counters, ForwardDrop, Pending, Repaired, SHOWN};
use russet_core::Calc;
use russet_desired::{Flag, Key};
use russet_kernel::{
    lane::{Generation, Report},
    nft::{DroppingChain, Why},
    reconcile::{Drift, DriftKind, News, Path},
};

use crate::one_line;

/// What is known of the kernel's side.
#[derive(Debug, Default)]
pub struct KernelView {
    pub counters: Counters,
    drops: Vec<DroppingChain>,
    /// Why the node has no usable uplink.
    pub no_uplink: Option<String>,
    /// Whether any patch is in the kernel.
    pub applied_once: bool,
    /// The newest patch that is in the kernel, but for what is refused.
    applied: Generation,
    refused: BTreeMap<Key, String>,
    /// Why the kernel cannot be read back.
    unreadable: Option<String>,
    /// The newest last, each object once.
    repairs: VecDeque<Repair>,
}

#[derive(Debug)]
struct Repair {
    key: Key,
    drift: Drift,
    times: u64,
    at: Instant,
}

impl KernelView {
    /// Takes in what one round of the reconcile lane did.
    pub fn take(&mut self, report: Report, now: Instant) {
        for news in report.news {
            match news {
                News::Failed(key, error) => {
                    let reason = one_line(&error);
                    tracing::warn!(op = "apply", object = %key, %reason, "an object is not as it should be");
                    self.refused.insert(key, reason);
                }
                News::Cleared(key) => _ = self.refused.remove(&key),
                News::Repaired(key, drift) => self.repaired_now(key, drift, now),
            }
        }
        self.unreadable = report.error.as_ref().map(|error| one_line(error));
        self.applied_once |= report.generation.0 > 0 && report.error.is_none();
        if report.error.is_none() {
            self.applied = report.generation;
        }
        self.drops = report.drops;
        let counted = report.counters;
        self.counters.kernel_events = counted.events;
        self.counters.resyncs = counted.resyncs;
        self.counters.repairs_by_event = counted.repairs_by_event;
        self.counters.repairs_by_sweep = counted.repairs_by_sweep;
        self.counters.netlink_messages = counted.messages;
    }

    fn repaired_now(&mut self, key: Key, drift: Drift, now: Instant) {
        let by = drift.by.as_deref().unwrap_or("the kernel or an unknown program");
        tracing::info!(op = "repair", object = %key, what = words(drift.what), by, "what was changed is set right");
        let before = self.repairs.iter().position(|repair| repair.key == key);
        let times = before.and_then(|n| self.repairs.remove(n)).map_or(0, |repair| repair.times);
        self.repairs.push_back(Repair { key, drift, times: times + 1, at: now });
        if self.repairs.len() > SHOWN {
            self.repairs.pop_front();
        }
    }

    /// Whether the kernel has a patch, as far as it takes it.
    pub fn has(&self, patch: Generation) -> bool {
        self.applied >= patch
    }

    /// Whether the kernel has not an object as it should be.
    pub fn refuses(&self, key: &Key) -> bool {
        self.refused.contains_key(key)
    }

    /// Foreign forward chains that drop; `accept` says whether ours is wanted before them.
    pub fn forward_drops(&self, accept: Flag) -> Vec<ForwardDrop> {
        let refused = self.refused.keys().any(|key| matches!(key, Key::ForeignAccept(_)));
        let row = |chain: &DroppingChain| ForwardDrop {
            chain: chain.to_string(),
            why: chain.why.to_string(),
            accepted: accept.is_on()
                && chain.owner.is_none()
                && chain.why != Why::Felix
                && !refused,
        };
        self.drops.iter().map(row).collect()
    }

    /// What the kernel said of a wanted object.
    pub fn state_of(&self, key: &Key) -> String {
        self.refused.get(key).map_or_else(|| "in the kernel".into(), Clone::clone)
    }

    /// Objects that are not as they should be, at most [`SHOWN`].
    pub fn pending(&self, calc: &Calc) -> Vec<Pending> {
        let unreadable = self.unreadable.as_ref().map(|reason| Pending {
            object: "the kernel's state".into(),
            reason: reason.clone(),
            cause: None,
        });
        let refused = self.refused.iter().map(|(key, reason)| Pending {
            object: key.to_string(),
            reason: reason.clone(),
            cause: calc.cause_of(key).map(|id| id.to_string()),
        });
        unreadable.into_iter().chain(refused).take(SHOWN).collect()
    }

    /// What was set right, the newest last.
    pub fn repaired(&self, now: Instant) -> Vec<Repaired> {
        let row = |repair: &Repair| Repaired {
            object: repair.key.to_string(),
            what: words(repair.drift.what).into(),
            by: repair.drift.by.as_deref().map(str::to_owned),
            times: repair.times,
            seconds_ago: now.saturating_duration_since(repair.at).as_secs(),
            found_by: if repair.drift.path == Path::Sweep {
                "sweep".into()
            } else {
                "event".into()
            },
        };
        self.repairs.iter().map(row).collect()
    }
}

fn words(what: DriftKind) -> &'static str {
    match what {
        DriftKind::Gone => "was removed",
        DriftKind::Changed => "was changed",
    }
}
