//! One peer: the task that has its session, its timers and its connections.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use russet_bgp::{
    fsm::{
        ConnId, Direction, DownReason, Input, Message, Negotiated, Output, Received, Session,
        SessionConfig, StateName, Then,
    },
    speaker::PeerUp,
    wire::{Family, NextHop, Notification, Reason},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep_until, timeout},
};

use super::{
    config::PeerConfig,
    conn::{Alive, Around, Connection, Traffic, Verdict},
    routes::{RibInput, Routes},
    socket,
};

pub enum PeerInput {
    Accepted(TcpStream),
    Dialed {
        conn: ConnId,
        stream: io::Result<TcpStream>,
    },
    Message {
        conn: ConnId,
        message: Received,
        answer: oneshot::Sender<Verdict>,
    },
    /// Messages came that the session need not see.
    Heard(ConnId),
    Closed(ConnId),
    Close {
        notification: Notification,
        then: Then,
    },
    Ask(oneshot::Sender<PeerState>),
}

/// The session as it is, for `status`.
#[derive(Clone, Debug)]
pub struct PeerState {
    pub config: PeerConfig,
    pub state: StateName,
    pub negotiated: Option<Negotiated>,
    pub direction: Option<Direction>,
    pub up: Option<Duration>,
    pub last: Option<String>,
    pub times_up: u64,
    pub traffic: Arc<Traffic>,
}

/// A peer's task in the hands of the manager. It ends when this is dropped.
#[derive(Debug)]
pub struct PeerHandle {
    mailbox: mpsc::Sender<PeerInput>,
    task: JoinHandle<()>,
}

/// How long a peer stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// It is configured by its address.
    Configured,
    /// It is there as long as its session is wanted by it.
    WhileConnected,
}

impl PeerHandle {
    pub fn start(
        addr: IpAddr,
        config: PeerConfig,
        stay: Stay,
        restarting_until: Option<Instant>,
        routes: Routes,
        alive: Alive,
    ) -> Self {
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let seed = seed_of(addr);
        let task = PeerTask {
            addr,
            session: Session::new(of_now(&config.session, restarting_until), seed),
            config,
            stay,
            restarting_until,
            routes,
            alive,
            mailbox: mailbox.clone(),
            connections: BTreeMap::new(),
            dialing: BTreeMap::new(),
            established: None,
            epoch: seed,
            next_incoming: 0,
            times_up: 0,
            traffic: Arc::default(),
        };
        Self { mailbox, task: tokio::spawn(task.run(inbox)) }
    }

    /// Hands a connection over; it is closed when there is no room for it.
    pub fn accepted(&self, stream: TcpStream) {
        let _ = self.mailbox.try_send(PeerInput::Accepted(stream));
    }

