//! What has happened and is safe: the newest revision, with the commits that led to it.
//!
//! Watch streams wait for it. The newest commits come with it, so a stream that keeps up needs to ask the
//! owner for nothing; one that has fallen behind does.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::watch;

use super::mvcc::Commit;
use crate::contract::Revision;

/// The state of a store as far as watchers may know it.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) revision: Revision,
    /// The newest commits, one after the other up to `revision`.
    recent: Arc<[Arc<Commit>]>,
}

/// The one who tells.
#[derive(Debug)]
pub(crate) struct Publisher {
    sender: watch::Sender<News>,
    recent: VecDeque<Arc<Commit>>,
}

impl News {
    /// Returns the commits from a revision on, when all of them are among the newest.
    pub(crate) fn since(&self, from: Revision) -> Option<&[Arc<Commit>]> {
        let reaches_back = self.recent.first().is_some_and(|first| first.revision <= from);
        let start = self.recent.partition_point(|commit| commit.revision < from);
        self.recent.get(start..).filter(|_| reaches_back)
    }
}

impl Publisher {
    pub(crate) fn new(revision: Revision) -> (Self, watch::Receiver<News>) {
        let (sender, receiver) = watch::channel(News { revision, recent: Arc::default() });
        (Self { sender, recent: VecDeque::new() }, receiver)
    }

    /// Tells what is new, and forgets what is compacted.
    pub(crate) fn tell(&mut self, now: Told) {
        let before = self.recent.len();
        self.recent.retain(|commit| commit.revision > now.compacted);
        let forgotten = before > self.recent.len();
        if now.commits.is_empty() && !forgotten {
            return;
        }
        let kept = now.commits.into_iter().filter(|commit| commit.revision > now.compacted);
        self.recent.extend(kept);
        self.recent.drain(..self.recent.len().saturating_sub(RECENT));
        let mut bytes = 0;
        let fits = self.recent.iter().rev().take_while(|commit| {
            bytes += commit.bytes();
            bytes <= RECENT_BYTES
        });
        let fits = fits.count();
        self.recent.drain(..self.recent.len().saturating_sub(fits));
        let recent = self.recent.iter().cloned().collect();
        self.sender.send_replace(News { revision: now.revision, recent });
    }
}

/// What there is to tell.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) commits: Vec<Arc<Commit>>,
}

/// How far back the news reach.
const RECENT: usize = 64;
const RECENT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_up_finds_everything_in_the_news_and_who_does_not_is_told_so() {
        let (mut publisher, receiver) = Publisher::new(rev(1));
        publisher.tell(told(2..=100, 0));
        let news = receiver.borrow();
        assert_eq!(news.revision, rev(100));
        let found: Vec<_> = news.since(rev(98)).unwrap().iter().map(|one| one.revision).collect();
        assert_eq!(found, [rev(98), rev(99), rev(100)]);
        assert!(news.since(rev(36)).is_none(), "only the last 64 are kept");
        assert!(news.since(rev(37)).is_some());
    }

    #[test]
    fn compacted_commits_are_no_news() {
        let (mut publisher, receiver) = Publisher::new(rev(1));
        publisher.tell(told(2..=10, 0));
        publisher.tell(Told { revision: rev(10), compacted: rev(6), commits: Vec::new() });
        assert!(receiver.borrow().since(rev(6)).is_none());
        assert_eq!(receiver.borrow().since(rev(7)).unwrap().len(), 4);
    }

    fn told(revisions: std::ops::RangeInclusive<u64>, compacted: u64) -> Told {
        let revision = rev(*revisions.end());
        let commit = |n| Arc::new(Commit { revision: rev(n), changes: Vec::new() });
        Told { revision, compacted: rev(compacted), commits: revisions.map(commit).collect() }
    }

    fn rev(raw: u64) -> Revision {
        Revision::new(raw)
    }
}
