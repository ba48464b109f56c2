//! One peer: the task that has its session, its timers and its connections.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use russet_bgp::{
    bfd::Down,
    fsm::{
        ConnId, Direction, DownReason, Input, Message, Negotiated, Output, Received, Session,
        SessionConfig, StateName, Then,
    },
    speaker::{PeerAddr, PeerUp},
    wire::{Family, NextHop, Notification, Reason},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    bfd::{self, Bfd, BfdState},
    config::PeerConfig,
    conn::{Alive, Around, Connection, Traffic, Verdict},
    routes::{Life, RibInput, Routes},
    socket,
};
use crate::until;

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
    /// Other policies.
    Configure(Box<PeerConfig>),
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
    /// As long as the session stands and is to be watched.
    pub bfd: Option<BfdState>,
}

/// What the tasks of all peers have in common.
#[derive(Clone, Debug)]
pub struct Commons {
    pub routes: Routes,
    pub bfd: Bfd,
    pub alive: Alive,
}

/// A peer's task in the hands of the manager. It ends when this is dropped.
#[derive(Debug)]
pub struct PeerHandle {
    life: Life,
    mailbox: mpsc::Sender<PeerInput>,
    task: JoinHandle<()>,
}

/// How long a peer stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// It is configured by its address.
    Configured,
    /// It was found on a link that is configured.
    Found,
    /// It is there as long as its session is wanted by it.
    WhileConnected,
}

