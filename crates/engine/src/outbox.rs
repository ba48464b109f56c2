//! Datagrams on their way to the socket: one after the other to one peer make a train, which goes in one message.
//!
//! All room is had at the start. Whoever writes asks whether there is room, and flushes when there is not.

use std::net::SocketAddr;

use russet_kernel::sys::datagram::{MOST_MESSAGES, Outgoing};

/// What waits to be sent.
#[derive(Debug)]
pub struct Outbox {
    octets: Box<[u8]>,
    used: usize,
    trains: Vec<Train>,
    length: Length,
}

/// How many datagrams one message may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The kernel or the way out cannot cut.
    One,
    Many,
}

/// Datagrams of one length to one peer; the last may be shorter.
#[derive(Clone, Copy, Debug)]
struct Train {
    to: SocketAddr,
    /// The place of the peer in the table.
    peer: usize,
    start: usize,
    end: usize,
    segment: usize,
    packets: usize,
    /// Whether another datagram may be joined: none after a shorter one.
    open: bool,
}

/// A train as it is told to whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub peer: usize,
    pub packets: usize,
    pub octets: usize,
}

impl Outbox {
    pub fn new(length: Length) -> Self {
        Self {
            octets: vec![0; ROOM].into(),
            used: 0,
            trains: Vec::with_capacity(MOST_MESSAGES),
            length,
        }
    }

    /// One without any room, to stand in the place of one that is being sent.
    pub fn none() -> Self {
        Self { octets: Box::default(), used: 0, trains: Vec::new(), length: Length::One }
    }

    pub const fn length(&self) -> Length {
        self.length
    }

    /// Sends one datagram a message from now on. What waits is divided.
    pub fn shorten(&mut self) {
        self.length = Length::One;
    }

    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// Whether a datagram of this length surely finds room.
    pub fn has_room(&self, len: usize) -> bool {
        self.used + len <= self.octets.len() && self.trains.len() < MOST_MESSAGES
    }

    /// Room for one datagram, which is to be written whole. `None` when the outbox is to be flushed before.
    pub fn push(&mut self, to: SocketAddr, peer: usize, len: usize) -> Option<&mut [u8]> {
        if !self.has_room(len) {
            return None;
        }
        let start = self.used;
        self.add(to, peer, len);
        Some(&mut self.octets[start..start + len])
    }

    /// Room for a datagram whose length is not known yet; [`Self::add`] says it.
    pub fn room(&mut self, most: usize) -> Option<&mut [u8]> {
        let has_room = self.has_room(most);
        has_room.then(|| &mut self.octets[self.used..self.used + most])
    }

    /// Adds what was written to the room.
    pub fn add(&mut self, to: SocketAddr, peer: usize, len: usize) {
        self.used += len;
        let many = self.length == Length::Many;
        if let Some(train) = self.trains.last_mut().filter(|train| many && train.takes(to, len)) {
            train.end = self.used;
            train.packets += 1;
            train.open = len == train.segment;
        } else {
            let (start, end) = (self.used - len, self.used);
            let train = Train { to, peer, start, end, segment: len, packets: 1, open: true };
            self.trains.push(train);
        }
    }

    /// Writes the messages from the train `from` on, and returns how many those are.
    pub fn messages<'a>(&'a self, from: usize, into: &mut [Outgoing<'a>; MOST_MESSAGES]) -> usize {
        let trains = self.trains.iter().skip(from);
        let mut count = 0;
        for (slot, train) in into.iter_mut().zip(trains) {
            *slot = train.message(&self.octets);
            count += 1;
        }
        count
    }

    /// What a train carries.
    pub fn load(&self, train: usize) -> Option<Load> {
        let train = self.trains.get(train)?;
        let octets = train.end - train.start;
        Some(Load { peer: train.peer, packets: train.packets, octets })
    }

    /// The datagrams of one train, each by itself.
    pub fn datagrams(&self, train: usize) -> impl Iterator<Item = Outgoing<'_>> {
        let train = self.trains.get(train);
        train.into_iter().flat_map(|train| {
            let octets = &self.octets[train.start..train.end];
            octets.chunks(train.segment.max(1)).map(|octets| Outgoing {
                to: train.to,
                octets,
                segment: None,
            })
        })
    }

    pub fn trains(&self) -> usize {
        self.trains.len()
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.trains.clear();
    }
}

impl Train {
    fn takes(&self, to: SocketAddr, len: usize) -> bool {
        self.open
            && self.to == to
            && len <= self.segment
            && self.packets < MOST_SEGMENTS
            && self.end - self.start + len <= MOST_OCTETS
    }

    fn message<'a>(&self, octets: &'a [u8]) -> Outgoing<'a> {
        let segment = u16::try_from(self.segment).ok().filter(|_| self.packets > 1);
        Outgoing { to: self.to, octets: &octets[self.start..self.end], segment }
    }
}

/// Room for a few of the largest messages.
const ROOM: usize = 4 * 65_536;
/// `UDP_MAX_SEGMENTS`.
const MOST_SEGMENTS: usize = 64;
/// What one message may have: an IPv4 packet less its headers.
const MOST_OCTETS: usize = 65_507;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn datagrams_of_one_length_to_one_peer_make_a_train() {
        let mut outbox = Outbox::new(Length::Many);
        for (peer, len) in [(1, 100), (1, 100), (1, 40), (1, 100), (2, 100), (2, 200)] {
            outbox.push(to(peer), peer.into(), len).unwrap();
        }
        assert_eq!(packets(&outbox), [3, 1, 1, 1]);
        assert_eq!(outbox.load(0), Some(Load { peer: 1, packets: 3, octets: 240 }));
    }

    #[test]
    fn where_nothing_can_be_cut_each_goes_by_itself() {
        let mut outbox = Outbox::new(Length::One);
        (0..3).for_each(|_| assert!(outbox.push(to(1), 1, 100).is_some()));
        assert_eq!(packets(&outbox), [1, 1, 1]);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_and_within_the_bounds(
            rows in proptest::collection::vec((0..3_u8, 1..1_500_usize), 1..400),
        ) {
            let mut outbox = Outbox::new(Length::Many);
            let mut put = Vec::new();
            for (i, (peer, len)) in rows.into_iter().enumerate() {
                let mark = u8::try_from(i % 251).unwrap();
                let Some(room) = outbox.push(to(peer), peer.into(), len) else { break };
                room.fill(mark);
                put.push((to(peer), vec![mark; len]));
            }
            let mut slots = [Outgoing::NOTHING; MOST_MESSAGES];
            let count = outbox.messages(0, &mut slots);
            let mut got = Vec::new();
            for message in slots.iter().take(count) {
                prop_assert!(message.octets.len() <= MOST_OCTETS);
                let segment = message.segment.map_or(message.octets.len(), usize::from);
                prop_assert!(message.octets.len().div_ceil(segment) <= MOST_SEGMENTS);
                got.extend(message.octets.chunks(segment).map(|octets| (message.to, octets.to_vec())));
            }
            prop_assert_eq!(&got, &put);
            let single = (0..outbox.trains()).flat_map(|train| outbox.datagrams(train));
            let single: Vec<_> = single.map(|message| (message.to, message.octets.to_vec())).collect();
            prop_assert_eq!(single, put);
        }
    }

    fn packets(outbox: &Outbox) -> Vec<usize> {
        (0..outbox.trains()).map(|train| outbox.load(train).unwrap().packets).collect()
    }

    fn to(n: u8) -> SocketAddr {
        ([192, 168, 77, n], 8_285).into()
    }
}
