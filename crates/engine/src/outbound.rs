//! From the device to the socket: reads what pods send, cuts it, and sends it to the peers in trains.
//!
//! It reads until there is nothing more or enough, and sends when the outbox is full and at the end. On the way of a packet there is no lock and no allocation.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use russet_kernel::sys::datagram::{self, MOST_MESSAGES, Outgoing};
use russet_net::Family;
use rustix::{event::PollFlags, io::Errno};

use crate::{
    counters::Reason,
    icmp::{self, Budget, Trouble},
    outbox::{Length, Outbox},
    packet::{Inner, V4_HEADER, V6_HEADER, take_hop},
    shared::{Pace, Shared},
    socket::path_mtu,
    split::{Pieces, UDP_HEADER, finish_sum},
    table::{Peer, View, family_of},
    tunnel::{SEAL, Tunnel},
    virtio::{self, Header},
    worker::Turn,
};

/// The reader of one queue.
#[derive(Debug)]
pub struct Outbound {
    shared: Arc<Shared>,
    thread: usize,
    view: View,
    buffer: Box<[u8]>,
    /// One piece, before it is sealed.
    piece: Box<[u8]>,
    v4: Outbox,
    v6: Outbox,
    budget: Budget,
}

impl Outbound {
    pub fn new(shared: Arc<Shared>, thread: usize) -> Self {
        let length = shared.length;
        Self {
            view: View::new(Arc::clone(&shared.tables)),
            shared,
            thread,
            buffer: vec![0; BUFFER].into(),
            piece: vec![0; BUFFER].into(),
            v4: Outbox::new(length),
            v6: Outbox::new(length),
            budget: Budget::new(Instant::now()),
        }
    }

    /// Takes what the device has, a few packets at most, and sends it.
    pub fn turn(&mut self) -> Turn {
        let shared = Arc::clone(&self.shared);
        let Some(tun) = shared.holdings.tuns.get(self.thread) else { return Turn::Nothing };
        let mut turn = Turn::Nothing;
        for _ in 0..most_packets(shared.pace) {
            match tun.read(&mut self.buffer) {
                Ok(len) => {
                    turn = Turn::Moved;
                    self.take(len);
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) => {
                    device_failed(&shared, &err);
                    break;
                }
            }
        }
        self.flush();
        turn
    }

    fn take(&mut self, len: usize) {
        // The buffer is taken out for the time, so that it can be looked at while the outbox is filled.
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Err(reason) = self.accept(&mut buffer[..len]) {
            self.shared.counters.lose(reason, 1);
        }
        self.buffer = buffer;
    }

    fn accept(&mut self, read: &mut [u8]) -> Result<(), Reason> {
        let (header, packet) =
            read.split_first_chunk_mut::<{ virtio::LEN }>().ok_or(Reason::Short)?;
        let header = Header::parse(header).ok_or(Reason::Malformed)?;
        let inner = Inner::parse(packet)?;
        // The places of what waits are those of one table.
        if self.v4.is_empty() && self.v6.is_empty() {
            self.view.table();
        }
        let table = self.view.kept();
        let place = table.owner(inner.dst);
        let found = place.and_then(|place| Some((place, Arc::clone(table.peer(place)?))));
        let Some((place, peer)) = found else {
            self.complain(packet, &inner, Trouble::NoRoute);
            return Err(Reason::NoRoute);
        };
        if let Err(reason) = take_hop(packet, &inner) {
            self.complain(packet, &inner, Trouble::Hops);
            return Err(reason);
        }
        match Pieces::of(packet, &inner, &header)? {
            None => {
                finish_sum(packet, &inner, &header)?;
                self.put(&peer, place, packet.len(), |room| room.copy_from_slice(packet))
            }
            Some(pieces) => (0..pieces.count()).try_for_each(|piece| {
                let write = |room: &mut [u8]| pieces.write(piece, packet, room);
                self.put(&peer, place, pieces.len(piece), write)
            }),
        }
    }

