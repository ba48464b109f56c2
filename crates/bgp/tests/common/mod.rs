//! What an UPDATE says, as a value, and an UPDATE said again.

use std::collections::{BTreeMap, BTreeSet};

use russet_bgp::wire::{Attributes, NextHop, NlriKey, PathId, Tail, Terms, Update, UpdateWriter};

/// Everything that UPDATEs say, apart from how.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub announced: BTreeMap<(NlriKey, PathId, NextHop), (Tail, String)>,
    pub withdrawn: BTreeSet<(NlriKey, PathId)>,
}

impl Story {
    pub fn of(update: &Update<'_>) -> Self {
        let mut story = Self::default();
        story.add(update);
        story
    }

    pub fn add(&mut self, update: &Update<'_>) {
        let mut octets = Vec::new();
        update.write_attributes(&mut octets);
        let attributes = format!("{:?}", Attributes::read(&octets).expect("canonical octets"));
        let gone = update.withdrawn().flat_map(|nlris| nlris.iter());
        self.withdrawn.extend(gone.map(|nlri| (nlri.key, nlri.path_id)));
        for announced in update.announced() {
            for nlri in &announced.nlris {
                let key = (nlri.key, nlri.path_id, announced.next_hop);
                self.announced.insert(key, (nlri.tail, attributes.clone()));
            }
        }
    }
}

/// Says an UPDATE again, in canonical form.
pub fn relay(update: &Update<'_>, terms: Terms) -> Vec<u8> {
    let (mut out, mut octets) = (Vec::new(), Vec::new());
    update.write_attributes(&mut octets);
    let mut writer = UpdateWriter::new(terms, &mut out);
    for nlris in update.withdrawn() {
        writer.withdraw(nlris.family(), &nlris);
    }
    for announced in update.announced() {
        let nlris = announced.nlris;
        writer.announce(nlris.family(), &octets, announced.next_hop, &nlris).expect("room");
    }
    if let Some(family) = update.end_of_rib() {
        writer.end_of_rib(family);
    }
    out
}

/// Reads octets as the body of an UPDATE and says what is in them again, whatever they are.
pub fn tell(body: &[u8], terms: Terms) -> Option<(Story, Vec<u8>)> {
    let update = Update::parse(body, terms).ok()?;
    Some((Story::of(&update), relay(&update, terms)))
}
