//! A running engine: its threads, and the peers that they send to.
//!
//! ```text
//!   device ══ queue i ══▶ outbound ══▶ socket i ══▶ peers     worker i: both directions in turns
//!   device ◀══ queue i ══ inbound ◀══ socket i ◀══ peers
//!                 tables: changed here, looked at there
//! ```
//!
//! [`Engine::rest`] ends the threads and keeps what they held: whatever arrives meanwhile waits in the kernel, so an
//! engine that goes on, here or in another process, has lost nothing. The two directions begin apart: for a while one
//! process may hear and another send.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
};

use russet_kernel::{
    engine::{EngineEnd, EnginePeerSpec, EngineSpec},
    sys::datagram::{self, Outgoing},
    tun::{Offload, Tun},
};
use russet_net::{Family, IfName, Prefix};

use crate::{
    clock::{Clock, Waker},
    counters::Counters,
    inbound::Inbound,
    outbox::Length,
    passage::Passage,
    shared::{Halt, Holdings, Pace, Shared, Ways},
    socket::{self, ReceiveOffload},
    table::{Table, Tables, family_of},
    tunnel::{SEAL, Tunnel, Vault},
    worker::Worker,
};

/// What an engine is told when it starts, and never after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub link: IfName,
    pub spec: EngineSpec,
    pub pace: Pace,
}

