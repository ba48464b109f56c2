//! Who has the peers: it accepts, finds whose a connection is, and answers. `reload` has how it becomes like another
//! configuration.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use russet_bgp::{
    bestpath::MedRule,
    fsm::StateName,
    reflector::Me,
    rib::{RibConfig, Watch},
    speaker::PeerAddr,
    update::Bounds,
    wire::{Notification, Reason},
};
use russet_net::{IfName, Prefix, Reach};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, mpsc, watch},
};

use super::{
    BgpError, admin,
    admin::Question,
    bfd::Bfd,
    config::{BgpConfig, PeerConfig},
    conn::Alive,
    discovery::{Attended, Heard},
    dump,
    handover::Handover,
    join::{Follower, Guide, Node},
    metrics::Site,
    own,
    peer::{Commons, PeerHandle, Stay},
    reload::log_faults,
    resources::{AsNumbers, Report, Resources, Wished},
    routes::{Life, RibInput, Routes},
    socket,
};
use crate::{config::ConfigFaults, http, one_line, seed, until};

/// What the speaker should be, asked anew by one whose AS numbers stand.
pub type ReadConfig = Box<dyn Fn(Option<AsNumbers>) -> Result<Wished, ConfigFaults> + Send + Sync>;

/// Where other resources come from.
pub type News = watch::Receiver<Arc<Resources>>;

pub struct Manager {
    pub(super) config: BgpConfig,
    pub(super) asns: AsNumbers,
    pub(super) read: ReadConfig,
    /// There may be something else to be.
    news: Option<News>,
    /// What the node that we are part of has.
    here: Option<watch::Receiver<Vec<Reach>>>,
    listeners: Vec<Arc<TcpListener>>,
    web: Option<TcpListener>,
    admin: UnixListener,
    hangup: Signal,
    pub(super) peers: BTreeMap<PeerAddr, Peer>,
    /// Of the peer that was started last.
    life: Life,
    /// The links on which peers are found.
    links: BTreeMap<IfName, Attended>,
    heard: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    pub(super) routes: Routes,
    bfd: Bfd,
    pub(super) strangers: u64,
    pub(super) refused: Option<String>,
    pub(super) reports: Vec<Report>,
    pub(super) handover: Handover,
    /// Until then our OPENs say that we have restarted.
    restarting_until: Option<Instant>,
    alive: Alive,
    /// Closed when nobody has anything left to send.
    all_sent: mpsc::Receiver<std::convert::Infallible>,
}

pub(super) struct Peer {
    pub handle: PeerHandle,
    pub config: PeerConfig,
    pub stay: Stay,
}

impl Manager {
    /// Opens every socket, then starts every peer.
    pub async fn start(
        wished: Wished,
        read: ReadConfig,
        news: Option<News>,
        node: Option<Node>,
    ) -> Result<Self, BgpError> {
        let mut handover = Handover::default();
        handover.wish(&[], &wished, Instant::now());
        let Wished { config, asns, reports, .. } = wished;
        log_faults(&reports, &[]);
        let listeners =
            socket::listen_on(&config.listen).map_err(|(addr, err)| BgpError::Listen(addr, err))?;
        let listeners = listeners.into_iter().map(Arc::new).collect();
        let web = match config.http {
            Some(addr) => Some(http::bind(addr).await.map_err(|err| BgpError::Http(addr, err))?),
            None => None,
        };
        let path = config.admin_socket.clone();
        let admin = bind_admin(&path).map_err(|err| BgpError::Admin(path, err))?;
        let hangup = signal(SignalKind::hangup()).map_err(BgpError::Signal)?;
        let (here, learned) = node.map(|node| (node.here, node.learned)).unzip();
        let follower = learned.map(|learned| {
            Follower::new(learned, config.awaited(), !config.ranges.is_empty(), Instant::now())
        });
        let watch = if follower.is_some() { Watch::On } else { Watch::Off };
        let routes = Routes::start(rib_config(&config, watch), follower);
        let routes = routes.map_err(BgpError::Thread)?;
        let restart_s = config.peers.iter().filter_map(|(_, peer)| peer.session.restart.as_ref());
        let restart_s = restart_s.map(|restart| restart.time_s).max();
        let (alive, all_sent) = mpsc::channel(1);
        let mut manager = Self {
            config,
            asns,
            read,
            news,
            here,
            listeners,
            web,
            admin,
            hangup,
            peers: BTreeMap::new(),
            life: Life::default(),
            links: BTreeMap::new(),
            heard: mpsc::channel(HEARD),
            routes,
            bfd: Bfd::start(),
            strangers: 0,
            refused: None,
            reports,
            handover,
            restarting_until: restart_s.map(|s| Instant::now() + Duration::from_secs(s.into())),
            alive,
            all_sent,
        };
        manager.begin()?;
        Ok(manager)
    }

