//! From the socket to the device: admits what peers send, joins it, and writes it.
//!
//! One thread for each socket. A packet is admitted when its sender is a peer, its source is that peer's, and its
//! destination is nobody else's: then it can only be for us. Nothing is ever answered.

use std::{io, sync::Arc};

use russet_kernel::{
    sys::datagram::{self, Incoming},
    tun::Offload,
};
use russet_net::Family;
use rustix::event::PollFlags;

use crate::{
    counters::Reason,
    join::{Run, Span},
    outbound::{device_failed, number},
    packet::{Inner, UDP},
    shared::{Life, Shared},
    table::{Table, View},
};

/// The thread of one socket.
#[derive(Debug)]
pub struct Inbound {
    shared: Arc<Shared>,
    family: Family,
    thread: usize,
    view: View,
    buffer: Box<[u8]>,
    spans: Vec<Span>,
}

impl Inbound {
    pub fn new(shared: Arc<Shared>, family: Family, thread: usize) -> Self {
        Self {
            view: View::new(Arc::clone(&shared.tables)),
            shared,
            family,
            thread,
            buffer: vec![0; HEAD + BUFFER].into(),
            spans: Vec::with_capacity(MOST_SPANS),
        }
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(socket) = shared.socket(self.family, self.thread) else { return };
        while shared.halt.life() == Life::Goes {
            match datagram::receive(socket, &mut self.buffer[HEAD..]) {
                Ok(incoming) => self.take(&incoming),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    shared.halt.wait(socket, PollFlags::IN);
                }
                // The last datagram's misfortune, told late.
                Err(err) => tracing::debug!(op = "receive", error = %err, "passed over"),
            }
        }
    }

    fn take(&mut self, incoming: &Incoming) {
        self.divide(incoming);
        let packets = self.spans.len();
        self.shared.counters.received.add(packets);
        let place = self.view.table().at(incoming.from.ip());
        let reason = if incoming.truncated { Some(Reason::Long) } else { None };
        let (None, Some(place)) = (reason, place) else {
            let reason = reason.unwrap_or(Reason::UnknownPeer);
            self.shared.counters.lose(reason, number(packets));
            return;
        };
        self.write_all(place);
        if let Some(peer) = self.view.kept().peer(place) {
            peer.received.add(number(packets), number(incoming.len));
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

    /// Writes each packet, or several that belong together.
    fn write_all(&mut self, place: usize) {
        let mut next = 0;
        while let Some(span) = self.spans.get(next).copied() {
            next += 1;
            let packet = &self.buffer[span.at..span.at + span.len];
            let inner = match admit(packet, self.view.kept(), place) {
                Ok(inner) => inner,
                Err(reason) => {
                    self.shared.counters.lose(reason, 1);
                    continue;
                }
            };
            let mut run = Run::new(&self.buffer, span, inner);
            let joins = inner.protocol != UDP || self.shared.holdings.offload == Offload::TcpUdp;
            while joins
                && let Some(span) = self.spans.get(next)
                && run.take(&mut self.buffer, *span)
            {
                next += 1;
            }
            self.write(run);
        }
    }

    fn write(&mut self, run: Run) {
        let packets = run.packets();
        let span = run.finish(&mut self.buffer);
        let octets = &self.buffer[span.at..span.at + span.len];
        let Some(tun) = self.shared.holdings.tuns.get(self.thread) else { return };
        match tun.write(octets) {
            Ok(_) => self.shared.counters.written.add(packets),
            Err(err) => {
                self.shared.counters.lose(Reason::Refused, number(packets));
                if rustix::io::Errno::from_io_error(&err) == Some(rustix::io::Errno::BADFD) {
                    device_failed(&self.shared, &err);
                }
            }
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
/// The largest message.
const BUFFER: usize = 65_536;
/// Datagrams of one message at most (`UDP_MAX_SEGMENTS` of newer kernels, twice).
const MOST_SPANS: usize = 256;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr};

    use super::*;
    use crate::samples::Sample;

    #[test]
    fn only_what_is_a_peer_s_own_and_for_nobody_else_is_admitted() {
        let peer = |n: u8| SocketAddr::from(([192, 168, 77, n], 8_285));
        let prefix = |text: &str| text.parse().unwrap();
        let wanted: BTreeMap<_, _> =
            [(prefix("10.0.1.0/24"), peer(1)), (prefix("10.0.9.0/24"), peer(2))].into();
        let table = Table::new(&wanted, &Table::default());
        let place = |n| table.at(peer(n).ip()).unwrap();
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
