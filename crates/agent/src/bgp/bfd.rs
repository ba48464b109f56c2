//! BFD's sockets (RFC 5881, RFC 5883): one task has all sessions, and a reader for each port feeds it.
//!
//! ```text
//!   UDP 3784, 4784 ─▶ reader ─▶ ┌─────────────┐ ─▶ a socket for each session, source port from 49152 on
//!   peer task ──── Wanted ────▶ │ Sessions    │
//!   peer task ◀── BfdState ──── └─────────────┘
//! ```
//!
//! A session is wanted as long as somebody watches its state: when the watcher is gone, the peer is told that the
//! session is taken out of use (RFC 5882 §3.2), and it is forgotten. The ports are opened when the first session
//! is wanted.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use russet_bgp::{
    bfd::{
        Arrival, Diagnostic, Down, Hops, Input, Output, Packet, Path, Role, Sessions, State, Timing,
    },
    speaker::PeerAddr,
};
use russet_kernel::sys::arrival;
use russet_net::IfIndex;
use tokio::{
    io::Interest,
    sync::{mpsc, watch},
};

use super::socket;
use crate::{one_line, seed, until};

/// How a peer is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdConfig {
    pub timing: Timing,
    pub hops: Hops,
}

/// A session as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdState {
    pub state: State,
    /// How long a silence makes the peer dead; `None` before it has spoken.
    pub detection: Option<Duration>,
    /// How often it was up and is no more.
    pub downs: u64,
    /// Why it last went down.
    pub last: Option<Down>,
    /// Why it cannot be.
    pub fault: Option<String>,
}

/// The task's mailbox. It ends when the last is dropped.
#[derive(Clone, Debug)]
pub struct Bfd(mpsc::Sender<Wanted>);

/// A session that somebody wants.
#[derive(Debug)]
struct Wanted {
    peer: PeerAddr,
    local: IpAddr,
    config: BfdConfig,
    state: watch::Sender<BfdState>,
}

impl Bfd {
    /// Starts the task, which opens nothing yet.
    pub fn start() -> Self {
        let (wanted, inbox) = mpsc::channel(WANTED);
        tokio::spawn(run(inbox));
        Self(wanted)
    }

    /// Begins a session between an address of ours and a peer, or goes on with the one that is there. It is wanted
    /// until what is returned is dropped.
    pub fn watch(
        &self,
        peer: PeerAddr,
        local: IpAddr,
        config: BfdConfig,
    ) -> watch::Receiver<BfdState> {
        let (state, seen) = watch::channel(BfdState::BEGIN);
        if let Err(err) = self.0.try_send(Wanted { peer, local, config, state }) {
            let wanted = match err {
                mpsc::error::TrySendError::Full(wanted)
                | mpsc::error::TrySendError::Closed(wanted) => wanted,
            };
            wanted.state.send_modify(|state| state.fault = Some("BFD is busy".to_owned()));
        }
        seen
    }
}

impl BfdState {
    const BEGIN: Self =
        Self { state: State::Down, detection: None, downs: 0, last: None, fault: None };
}

/// A datagram out of a reader.
struct Datagram {
    arrival: arrival::Arrival,
    octets: [u8; MOST_OCTETS],
}

struct Task {
    sessions: Sessions,
    lines: BTreeMap<Path, Line>,
    heard: mpsc::Sender<Datagram>,
    /// Opened with the first session.
    is_open: bool,
}

/// A session's way to its peer, and who watches it.
struct Line {
    socket: UdpSocket,
    to: SocketAddr,
    state: watch::Sender<BfdState>,
    local: IpAddr,
    config: BfdConfig,
}