    fn begin(&mut self) -> Result<(), BgpError> {
        for (prefix, password) in self.config.passwords() {
            self.try_sign(prefix, password.reveal())
                .map_err(|err| BgpError::Signature(prefix.addr(), err))?;
        }
        if let Some(until) = self.restarting_until {
            let mut awaited = self.config.awaited();
            // Before what is here is known, peers are not told that they were told all.
            awaited.extend(self.here.as_ref().map(|_| OURSELVES));
            let until = until.min(Instant::now() + self.config.patience);
            self.routes.tell(RibInput::Do(Box::new(move |speaker| speaker.defer(awaited, until))));
        }
        if self.here.as_ref().is_some_and(|here| !here.borrow().is_empty()) {
            self.announce_here();
        } else {
            self.announce();
        }
        for (addr, config) in self.config.peers.clone() {
            self.start_peer(addr, config, Stay::Configured);
        }
        self.attend_links();
        Ok(())
    }

    /// Announces what is configured, and what is here.
    pub(super) fn announce(&mut self) {
        let own = match &mut self.here {
            Some(here) => own::routes(&self.config, &here.borrow_and_update()),
            None => own::routes(&self.config, &[]),
        };
        self.routes.tell(RibInput::Own(own));
        self.routes.tell(RibInput::Guide(Guide::of(&self.config)));
    }

    /// Announces what is here now, which was waited for at the start.
    fn announce_here(&mut self) {
        self.announce();
        self.routes.tell(RibInput::Do(Box::new(|speaker| speaker.heard(OURSELVES))));
    }

    /// Runs until `shutdown` is ready, then tells the peers.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let (found, mut connections) = mpsc::channel(ACCEPTED);
        let accepting: Vec<_> = (self.listeners.iter())
            .map(|listener| tokio::spawn(accept(Arc::clone(listener), found.clone())))
            .collect();
        let (asked, mut questions) = mpsc::channel(QUESTIONS);
        let places = Arc::new(Semaphore::new(QUESTIONS));
        let web = self.web.take().map(|web| tokio::spawn(http::serve(web, Site(asked.clone()))));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some((stream, from)) = connections.recv() => self.accepted(stream, from),
                Some(heard) = self.heard.1.recv() => self.heard(heard).await,
                () = changed(&mut self.here) => self.announce_here(),
                () = changed(&mut self.news) => self.reload().await,
                () = until(self.handover.poll_timeout()) => self.hand_over().await,
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
        accepting.iter().chain(&web).for_each(tokio::task::JoinHandle::abort);
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
        let Some(addr) = socket::peer_of(from) else { return };
        self.peers.retain(|_, peer| !peer.handle.is_over());
        if let Some(peer) = self.peers.get(&addr) {
            peer.handle.accepted(stream);
            return;
        }
        // One with a password is first heard of, and signed with; what it opens before that is not believed.
        if self.is_awaited_on_link(addr)
            && let Some(config) = self.config.peer(addr).cloned()
            && config.password.is_none()
        {
            self.start_peer(addr, config, Stay::Found).accepted(stream);
            return;
        }
        let range = addr.link.is_none().then(|| self.config.range_of(addr.ip)).flatten();
        let Some(range) = range else {
            self.strangers += 1;
            tracing::debug!(op = "accept", peer = %addr, "nobody configured it");
            return;
        };
        let within = |other: &&PeerAddr| range.prefix.contains(other.ip);
        let there = self.peers.keys().filter(within).count();
        if there >= range.limit {
            self.strangers += 1;
            tracing::warn!(op = "accept", peer = %addr, prefix = %range.prefix, limit = range.limit, "the range is full");
            return;
        }
        let config = range.peer.clone();
        self.start_peer(addr, config, Stay::WhileConnected).accepted(stream);
    }

    pub(super) fn start_peer(
        &mut self,
        addr: PeerAddr,
        config: PeerConfig,
        stay: Stay,
    ) -> &PeerHandle {
        let restarting = self.restarting_until.filter(|until| *until > Instant::now());
        self.life = self.life.next();
        let handle = PeerHandle::start(
            addr,
            self.life,
            config.clone(),
            stay,
            restarting,
            Commons {
                routes: self.routes.clone(),
                bfd: self.bfd.clone(),
                alive: self.alive.clone(),
            },
        );
        let peer = Peer { handle, config, stay };
        &self.peers.entry(addr).insert_entry(peer).into_mut().handle
    }
}

