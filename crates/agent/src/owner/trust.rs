//! Whether a snapshot of the store is believed: pure.
//!
//! A store that lost its data, or another cluster behind the same address, would have every node tear down
//! what works. So a snapshot is compared with what the node has seen before; in doubt things may be added
//! and nothing is removed, until it is right again or the operator accepts it.

use std::fmt;

use russet_store::SnapshotReason;

use crate::disk::checkpoint::Checkpoint;

/// What the node has seen of its store, from the checkpoint or from this life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub cluster_id: Option<String>,
    pub revision: u64,
    /// Whether a network configuration was ever in force here.
    pub configured: bool,
}

impl Seen {
    /// What an earlier life kept.
    pub fn of(kept: &Checkpoint) -> Self {
        Self {
            cluster_id: kept.cluster_id.clone(),
            revision: kept.revision,
            configured: kept.config.is_some() || kept.calico.is_some(),
        }
    }
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub cluster_id: Option<String>,
    /// See [`looked_at`].
    pub revision: u64,
    pub configured: bool,
}

/// Why a snapshot is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    NoConfiguration,
    OtherCluster { seen: String, found: Option<String> },
    Older { seen: u64, found: u64 },
}

impl Doubt {
    /// Whether the store is this cluster's, as far as it says, and has lost what it had. Then this node puts back what is
    /// its own, which only adds.
    pub const fn is_loss(&self) -> bool {
        matches!(self, Self::Older { .. } | Self::OtherCluster { found: None, .. })
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConfiguration => f.write_str("the store has no network configuration"),
            Self::OtherCluster { seen, found: Some(found) } => {
                write!(f, "the store is of cluster {found}, this node is of cluster {seen}")
            }
            Self::OtherCluster { seen, found: None } => {
                write!(
                    f,
                    "the store has no cluster id, this node is of cluster {seen}: was it emptied?"
                )
            }
            Self::Older { seen, found } => write!(
                f,
                "the store is at revision {found}, this node has seen revision {seen}: was it restored from a copy?"
            ),
        }
    }
}

/// Judges a snapshot; the gravest reason is named.
pub fn judge(seen: &Seen, claimed: &Claimed) -> Option<Doubt> {
    if let Some(ours) = &seen.cluster_id
        && claimed.cluster_id.as_ref() != Some(ours)
    {
        return Some(Doubt::OtherCluster { seen: ours.clone(), found: claimed.cluster_id.clone() });
    }
    if claimed.revision < seen.revision {
        return Some(Doubt::Older { seen: seen.revision, found: claimed.revision });
    }
    (!claimed.configured).then_some(Doubt::NoConfiguration)
}

/// The revision that a store is judged by: the one at which its history was first looked at. A copy that is
/// written until it is past what was seen is a copy still, and so is one whose watch had to begin anew.
pub const fn looked_at(
    before: u64,
    doubt: Option<&Doubt>,
    reason: SnapshotReason,
    revision: u64,
) -> u64 {
    match (doubt, reason) {
        (Some(_), SnapshotReason::Compacted { .. }) => before,
        _ => revision,
    }
}

/// Whether revisions of before say nothing any more.
pub const fn is_other_history(reason: SnapshotReason) -> bool {
    matches!(
        reason,
        SnapshotReason::RevisionWentBack { .. }
            | SnapshotReason::OtherCluster { .. }
            | SnapshotReason::OtherHistory { .. }
    )
}

#[cfg(test)]
mod tests {
    use russet_store::Revision;

    use super::*;

    fn seen() -> Seen {
        Seen { cluster_id: Some("a".into()), revision: 7, configured: true }
    }

    fn claimed() -> Claimed {
        Claimed { cluster_id: Some("a".into()), revision: 7, configured: true }
    }

    #[test]
    fn the_same_store_going_on_is_believed() {
        assert_eq!(judge(&seen(), &claimed()), None);
        assert_eq!(judge(&seen(), &Claimed { revision: 900, ..claimed() }), None);
    }

    #[test]
    fn a_doubted_store_is_as_old_as_when_it_was_first_looked_at() {
        let doubt = Doubt::Older { seen: 7, found: 3 };
        let seen = Revision::new(3);
        let again = SnapshotReason::Compacted { seen, compacted: Revision::new(8) };
        assert_eq!(looked_at(3, Some(&doubt), again, 9), 3);
        assert_eq!(looked_at(3, None, again, 9), 9);
        assert_eq!(looked_at(3, Some(&doubt), SnapshotReason::RevisionWentBack { seen }, 9), 9);
    }

    #[test]
    fn a_first_start_believes_any_store_with_a_configuration() {
        assert_eq!(judge(&Seen::default(), &claimed()), None);
        let empty = Claimed { cluster_id: None, revision: 1, configured: false };
        assert_eq!(judge(&Seen::default(), &empty), Some(Doubt::NoConfiguration));
    }

    #[test]
    fn an_emptied_an_older_and_another_store_are_doubted() {
        let emptied = Claimed { cluster_id: None, revision: 1, configured: false };
        assert!(matches!(judge(&seen(), &emptied), Some(Doubt::OtherCluster { found: None, .. })));
        let older = Claimed { revision: 6, ..claimed() };
        assert_eq!(judge(&seen(), &older), Some(Doubt::Older { seen: 7, found: 6 }));
        let other = Claimed { cluster_id: Some("b".into()), revision: 9_000, ..claimed() };
        assert!(judge(&seen(), &other).unwrap().to_string().contains("cluster b"));
        for lost in [&emptied, &older] {
            assert!(judge(&seen(), lost).unwrap().is_loss());
        }
        assert!(!judge(&seen(), &other).unwrap().is_loss() && !Doubt::NoConfiguration.is_loss());
        let unconfigured = Claimed { configured: false, ..claimed() };
        assert_eq!(judge(&seen(), &unconfigured), Some(Doubt::NoConfiguration));
    }
}
