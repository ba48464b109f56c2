//! The thread that owns the routes.
//!
//! It takes what there is, up to 64 kB or 5 ms of it, encodes what changed once for all, and hands each peer's writer
//! as much as it has room for. Its queue has no bound of its own, because everything that enters it has one:
//! octets of peers need a permit of a common 4 MiB, each writer asks for more at most once at a time, and a
//! session begins and ends as often as its back-off lets it.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use russet_bgp::{
    fsm::{DownReason, Then},
    rib::RibConfig,
    speaker::{PeerAddr, PeerSettings, PeerUp, Speaker, SpeakerOutput},
    wire::{Nlri, Notification},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout_at,
};

use super::{
    config::OwnRoute,
    join::{Follower, Guide},
    peer::PeerInput,
};

/// Where the routes are told and asked things.
#[derive(Clone, Debug)]
pub struct Routes {
    inputs: mpsc::UnboundedSender<RibInput>,
    room: Arc<Semaphore>,
}

pub enum RibInput {
    Up {
        peer: PeerAddr,
        life: Life,
        epoch: u64,
        up: Box<PeerUp>,
        writer: mpsc::Sender<Arc<[u8]>>,
        mailbox: mpsc::Sender<PeerInput>,
    },
    Down {
        peer: PeerAddr,
        epoch: u64,
        reason: DownReason,
    },
    /// Whole messages of a peer.
    Octets {
        peer: PeerAddr,
        epoch: u64,
        octets: Vec<u8>,
        room: OwnedSemaphorePermit,
    },
    /// Other policies for a session that stands.
    Settings {
        peer: PeerAddr,
        epoch: u64,
        settings: Box<PeerSettings>,
    },
    /// A writer has got rid of what it had.
    Room {
        peer: PeerAddr,
        epoch: u64,
    },
    /// A peer is not wanted any more. One that has begun its session since is another, and stays.
    Forget {
        peer: PeerAddr,
        life: Life,
    },
    /// Routes of our own: all of them.
    Own(Vec<OwnRoute>),
    /// What the node knows better.
    Guide(Guide),
    /// A question, or a rare command.
    Do(Box<dyn FnOnce(&mut Speaker) + Send>),
}

/// Tells one task of a peer from those before and after it at the same address; the later is the greater. A task that
/// ends takes a moment, and another may have begun by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life(u64);

impl Life {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The routes' side is gone: the thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Routes {
    /// Starts the thread. It ends when the last handle is dropped.
    pub fn start(config: RibConfig, follower: Option<Follower>) -> io::Result<Self> {
        let (inputs, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let mut worker = Worker::new(config, inbox, follower);
        thread::Builder::new()
            .name("bgp-routes".to_owned())
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok(Self { inputs, room: Arc::new(Semaphore::new(ROOM)) })
    }

    pub fn tell(&self, input: RibInput) {
        // A thread that ended is told by the next question.
        let _ = self.inputs.send(input);
    }

    /// Waits for room for so many octets. Fair: who waits longest is first.
    pub async fn room_for(&self, octets: usize) -> Option<OwnedSemaphorePermit> {
        let many = u32::try_from(octets.clamp(LEAST_ROOM, ROOM)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(many).await.ok()
    }

    /// Asks something of the routes as they are when it is its turn.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Speaker) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        self.tell(RibInput::Do(Box::new(move |speaker| {
            // Who asked may have gone away.
            let _ = answer.send(question(speaker));
        })));
        answered.await.map_err(|_| Gone)
    }
}

struct Worker {
    speaker: Speaker,
    inbox: mpsc::UnboundedReceiver<RibInput>,
    lines: BTreeMap<PeerAddr, Line>,
    /// Whose routes the speaker has of each peer that it has any of.
    lives: BTreeMap<PeerAddr, Life>,
    own: Vec<OwnRoute>,
    /// What a peer's task had no room for.
    unsaid: Vec<(mpsc::Sender<PeerInput>, PeerInput)>,
    /// The node that the speaker is part of, if it is.
    follower: Option<Follower>,
}

