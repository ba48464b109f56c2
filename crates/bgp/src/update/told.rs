//! Whose paths a group has been told, by destination: what decides who needs a withdrawal.

use std::collections::HashMap;

use super::chunk::Audience;
use crate::rib::{DestId, Keyed, Source};

/// What the members of a group know, each but for its own paths.
#[derive(Debug)]
pub enum Told {
    /// The best path of each destination: whose it is.
    Best(Vec<Source>),
    /// Every path (RFC 7911).
    All(HashMap<DestId, Names, Keyed>),
}

/// The paths of one destination by the names that we gave them.
#[derive(Debug, Default)]
pub struct Names {
    now: Vec<(u32, Source)>,
    /// No name ever was higher. A slow member may hold any up to here.
    highest: u32,
}

/// One path that is to be told: of the destination at a place in a list, under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Telling {
    pub place: u32,
    pub name: u32,
    pub source: Source,
}

/// A withdrawal: of the destination at a place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withdrawal {
    pub audience: Audience,
    pub place: u32,
    pub name: u32,
}

impl Told {
    /// Takes over what is told of these destinations now, and returns what has to be withdrawn for that.
    pub fn update(&mut self, dests: &[DestId], mut now: Vec<Telling>) -> Vec<Withdrawal> {
        let mut withdrawals = match self {
            Self::Best(sources) => update_best(sources, dests, &now),
            Self::All(names) => {
                now.sort_unstable();
                update_all(names, dests, &now)
            }
        };
        withdrawals.sort_unstable();
        withdrawals
    }

    /// Remembers the names that another group has used: a member of it that comes here may hold them.
    pub fn heed(&mut self, other: &Self) {
        let (Self::All(names), Self::All(others)) = (self, other) else { return };
        for (dest, other) in others {
            let names = names.entry(*dest).or_default();
            names.highest = names.highest.max(other.highest);
        }
    }

    /// The names that a destination may have been told under.
    pub fn names(&self, dest: DestId) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Best(_) => 0..=0,
            Self::All(names) => 1..=names.get(&dest).map_or(0, |names| names.highest),
        }
    }
}

fn update_best(sources: &mut Vec<Source>, dests: &[DestId], now: &[Telling]) -> Vec<Withdrawal> {
    let mut before = Vec::with_capacity(dests.len());
    for dest in dests {
        let at = dest.0 as usize;
        if sources.len() <= at {
            sources.resize(at + 1, Source::NONE);
        }
        before.push(std::mem::replace(&mut sources[at], Source::NONE));
    }
    for told in now {
        if let Some(dest) = dests.get(told.place as usize) {
            sources[dest.0 as usize] = told.source;
        }
    }
    let mut withdrawals = Vec::new();
    for ((place, dest), old) in (0..).zip(dests).zip(before) {
        let new = sources[dest.0 as usize];
        withdrawals.extend(move_to(old, new).map(|audience| Withdrawal {
            audience,
            place,
            name: 0,
        }));
    }
    withdrawals
}

fn update_all(
    all: &mut HashMap<DestId, Names, Keyed>,
    dests: &[DestId],
    now: &[Telling],
) -> Vec<Withdrawal> {
    let mut withdrawals = Vec::new();
    let mut now = now;
    for (place, dest) in (0..).zip(dests) {
        let (here, rest) = now.split_at(now.partition_point(|told| told.place <= place));
        now = rest;
        let new: Vec<_> = here.iter().map(|told| (told.name, told.source)).collect();
        if new.is_empty() && !all.contains_key(dest) {
            continue;
        }
        let names = all.entry(*dest).or_default();
        let source = |names: &[(u32, Source)], name| {
            names.iter().find(|(other, _)| *other == name).map_or(Source::NONE, |(_, of)| *of)
        };
        for (name, old) in &names.now {
            let audience = move_to(*old, source(&new, *name));
            withdrawals.extend(audience.map(|audience| Withdrawal {
                audience,
                place,
                name: *name,
            }));
        }
        let highest = new.iter().map(|(name, _)| *name).max().unwrap_or(0);
        names.highest = names.highest.max(highest);
        names.now = new;
    }
    withdrawals
}

/// Who must be told that a route is gone when it moves from one source to another. All but the new source are
/// told the new path, in the place of the old one; the new source is told nothing else.
fn move_to(old: Source, new: Source) -> Option<Audience> {
    match (old, new) {
        (Source::NONE, _) => None,
        (old, Source::NONE) => Some(Audience::of_routes_from(old)),
        (old, new) if old == new || new == Source::LOCAL => None,
        (_, new) => Some(Audience::Only(new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_be_told_follows_from_where_a_route_moves() {
        let (none, own) = (Source::NONE, Source::LOCAL);
        let (a, b) = (Source::peer(1).unwrap(), Source::peer(2).unwrap());
        for (old, new, audience) in [
            (none, a, None),
            (none, own, None),
            (a, none, Some(Audience::AllBut(a))),
            (own, none, Some(Audience::All)),
            (a, b, Some(Audience::Only(b))),
            (own, b, Some(Audience::Only(b))),
            (a, own, None),
            (a, a, None),
        ] {
            assert_eq!(move_to(old, new), audience, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn names_that_are_gone_are_withdrawn_and_remembered() {
        let mut told = Told::All(HashMap::with_hasher(Keyed(1)));
        let (a, b) = (Source::peer(1).unwrap(), Source::peer(2).unwrap());
        let dests = [DestId(4), DestId(9)];
        let at = |place, name, source| Telling { place, name, source };
        assert_eq!(told.update(&dests, vec![at(1, 1, a), at(0, 1, a), at(0, 2, b)]), []);
        assert_eq!(told.names(dests[0]), 1..=2);

        let gone = told.update(&dests, vec![at(0, 1, b)]);
        let withdrawal = |audience, place, name| Withdrawal { audience, place, name };
        let expected = [
            withdrawal(Audience::AllBut(a), 1, 1),
            withdrawal(Audience::AllBut(b), 0, 2),
            withdrawal(Audience::Only(b), 0, 1),
        ];
        assert_eq!(gone, expected);
        assert_eq!((told.names(dests[0]), told.names(dests[1])), (1..=2, 1..=1));
        assert_eq!(told.names(DestId(77)).count(), 0);
    }
}