    pub async fn ask(&self) -> Option<PeerState> {
        let (answer, answered) = oneshot::channel();
        self.mailbox.send(PeerInput::Ask(answer)).await.ok()?;
        answered.await.ok()
    }

    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends the session with a word, and the task.
    pub async fn close(mut self, notification: Notification) {
        let input = PeerInput::Close { notification, then: Then::Stop };
        if self.mailbox.send(input).await.is_ok() {
            // The answer comes after what was to be sent is with the writer.
            let _ = timeout(LAST_WORDS, self.ask()).await;
        }
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for PeerHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct PeerTask {
    addr: IpAddr,
    config: PeerConfig,
    session: Session,
    stay: Stay,
    restarting_until: Option<Instant>,
    routes: Routes,
    alive: Alive,
    mailbox: mpsc::Sender<PeerInput>,
    connections: BTreeMap<ConnId, (Connection, Arc<AtomicU64>)>,
    dialing: BTreeMap<ConnId, JoinHandle<()>>,
    established: Option<ConnId>,
    epoch: u64,
    next_incoming: u32,
    times_up: u64,
    traffic: Arc<Traffic>,
}

impl PeerTask {
    async fn run(mut self, mut inbox: mpsc::Receiver<PeerInput>) {
        self.feed(Input::Start);
        loop {
            let timeout = self.session.poll_timeout();
            let due = async move {
                match timeout {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = due => self.feed(Input::Timeout),
                Some(input) = inbox.recv() => self.take(input),
            }
            if self.stay == Stay::WhileConnected && self.connections.is_empty() {
                return;
            }
        }
    }

    fn take(&mut self, input: PeerInput) {
        match input {
            PeerInput::Accepted(stream) => self.accept(stream),
            PeerInput::Dialed { conn, stream } => self.dialed(conn, stream),
            PeerInput::Message { conn, message, answer } => {
                if let Received::Notification(notification) = &message {
                    tracing::info!(op = "receive notification", peer = %self.addr, error = %notification);
                }
                self.feed(Input::Received { conn, message });
                // A reader that is gone needs no answer.
                let _ = answer.send(self.verdict(conn));
            }
            PeerInput::Heard(conn) => {
                self.feed(Input::Received { conn, message: Received::Keepalive });
            }
            PeerInput::Closed(conn) => {
                self.connections.remove(&conn);
                self.feed(Input::Closed(conn));
            }
            PeerInput::Close { notification, then } => {
                self.feed(Input::Close { notification, then });
            }
            PeerInput::Ask(answer) => _ = answer.send(self.state()),
        }
    }

    fn accept(&mut self, stream: TcpStream) {
        let conn = ConnId { direction: Direction::Incoming, number: self.next_incoming };
        self.next_incoming = self.next_incoming.wrapping_add(1);
        if let Err(error) = socket::prepare(&stream, self.addr, &self.config) {
            tracing::warn!(op = "accept", peer = %self.addr, %error);
            return;
        }
        if self.connect(conn, stream) {
            self.feed(Input::Accepted(conn));
        }
    }

    fn dialed(&mut self, conn: ConnId, stream: io::Result<TcpStream>) {
        // One that was abandoned is not waited for any more.
        if self.dialing.remove(&conn).is_none() {
            return;
        }
        let connected = match stream {
            Ok(stream) => self.connect(conn, stream),
            Err(error) => {
                tracing::debug!(op = "connect", peer = %self.addr, %error);
                false
            }
        };
        self.feed(if connected { Input::Dialed(conn) } else { Input::DialFailed(conn) });
    }

    fn connect(&mut self, conn: ConnId, stream: TcpStream) -> bool {
        let epoch = Arc::new(AtomicU64::new(0));
        let around = Around {
            peer: self.addr,
            conn,
            mailbox: self.mailbox.clone(),
            routes: self.routes.clone(),
            traffic: Arc::clone(&self.traffic),
            epoch: Arc::clone(&epoch),
            alive: self.alive.clone(),
        };
        match Connection::start(stream, around) {
            Ok(connection) => {
                self.connections.insert(conn, (connection, epoch));
                true
            }
            // It broke before it was looked at.
            Err(_) => false,
        }
    }

    fn feed(&mut self, input: Input) {
        let now = Instant::now();
        if self.restarting_until.is_some_and(|until| until <= now) {
            self.restarting_until = None;
            self.session.set_config(of_now(&self.config.session, None));
        }
        self.session.handle(input, now);
        while let Some(output) = self.session.poll_output() {
            self.obey(output);
        }
    }

    fn obey(&mut self, output: Output) {
        match output {
            Output::Dial(conn) => self.dial(conn),
            Output::Abandon(conn) => {
                if let Some(dialing) = self.dialing.remove(&conn) {
                    dialing.abort();
                }
            }
            Output::Send { conn, message } => self.send(conn, &message),
            Output::Close(conn) => _ = self.connections.remove(&conn),
            Output::Up { conn, negotiated } => self.up(conn, *negotiated),
            Output::Down(reason) => self.down(reason),
        }
    }

    fn dial(&mut self, conn: ConnId) {
        let peer = SocketAddr::new(self.addr, self.config.port.get());
        let (config, mailbox) = (self.config.clone(), self.mailbox.clone());
        let task = tokio::spawn(async move {
            let stream = socket::dial(peer, &config).await;
            // A task that is gone wants it no more.
            let _ = mailbox.send(PeerInput::Dialed { conn, stream }).await;
        });
        self.dialing.insert(conn, task);
    }

    fn send(&mut self, conn: ConnId, message: &Message) {
        let Some((connection, _)) = self.connections.get(&conn) else { return };
        let mut octets = Vec::new();
        message.write(&mut octets);
        if connection.control.try_send(octets).is_err() {
            // Its writer has ended, or stands still with a queue of keepalives: there is no way to the peer.
            let _ = self.mailbox.try_send(PeerInput::Closed(conn));
        }
        if let Message::Notification(notification) = message
            && notification.reason != Reason::COLLISION
        {
            tracing::info!(op = "send notification", peer = %self.addr, error = %notification);
        }
    }

    fn up(&mut self, conn: ConnId, negotiated: Negotiated) {
        let Some((connection, epoch)) = self.connections.get(&conn) else { return };
        self.epoch = self.epoch.wrapping_add(1);
        self.times_up += 1;
        epoch.store(self.epoch, Ordering::Relaxed);
        self.established = Some(conn);
        tracing::info!(
            op = "session up", peer = %self.addr, asn = %negotiated.peer_asn, id = %negotiated.peer_id,
            families = %negotiated.terms.families, "established"
        );
        let our_next_hop = self.our_next_hop(connection.local, &negotiated);
        let up = PeerUp { negotiated, settings: self.config.settings.clone(), our_next_hop };
        self.routes.tell(RibInput::Up {
            peer: self.addr,
            epoch: self.epoch,
            up: Box::new(up),
            writer: connection.routes.clone(),
            mailbox: self.mailbox.clone(),
        });
    }

    fn down(&mut self, reason: DownReason) {
        self.established = None;
        tracing::info!(op = "session down", peer = %self.addr, reason = %reason);
        self.routes.tell(RibInput::Down { peer: self.addr, epoch: self.epoch, reason });
    }

    fn verdict(&self, conn: ConnId) -> Verdict {
        if !self.connections.contains_key(&conn) {
            return Verdict::Stop;
        }
        match self.session.negotiated().filter(|_| self.established == Some(conn)) {
            Some(negotiated) => Verdict::Up { limit: negotiated.terms.limit, epoch: self.epoch },
            None => Verdict::Go,
        }
    }

    /// Our address for each family: that of the connection where it is of the right kind, else what is
    /// configured.
    fn our_next_hop(&self, local: IpAddr, negotiated: &Negotiated) -> [Option<NextHop>; 3] {
        let [v4, v6] = self.config.next_hops;
        let extended = negotiated.terms.extended_next_hop.contains(Family::Ipv4Unicast);
        let local_if = |right: bool| right.then(|| NextHop::from(local));
        [
            v4.or_else(|| local_if(local.is_ipv4() || extended)),
            v6.or_else(|| local_if(local.is_ipv6())),
            Some(local.into()),
        ]
    }

    fn state(&self) -> PeerState {
        PeerState {
            config: self.config.clone(),
            state: self.session.state(),
            negotiated: self.session.negotiated().cloned(),
            direction: self.established.map(|conn| conn.direction),
            up: self.session.since().map(|since| since.elapsed()),
            last: self.session.last().map(ToString::to_string),
            times_up: self.times_up,
            traffic: Arc::clone(&self.traffic),
        }
    }
}

impl Drop for PeerTask {
    fn drop(&mut self) {
        for dialing in self.dialing.values() {
            dialing.abort();
        }
        if self.established.take().is_some() {
            let reason = DownReason::Sent(Notification::new(Reason::DECONFIGURED));
            self.routes.tell(RibInput::Down { peer: self.addr, epoch: self.epoch, reason });
        }
    }
}

/// While we start anew, our OPEN says so (RFC 4724 §4.1).
fn of_now(config: &SessionConfig, restarting_until: Option<Instant>) -> SessionConfig {
    let mut config = config.clone();
    if let Some(restart) = &mut config.restart {
        restart.flags.restarted = restarting_until.is_some();
    }
    config
}

/// Differs from peer to peer and from start to start.
fn seed_of(addr: IpAddr) -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(addr)
}

const MAILBOX: usize = 64;
const LAST_WORDS: Duration = Duration::from_secs(5);