/// The way to a peer whose session stands.
struct Line {
    epoch: u64,
    writer: mpsc::Sender<Arc<[u8]>>,
    mailbox: mpsc::Sender<PeerInput>,
}

impl Worker {
    fn new(
        config: RibConfig,
        inbox: mpsc::UnboundedReceiver<RibInput>,
        follower: Option<Follower>,
    ) -> Self {
        Self {
            speaker: Speaker::new(config),
            inbox,
            lines: BTreeMap::new(),
            lives: BTreeMap::new(),
            own: Vec::new(),
            unsaid: Vec::new(),
            follower,
        }
    }

    async fn run(&mut self) {
        while let Some(first) = self.wait().await {
            let mut budget = Budget::new();
            let mut next = first;
            while let Some(input) = next {
                budget.spend(&input);
                self.take(input);
                next = if budget.is_spent() { None } else { self.inbox.try_recv().ok() };
            }
            self.speaker.timeout(Instant::now());
            self.speaker.flush();
            if let Some(follower) = &mut self.follower {
                follower.follow(&mut self.speaker, Instant::now());
            }
            self.obey();
            // Who has been told all costs next to nothing here.
            self.fill_all();
            // What holds a line may have told it something, too.
            tokio::task::yield_now().await;
        }
    }

    /// Waits for an input, or until something is due; `None` at the end.
    #[allow(clippy::option_option)]
    async fn wait(&mut self) -> Option<Option<RibInput>> {
        let again = (!self.unsaid.is_empty()).then(|| Instant::now() + SAY_AGAIN);
        let follow = self.follower.as_ref().and_then(|follower| follower.due(Instant::now()));
        let due = self.speaker.poll_timeout().into_iter().chain(again).chain(follow).min();
        let Some(due) = due else { return self.inbox.recv().await.map(Some) };
        match timeout_at(due.into(), self.inbox.recv()).await {
            Ok(input) => input.map(Some),
            Err(_) => Some(None),
        }
    }

    fn take(&mut self, input: RibInput) {
        match input {
            RibInput::Up { peer, life, epoch, up, writer, mailbox } => {
                // One that is about to end is told so; another has its place.
                if !self.is_of_later(peer, life) {
                    self.speaker.up(peer, *up, Instant::now());
                    self.lives.insert(peer, life);
                    self.lines.insert(peer, Line { epoch, writer, mailbox });
                }
            }
            RibInput::Down { peer, epoch, reason } => {
                if self.is_current(peer, epoch) {
                    self.lines.remove(&peer);
                    self.speaker.down(peer, &reason, Instant::now());
                    self.note_if_gone(peer);
                }
            }
            RibInput::Octets { peer, epoch, octets, room } => {
                if self.is_current(peer, epoch) {
                    self.speaker.receive(peer, &octets);
                }
                drop(room);
            }
            RibInput::Settings { peer, epoch, settings } => {
                if self.is_current(peer, epoch) {
                    self.speaker.set_settings(peer, *settings);
                }
            }
            RibInput::Room { peer, epoch } => {
                if self.is_current(peer, epoch) {
                    self.fill(peer);
                }
            }
            RibInput::Forget { peer, life } => {
                if !self.is_of_later(peer, life) {
                    self.lines.remove(&peer);
                    self.speaker.forget(peer);
                    self.note_if_gone(peer);
                }
            }
            RibInput::Own(routes) => self.set_own(routes),
            RibInput::Guide(guide) => {
                if let Some(follower) = &mut self.follower {
                    follower.guide(&self.speaker, guide);
                }
            }
            RibInput::Do(question) => question(&mut self.speaker),
        }
    }

    /// Whether what is there of a peer is of a later life.
    fn is_of_later(&self, peer: PeerAddr, life: Life) -> bool {
        self.lives.get(&peer).is_some_and(|there| *there > life)
    }

    fn note_if_gone(&mut self, peer: PeerAddr) {
        if self.speaker.source_of(peer).is_none() {
            self.lives.remove(&peer);
        }
    }

