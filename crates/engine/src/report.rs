//! What an engine tells of itself: as a whole, then by peer.

use std::{io, os::fd::OwnedFd, sync::atomic::Ordering::Relaxed};

use russet_kernel::{
    engine::wire::{Answer, PeerCount, Totals},
    tun::Offload,
};

use crate::{
    control::{self, in_datagrams},
    counters::Reason,
    engine::Engine,
    outbox::Length,
    table::Peer,
    tunnel::Tunnel,
};

/// Says all of it, in as many datagrams as it takes.
pub(crate) fn say(to: &OwnedFd, engine: &Engine) -> io::Result<()> {
    control::say(to, &Answer::Totals(totals(engine)))?;
    let table = engine.table();
    let peers: Vec<_> = table.peers().map(count).collect();
    in_datagrams(&peers, |rows, more| control::say(to, &Answer::Counted(rows, more)))
}

fn totals(engine: &Engine) -> Totals {
    let shared = engine.shared();
    let counters = &shared.counters;
    let losses = Reason::ALL.into_iter().zip(counters.losses());
    let queues = shared.holdings.tuns.len();
    Totals {
        losses: losses.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        sent: counters.sent.get().into(),
        received: counters.received.get().into(),
        written: counters.written.get().into(),
        answers: counters.answers.load(Relaxed),
        queues: u32::try_from(queues).unwrap_or(u32::MAX),
        offload: offload(shared.holdings.offload, shared.length).to_owned(),
    }
}

/// In words, for an operator: what is moved in batches.
const fn offload(device: Offload, socket: Length) -> &'static str {
    match (device, socket) {
        (Offload::TcpUdp, Length::Many) => "tcp and udp",
        (Offload::Tcp, Length::Many) => "tcp; the kernel's TUN cannot do udp",
        (Offload::Checksum | Offload::None, Length::Many) => "to the socket only",
        (Offload::None, Length::One) => "none: packet by packet",
        (_, Length::One) => "from the device only: the socket cannot cut",
    }
}

fn count(peer: &Peer) -> PeerCount {
    let handshake = peer.tunnel.as_deref().and_then(Tunnel::since_handshake);
    PeerCount {
        endpoint: peer.endpoint,
        sent: peer.sent.get(),
        received: peer.received.get(),
        handshake: handshake.map(|since| since.as_secs()),
    }
}
