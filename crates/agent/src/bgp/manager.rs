//! Who has the peers: it accepts, finds whose a connection is, reads the configuration again, and answers.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use russet_bgp::{
    bestpath::MedRule,
    reflector::Me,
    rib::{RibConfig, Watch},
    update::Bounds,
    wire::{Notification, Reason},
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, mpsc},
};

use super::{
    BgpError, admin,
    admin::Question,
    config::{BgpConfig, PeerConfig},
    conn::Alive,
    dump,
    peer::{PeerHandle, Stay},
    routes::{RibInput, Routes},
    socket,
};
use crate::{config::ConfigFaults, one_line};

pub type ReadConfig = Box<dyn Fn() -> Result<BgpConfig, ConfigFaults> + Send>;

pub struct Manager {
    pub(super) config: BgpConfig,
    read: ReadConfig,
    listeners: Vec<Arc<TcpListener>>,
    admin: UnixListener,
    hangup: Signal,
    pub(super) peers: BTreeMap<IpAddr, Peer>,
    pub(super) routes: Routes,
    pub(super) strangers: u64,
    pub(super) refused: Option<String>,
    /// Until then our OPENs say that we have restarted.
    restarting_until: Option<Instant>,
    alive: Alive,
    /// Closed when nobody has anything left to send.
    all_sent: mpsc::Receiver<std::convert::Infallible>,
}

pub(super) struct Peer {
    pub handle: PeerHandle,
    config: PeerConfig,
    stay: Stay,
}

impl Manager {
    /// Opens every socket, then starts every peer.
    pub fn start(config: BgpConfig, read: ReadConfig) -> Result<Self, BgpError> {
        let listeners: Vec<_> = (config.listen.iter())
            .map(|addr| socket::listen(*addr).map(Arc::new).map_err(|e| BgpError::Listen(*addr, e)))
            .collect::<Result<_, _>>()?;
        let path = config.admin_socket.clone();
        let admin = bind_admin(&path).map_err(|err| BgpError::Admin(path, err))?;
        let hangup = signal(SignalKind::hangup()).map_err(BgpError::Signal)?;
        let routes = Routes::start(rib_config(&config)).map_err(BgpError::Thread)?;
        let restart_s = config.peers.iter().filter_map(|(_, peer)| peer.session.restart.as_ref());
        let restart_s = restart_s.map(|restart| restart.time_s).max();
        let (alive, all_sent) = mpsc::channel(1);
        let mut manager = Self {
            config,
            read,
            listeners,
            admin,
            hangup,
            peers: BTreeMap::new(),
            routes,
            strangers: 0,
            refused: None,
            restarting_until: restart_s.map(|s| Instant::now() + Duration::from_secs(s.into())),
            alive,
            all_sent,
        };
        manager.begin()?;
        Ok(manager)
    }

    fn begin(&mut self) -> Result<(), BgpError> {
        for (prefix, password) in self.config.passwords() {
            let same_family = |listener: &&Arc<TcpListener>| {
                listener.local_addr().is_ok_and(|local| local.is_ipv4() == prefix.addr().is_ipv4())
            };
            for listener in self.listeners.iter().filter(same_family) {
                socket::sign(listener, prefix, password.reveal())
                    .map_err(|err| BgpError::Signature(prefix.addr(), err))?;
            }
        }
        if let Some(until) = self.restarting_until {
            let awaited = self.config.peers.iter().map(|(addr, _)| *addr).collect();
            self.routes.tell(RibInput::Do(Box::new(move |speaker| speaker.defer(awaited, until))));
        }
        self.routes.tell(RibInput::Own(self.config.routes.clone()));
        for (addr, config) in self.config.peers.clone() {
            self.start_peer(addr, config, Stay::Configured);
        }
        Ok(())
    }