async fn run(mut wanted: mpsc::Receiver<Wanted>) {
    let (heard, mut datagrams) = mpsc::channel(DATAGRAMS);
    let (sessions, lines) = (Sessions::new(seed()), BTreeMap::new());
    let mut task = Task { sessions, lines, heard, is_open: false };
    loop {
        let due = until(task.sessions.poll_timeout());
        tokio::select! {
            // Time first: a flood of packets is not to keep us from sending ours.
            biased;
            () = due => {
                // Whoever got no time to read has not heard silence: what came meanwhile counts first, and no more
                // than waits. The readers get their turn once the sockets have been looked at.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                for _ in 0..DATAGRAMS {
                    let Ok(datagram) = datagrams.try_recv() else { break };
                    task.take(&datagram);
                }
                task.sessions.timeout(Instant::now());
            }
            wanted = wanted.recv() => match wanted {
                Some(wanted) => task.begin(&wanted),
                None => break,
            },
            Some(datagram) = datagrams.recv() => task.take(&datagram),
        }
        task.obey();
    }
    task.end();
}

impl Task {
    fn begin(&mut self, wanted: &Wanted) {
        if let Err(err) = self.try_begin(wanted) {
            let fault = one_line(&err);
            tracing::error!(op = "watch by BFD", peer = %wanted.peer, error = fault);
            wanted.state.send_modify(|state| state.fault = Some(fault));
        }
    }

    fn try_begin(&mut self, wanted: &Wanted) -> io::Result<()> {
        self.open()?;
        let link = wanted.peer.link.map(|link| socket::index_of(&link)).transpose()?;
        let path = Path { peer: wanted.peer.ip, link: link.and_then(IfIndex::new) };
        let (local, config) = (wanted.local, wanted.config);
        let state = wanted.state.clone();
        match self.lines.get_mut(&path) {
            // The peer's session is new, what is below it goes on.
            Some(line) if (line.local, line.config) == (local, config) => line.state = state,
            _ => {
                self.take_out_of_use(path);
                let to = socket::at(wanted.peer.ip, link, port(config.hops));
                let socket = sender(socket::at(local, link, 0))?;
                let now = Instant::now();
                (self.sessions.add(path, config.hops, Role::Active, config.timing, now))
                    .map_err(io::Error::other)?;
                self.lines.insert(path, Line { socket, to, state, local, config });
            }
        }
        self.show(path, None);
        Ok(())
    }

    /// Opens the ports, all or none; those of a family that the machine does not have stay closed.
    fn open(&mut self) -> io::Result<()> {
        if self.is_open {
            return Ok(());
        }
        let mut open = Vec::new();
        for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            for port in [SINGLE_HOP, MULTI_HOP] {
                match receiver(SocketAddr::new(family, port)) {
                    Ok(socket) => open.push(socket),
                    Err(err) if socket::is_family_missing(&err) && family.is_ipv6() => {}
                    Err(err) => {
                        let kind = err.kind();
                        return Err(io::Error::new(kind, format!("listen on UDP {port}: {err}")));
                    }
                }
            }
        }
        for socket in open {
            tokio::spawn(read(socket, self.heard.clone()));
        }
        self.is_open = true;
        Ok(())
    }

    fn take(&mut self, datagram: &Datagram) {
        let arrived = &datagram.arrival;
        let payload = datagram.octets.get(..arrived.len).unwrap_or(&datagram.octets);
        let arrival = Arrival {
            from: arrived.from.ip(),
            link: arrived.link.and_then(IfIndex::new),
            // Without a word of the kernel it has come from anywhere.
            hop_limit: arrived.hops.unwrap_or(0),
            payload,
        };
        match self.sessions.receive(arrival, Instant::now()) {
            Ok(path) => self.show(path, None),
            Err(refusal) => {
                tracing::trace!(op = "receive BFD", peer = %arrival.from, error = %refusal);
            }
        }
    }

    fn obey(&mut self) {
        while let Some((path, output)) = self.sessions.poll_output() {
            match output {
                Output::Send(packet) => self.send(path, &packet),
                Output::Up => self.show(path, None),
                Output::Down(down) => self.show(path, Some(down)),
            }
        }
    }

    fn send(&mut self, path: Path, packet: &Packet) {
        let Some(line) = self.lines.get(&path) else { return };
        if line.state.is_closed() {
            self.take_out_of_use(path);
            return;
        }
        // What cannot be sent is as good as lost on the way.
        let _ = line.socket.send_to(&packet.encode(), line.to);
    }

    /// Nobody watches any more: that is no failure, and the peer is told so.
    fn take_out_of_use(&mut self, path: Path) {
        let Some(line) = self.lines.remove(&path) else { return };
        self.sessions.handle(path, Input::Disable, Instant::now());
        while let Some((of, output)) = self.sessions.poll_output() {
            match output {
                Output::Send(packet) if of == path => {
                    let _ = line.socket.send_to(&packet.encode(), line.to);
                }
                Output::Send(packet) => self.send(of, &packet),
                Output::Up => self.show(of, None),
                Output::Down(down) => self.show(of, Some(down)),
            }
        }
        self.sessions.remove(path);
    }

    fn show(&self, path: Path, down: Option<Down>) {
        let (Some(line), Some(session)) = (self.lines.get(&path), self.sessions.get(path)) else {
            return;
        };
        let detection = session.detection_time();
        line.state.send_if_modified(|state| {
            let was = (state.state, state.detection);
            (state.state, state.detection) = (session.state(), detection);
            state.downs += u64::from(down.is_some());
            state.last = down.or(state.last);
            was != (state.state, state.detection) || down.is_some()
        });
    }

    fn end(&mut self) {
        let all: Vec<_> = self.lines.keys().copied().collect();
        for path in all {
            self.take_out_of_use(path);
        }
    }
}

