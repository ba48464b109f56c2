//! Octets that are told to several peers.

use std::sync::Arc;

use crate::{
    rib::Source,
    wire::{Family, NextHop, Nlri, Terms, UpdateWriter},
};

/// Whole messages, and who is to be told them.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub audience: Audience,
    pub octets: Arc<[u8]>,
}

/// Which members of a group a chunk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    All,
    AllBut(Source),
    Only(Source),
}

/// The next thing to tell a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Whole messages.
    Octets(Arc<[u8]>),
    /// The peer had asked for everything again, and now has been told (RFC 7313: the place of an `EoRR`).
    Refreshed(Family),
}

/// Puts messages into chunks: as many into one as have the same audience, up to a bound.
pub struct Chunker {
    family: Family,
    terms: Terms,
    done: Vec<Chunk>,
    audience: Audience,
    open: Vec<u8>,
}

impl Audience {
    /// For routes of this peer, or of our own.
    pub fn of_routes_from(source: Source) -> Self {
        if source == Source::LOCAL { Self::All } else { Self::AllBut(source) }
    }

    pub fn includes(self, member: Source) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(other) => member != other,
            Self::Only(other) => member == other,
        }
    }
}

impl Chunker {
    pub fn new(family: Family, terms: Terms) -> Self {
        Self { family, terms, done: Vec::new(), audience: Audience::All, open: Vec::new() }
    }

    /// Whether routes with these attributes can be told at all.
    pub fn fits(&mut self, canonical: &[u8], next_hop: NextHop) -> bool {
        UpdateWriter::new(self.terms, &mut self.open)
            .announce(self.family, canonical, next_hop, [])
            .is_ok()
    }

    /// Tells routes that share attributes. What does not fit in a message was left out before: see
    /// [`Self::fits`].
    pub fn announce(
        &mut self,
        audience: Audience,
        canonical: &[u8],
        next_hop: NextHop,
        mut nlris: impl Iterator<Item = Nlri>,
    ) {
        loop {
            self.turn_to(audience);
            let before = self.open.len();
            let some = nlris.by_ref().take(MOST_ROUTES);
            let mut writer = UpdateWriter::new(self.terms, &mut self.open);
            let told = writer.announce(self.family, canonical, next_hop, some);
            if told.is_err() || self.open.len() == before {
                return;
            }
        }
    }

    pub fn withdraw(&mut self, audience: Audience, mut nlris: impl Iterator<Item = Nlri>) {
        loop {
            self.turn_to(audience);
            let before = self.open.len();
            let some = nlris.by_ref().take(MOST_ROUTES);
            UpdateWriter::new(self.terms, &mut self.open).withdraw(self.family, some);
            if self.open.len() == before {
                return;
            }
        }
    }

    pub fn finish(mut self) -> Vec<Chunk> {
        self.close();
        self.done
    }

    fn turn_to(&mut self, audience: Audience) {
        if self.audience != audience || self.open.len() >= USUAL_OCTETS {
            self.close();
            self.audience = audience;
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let octets = Arc::from(self.open.as_slice());
            self.open.clear();
            self.done.push(Chunk { audience: self.audience, octets });
        }
    }
}

/// The message that ends the first telling of a family (RFC 4724 §2).
pub fn end_of_rib(family: Family, terms: Terms) -> Arc<[u8]> {
    let mut out = Vec::new();
    UpdateWriter::new(terms, &mut out).end_of_rib(family);
    out.into()
}

/// A chunk that has so many octets is closed.
const USUAL_OCTETS: usize = 64 * 1_024;
/// So many routes are written before a chunk's length is looked at again.
const MOST_ROUTES: usize = 8_192;
