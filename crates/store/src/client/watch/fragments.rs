//! Answers that come in fragments, put together within a bound. Pure.
//!
//! etcd tells a watcher that is behind of up to a thousand revisions in one answer, and cuts it by size wherever that
//! falls. Nobody needs the whole of it at once, only the whole of a revision; so what grows too large is handed on as far
//! as its revisions are complete.

use prost::Message;

use crate::proto::{etcdserverpb::WatchResponse, mvccpb};

/// The parts that have come, for each watcher.
#[derive(Debug)]
pub(super) struct Fragments {
    by_watcher: Vec<Vec<mvccpb::Event>>,
    /// What they take, those of all watchers.
    octets: usize,
}

/// One revision is larger than any transaction may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Fragments {
    pub(super) fn new(watchers: usize) -> Self {
        Self { by_watcher: vec![Vec::new(); watchers], octets: 0 }
    }

    pub(super) const fn watchers(&self) -> usize {
        self.by_watcher.len()
    }

    /// Takes one answer, and returns the events that are to be handed on, if any are.
    pub(super) fn join(
        &mut self,
        which: usize,
        response: WatchResponse,
    ) -> Result<Option<Vec<mvccpb::Event>>, TooLarge> {
        let Some(gathered) = self.by_watcher.get_mut(which) else { return Ok(None) };
        self.octets += octets(&response.events);
        gathered.extend(response.events);
        let whole = if !response.fragment {
            std::mem::take(gathered)
        } else if self.octets <= MOST_OCTETS {
            return Ok(None);
        } else {
            let last = gathered.last().map(revision);
            let end = gathered.iter().rposition(|event| Some(revision(event)) != last);
            let end = end.ok_or(TooLarge)? + 1;
            let rest = gathered.split_off(end);
            std::mem::replace(gathered, rest)
        };
        self.octets -= octets(&whole);
        // What is handed on may still leave a revision that has no end.
        if self.octets <= MOST_OCTETS { Ok(Some(whole)) } else { Err(TooLarge) }
    }
}

/// What events take here: their texts, and their place in a list.
pub(super) fn octets(events: &[mvccpb::Event]) -> usize {
    let of = |event: &mvccpb::Event| event.encoded_len() + size_of::<mvccpb::Event>();
    events.iter().map(of).sum()
}

fn revision(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Twice what a message may be, and twenty times a transaction of etcd's (1.5 MiB unless told).
const MOST_OCTETS: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_fragments_is_handed_on_whole() {
        let mut fragments = Fragments::new(2);
        assert_eq!(join(&mut fragments, 0, More::Comes, &[(1, 9), (1, 9)]), Ok(None));
        // Another watcher's is its own.
        assert_eq!(join(&mut fragments, 1, More::None, &[(7, 9)]), Ok(Some(vec![7])));
        assert_eq!(join(&mut fragments, 0, More::None, &[(2, 9)]), Ok(Some(vec![1, 1, 2])));
        assert_eq!(join(&mut fragments, 0, More::None, &[]), Ok(Some(vec![])));
        assert_eq!(fragments.octets, 0);
    }

    #[test]
    fn what_grows_too_large_is_handed_on_by_whole_revisions_and_kept_within_the_bound() {
        let mut fragments = Fragments::new(1);
        let mut told = Vec::new();
        // Each revision is of two events, and the fragments end within one.
        for n in 0..200 {
            let events = [(n, MIB), (n + 1, MIB)];
            told.extend(join(&mut fragments, 0, More::Comes, &events).unwrap().unwrap_or_default());
            assert!(fragments.octets <= MOST_OCTETS);
        }
        assert!(told.len() > 300, "{}", told.len());
        assert_ne!(told.last(), Some(&200), "it may go on");
        told.extend(join(&mut fragments, 0, More::None, &[(200, 1)]).unwrap().unwrap());
        let all: Vec<_> = (0..200).flat_map(|n| [n, n + 1]).chain([200]).collect();
        assert_eq!(told, all);
        assert_eq!(fragments.octets, 0);
    }

    #[test]
    fn a_revision_without_an_end_is_refused_before_it_fills_the_memory() {
        let mut fragments = Fragments::new(1);
        let endless = (0..100).map(|_| join(&mut fragments, 0, More::Comes, &[(5, MIB)]));
        let taken = endless.take_while(Result::is_ok).count();
        assert!(taken <= 32, "{taken}");

        // Nor does it help to tell of others before it, or of nothing at all.
        let mut fragments = Fragments::new(1);
        let all: Vec<_> = (0..40).map(|n| (i64::from(n > 0), MIB)).collect();
        assert_eq!(join(&mut fragments, 0, More::Comes, &all), Err(TooLarge));
        let mut fragments = Fragments::new(1);
        let empty = vec![mvccpb::Event::default(); 100_000];
        let response =
            || WatchResponse { events: empty.clone(), fragment: true, ..Default::default() };
        let taken = (0..100).map(|_| fragments.join(0, response())).take_while(Result::is_ok);
        assert!(taken.count() < 10);
    }

    #[test]
    fn the_bound_is_one_for_all_watchers() {
        let mut fragments = Fragments::new(50);
        let taken = (0..50).map(|which| join(&mut fragments, which, More::Comes, &[(1, MIB)]));
        assert!(taken.take_while(Result::is_ok).count() <= 32);
    }

    #[derive(Clone, Copy)]
    enum More {
        Comes,
        None,
    }

    const MIB: usize = 1 << 20;

    /// Events by revision and size; the revisions of those that are handed on.
    fn join(
        fragments: &mut Fragments,
        which: usize,
        more: More,
        events: &[(i64, usize)],
    ) -> Result<Option<Vec<i64>>, TooLarge> {
        let event = |(mod_revision, size): &(i64, usize)| {
            let kv = mvccpb::KeyValue {
                mod_revision: *mod_revision,
                value: vec![0; *size],
                ..Default::default()
            };
            mvccpb::Event { kv: Some(kv), ..Default::default() }
        };
        let events = events.iter().map(event).collect();
        let fragment = matches!(more, More::Comes);
        let joined =
            fragments.join(which, WatchResponse { events, fragment, ..Default::default() })?;
        Ok(joined.map(|events| events.iter().map(revision).collect()))
    }
}
