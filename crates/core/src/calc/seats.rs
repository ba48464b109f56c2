//! What the leases of one node have in common: where the node is reached, and which of them are reached alike.
//!
//! A node holds some four blocks, and its address, its tunnel's end and what leads there are the same for each. They are
//! kept once here, and the first lease of a seat claims them for all.

use std::{collections::BTreeMap, sync::Arc};

use russet_net::packed;

use crate::{
    distribution::store::{Candidate, End},
    model::{LeaseKey, NodeName},
};

/// Those of every node that leases name. Mostly there is one, unless its pools cross the underlay in several ways.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(BTreeMap<NodeName, Vec<Seat>>);

/// Leases of one node that are reached alike.
#[derive(Clone, Debug)]
struct Seat {
    end: Arc<End>,
    /// Sorted, and at least one.
    keys: Vec<LeaseKey>,
}

impl Seats {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Has them take up no more than what is in them.
    pub(super) fn pack(&mut self) {
        packed::pack(&mut self.0);
    }

    /// Takes a lease in, and has it share what the others of its seat have. One that names no node has none.
    pub(super) fn join(&mut self, candidate: &mut Candidate) {
        let Some(node) = candidate.end.node() else { return };
        let seats = self.0.entry(node.clone()).or_default();
        if let Some(seat) = seats.iter_mut().find(|seat| seat.end == candidate.end) {
            candidate.end = Arc::clone(&seat.end);
            if let Err(at) = seat.keys.binary_search(&candidate.key) {
                seat.keys.insert(at, candidate.key);
            }
            return;
        }
        let seat = Seat { end: Arc::clone(&candidate.end), keys: vec![candidate.key] };
        if seats.is_empty() {
            // As a rule it stays the only one.
            seats.reserve_exact(1);
        }
        seats.push(seat);
    }

    pub(super) fn leave(&mut self, candidate: &Candidate) {
        let Some(node) = candidate.end.node() else { return };
        let Some(seats) = self.0.get_mut(node) else { return };
        for seat in seats.iter_mut().filter(|seat| seat.is_of(&candidate.end)) {
            seat.keys.retain(|key| *key != candidate.key);
        }
        seats.retain(|seat| !seat.keys.is_empty());
        if seats.is_empty() {
            self.0.remove(node);
        }
    }

    /// The leases that are reached so, of one node; none where it is nobody's but the lease's own.
    pub(super) fn keys(&self, end: &End) -> &[LeaseKey] {
        self.of_node(end).iter().find(|seat| seat.is_of(end)).map_or(&[], |seat| &seat.keys)
    }

    /// Every lease of a node, those first that are reached alike.
    pub(super) fn of_same_node<'a>(
        &'a self,
        end: &'a End,
    ) -> impl Iterator<Item = (&'a End, LeaseKey)> + 'a {
        let (alike, others): (Vec<_>, Vec<_>) =
            self.of_node(end).iter().partition(|seat| seat.is_of(end));
        let leases = |seat: &'a Seat| seat.keys.iter().map(|key| (&*seat.end, *key));
        alike.into_iter().chain(others).flat_map(leases)
    }

    fn of_node(&self, end: &End) -> &[Seat] {
        end.node().and_then(|node| self.0.get(node)).map_or(&[], Vec::as_slice)
    }
}

impl Seat {
    fn is_of(&self, end: &End) -> bool {
        *self.end == *end
    }
}