    fn is_current(&self, peer: PeerAddr, epoch: u64) -> bool {
        self.lines.get(&peer).is_some_and(|line| line.epoch == epoch)
    }

    fn set_own(&mut self, routes: Vec<OwnRoute>) {
        let rib = self.speaker.rib_mut();
        for gone in self.own.iter().filter(|old| !routes.iter().any(|new| new.key == old.key)) {
            rib.withdraw(&gone.key);
        }
        for route in routes.iter().filter(|new| !self.own.contains(new)) {
            rib.originate(&Nlri::plain(route.key), &route.attributes, route.next_hop);
        }
        self.own = routes;
    }

    fn fill_all(&mut self) {
        let peers: Vec<_> = self.lines.keys().copied().collect();
        for peer in peers {
            self.fill(peer);
        }
    }

    /// Hands a writer as much as it has room for.
    fn fill(&mut self, peer: PeerAddr) {
        let Some(line) = self.lines.get(&peer) else { return };
        while line.writer.capacity() > 0 {
            let Some(octets) = self.speaker.next(peer) else { return };
            // It has room, and nobody else fills it; a writer that is gone is told by its task.
            if line.writer.try_send(octets).is_err() {
                return;
            }
        }
    }

    fn obey(&mut self) {
        for (mailbox, input) in std::mem::take(&mut self.unsaid) {
            self.say(mailbox, input);
        }
        while let Some(output) = self.speaker.poll_output() {
            match output {
                SpeakerOutput::Close { peer, notification, then } => {
                    self.close(peer, notification, then);
                }
                SpeakerOutput::Faulty { peer, fault, octets } => {
                    let octets = format!("{octets:02x?}");
                    tracing::warn!(op = "receive update", %peer, error = %fault, outcome = ?fault.outcome, octets);
                }
                SpeakerOutput::ManyRoutes { peer, family, routes } => {
                    tracing::warn!(op = "receive update", %peer, %family, routes, "many routes");
                }
                SpeakerOutput::TooManyRoutes { peer, family, action } => {
                    tracing::warn!(op = "receive update", %peer, %family, ?action, "too many routes");
                }
                SpeakerOutput::RestartOver { peer, family } => {
                    self.note_if_gone(peer);
                    tracing::info!(op = "restart", %peer, %family, "what was kept is told again or gone");
                }
            }
        }
    }

    fn close(&mut self, peer: PeerAddr, notification: Notification, then: Then) {
        if let Some(line) = self.lines.get(&peer) {
            let mailbox = line.mailbox.clone();
            self.say(mailbox, PeerInput::Close { notification, then });
        }
    }

    fn say(&mut self, mailbox: mpsc::Sender<PeerInput>, input: PeerInput) {
        if let Err(mpsc::error::TrySendError::Full(input)) = mailbox.try_send(input) {
            self.unsaid.push((mailbox, input));
        }
    }
}

/// How much is taken before what changed is encoded.
struct Budget {
    octets: usize,
    until: Instant,
}

impl Budget {
    fn new() -> Self {
        Self { octets: FLUSH_OCTETS, until: Instant::now() + FLUSH_TIME }
    }

    fn spend(&mut self, input: &RibInput) {
        if let RibInput::Octets { octets, .. } = input {
            self.octets = self.octets.saturating_sub(octets.len());
        }
    }

    fn is_spent(&self) -> bool {
        self.octets == 0 || self.until <= Instant::now()
    }
}

