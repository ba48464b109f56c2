//! From the socket to the device: opens and admits what peers send, joins it, and writes it.
//!
//! A packet is admitted when its sender is a peer, its source is that peer's, and its
//! destination is nobody else's: then it can only be for us. Without WireGuard nothing is ever answered; with it only
//! greetings are, by less than they are long.

use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc};

use russet_kernel::{
    sys::datagram::{self, Incoming, Outgoing},
    tun::Offload,
};
use russet_net::Family;
use rustix::event::PollFlags;

use crate::{
    counters::Reason,
    join::{Run, Span},
    outbound::{device_failed, number},
    packet::{Inner, UDP},
    passage::Passage,
    shared::{Life, Shared},
    table::{Peer, Table, View},
    tunnel::{COOKIE, Opened, Sender, Vault, sealed_for},
    worker::Turn,
};

/// The receiver of one socket.
#[derive(Debug)]
pub struct Inbound {
    shared: Arc<Shared>,
    family: Family,
    thread: usize,
    view: View,
    /// What came.
    buffer: Box<[u8]>,
    /// What was opened of it, where packets are sealed.
    plain: Box<[u8]>,
    spans: Vec<Span>,
    packets: Vec<Packet>,
    /// A peer that packets wait for, which may have a session now.
    awaited: Option<Arc<Peer>>,
}

/// A bare packet, and the place of the peer that it is from.
#[derive(Clone, Copy, Debug)]
struct Packet {
    span: Span,
    place: usize,
}

impl Inbound {
    pub fn new(shared: Arc<Shared>, family: Family, thread: usize) -> Self {
        let plain = if shared.vault.is_some() { HEAD + BUFFER } else { 0 };
        Self {
            view: View::new(Arc::clone(&shared.tables)),
            shared,
            family,
            thread,
            buffer: vec![0; HEAD + BUFFER].into(),
            plain: vec![0; plain].into(),
            spans: Vec::with_capacity(MOST_SPANS),
            packets: Vec::with_capacity(MOST_SPANS),
            awaited: None,
        }
    }

