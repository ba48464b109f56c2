//! Both sides read and compared, key by key.
//!
//! The source is read at exactly the revision that the copy stands at, so that a source which is written all the
//! time is compared as well as one that rests.

use std::{cmp::Ordering, fmt};

use super::{Existing, MigrateError, Order, Progress, copy::Copy, leases::Kept};
use crate::{
    client::{EtcdClient, Listing, printable},
    contract::{KeyValue, LeaseId},
};

/// A key that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: Vec<u8>,
    pub what: Differs,
}

/// In what a key differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differs {
    /// The target has no such key.
    Missing,
    /// The source has no such key.
    Extra,
    Value,
    Lease {
        source: Option<LeaseId>,
        target: Option<LeaseId>,
    },
}

impl Difference {
    /// How many are listed; all are counted.
    pub const MAX_LISTED: usize = 1_000;
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = printable(&self.key);
        match self.what {
            Differs::Missing => write!(f, "{key}: not in the target"),
            Differs::Extra => write!(f, "{key}: not in the source"),
            Differs::Value => write!(f, "{key}: another value"),
            Differs::Lease { source, target } => {
                write!(f, "{key}: {} in the source, {} in the target", lease(source), lease(target))
            }
        }
    }
}

fn lease(id: Option<LeaseId>) -> String {
    id.map_or_else(|| "no lease".to_owned(), |id| format!("lease {id}"))
}

/// What was compared, and how it came out.
pub(super) struct Compared {
    pub(super) source: Listing,
    pub(super) target: Listing,
    pub(super) differences: Vec<Difference>,
}

/// Refuses a target that must not be written to.
pub(super) async fn check_target(
    source: &EtcdClient,
    target: &EtcdClient,
    order: &Order,
) -> Result<(), MigrateError> {
    let there = target.range_prefix(&order.prefix, None).await.map_err(MigrateError::Target)?;
    let Some(first) = there.entries.first() else { return Ok(()) };
    let here = source.range_prefix(&order.prefix, None).await.map_err(MigrateError::Source)?;
    if here.server == there.server && here.entries == there.entries {
        return Err(MigrateError::SameStore);
    }
    match order.existing {
        Existing::Overwrite => Ok(()),
        Existing::Refuse => Err(MigrateError::Occupied {
            keys: there.entries.len(),
            prefix: printable(&order.prefix),
            first: printable(&first.key),
        }),
    }
}

/// Reads and compares; what differs is looked at again after what happened meanwhile has followed.
pub(super) async fn verify(copy: &mut Copy<'_>) -> Result<Compared, MigrateError> {
    let mut rounds = 0;
    loop {
        rounds += 1;
        let source = copy.listing_where_we_stand().await?;
        if copy.renew_leases().await? == Kept::SomeLost && rounds < ROUNDS {
            continue;
        }
        let target = copy.target_listing().await?;
        copy.say(&Progress::Comparing { keys: source.entries.len() });
        let differences = differences(&source.entries, &target.entries);
        if differences.is_empty() || rounds == ROUNDS {
            return Ok(Compared { source, target, differences });
        }
    }
}

/// Compares two listings, both sorted by key.
pub(super) fn differences(source: &[KeyValue], target: &[KeyValue]) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut tell = |key: &[u8], what| found.push(Difference { key: key.to_vec(), what });
    let (mut source, mut target) = (source.iter().peekable(), target.iter().peekable());
    loop {
        let order = match (source.peek(), target.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) => ours.key.cmp(&theirs.key),
        };
        let ours = if order.is_le() { source.next() } else { None };
        let theirs = if order.is_ge() { target.next() } else { None };
        match (ours, theirs) {
            (Some(ours), None) => tell(&ours.key, Differs::Missing),
            (None, Some(theirs)) => tell(&theirs.key, Differs::Extra),
            (Some(ours), Some(theirs)) => {
                if let Some(what) = differs(ours, theirs) {
                    tell(&ours.key, what);
                }
            }
            (None, None) => return found,
        }
    }
}

/// Values and leases; revisions are each store's own.
fn differs(source: &KeyValue, target: &KeyValue) -> Option<Differs> {
    if source.value != target.value {
        Some(Differs::Value)
    } else if source.lease == target.lease {
        None
    } else {
        Some(Differs::Lease { source: source.lease, target: target.lease })
    }
}

/// How often what differs is looked at again.
const ROUNDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Revision;

    #[test]
    fn every_kind_of_difference_is_found_and_equal_keys_are_none() {
        let source = [kv("a", "1", 0), kv("b", "1", 7), kv("c", "1", 0), kv("e", "1", 7)];
        let target = [kv("b", "1", 7), kv("c", "2", 0), kv("d", "1", 0), kv("e", "1", 0)];
        let lease = LeaseId::from_wire(7);
        let found: Vec<_> = differences(&source, &target)
            .into_iter()
            .map(|found| (String::from_utf8(found.key).unwrap(), found.what))
            .collect();
        let wanted = [
            ("a".to_owned(), Differs::Missing),
            ("c".to_owned(), Differs::Value),
            ("d".to_owned(), Differs::Extra),
            ("e".to_owned(), Differs::Lease { source: lease, target: None }),
        ];
        assert_eq!(found, wanted);
        assert_eq!(differences(&source, &source), []);
    }

    #[test]
    fn another_revision_of_the_same_value_is_no_difference() {
        let mut other = kv("a", "1", 0);
        other.modified = Revision::new(99);
        assert_eq!(differences(&[kv("a", "1", 0)], &[other]), []);
    }

    fn kv(key: &str, value: &str, lease: i64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            created: Revision::new(1),
            modified: Revision::new(1),
            version: 1,
            lease: LeaseId::from_wire(lease),
        }
    }
}