// ---- links without numbers
impl Manager {
    /// Attends the links that are configured, and no others.
    pub(super) fn attend_links(&mut self) {
        let wanted: Vec<_> = self.config.links.iter().map(|(link, _)| *link).collect();
        self.links.retain(|link, _| wanted.contains(link));
        for link in wanted {
            let heard = self.heard.0.clone();
            self.links.entry(link).or_insert_with(|| Attended::start(link, heard));
        }
    }

    /// A router was heard on a link: it is the peer, unless one is whose session stands.
    async fn heard(&mut self, heard: Heard) {
        let addr = PeerAddr { ip: heard.router.into(), link: Some(heard.link) };
        if self.peers.contains_key(&addr) {
            return;
        }
        let Some(config) = self.config.peer(addr).cloned() else { return };
        let found = |(addr, peer): (&PeerAddr, &Peer)| {
            (addr.link == Some(heard.link) && peer.stay == Stay::Found).then_some(*addr)
        };
        if let Some(other) = self.peers.iter().find_map(found) {
            let state = match self.peers.get(&other) {
                Some(peer) => peer.handle.ask().await,
                None => None,
            };
            if state.is_some_and(|state| state.state == StateName::Established) {
                return;
            }
            if let Some(peer) = self.peers.remove(&other) {
                self.routes.tell(RibInput::Forget { peer: other, life: peer.handle.life() });
            }
        }
        tracing::info!(op = "find a peer", peer = %addr.ip, ifname = %heard.link, "a router was heard");
        if let Some(password) = &config.password {
            self.sign(Prefix::host(addr.ip), password.reveal());
        }
        self.start_peer(addr, config, Stay::Found);
    }

    /// Whether the address may be the peer of a link, and nobody is yet.
    fn is_awaited_on_link(&self, addr: PeerAddr) -> bool {
        addr.link.is_some() && !self.peers.keys().any(|other| other.link == addr.link)
    }

    /// Has the listeners take only signed connections of these peers. A password that cannot be set keeps its peer
    /// out, and the log tells why.
    pub(super) fn sign(&self, prefix: Prefix, password: &str) {
        if let Err(err) = self.try_sign(prefix, password) {
            tracing::error!(op = "sign connections", %prefix, error = one_line(&err));
        }
    }

    fn try_sign(&self, prefix: Prefix, password: &str) -> io::Result<()> {
        let same_family = |listener: &&Arc<TcpListener>| {
            listener.local_addr().is_ok_and(|local| local.is_ipv4() == prefix.addr().is_ipv4())
        };
        let mut listeners = self.listeners.iter().filter(same_family);
        listeners.try_for_each(|listener| socket::sign(listener, prefix, password))
    }
}

/// Waits until there is something else; for ever where nobody says anything.
async fn changed<T>(watched: &mut Option<watch::Receiver<T>>) {
    let is_new = match watched {
        // Whoever said it may be stopping; what was said holds.
        Some(there) => there.changed().await.is_ok(),
        None => false,
    };
    if !is_new {
        std::future::pending::<()>().await;
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

fn rib_config(config: &BgpConfig, watch: Watch) -> RibConfig {
    RibConfig {
        me: Me { asn: config.local.asn, id: config.local.id, cluster: config.cluster },
        med: MedRule::SameNeighbor,
        multipath: None,
        watch,
        seed: seed(),
        bounds: Bounds::default(),
    }
}

/// Stands for what is here among those that are waited for at the start.
const OURSELVES: PeerAddr =
    PeerAddr { ip: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), link: None };
const LAST_WORDS: Duration = Duration::from_secs(5);
const ACCEPTED: usize = 128;
const QUESTIONS: usize = 16;
const HEARD: usize = 64;