    /// Runs until `shutdown` is ready, then tells the peers.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let (found, mut connections) = mpsc::channel(ACCEPTED);
        let accepting: Vec<_> = (self.listeners.iter())
            .map(|listener| tokio::spawn(accept(Arc::clone(listener), found.clone())))
            .collect();
        let (asked, mut questions) = mpsc::channel(QUESTIONS);
        let places = Arc::new(Semaphore::new(QUESTIONS));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some((stream, from)) = connections.recv() => self.accepted(stream, from),
                Ok((stream, _)) = self.admin.accept() => {
                    // One too many is closed, and may come again.
                    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                        tokio::spawn(admin::converse(stream, asked.clone(), place));
                    }
                }
                Some(question) = questions.recv() => self.answer(question).await,
                Some(()) = self.hangup.recv() => self.reload().await,
            }
        }
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        self.stop().await;
    }

    /// Ends every session. With graceful restart a word would make peers forget what they are to keep.
    async fn stop(self) {
        let Self { peers, alive, mut all_sent, .. } = self;
        let (keeps, told): (Vec<_>, Vec<_>) =
            peers.into_values().partition(|peer| peer.config.session.restart.is_some());
        let all: Vec<_> = told
            .into_iter()
            .map(|peer| tokio::spawn(peer.handle.close(Notification::new(Reason::SHUTDOWN))))
            .collect();
        for one in all {
            // A task that panicked has closed its connection, too.
            let _ = one.await;
        }
        drop((keeps, alive));
        // A peer that reads nothing does not keep us.
        let _ = tokio::time::timeout(LAST_WORDS, all_sent.recv()).await;
    }

    async fn answer(&mut self, question: Question) {
        let answer = match question.ask {
            russet_api::bgp::Ask::Reload => {
                self.reload().await;
                match &self.refused {
                    Some(faults) => russet_api::bgp::Answer::Error(faults.clone()),
                    None => russet_api::bgp::Answer::Done,
                }
            }
            russet_api::bgp::Ask::Dump { path } => {
                // It takes a while, and nobody is to wait for it.
                let (routes, id) = (self.routes.clone(), self.config.local.id);
                tokio::spawn(async move {
                    let _ = question.answer.send(dump::dump(&routes, id, path.into()).await);
                });
                return;
            }
            ask => self.show(ask).await,
        };
        // Who asked may have gone away.
        let _ = question.answer.send(answer);
    }
}

// ---- connections
impl Manager {
    fn accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        let addr = from.ip().to_canonical();
        self.peers.retain(|_, peer| !peer.handle.is_over());
        if let Some(peer) = self.peers.get(&addr) {
            peer.handle.accepted(stream);
            return;
        }
        let Some(range) = self.config.range_of(addr) else {
            self.strangers += 1;
            tracing::debug!(op = "accept", peer = %addr, "nobody configured it");
            return;
        };
        let within = |other: &&IpAddr| range.prefix.contains(**other);
        let there = self.peers.keys().filter(within).count();
        if there >= range.limit {
            self.strangers += 1;
            tracing::warn!(op = "accept", peer = %addr, prefix = %range.prefix, limit = range.limit, "the range is full");
            return;
        }
        let config = range.peer.clone();
        self.start_peer(addr, config, Stay::WhileConnected);
        if let Some(peer) = self.peers.get(&addr) {
            peer.handle.accepted(stream);
        }
    }

    fn start_peer(&mut self, addr: IpAddr, config: PeerConfig, stay: Stay) {
        let restarting = self.restarting_until.filter(|until| *until > Instant::now());
        let handle = PeerHandle::start(
            addr,
            config.clone(),
            stay,
            restarting,
            self.routes.clone(),
            self.alive.clone(),
        );
        self.peers.insert(addr, Peer { handle, config, stay });
    }
}

// ---- configuration
impl Manager {
    /// Reads the configuration again. What did not change is left alone; one that is refused changes nothing.
    async fn reload(&mut self) {
        match (self.read)().and_then(|config| self.check_unchanged(config)) {
            Ok(config) => {
                self.refused = None;
                self.become_like(config).await;
                tracing::info!(op = "reload", "the configuration is read again");
            }
            Err(faults) => {
                tracing::error!(op = "reload", error = %faults);
                self.refused = Some(faults.to_string());
            }
        }
    }