impl PeerHandle {
    pub fn start(
        addr: PeerAddr,
        life: Life,
        config: PeerConfig,
        stay: Stay,
        restarting_until: Option<Instant>,
        commons: Commons,
    ) -> Self {
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let seed = crate::seed();
        let task = PeerTask {
            addr,
            life,
            session: Session::new(of_now(&config.session, restarting_until), seed),
            config,
            stay,
            restarting_until,
            commons,
            mailbox: mailbox.clone(),
            connections: BTreeMap::new(),
            dialing: BTreeMap::new(),
            established: None,
            watched: None,
            epoch: seed,
            next_incoming: 0,
            times_up: 0,
            traffic: Arc::default(),
        };
        Self { life, mailbox, task: tokio::spawn(task.run(inbox)) }
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

    /// What is to be named when its routes are to be forgotten.
    pub const fn life(&self) -> Life {
        self.life
    }

    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Gives it a configuration that differs by its policies only.
    pub async fn reconfigure(&self, config: PeerConfig) {
        // A task that is gone is found out soon.
        let _ = self.mailbox.send(PeerInput::Configure(Box::new(config))).await;
    }

    /// Ends the task without a word.
    pub async fn end(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Ends the session with a word, and the task.
    pub async fn close(self, notification: Notification) {
        let input = PeerInput::Close { notification, then: Then::Stop };
        if self.mailbox.send(input).await.is_ok() {
            // The answer comes after what was to be sent is with the writer.
            let _ = timeout(LAST_WORDS, self.ask()).await;
        }
        self.end().await;
    }
}

impl Drop for PeerHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct PeerTask {
    addr: PeerAddr,
    life: Life,
    config: PeerConfig,
    session: Session,
    stay: Stay,
    restarting_until: Option<Instant>,
    commons: Commons,
    mailbox: mpsc::Sender<PeerInput>,
    connections: BTreeMap<ConnId, (Connection, Arc<AtomicU64>)>,
    dialing: BTreeMap<ConnId, JoinHandle<()>>,
    established: Option<ConnId>,
    /// What BFD says of the way to the peer while the session stands, and how often it had failed.
    watched: Option<(watch::Receiver<BfdState>, u64)>,
    epoch: u64,
    next_incoming: u32,
    times_up: u64,
    traffic: Arc<Traffic>,
}

impl PeerTask {
    async fn run(mut self, mut inbox: mpsc::Receiver<PeerInput>) {
        self.feed(Input::Start);
        loop {
            let due = until(self.session.poll_timeout());
            tokio::select! {
                biased;
                () = due => self.feed(Input::Timeout),
                Some(input) = inbox.recv() => self.take(input),
                () = news(&mut self.watched) => self.look_at_bfd(),
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
            PeerInput::Configure(config) => self.reconfigure(*config),
            PeerInput::Ask(answer) => _ = answer.send(self.state()),
        }
    }

    fn reconfigure(&mut self, config: PeerConfig) {
        self.config = config;
        if self.established.is_some() {
            let settings = Box::new(self.config.settings.clone());
            let (peer, epoch) = (self.addr, self.epoch);
            self.commons.routes.tell(RibInput::Settings { peer, epoch, settings });
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
            routes: self.commons.routes.clone(),
            traffic: Arc::clone(&self.traffic),
            epoch: Arc::clone(&epoch),
            alive: self.commons.alive.clone(),
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
        let peer = self.addr;
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
        self.watch(connection.local);
        let Some((connection, _)) = self.connections.get(&conn) else { return };
        let up = PeerUp {
            negotiated,
            our_asn: self.config.session.local.asn,
            settings: self.config.settings.clone(),
            our_next_hop,
        };
        self.commons.routes.tell(RibInput::Up {
            peer: self.addr,
            life: self.life,
            epoch: self.epoch,
            up: Box::new(up),
            writer: connection.routes.clone(),
            mailbox: self.mailbox.clone(),
        });
    }

    fn down(&mut self, reason: DownReason) {
        self.established = None;
        self.watched = None;
        tracing::info!(op = "session down", peer = %self.addr, reason = %reason);
        self.commons.routes.tell(RibInput::Down { peer: self.addr, epoch: self.epoch, reason });
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
            bfd: self.watched.as_ref().map(|(state, _)| state.borrow().clone()),
        }
    }
}

// ---- BFD
impl PeerTask {
    /// Has the way to the peer watched from now on (RFC 5882 §4).
    fn watch(&mut self, local: IpAddr) {
        self.watched = self.config.bfd.map(|config| {
            let mut state = self.commons.bfd.watch(self.addr, local, config);
            let downs = state.borrow_and_update().downs;
            (state, downs)
        });
    }

    /// Ends the session when the way to the peer has failed. A peer whose operator took BFD out of use is there.
    fn look_at_bfd(&mut self) {
        let Some((state, downs)) = &mut self.watched else { return };
        let state = state.borrow_and_update().clone();
        if state.downs == std::mem::replace(downs, state.downs) {
            return;
        }
        let Some(down) = state.last else { return };
        tracing::info!(op = "watch by BFD", peer = %self.addr, reason = bfd::describe(down), "down");
        let notification = Notification::new(Reason::BFD_DOWN);
        let notification = match down {
            Down::PeerDisabled | Down::Disabled => return,
            // Its forwarding has failed, and not only its control plane: its routes lead nowhere (RFC 5882 §4.3).
            Down::Silent { independent: true } | Down::Signaled { independent: true, .. } => {
                notification.hard()
            }
            Down::Silent { .. } | Down::Signaled { .. } => notification,
        };
        self.feed(Input::Close { notification, then: Then::Retry });
    }
}

/// Waits until BFD has something new.
async fn news(watched: &mut Option<(watch::Receiver<BfdState>, u64)>) {
    if let Some((state, _)) = watched
        && state.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

impl Drop for PeerTask {
    fn drop(&mut self) {
        for dialing in self.dialing.values() {
            dialing.abort();
        }
        if self.established.take().is_some() {
            let reason = DownReason::Sent(Notification::new(Reason::DECONFIGURED));
            self.commons.routes.tell(RibInput::Down { peer: self.addr, epoch: self.epoch, reason });
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

const MAILBOX: usize = 64;
const LAST_WORDS: Duration = Duration::from_secs(5);