    /// Puts one packet of this length into the outbox, sealed where its peer wants that.
    fn put(
        &mut self,
        peer: &Peer,
        place: usize,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Reason> {
        let Some(tunnel) = &peer.tunnel else {
            write(self.room(peer.endpoint, place, len)?);
            return Ok(());
        };
        let mut piece = std::mem::take(&mut self.piece);
        let room = piece.get_mut(..len).ok_or(Reason::Long);
        let sealed = room.and_then(|room| {
            write(room);
            self.seal(tunnel, family_of(peer.endpoint), place, room)
        });
        self.piece = piece;
        sealed
    }

    fn seal(
        &mut self,
        tunnel: &Tunnel,
        family: Family,
        place: usize,
        packet: &[u8],
    ) -> Result<(), Reason> {
        let most = packet.len() + SEAL;
        if !self.outbox(family).has_room(most) {
            self.flush();
        }
        let room = self.outbox(family).room(most).ok_or(Reason::Long)?;
        if let Some((len, to)) = tunnel.seal(packet, room)? {
            self.outbox(family).add(to, place, len);
        }
        self.shared.waker.wake();
        Ok(())
    }

    /// Room in the outbox, which is sent before when it is full.
    fn room(&mut self, to: SocketAddr, place: usize, len: usize) -> Result<&mut [u8], Reason> {
        let family = family_of(to);
        if !self.outbox(family).has_room(len) {
            self.flush();
        }
        self.outbox(family).push(to, place, len).ok_or(Reason::Long)
    }

    fn outbox(&mut self, family: Family) -> &mut Outbox {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Tells a packet's sender of our own node why it does not go on.
    fn complain(&mut self, packet: &[u8], inner: &Inner, trouble: Trouble) {
        let Some(end) = self.shared.end(inner.family()) else { return };
        if !self.budget.take(Instant::now()) {
            return;
        }
        let mut message = [0; virtio::LEN + icmp::MOST];
        let (header, room) = message.split_at_mut(virtio::LEN);
        header.fill(0);
        let Some(room) = room.first_chunk_mut() else { return };
        let Some(len) = icmp::answer(packet, inner, end.inner, trouble, room) else { return };
        let tun = self.shared.holdings.tuns.get(self.thread);
        if tun.is_some_and(|tun| tun.write(&message[..virtio::LEN + len]).is_ok()) {
            self.shared.counters.answers.fetch_add(1, Relaxed);
        }
    }
}

// ---- sending
impl Outbound {
    fn flush(&mut self) {
        for family in Family::BOTH {
            if !self.outbox(family).is_empty() {
                self.send(family);
            }
        }
    }

    /// Sends all that waits for one family. What cannot be sent is dropped and counted.
    fn send(&mut self, family: Family) {
        let shared = Arc::clone(&self.shared);
        let mut outbox = std::mem::replace(self.outbox(family), Outbox::none());
        let mut from = 0;
        while from < outbox.trains() {
            let mut messages = [Outgoing::NOTHING; MOST_MESSAGES];
            let count = outbox.messages(from, &mut messages);
            let Some(socket) = shared.socket(family, self.thread) else {
                self.give_up(&outbox, from..outbox.trains(), Reason::Refused);
                break;
            };
            match datagram::send(socket, &messages[..count]) {
                Ok(sent) => {
                    self.count(&outbox, from..from + sent);
                    from += sent;
                }
                Err(err) => from += self.trouble(&mut outbox, from, &err),
            }
        }
        outbox.clear();
        *self.outbox(family) = outbox;
    }

    /// Deals with a train that could not be sent, and returns how many trains are done with.
    fn trouble(&mut self, outbox: &mut Outbox, train: usize, err: &io::Error) -> usize {
        match Errno::from_io_error(err) {
            Some(Errno::AGAIN) => {
                self.wait_for_room(outbox, train);
                0
            }
            Some(Errno::INTR) => 0,
            Some(Errno::MSGSIZE) => {
                self.too_big(outbox, train);
                self.give_up(outbox, train..train + 1, Reason::TooBig);
                1
            }
            // Some ways out cannot cut (udp(7)), and some kernels say so only now.
            Some(Errno::IO | Errno::INVAL) if outbox.length() == Length::Many => {
                tracing::warn!(op = "send a train", error = %err, "datagrams go one by one from now on");
                outbox.shorten();
                self.send_singly(outbox, train);
                1
            }
            _ => {
                tracing::debug!(op = "send", error = %err, "packets dropped");
                self.give_up(outbox, train..train + 1, Reason::Refused);
                1
            }
        }
    }

    fn wait_for_room(&self, outbox: &Outbox, train: usize) {
        let family = outbox.datagrams(train).next().map(|datagram| family_of(datagram.to));
        let socket = family.and_then(|family| self.shared.socket(family, self.thread));
        if let Some(socket) = socket {
            self.shared.halt.wait(socket, PollFlags::OUT);
        }
    }

    fn send_singly(&self, outbox: &Outbox, train: usize) {
        for datagram in outbox.datagrams(train) {
            let socket = self.shared.socket(family_of(datagram.to), self.thread);
            let sent = socket.is_some_and(|socket| datagram::send(socket, &[datagram]).is_ok());
            if !sent {
                self.shared.counters.lose(Reason::Refused, 1);
            }
        }
    }

    /// Tells the sender of a train's first packet what the path carries.
    fn too_big(&mut self, outbox: &Outbox, train: usize) {
        let Some(datagram) = outbox.datagrams(train).next() else { return };
        let family = family_of(datagram.to);
        let Some(end) = self.shared.end(family) else { return };
        // What is sealed says nothing of whose it was.
        let Ok(inner) = Inner::parse(datagram.octets) else { return };
        let Ok(path) = path_mtu(end.listen.ip(), datagram.to) else { return };
        let left = path.saturating_sub(overhead(end.listen.ip()));
        let mtu = u16::try_from(left).unwrap_or(u16::MAX);
        self.complain(datagram.octets, &inner, Trouble::TooBig(mtu));
    }

    fn give_up(&self, outbox: &Outbox, trains: std::ops::Range<usize>, reason: Reason) {
        let loads = trains.filter_map(|train| outbox.load(train));
        let packets: usize = loads.map(|load| load.packets).sum();
        self.shared.counters.lose(reason, number(packets));
    }

    fn count(&mut self, outbox: &Outbox, trains: std::ops::Range<usize>) {
        let table = self.view.kept();
        for load in trains.filter_map(|train| outbox.load(train)) {
            self.shared.counters.sent.add(load.packets);
            if let Some(peer) = table.peer(load.peer) {
                peer.sent.add(number(load.packets), number(load.octets));
            }
        }
    }
}

/// Packets of one turn.
const fn most_packets(pace: Pace) -> usize {
    match pace {
        Pace::Batches => MOST_PACKETS,
        Pace::OneByOne => 1,
    }
}

/// Octets of the outer headers.
const fn overhead(outer: IpAddr) -> u32 {
    let network = match outer {
        IpAddr::V4(_) => V4_HEADER,
        IpAddr::V6(_) => V6_HEADER,
    };
    // Two small constants.
    #[allow(clippy::cast_possible_truncation)]
    let octets = (network + UDP_HEADER) as u32;
    octets
}

/// What a thread does when its device does not answer as it should.
pub fn device_failed(shared: &Shared, err: &io::Error) {
    match Errno::from_io_error(err) {
        Some(Errno::INTR) => {}
        Some(Errno::BADFD) => {
            tracing::error!(op = "read device", error = %err, "the device is gone");
            shared.halt.fail();
            shared.halt.stop();
        }
        _ => {
            tracing::warn!(op = "read device", error = %err, "trying again");
            std::thread::sleep(PAUSE);
        }
    }
}

/// Counts of one batch fit anywhere.
pub fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The largest packet with its header, and some.
const BUFFER: usize = 66_000;
/// As many as there is room for when they are whole batches, and the rest goes with the next turn.
const MOST_PACKETS: usize = 64;
/// A device that is down says so until it is up.
const PAUSE: Duration = Duration::from_millis(100);