    fn check_unchanged(&self, config: BgpConfig) -> Result<BgpConfig, ConfigFaults> {
        let ours = &self.config;
        let same = [
            ("asn or router-id", config.local == ours.local),
            ("cluster-id", config.cluster == ours.cluster),
            ("listen", config.listen == ours.listen),
            ("admin-socket", config.admin_socket == ours.admin_socket),
        ];
        let changed: Vec<_> = (same.into_iter())
            .filter(|(_, same)| !same)
            .map(|(key, _)| format!("{key}: it cannot change while the speaker runs"))
            .collect();
        if changed.is_empty() { Ok(config) } else { Err(ConfigFaults(changed)) }
    }

    async fn become_like(&mut self, config: BgpConfig) {
        self.sign_like(&config);
        let wanted = |addr: IpAddr, peer: &Peer| match peer.stay {
            Stay::Configured => config.peer(addr).cloned(),
            Stay::WhileConnected => config
                .range_of(addr)
                .map(|range| range.peer.clone())
                .filter(|_| config.peer(addr).is_none()),
        };
        let changed: Vec<_> = (self.peers.iter())
            .filter(|(addr, peer)| wanted(**addr, peer).as_ref() != Some(&peer.config))
            .map(|(addr, peer)| (*addr, wanted(*addr, peer).is_some()))
            .collect();
        for (addr, stays) in changed {
            let Some(peer) = self.peers.remove(&addr) else { continue };
            let reason = if stays { Reason::CONFIGURATION_CHANGE } else { Reason::DECONFIGURED };
            peer.handle.close(Notification::new(reason)).await;
            if !stays {
                self.routes.tell(RibInput::Forget(addr));
            }
        }
        for (addr, peer) in &config.peers {
            if !self.peers.contains_key(addr) {
                self.start_peer(*addr, peer.clone(), Stay::Configured);
            }
        }
        self.routes.tell(RibInput::Own(config.routes.clone()));
        self.config = config;
    }

    /// Gives the listeners the passwords of a new configuration. One that cannot be set keeps its peer out, and the
    /// log tells why.
    fn sign_like(&self, config: &BgpConfig) {
        let (before, after) = (self.config.passwords(), config.passwords());
        let gone =
            before.iter().filter(|(prefix, _)| !after.iter().any(|(other, _)| other == prefix));
        let gone = gone.map(|(prefix, _)| (*prefix, ""));
        let new = after.iter().filter(|pair| !before.contains(pair));
        for (prefix, password) in gone.chain(new.map(|(prefix, new)| (*prefix, new.reveal()))) {
            let same_family = |listener: &&Arc<TcpListener>| {
                listener.local_addr().is_ok_and(|local| local.is_ipv4() == prefix.addr().is_ipv4())
            };
            for listener in self.listeners.iter().filter(same_family) {
                if let Err(err) = socket::sign(listener, prefix, password) {
                    tracing::error!(op = "sign connections", %prefix, error = one_line(&err));
                }
            }
        }
    }
}

/// Takes connections as fast as they come; what they are is the manager's to see.
async fn accept(listener: Arc<TcpListener>, found: mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                if found.send(connection).await.is_err() {
                    return;
                }
            }
            // Out of descriptors, most likely: others close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn bind_admin(path: &std::path::Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    crate::admin::bind(path)
}

fn rib_config(config: &BgpConfig) -> RibConfig {
    use std::hash::{BuildHasher, RandomState};
    RibConfig {
        me: Me { asn: config.local.asn, id: config.local.id, cluster: config.cluster },
        med: MedRule::SameNeighbor,
        multipath: None,
        watch: Watch::Off,
        seed: RandomState::new().hash_one(config.local.id.get()),
        bounds: Bounds::default(),
    }
}

const LAST_WORDS: Duration = Duration::from_secs(5);
const ACCEPTED: usize = 128;
const QUESTIONS: usize = 16;