    /// Takes what has come, a few messages at most.
    pub fn turn(&mut self) -> Turn {
        let shared = Arc::clone(&self.shared);
        let Some(socket) = shared.socket(self.family, self.thread) else { return Turn::Nothing };
        for taken in 0..MOST_MESSAGES {
            match datagram::receive(socket, &mut self.buffer[HEAD..]) {
                Ok(incoming) => self.take(&incoming),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    return if taken == 0 { Turn::Nothing } else { Turn::Moved };
                }
                // The last datagram's misfortune, told late.
                Err(err) => tracing::debug!(op = "receive", error = %err, "passed over"),
            }
        }
        Turn::Moved
    }

    /// Works on what a successor passes on until it is told to end, or the successor has.
    pub fn run_on(mut self, passage: &Passage) {
        let shared = Arc::clone(&self.shared);
        while shared.halt.life() == Life::Goes {
            match passage.take(&mut self.buffer[HEAD..]) {
                Ok(incoming) => {
                    self.family = Family::of(incoming.from.ip());
                    self.take(&incoming);
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    shared.halt.wait(passage.as_fd(), PollFlags::IN);
                }
                Err(err) if err.kind() == io::ErrorKind::InvalidData => self.lose(Reason::Short, 1),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, incoming: &Incoming) {
        self.divide(incoming);
        let packets = self.spans.len();
        self.shared.counters.received.add(packets);
        if incoming.truncated {
            self.lose(Reason::Long, packets);
            return;
        }
        self.view.table();
        self.packets.clear();
        match self.shared.vault.clone() {
            None => self.take_bare(incoming),
            Some(vault) => {
                self.pass_on(incoming.from);
                self.open_all(incoming.from, &vault);
            }
        }
        self.write_all();
        if let Some(peer) = self.awaited.take() {
            self.send_waiting(incoming.from, &peer);
        }
    }

    /// Finds the datagrams of one message.
    fn divide(&mut self, incoming: &Incoming) {
        let step = incoming.segment.map_or(incoming.len, usize::from).max(1);
        self.spans.clear();
        let starts = (0..incoming.len.max(1)).step_by(step).take(MOST_SPANS);
        self.spans.extend(
            starts.map(|start| Span { at: HEAD + start, len: step.min(incoming.len - start) }),
        );
    }

    fn take_bare(&mut self, incoming: &Incoming) {
        let table = self.view.kept();
        let found =
            table.at(incoming.from.ip()).and_then(|place| Some((place, table.peer(place)?)));
        let Some((place, peer)) = found else {
            return self.lose(Reason::UnknownPeer, self.spans.len());
        };
        peer.received.add(number(self.spans.len()), number(incoming.len));
        self.packets.extend(self.spans.iter().map(|span| Packet { span: *span, place }));
    }

    /// Writes each packet, or several that belong together.
    fn write_all(&mut self) {
        let mut next = 0;
        while let Some(Packet { span, place }) = self.packets.get(next).copied() {
            next += 1;
            let octets = self.bare();
            let inner = match admit(&octets[span.at..span.at + span.len], self.view.kept(), place) {
                Ok(inner) => inner,
                Err(reason) => {
                    self.lose(reason, 1);
                    continue;
                }
            };
            let mut run = Run::new(octets, span, inner);
            let joins = inner.protocol != UDP || self.shared.holdings.offload == Offload::TcpUdp;
            while joins
                && let Some(packet) = self.packets.get(next).copied()
                && packet.place == place
                && run.take(self.bare_mut(), packet.span)
            {
                next += 1;
            }
            self.write(run);
        }
    }

    fn write(&mut self, run: Run) {
        let packets = run.packets();
        let span = run.finish(self.bare_mut());
        let octets = &self.bare()[span.at..span.at + span.len];
        let Some(tun) = self.shared.holdings.tuns.get(self.thread) else { return };
        match tun.write(octets) {
            Ok(_) => self.shared.counters.written.add(packets),
            Err(err) => {
                self.lose(Reason::Refused, packets);
                if rustix::io::Errno::from_io_error(&err) == Some(rustix::io::Errno::BADFD) {
                    device_failed(&self.shared, &err);
                }
            }
        }
    }

    /// The buffer that the bare packets are in.
    fn bare(&self) -> &[u8] {
        if self.shared.vault.is_some() { &self.plain } else { &self.buffer }
    }

    fn bare_mut(&mut self) -> &mut [u8] {
        if self.shared.vault.is_some() { &mut self.plain } else { &mut self.buffer }
    }

    fn lose(&self, reason: Reason, packets: usize) {
        self.shared.counters.lose(reason, number(packets));
    }
}

// ---- what is sealed
impl Inbound {
    /// Opens every datagram of a message; what is bare then lies one behind the other.
    fn open_all(&mut self, from: SocketAddr, vault: &Vault) {
        let mut at = HEAD;
        for n in 0..self.spans.len() {
            let span = self.spans[n];
            match self.open(from, span, at, vault) {
                Ok(Some(packet)) => {
                    at += packet.span.len;
                    self.packets.push(packet);
                }
                Ok(None) => {}
                Err(reason) => self.lose(reason, 1),
            }
        }
    }

    /// Passes on what is sealed for the engine before us, as long as there is one.
    fn pass_on(&mut self, from: SocketAddr) {
        let passage = self.shared.passage.as_ref().filter(|passage| passage.is_open());
        let Some(passage) = passage.map(Arc::clone) else { return };
        let mut spans = std::mem::take(&mut self.spans);
        let (table, buffer) = (self.view.kept(), &self.buffer);
        let is_foreign = |span: &Span| {
            let index = sealed_for(&buffer[span.at..span.at + span.len]);
            index.is_some_and(|index| table.of_index(index).is_none())
        };
        for run in spans.chunk_by(|one, next| is_foreign(one) == is_foreign(next)) {
            let [first, ..] = run else { continue };
            if is_foreign(first) {
                let len: usize = run.iter().map(|span| span.len).sum();
                let segment = u16::try_from(first.len).ok().filter(|_| run.len() > 1);
                if passage.pass(from, segment, &buffer[first.at..first.at + len]).is_err() {
                    self.lose(Reason::Refused, run.len());
                }
            }
        }
        spans.retain(|span| !is_foreign(span));
        self.spans = spans;
    }

    fn open(
        &mut self,
        from: SocketAddr,
        span: Span,
        at: usize,
        vault: &Vault,
    ) -> Result<Option<Packet>, Reason> {
        let sealed = &self.buffer[span.at..span.at + span.len];
        let mut cookie = [0; COOKIE];
        let table = self.view.kept();
        let place = match vault.sender(from.ip(), sealed, &mut cookie) {
            Sender::Index(index) => table.of_index(index),
            Sender::Key(key) => table.of_key(self.family, key),
            Sender::Nobody => return Err(Reason::Unsealed),
            Sender::Cookie(cookie) => {
                self.answer(from, cookie);
                return Err(Reason::TooMany);
            }
        };
        let found = place.and_then(|place| Some((place, Arc::clone(table.peer(place)?))));
        let (place, peer) = found.ok_or(Reason::UnknownPeer)?;
        let tunnel = peer.tunnel.as_ref().ok_or(Reason::UnknownPeer)?;
        let opened = tunnel.open(from, sealed, &mut self.plain[at..])?;
        self.shared.waker.wake();
        if tunnel.has_waiting() {
            self.awaited = Some(Arc::clone(&peer));
        }
        match opened {
            Opened::Packet(len) => {
                peer.received.add(1, number(len));
                Ok(Some(Packet { span: Span { at, len }, place }))
            }
            Opened::Answer(len) => {
                self.answer(from, &self.plain[at..at + len]);
                Ok(None)
            }
            Opened::Alive => Ok(None),
        }
    }

    /// Sends what waited for the session that there is now. What was opened has been written, so its room is free.
    fn send_waiting(&mut self, to: SocketAddr, peer: &Peer) {
        let Some(tunnel) = &peer.tunnel else { return };
        for _ in 0..MOST_WAITING {
            let Some(len) = tunnel.more(&mut self.plain) else { return };
            self.answer(to, &self.plain[..len]);
            peer.sent.add(1, number(len));
        }
    }

    fn answer(&self, to: SocketAddr, octets: &[u8]) {
        let socket = self.shared.socket(self.family, self.thread);
        let message = Outgoing { to, octets, segment: None };
        if socket.is_none_or(|socket| datagram::send(socket, &[message]).is_err()) {
            self.lose(Reason::Refused, 1);
        }
    }
}

/// Looks at a packet from the peer at `place`.
fn admit(packet: &[u8], table: &Table, place: usize) -> Result<Inner, Reason> {
    let inner = Inner::parse(packet)?;
    if table.owner(inner.src) != Some(place) {
        return Err(Reason::Spoofed);
    }
    if table.owner(inner.dst).is_some() {
        return Err(Reason::Looping);
    }
    if inner.hops <= 1 {
        return Err(Reason::Hops);
    }
    Ok(inner)
}

/// Room before the first packet, for its virtio header.
const HEAD: usize = 16;
/// Messages of one turn.
const MOST_MESSAGES: usize = 16;
/// The largest message.
const BUFFER: usize = 65_536;
/// Datagrams of one message at most (`UDP_MAX_SEGMENTS` of newer kernels, twice).
const MOST_SPANS: usize = 256;
/// Packets that wait for a session at most (`MAX_QUEUE_DEPTH` of boringtun).
const MOST_WAITING: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use russet_kernel::engine::EnginePeerSpec;

    use super::*;
    use crate::samples::Sample;

    #[test]
    fn only_what_is_a_peer_s_own_and_for_nobody_else_is_admitted() {
        let peer =
            |n: u8| EnginePeerSpec { endpoint: ([192, 168, 77, n], 8_285).into(), key: None };
        let prefix = |text: &str| text.parse().unwrap();
        let wanted: BTreeMap<_, _> =
            [(prefix("10.0.1.0/24"), peer(1)), (prefix("10.0.9.0/24"), peer(2))].into();
        let table = Table::new(&wanted, &Table::default(), None);
        let place = |n| table.at(peer(n).endpoint.ip()).unwrap();
        let packet = |hops| Sample { hops, payload: vec![1], ..Sample::default() }.packet();

        assert!(admit(&packet(2), &table, place(1)).is_ok());
        assert_eq!(admit(&packet(2), &table, place(2)), Err(Reason::Spoofed));
        assert_eq!(admit(&packet(1), &table, place(1)), Err(Reason::Hops));
        let mut looping = packet(9);
        looping[18] = 9;
        assert_eq!(admit(&looping, &table, place(1)), Err(Reason::Looping));
        let mut foreign = packet(9);
        foreign[14] = 77;
        assert_eq!(admit(&foreign, &table, place(1)), Err(Reason::Spoofed));
        assert_eq!(admit(&packet(9)[1..], &table, place(1)), Err(Reason::Malformed));
    }
}