/// Hands over what comes; while the task has no room, the socket's buffer is what fills up.
async fn read(socket: tokio::net::UdpSocket, heard: mpsc::Sender<Datagram>) {
    loop {
        let mut octets = [0; MOST_OCTETS];
        let receive = || arrival::receive(socket.as_fd(), &mut octets);
        let arrived = socket.async_io(Interest::READABLE, receive).await;
        // An error is one that a datagram of ours caused on its way.
        let Ok(arrival) = arrived else { continue };
        if heard.send(Datagram { arrival, octets }).await.is_err() {
            return;
        }
    }
}

fn receiver(addr: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
    let socket = socket::bind_udp(addr)?;
    arrival::tell_arrivals(socket.as_fd(), addr.ip())?;
    tokio::net::UdpSocket::from_std(socket)
}

/// Makes the socket that a session sends by: a source port of its own from 49152 on, and all hops left
/// (RFC 5881 §4, §5).
fn sender(mut local: SocketAddr) -> io::Result<UdpSocket> {
    let first = u16::try_from(seed() % u64::from(u16::MAX - FIRST_SOURCE)).unwrap_or(0);
    for n in 0..SOURCES {
        local.set_port(FIRST_SOURCE + (first + n) % (u16::MAX - FIRST_SOURCE));
        match socket::bind_udp(local) {
            Ok(socket) => {
                socket::set_hops_out(socket.as_fd(), local.ip(), u8::MAX)?;
                return Ok(socket);
            }
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => {}
            Err(err) => return Err(err),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

const fn port(hops: Hops) -> u16 {
    match hops {
        Hops::Single => SINGLE_HOP,
        Hops::Multi { .. } => MULTI_HOP,
    }
}

/// What a session that went down says of it.
pub fn describe(down: Down) -> String {
    match down {
        Down::Silent { .. } => "the peer is silent".to_owned(),
        Down::Signaled { diagnostic, .. } if diagnostic == Diagnostic::NONE => {
            "the peer says that it is down".to_owned()
        }
        Down::Signaled { diagnostic, .. } => format!("the peer says: {diagnostic}"),
        Down::PeerDisabled => "the peer took it out of use".to_owned(),
        Down::Disabled => "taken out of use".to_owned(),
    }
}

const SINGLE_HOP: u16 = 3_784;
const MULTI_HOP: u16 = 4_784;
const FIRST_SOURCE: u16 = 49_152;
/// So many source ports are tried.
const SOURCES: u16 = 200;
/// A control packet has 24 octets without authentication, and we refuse one with it.
const MOST_OCTETS: usize = 64;
const WANTED: usize = 1_024;
const DATAGRAMS: usize = 256;
