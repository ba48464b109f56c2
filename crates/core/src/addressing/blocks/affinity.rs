//! A block and its affinity are two objects, and a crash may fall between any two writes. So a claim is no
//! sequence that is remembered but a decision that is made anew: what is seen of both, and what is wished,
//! give the one next write. A restart looks, and goes on.
//!
//! ```text
//!   claim:    affinity pending ──▶ block created with it, or checked ──▶ affinity confirmed
//!   release:  affinity pendingDeletion ──▶ block deleted, or its affinity removed ──▶ affinity deleted
//! ```
//!
//! A pending affinity counts for nothing with others, so two nodes may have one of the same block; the block
//! decides, since only one can create it. The loser deletes his affinity.

use super::{
    block::Block,
    name::{Affinity, Name},
};
pub use crate::model::calico::AffinityState;

/// What a node is to the block in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is no block.
    Absent,
    /// Ours, and nobody has an address of it.
    OursEmpty,
    OursUsed,
    /// The block has an affinity to nobody.
    Nobodys,
    Anothers,
}

impl Seen {
    pub fn of(block: Option<&Block>, node: &Name) -> Self {
        match block.filter(|block| !block.is_deleted()) {
            None => Self::Absent,
            Some(block) => match block.affinity() {
                None => Self::Nobodys,
                Some(Affinity::Host(host)) if host == node => {
                    if block.is_empty() {
                        Self::OursEmpty
                    } else {
                        Self::OursUsed
                    }
                }
                Some(_) => Self::Anothers,
            },
        }
    }

    pub const fn is_ours(self) -> bool {
        matches!(self, Self::OursEmpty | Self::OursUsed)
    }
}

/// What is to become of a block and a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Claim,
    /// Give it up if nobody has an address of it.
    ReleaseEmpty,
    /// Give it up; addresses that are out stay out, in a block with an affinity to nobody.
    Release,
}

/// The one next write, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    SetAffinity(AffinityState),
    DeleteAffinity,
    CreateBlock,
    DeleteBlock,
    /// Keep the block, and remove the affinity from it.
    DisownBlock,
    Done,
    /// The block is another's, or it is not empty and should be; there is nothing left to clean up.
    Refused,
}

/// Decides the next write.
pub const fn next(wish: Wish, affinity: Option<AffinityState>, block: Seen) -> Step {
    match wish {
        Wish::Claim => claim(affinity, block),
        Wish::ReleaseEmpty => release_empty(affinity, block),
        Wish::Release => release(affinity, block),
    }
}

const fn claim(affinity: Option<AffinityState>, block: Seen) -> Step {
    use AffinityState::{Confirmed, Pending, PendingDeletion};
    match (affinity, block) {
        // Somebody was faster, or took it since. Nothing of ours must be left behind.
        (Some(_), Seen::Anothers | Seen::Nobodys) => Step::DeleteAffinity,
        (None, Seen::Anothers | Seen::Nobodys) => Step::Refused,
        (Some(Confirmed), Seen::OursEmpty | Seen::OursUsed) => Step::Done,
        // A release was begun, by us or by the collector: whoever began it finds another revision.
        (None | Some(PendingDeletion), _) => Step::SetAffinity(Pending),
        (Some(Pending | Confirmed), Seen::Absent) => Step::CreateBlock,
        (Some(Pending), Seen::OursEmpty | Seen::OursUsed) => Step::SetAffinity(Confirmed),
    }
}

const fn release_empty(affinity: Option<AffinityState>, block: Seen) -> Step {
    use AffinityState::{Confirmed, PendingDeletion};
    match (affinity, block) {
        // An address was taken while the release was under way.
        (Some(PendingDeletion), Seen::OursUsed) => Step::SetAffinity(Confirmed),
        (_, Seen::OursUsed) => Step::Refused,
        _ => release(affinity, block),
    }
}