impl Holdings {
    /// Opens everything.
    ///
    /// # Errors
    ///
    /// What could not be opened.
    pub fn open(setup: &Setup) -> Result<Self, OpenError> {
        let device = |source| OpenError::Device { link: setup.link, source };
        // First, while no packet passes.
        let anchor = Tun::anchor(setup.link).map_err(device)?;
        let queues = 0..queues();
        let tuns = queues.clone().map(|_| Tun::open(setup.link));
        let tuns: Vec<_> = tuns.collect::<io::Result<_>>().map_err(device)?;
        let wanted = match setup.pace {
            Pace::Batches => Offload::TcpUdp,
            Pace::OneByOne => Offload::None,
        };
        let offload = match tuns.first() {
            Some(tun) => tun.offload(wanted).map_err(device)?,
            None => Offload::None,
        };
        if offload < wanted {
            tracing::warn!(ifname = %setup.link, has = ?offload, "the kernel lacks an offload of TUN devices");
        }
        let receive = match setup.pace {
            Pace::Batches => ReceiveOffload::On,
            Pace::OneByOne => ReceiveOffload::Off,
        };
        let sockets = |end: Option<EngineEnd>| {
            let open =
                |at| socket::open(at, receive).map_err(|source| OpenError::Socket { at, source });
            let each = end.into_iter().flat_map(|end| queues.clone().map(move |_| end.listen));
            each.map(open).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { v4: sockets(setup.spec.v4)?, v6: sockets(setup.spec.v6)?, tuns, anchor, offload })
    }
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("open device {link}")]
    Device { link: IfName, source: io::Error },
    #[error("open socket {at}")]
    Socket { at: SocketAddr, source: io::Error },
    #[error("read the node's WireGuard key")]
    Key(#[source] io::Error),
    #[error("start the engine's threads")]
    Threads(#[source] io::Error),
}

/// An engine at work.
#[derive(Debug)]
pub struct Engine {
    setup: Setup,
    shared: Arc<Shared>,
    peers: BTreeMap<Prefix, EnginePeerSpec>,
    threads: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// When no thread is to be had.
    pub fn start(setup: Setup, holdings: Holdings, kept: Kept) -> Result<Self, OpenError> {
        let mut engine = Self::new(setup, holdings, kept)?;
        engine.begin(Ways::Both).map_err(OpenError::Threads)?;
        Ok(engine)
    }

    /// An engine that does nothing yet.
    ///
    /// # Errors
    ///
    /// When no descriptor is to be had.
    pub fn new(setup: Setup, holdings: Holdings, kept: Kept) -> Result<Self, OpenError> {
        let length = match (setup.pace, holdings.v4.first().or(holdings.v6.first())) {
            (Pace::Batches, Some(socket)) if has_send_offload(socket) => Length::Many,
            _ => Length::One,
        };
        let new = |source| OpenError::Threads(source);
        let shared = Arc::new(Shared {
            holdings,
            spec: setup.spec,
            pace: setup.pace,
            length,
            tables: kept.tables,
            counters: kept.counters,
            vault: kept.vault,
            passage: kept.passage,
            waker: Waker::new().map_err(new)?,
            halt: Halt::new().map_err(new)?,
        });
        let engine = Self { setup, shared, peers: kept.peers, threads: Vec::new() };
        engine.publish();
        Ok(engine)
    }

    /// Starts the threads: those of the packets, and where something comes in that of the time that passes for sessions.
    ///
    /// # Errors
    ///
    /// When no thread is to be had.
    pub fn begin(&mut self, ways: Ways) -> io::Result<()> {
        if let Some(vault) = self.shared.vault.clone().filter(|_| ways != Ways::Out) {
            let clock = Clock::new(Arc::clone(&self.shared), vault);
            self.spawn("clock".to_owned(), move || clock.run())?;
        }
        for thread in 0..self.shared.holdings.tuns.len() {
            let worker = Worker::new(&self.shared, thread, ways);
            self.spawn(format!("packets {thread}"), move || worker.run())?;
        }
        Ok(())
    }

    /// Starts the thread of what a successor passes on.
    ///
    /// # Errors
    ///
    /// As [`Self::begin`].
    pub fn begin_opening(&mut self, passage: &Arc<Passage>) -> io::Result<()> {
        let inbound = Inbound::new(Arc::clone(&self.shared), Family::V4, 0);
        let passage = Arc::clone(passage);
        self.spawn("passed on".to_owned(), move || inbound.run_on(&passage))
    }

    /// Ends the threads; what they held stays, and others may begin.
    pub fn rest(&mut self) {
        self.halt();
        self.shared.halt.renew();
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let builder = thread::Builder::new().name(name).stack_size(STACK);
        self.threads.push(builder.spawn(work)?);
        Ok(())
    }

    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    pub fn peers(&self) -> &BTreeMap<Prefix, EnginePeerSpec> {
        &self.peers
    }

    /// The table of now, with what each peer has counted.
    pub fn table(&self) -> Arc<Table> {
        self.shared.tables.newest()
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes newer peers: where each prefix is, or that it is nowhere.
    pub fn patch(&mut self, patch: impl IntoIterator<Item = (Prefix, Option<EnginePeerSpec>)>) {
        for (prefix, peer) in patch {
            match peer {
                Some(peer) => self.peers.insert(prefix, peer),
                None => self.peers.remove(&prefix),
            };
        }
        self.publish();
    }

    fn publish(&self) {
        let tables = &self.shared.tables;
        let table = Table::new(&self.peers, &tables.newest(), self.shared.vault.as_deref());
        tables.publish(table);
    }

    /// Greets every peer, so that there are sessions before anything is to be sent.
    pub fn greet_all(&self) {
        self.to_all(Tunnel::greet);
    }

    /// Greets a peer, unless there is a session by now, and tells whether anything was sent.
    pub fn greet_stranger(&self, tunnel: &Tunnel) -> bool {
        let mut room = [0; SEAL];
        let greeting =
            tunnel.since_handshake().is_none().then(|| tunnel.greet(&mut room)).flatten();
        self.send_one(greeting, &room);
        greeting.is_some()
    }

    /// Greets a peer once more that has not answered.
    pub fn greet_again(&self, tunnel: &Tunnel) {
        let mut room = [0; SEAL];
        let greeting = tunnel.greet_again(&mut room);
        self.send_one(greeting, &room);
    }

    /// Sends every peer that there is a session with a packet of nothing.
    pub fn show_life(&self) {
        self.to_all(Tunnel::keep_alive);
    }

    fn to_all(&self, say: impl Fn(&Tunnel, &mut [u8]) -> Option<(usize, SocketAddr)>) {
        let mut room = [0; SEAL];
        for peer in self.table().peers() {
            let message = peer.tunnel.as_ref().and_then(|tunnel| say(tunnel, &mut room));
            self.send_one(message, &room);
        }
    }

    fn send_one(&self, message: Option<(usize, SocketAddr)>, room: &[u8]) {
        let Some((len, to)) = message else { return };
        let message = Outgoing { to, octets: &room[..len], segment: None };
        let socket = self.shared.socket(family_of(to), 0);
        // What is lost is sent again.
        let _ = socket.map(|socket| datagram::send(socket, &[message]));
        self.shared.waker.wake();
    }

    fn halt(&mut self) {
        self.shared.halt.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.halt();
    }
}

/// What an engine begins with besides its descriptors: the peers, what was counted, and the sessions.
#[derive(Debug, Default)]
pub struct Kept {
    pub peers: BTreeMap<Prefix, EnginePeerSpec>,
    pub tables: Arc<Tables>,
    pub counters: Arc<Counters>,
    /// Where packets are sealed.
    pub vault: Option<Arc<Vault>>,
    /// To the engine before it.
    pub passage: Option<Arc<Passage>>,
}

fn has_send_offload(socket: &std::os::fd::OwnedFd) -> bool {
    let has = russet_kernel::sys::datagram::has_send_offload(std::os::fd::AsFd::as_fd(socket));
    if !has {
        tracing::warn!("the kernel cannot cut datagrams; they go one by one");
    }
    has
}

/// As many as there are processors, within reason: each has its buffers.
fn queues() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MOST_QUEUES)
}

/// Queues of the device at most.
pub const MOST_QUEUES: usize = 4;
/// What a thread's calls need: a batch's headers lie there.
const STACK: usize = 256 << 10;
