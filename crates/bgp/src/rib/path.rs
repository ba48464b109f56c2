//! One path of a destination in 16 octets, and the list of them.

use super::attrs::AttrId;
use crate::wire::PathId;

/// A way to a destination, as one peer told it (or we did).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub attrs: AttrId,
    /// The peer's name for it; [`PathId::NONE`] without add-path.
    pub rx_id: PathId,
    /// Our name for it, where we send with add-path: unique among the destination's paths, from 1.
    pub tx_id: u32,
    pub source: Source,
    pub standing: Standing,
    pub age: Age,
}

/// Whose path it is: a peer's number, or [`Source::LOCAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u16);

/// Whether a path may be the best, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Standing {
    Eligible,
    /// Our own AS is in its path (RFC 4271 §9.1.2).
    AsLoop,
    /// We brought it into the AS (RFC 4456 §8).
    OriginatorLoop,
    /// It came through our cluster (RFC 4456 §8).
    ClusterLoop,
    /// The import policy rejects it.
    Policy,
    /// Its next hop is not to be reached.
    Unreachable,
}

/// Whether a path was told in the present session (RFC 4724), or since the last refresh began (RFC 7313).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Age {
    Fresh,
    Stale,
}

/// The paths of a destination: the best first, if one may be it. Most have one, and that needs no allocation.
#[derive(Debug, Default)]
pub enum Paths {
    #[default]
    None,
    One(Path),
    // A `Vec` would make every destination eight octets longer.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Path>>),
}

impl Source {
    /// A route of our own.
    pub const LOCAL: Self = Self(u16::MAX - 1);
    /// Nobody's: what is not told at all.
    pub const NONE: Self = Self(u16::MAX);
    /// The most peers that there may be.
    pub const MOST_PEERS: usize = 0xff00;

    /// The peer of this number; `None` beyond [`Self::MOST_PEERS`].
    pub fn peer(number: usize) -> Option<Self> {
        let number = u16::try_from(number).ok()?;
        (usize::from(number) < Self::MOST_PEERS).then_some(Self(number))
    }

    /// The peer's number; beyond all peers for the other two.
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Path {
    /// A path that was told just now.
    pub const fn new(attrs: AttrId, source: Source, rx_id: PathId, standing: Standing) -> Self {
        Self { attrs, rx_id, tx_id: 0, source, standing, age: Age::Fresh }
    }

    /// The path, if it may be the best.
    pub fn eligible(self) -> Option<Self> {
        (self.standing == Standing::Eligible).then_some(self)
    }

    pub fn is_of(&self, source: Source, rx_id: PathId) -> bool {
        self.source == source && self.rx_id == rx_id
    }
}

impl Paths {
    pub fn as_slice(&self) -> &[Path] {
        match self {
            Self::None => &[],
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Self::None => &mut [],
            Self::One(path) => std::slice::from_mut(path),
            Self::Many(paths) => paths,
        }
    }

    /// The best path, provided that it stands first.
    pub fn best(&self) -> Option<Path> {
        self.as_slice().first().copied().and_then(Path::eligible)
    }

    pub fn position(&self, source: Source, rx_id: PathId) -> Option<usize> {
        self.as_slice().iter().position(|path| path.is_of(source, rx_id))
    }

    pub fn push(&mut self, path: Path) {
        match self {
            Self::None => *self = Self::One(path),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, path])),
            Self::Many(paths) => paths.push(path),
        }
    }

    /// Takes away the path at `place`; the last comes in its stead.
    pub fn swap_remove(&mut self, place: usize) -> Option<Path> {
        match self {
            Self::One(path) if place == 0 => {
                let path = *path;
                *self = Self::None;
                Some(path)
            }
            Self::Many(paths) if place < paths.len() => {
                let path = paths.swap_remove(place);
                if let [last] = paths[..] {
                    *self = Self::One(last);
                }
                Some(path)
            }
            _ => None,
        }
    }

    /// The lowest name from 1 that no path has.
    pub fn free_tx_id(&self) -> u32 {
        let paths = self.as_slice();
        // Among one more name than there are paths, one is free.
        let most = u32::try_from(paths.len()).unwrap_or(u32::MAX - 1) + 1;
        match paths.len() {
            0 => 1,
            1..=8 => {
                (1..=most).find(|id| paths.iter().all(|path| path.tx_id != *id)).unwrap_or(most)
            }
            _ => {
                let mut taken: Vec<_> = paths.iter().map(|path| path.tx_id).collect();
                taken.sort_unstable();
                let gap = (1..).zip(&taken).find(|(id, taken)| id != *taken);
                gap.map_or(most, |(id, _)| id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_16_octets_and_so_has_a_list_of_one() {
        assert_eq!(size_of::<Path>(), 16);
        assert_eq!(size_of::<Paths>(), 16);
    }

    #[test]
    fn names_are_the_lowest_that_are_free() {
        let mut paths = Paths::default();
        for n in 1..=20 {
            assert_eq!(paths.free_tx_id(), n);
            paths.push(path(n));
        }
        for gone in [3, 17, 1] {
            let place = paths.as_slice().iter().position(|path| path.tx_id == gone).unwrap();
            assert_eq!(paths.swap_remove(place).unwrap().tx_id, gone);
        }
        for free in [1, 3, 17, 21] {
            assert_eq!(paths.free_tx_id(), free);
            paths.push(path(free));
        }
    }

    #[test]
    fn a_list_shrinks_back_to_one_and_to_none() {
        let mut paths = Paths::default();
        paths.push(path(1));
        paths.push(path(2));
        assert_eq!(paths.swap_remove(0).unwrap().tx_id, 1);
        assert!(matches!(paths, Paths::One(Path { tx_id: 2, .. })));
        assert_eq!(paths.swap_remove(1), None);
        assert!(paths.swap_remove(0).is_some());
        assert!(matches!(paths, Paths::None));
    }

    fn path(tx_id: u32) -> Path {
        let mut pool = super::super::attrs::Pool::new(super::super::attrs::Keyed(0));
        let next_hop = std::net::IpAddr::from([10, 0, 0, 1]).into();
        Path {
            attrs: pool.intern(&[], next_hop, crate::wire::Tail::None).unwrap(),
            rx_id: PathId::NONE,
            tx_id,
            source: Source::LOCAL,
            standing: Standing::Eligible,
            age: Age::Fresh,
        }
    }
}
