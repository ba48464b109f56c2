//! Leases: who holds which keys and when they expire. Pure: the time is an argument.
//!
//! Which lease a key belongs to is written in the key's own value; this table is the way back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::contract::LeaseId;

/// Every lease that lives.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    expires: Instant,
    keys: BTreeSet<Vec<u8>>,
}

/// What a lease is at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseStatus {
    pub(crate) granted: Duration,
    pub(crate) left: Duration,
    pub(crate) keys: Vec<Vec<u8>>,
}

/// Why a lease cannot be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    #[error("etcdserver: lease already exists")]
    Exists,
    #[error("etcdserver: too large lease TTL")]
    TooLong,
}

impl Leases {
    /// Grants a lease of at least two seconds and returns its time.
    pub(crate) fn grant(
        &mut self,
        id: LeaseId,
        ttl_s: i64,
        now: Instant,
    ) -> Result<Duration, GrantError> {
        let ttl_s = u64::try_from(ttl_s).unwrap_or(0).max(MIN_TTL_S);
        if ttl_s > MAX_TTL_S {
            return Err(GrantError::TooLong);
        }
        if self.leases.contains_key(&id) {
            return Err(GrantError::Exists);
        }
        let ttl = Duration::from_secs(ttl_s);
        let expires = now.checked_add(ttl).ok_or(GrantError::TooLong)?;
        self.deadlines.insert((expires, id));
        self.leases.insert(id, Lease { ttl, expires, keys: BTreeSet::new() });
        Ok(ttl)
    }

    /// Starts a lease's time anew and returns it; `None` when there is no such lease.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<Duration> {
        let lease = self.leases.get_mut(&id)?;
        self.deadlines.remove(&(lease.expires, id));
        lease.expires = now.checked_add(lease.ttl)?;
        self.deadlines.insert((lease.expires, id));
        Some(lease.ttl)
    }

    /// Ends a lease and returns the keys that go with it; `None` when there is no such lease.
    pub(crate) fn end(&mut self, id: LeaseId) -> Option<BTreeSet<Vec<u8>>> {
        let lease = self.leases.remove(&id)?;
        self.deadlines.remove(&(lease.expires, id));
        Some(lease.keys)
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn attach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.to_vec());
        }
    }

    pub(crate) fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Returns the leases whose time is over.
    pub(crate) fn due(&self, now: Instant) -> Vec<LeaseId> {
        let due = self.deadlines.iter().take_while(|(expires, _)| *expires <= now);
        due.map(|(_, id)| *id).collect()
    }

    /// Returns when [`Self::due`] is next worth asking.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(expires, _)| *expires)
    }

    pub(crate) fn status(&self, id: LeaseId, now: Instant) -> Option<LeaseStatus> {
        let lease = self.leases.get(&id)?;
        Some(LeaseStatus {
            granted: lease.ttl,
            left: lease.expires.saturating_duration_since(now),
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    /// Returns every lease with the time that it was granted.
    pub(crate) fn granted(&self) -> impl Iterator<Item = (LeaseId, Duration)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl))
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}

/// etcd grants no less: half as much again as an election takes, in whole seconds.
const MIN_TTL_S: u64 = 2;
/// etcd's own limit (etcd API: `lease.MaxLeaseTTL`).
const MAX_TTL_S: u64 = 9_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: i64) -> LeaseId {
        LeaseId::from_wire(raw).unwrap()
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_due_when_its_time_is_over_and_not_before() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.grant(id(1), 10, now).unwrap();
        leases.grant(id(2), 5, now).unwrap();

        assert_eq!(leases.next_deadline(), Some(now + 5 * S));
        assert_eq!(leases.due(now + 4 * S), []);
        assert_eq!(leases.due(now + 5 * S), [id(2)]);
        assert_eq!(leases.due(now + 10 * S), [id(2), id(1)]);
    }

    #[test]
    fn a_renewed_lease_begins_anew() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.grant(id(1), 10, now).unwrap();

        assert_eq!(leases.renew(id(1), now + 9 * S), Some(10 * S));
        assert_eq!(leases.due(now + 18 * S), []);
        assert_eq!(leases.next_deadline(), Some(now + 19 * S));
        assert_eq!(leases.renew(id(2), now), None);
    }

    #[test]
    fn the_keys_of_an_ended_lease_are_returned_once() {
        let now = Instant::now();
        let mut leases = Leases::default();
        leases.grant(id(1), 10, now).unwrap();
        leases.attach(id(1), b"a");
        leases.attach(id(1), b"b");
        leases.detach(id(1), b"a");

        assert_eq!(leases.end(id(1)), Some(BTreeSet::from([b"b".to_vec()])));
        assert_eq!(leases.end(id(1)), None);
        assert_eq!(leases.next_deadline(), None);
    }

    #[test]
    fn times_out_of_range_are_refused_or_raised_to_two_seconds() {
        let now = Instant::now();
        let mut leases = Leases::default();
        assert_eq!(leases.grant(id(1), 9_000_000_001, now), Err(GrantError::TooLong));
        assert_eq!(leases.grant(id(1), -5, now), Ok(2 * S));
        assert_eq!(leases.grant(id(1), 5, now), Err(GrantError::Exists));
    }
}