/// Octets of all peers that wait for the thread.
const ROOM: usize = 4 << 20;
/// What the shortest batch counts as, so that short ones are not without bound.
const LEAST_ROOM: usize = 1_024;
const FLUSH_OCTETS: usize = 64 << 10;
const FLUSH_TIME: Duration = Duration::from_millis(5);
const SAY_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use russet_bgp::{
        bestpath::MedRule,
        fsm::{Agreed, Negotiated},
        policy::Policy,
        reflector::{Me, NextHopRule, Relation},
        rib::Watch,
        update::Bounds,
        wire::{
            ClusterId, Family, FamilySet, GracefulRestart, HoldTime, Peering, RestartFamily,
            RestartFlags, RouterId, Terms,
        },
    };
    use russet_net::Asn;

    use super::*;

    #[test]
    fn who_is_forgotten_late_takes_nothing_from_the_one_that_came_after() {
        let mut worker = worker();
        let (old, new) = (Life(1), Life(2));
        worker.take(up(old, 10));
        worker.take(up(new, 20));
        worker.take(RibInput::Forget { peer: peer(), life: old });
        assert!(worker.is_current(peer(), 20));
        assert!(worker.speaker.source_of(peer()).is_some());
        // Nor does it while the other is away for a moment and its routes are kept.
        worker.take(down(20));
        worker.take(RibInput::Forget { peer: peer(), life: old });
        assert!(worker.speaker.source_of(peer()).is_some());
        // One that comes up only while it is ended takes nobody's place.
        worker.take(up(new, 21));
        worker.take(up(old, 11));
        assert!(worker.is_current(peer(), 21));

        worker.take(RibInput::Forget { peer: peer(), life: new });
        assert!(worker.speaker.source_of(peer()).is_none());
        assert!(worker.lines.is_empty() && worker.lives.is_empty());
    }

    #[test]
    fn a_restart_that_is_over_leaves_nothing_to_remember() {
        let mut worker = worker();
        worker.take(up(Life(1), 10));
        worker.take(down(10));
        assert_eq!(worker.lives.len(), 1);
        worker.speaker.timeout(Instant::now() + RESTART + Duration::from_secs(1));
        worker.obey();
        assert!(worker.lives.is_empty());
    }

    fn worker() -> Worker {
        let id = RouterId::try_from(1).unwrap();
        let config = RibConfig {
            me: Me { asn: Asn::new(65_000), id, cluster: ClusterId::from(id) },
            med: MedRule::SameNeighbor,
            multipath: None,
            watch: Watch::Off,
            seed: 1,
            bounds: Bounds::default(),
        };
        Worker::new(config, mpsc::unbounded_channel().1, None)
    }

    fn peer() -> PeerAddr {
        PeerAddr::from(std::net::IpAddr::from([10, 0, 0, 2]))
    }

    fn down(epoch: u64) -> RibInput {
        RibInput::Down { peer: peer(), epoch, reason: DownReason::ConnectionLost }
    }

    /// A session of a peer that restarts gracefully.
    fn up(life: Life, epoch: u64) -> RibInput {
        let family = RestartFamily { family: Family::Ipv4Unicast.wire(), forwarding: true };
        let restart = GracefulRestart {
            flags: RestartFlags { restarted: false, notification: true },
            time_s: u16::try_from(RESTART.as_secs()).unwrap(),
            families: vec![family],
        };
        let families = FamilySet::EMPTY.with(Family::Ipv4Unicast);
        let negotiated = Negotiated {
            terms: Terms { families, ..Terms::plain(Peering::Internal) },
            hold: HoldTime::USUAL,
            peer_asn: Asn::new(65_000),
            peer_id: RouterId::try_from(2).unwrap(),
            refresh: Agreed::Yes,
            enhanced_refresh: Agreed::Yes,
            restart: Some(restart),
            survives_notification: Agreed::Yes,
        };
        let settings = PeerSettings {
            internal: Relation::Client,
            import: Arc::new(Policy::accept_all()),
            export: Arc::new(Policy::accept_all()),
            next_hop: NextHopRule::Keep,
            own_as: 0,
            limits: [None; 3],
        };
        let our_asn = Asn::new(65_000);
        let up = Box::new(PeerUp { negotiated, our_asn, settings, our_next_hop: [None; 3] });
        let (writer, mailbox) = (mpsc::channel(1).0, mpsc::channel(1).0);
        RibInput::Up { peer: peer(), life, epoch, up, writer, mailbox }
    }

    const RESTART: Duration = Duration::from_mins(2);
}
