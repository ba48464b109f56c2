//! Who keeps setting an object back.
//!
//! Two programs that both insist would repair each other's repairs for ever. The one that notices, which is
//! us, lets go of the object for a while and says who the other is.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use crate::KernelError;

/// The objects that were set back lately.
#[derive(Debug)]
pub(super) struct Fights<Key> {
    by_key: BTreeMap<Key, Fight>,
}

#[derive(Debug)]
struct Fight {
    since: Instant,
    times: u32,
    by: Option<String>,
    held_until: Option<Instant>,
}

impl<Key> Default for Fights<Key> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new() }
    }
}

impl<Key: Ord + Clone + fmt::Display> Fights<Key> {
    /// Counts one more time that the object was set back.
    pub(super) fn reverted(&mut self, key: &Key, by: Option<&str>, now: Instant) {
        if self.by_key.len() >= MAX_FIGHTS && !self.by_key.contains_key(key) {
            return;
        }
        let fresh = Fight { since: now, times: 0, by: None, held_until: None };
        let fight = self.by_key.entry(key.clone()).or_insert(fresh);
        if !fight.is_recent(now) {
            *fight = Fight { since: now, times: 0, by: None, held_until: None };
        }
        fight.times += 1;
        fight.by = by.map(str::to_owned).or(fight.by.take());
        if fight.times >= TIMES {
            fight.held_until = Some(now + HOLD);
        }
    }

    /// Forgets what is over. To be called once for each batch.
    pub(super) fn prune(&mut self, now: Instant) {
        self.by_key.retain(|_, fight| fight.is_recent(now));
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.by_key.remove(key);
    }

    pub(super) fn is_held(&self, key: &Key, now: Instant) -> bool {
        self.by_key.get(key).is_some_and(|fight| fight.is_held(now))
    }

    /// Why the object is left alone, if it is.
    pub(super) fn error(&self, key: &Key, now: Instant) -> Option<KernelError> {
        let fight = self.by_key.get(key).filter(|fight| fight.is_held(now))?;
        Some(KernelError::Contested {
            subject: key.to_string(),
            times: fight.times,
            seconds: WINDOW.as_secs(),
            by: fight.by.clone().unwrap_or_else(|| "an unknown program".to_owned()),
        })
    }
}

impl Fight {
    fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.is_held(now) || now.duration_since(self.since) < WINDOW
    }
}

/// Three times in ten seconds is a fight.
const TIMES: u32 = 3;
const WINDOW: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(30);
/// Above this many, further ones are not counted.
const MAX_FIGHTS: usize = 65_536;