const fn release(affinity: Option<AffinityState>, block: Seen) -> Step {
    use AffinityState::{Confirmed, Pending, PendingDeletion};
    match (affinity, block) {
        (Some(Pending | Confirmed), Seen::OursEmpty | Seen::OursUsed) => {
            Step::SetAffinity(PendingDeletion)
        }
        (None | Some(PendingDeletion), Seen::OursEmpty) => Step::DeleteBlock,
        (None | Some(PendingDeletion), Seen::OursUsed) => Step::DisownBlock,
        (Some(_), Seen::Absent | Seen::Nobodys | Seen::Anothers) => Step::DeleteAffinity,
        (None, Seen::Absent | Seen::Nobodys | Seen::Anothers) => Step::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AffinityState::{Confirmed, Pending, PendingDeletion};

    const AFFINITIES: [Option<AffinityState>; 4] =
        [None, Some(Pending), Some(Confirmed), Some(PendingDeletion)];
    const BLOCKS: [Seen; 5] =
        [Seen::Absent, Seen::OursEmpty, Seen::OursUsed, Seen::Nobodys, Seen::Anothers];

    #[test]
    fn a_claim_writes_the_affinity_the_block_and_the_affinity_again() {
        assert_eq!(
            run(Wish::Claim, None, Seen::Absent),
            [
                Step::SetAffinity(Pending),
                Step::CreateBlock,
                Step::SetAffinity(Confirmed),
                Step::Done
            ]
        );
    }

    #[test]
    fn a_lost_race_leaves_no_affinity_behind() {
        for affinity in AFFINITIES {
            for block in [Seen::Anothers, Seen::Nobodys] {
                let steps = run(Wish::Claim, affinity, block);
                assert_eq!(steps.last(), Some(&Step::Refused));
                assert!(steps.len() <= 2, "the block is not touched: {steps:?}");
            }
        }
    }

    #[test]
    fn a_block_without_its_affinity_object_and_the_other_way_round_are_made_whole() {
        assert_eq!(
            run(Wish::Claim, None, Seen::OursUsed),
            [Step::SetAffinity(Pending), Step::SetAffinity(Confirmed), Step::Done]
        );
        assert_eq!(
            run(Wish::Claim, Some(Confirmed), Seen::Absent),
            [Step::CreateBlock, Step::Done]
        );
    }

    #[test]
    fn an_empty_block_is_released_in_three_writes_and_a_used_one_not() {
        assert_eq!(
            run(Wish::ReleaseEmpty, Some(Confirmed), Seen::OursEmpty),
            [
                Step::SetAffinity(PendingDeletion),
                Step::DeleteBlock,
                Step::DeleteAffinity,
                Step::Done
            ]
        );
        assert_eq!(run(Wish::ReleaseEmpty, Some(Confirmed), Seen::OursUsed), [Step::Refused]);
        // Taken between the first write and the second: the release is taken back.
        assert_eq!(
            run(Wish::ReleaseEmpty, Some(PendingDeletion), Seen::OursUsed),
            [Step::SetAffinity(Confirmed), Step::Refused]
        );
    }

    #[test]
    fn from_wherever_a_crash_leaves_it_every_wish_comes_to_its_end() {
        for wish in [Wish::Claim, Wish::ReleaseEmpty, Wish::Release] {
            for affinity in AFFINITIES {
                for block in BLOCKS {
                    let steps = run(wish, affinity, block);
                    assert!(steps.len() <= 4, "{wish:?} {affinity:?} {block:?}: {steps:?}");
                    for step in &steps {
                        let touches = matches!(step, Step::DeleteBlock | Step::DisownBlock);
                        assert!(!touches || block.is_ours(), "another's block is touched");
                        assert!(*step != Step::DeleteBlock || block != Seen::OursUsed);
                    }
                }
            }
        }
    }

    /// Takes each step as the store would, until there is none.
    fn run(wish: Wish, mut affinity: Option<AffinityState>, mut block: Seen) -> Vec<Step> {
        let mut steps = Vec::new();
        while steps.len() < 10 {
            let step = next(wish, affinity, block);
            steps.push(step);
            match step {
                Step::SetAffinity(state) => affinity = Some(state),
                Step::DeleteAffinity => affinity = None,
                Step::CreateBlock => block = Seen::OursEmpty,
                Step::DeleteBlock => block = Seen::Absent,
                Step::DisownBlock => block = Seen::Nobodys,
                Step::Done | Step::Refused => break,
            }
        }
        steps
    }
}
