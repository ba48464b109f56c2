//! One BFD session (RFC 5880 §6): the three-way handshake, the two timers, and poll sequences.
//!
//! Feed each [`Input`] with the time it happened, then drain [`Session::poll_output`] to `None`, then wait
//! until [`Session::poll_timeout`] or the next input. Every packet that is fed causes at most one answer,
//! so a peer cannot make us send more than it sends.
//!
//! The rate of sending follows from what both sides wish, and is computed anew whenever it is asked for:
//! what is stored is when we last sent, and how much of the interval chance took off.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::wire::{Detection, Diagnostic, Discriminator, Flags, Interval, Packet, State};

/// How fast a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// We send no faster than this.
    pub desired_min_tx: Interval,
    /// We ask the peer to send no faster than this.
    pub required_min_rx: Interval,
    pub multiplier: Detection,
}

/// Who speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Active,
    /// Silent until the peer has spoken (RFC 5880 §6.1).
    Passive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Packet(Packet),
    Timeout,
    /// The operator takes the session out of use.
    Disable,
    Enable,
    /// Other intervals. The peer is asked before they count, where that matters.
    Retime(Timing),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Send(Packet),
    Up,
    Down(Down),
}

/// Why a session is no longer up, in the words that a protocol on top needs (RFC 5882 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// The peer is silent. With `independent` its forwarding is, and not only its control plane, so
    /// graceful restart must not cover it.
    Silent { independent: bool },
    /// The peer says that it is down: it does not hear us, or has restarted.
    Signaled { diagnostic: Diagnostic, independent: bool },
    /// The peer's operator took it out of use. That is no failure (RFC 5882 §3.2).
    PeerDisabled,
    /// Our operator did.
    Disabled,
}

/// One session, from `Down` to `Up` and back.
#[derive(Debug)]
pub struct Session {
    timing: Timing,
    role: Role,
    local: Discriminator,
    state: State,
    diagnostic: Diagnostic,
    peer: Peer,
    poll: Poll,
    /// What still counts until the peer has answered our poll.
    held: Held,
    last_sent: Option<Instant>,
    detect_at: Option<Instant>,
    random: Random,
    outputs: VecDeque<Output>,
}

/// What the peer last said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    discriminator: Option<Discriminator>,
    state: State,
    flags: Flags,
    desired_min_tx: Interval,
    required_min_rx: Interval,
    multiplier: Option<Detection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    Running,
}

/// The slower intervals of before a change (RFC 5880 §6.8.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    tx: Option<Interval>,
    rx: Option<Interval>,
}

impl Session {
    /// Creates a session that is down. `seed` drives the jitter.
    pub fn new(timing: Timing, role: Role, local: Discriminator, seed: u64) -> Self {
        Self {
            timing,
            role,
            local,
            state: State::Down,
            diagnostic: Diagnostic::NONE,
            peer: Peer::UNKNOWN,
            poll: Poll::Idle,
            held: Held::default(),
            last_sent: None,
            detect_at: None,
            random: Random::new(seed),
            outputs: VecDeque::new(),
        }
    }

    /// Advances the session. `now` must never go backwards.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Packet(packet) => self.received(&packet, now),
            Input::Timeout => self.expire(now),
            Input::Disable => self.disable(now),
            Input::Enable if self.state == State::AdminDown => {
                self.diagnostic = Diagnostic::NONE;
                self.enter(State::Down);
                self.send(Flags::NONE, now);
            }
            Input::Enable => {}
            Input::Retime(timing) => self.retime(timing),
        }
        self.send_if_due(now);
    }

    /// Returns the next thing to do, or `None` when all is done until the next input.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Input::Timeout`] is next due. Changes after every [`Self::handle`].
    ///
    /// A session that has not sent yet is due at once: hand it a first timeout when it is made.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_send().into_iter().chain(self.detect_at).min()
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is not up, or was last not.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    pub fn discriminator(&self) -> Discriminator {
        self.local
    }

    /// How long a silence makes the peer dead; `None` before it has spoken.
    pub fn detection_time(&self) -> Option<Duration> {
        let slower = self.rx_in_use().max(self.peer.desired_min_tx);
        Some(slower.duration() * u32::from(self.peer.multiplier?.get()))
    }
}

// ---- what comes in
impl Session {
    fn received(&mut self, packet: &Packet, now: Instant) {
        self.peer.learn(packet);
        if packet.flags.has(Flags::FINAL) && self.poll == Poll::Running {
            self.poll = Poll::Idle;
            self.held = Held::default();
        }
        self.detect_at = self.detection_time().map(|time| now + time);
        if self.state == State::AdminDown {
            return;
        }
        let before = self.state;
        self.shake(packet);
        if packet.flags.has(Flags::POLL) {
            self.send(Flags::FINAL, now);
        } else if self.state != before {
            self.send(Flags::NONE, now);
        }
    }

    /// The three-way handshake (RFC 5880 §6.8.6).
    fn shake(&mut self, packet: &Packet) {
        use State::{AdminDown, Down, Init, Up};

        match (self.state, packet.state) {
            (Down, Down) => self.enter(Init),
            (Down, Init) | (Init, Init | Up) => self.rise(),
            (Init | Up, AdminDown) => {
                self.fall(Diagnostic::NEIGHBOR_DOWN, super::Down::PeerDisabled);
            }
            (Up, Down) => {
                let independent = packet.flags.has(Flags::INDEPENDENT);
                let diagnostic = packet.diagnostic;
                let why = super::Down::Signaled { diagnostic, independent };
                self.fall(Diagnostic::NEIGHBOR_DOWN, why);
            }
            (AdminDown, _) | (Down, AdminDown | Up) | (Init, Down) | (Up, Init | Up) => {}
        }
    }

    fn expire(&mut self, now: Instant) {
        if self.detect_at.is_none_or(|at| at > now) {
            return;
        }
        let independent = self.peer.flags.has(Flags::INDEPENDENT);
        self.detect_at = None;
        self.peer = Peer::UNKNOWN;
        if matches!(self.state, State::Init | State::Up) {
            self.fall(Diagnostic::TIME_EXPIRED, Down::Silent { independent });
            self.send(Flags::NONE, now);
        }
    }

    fn disable(&mut self, now: Instant) {
        if self.state == State::AdminDown {
            return;
        }
        self.fall(Diagnostic::ADMIN_DOWN, Down::Disabled);
        self.enter(State::AdminDown);
        self.send(Flags::NONE, now);
    }

    /// While the session is up, slower sending and faster detection wait for the peer to know (§6.8.3).
    fn retime(&mut self, timing: Timing) {
        let old = std::mem::replace(&mut self.timing, timing);
        if self.state != State::Up {
            return;
        }
        if timing.desired_min_tx > old.desired_min_tx {
            self.held.tx.get_or_insert(old.desired_min_tx);
        }
        if timing.required_min_rx < old.required_min_rx {
            self.held.rx.get_or_insert(old.required_min_rx);
        }
        self.poll = Poll::Running;
    }
}

// ---- the state
impl Session {
    fn rise(&mut self) {
        self.diagnostic = Diagnostic::NONE;
        self.enter(State::Up);
        // From the slow rate to our own: a change that the peer must be told of by a poll.
        self.poll = Poll::Running;
        self.outputs.push_back(Output::Up);
    }

    fn fall(&mut self, diagnostic: Diagnostic, why: Down) {
        let was_up = self.state == State::Up;
        self.diagnostic = diagnostic;
        self.enter(State::Down);
        if was_up {
            self.outputs.push_back(Output::Down(why));
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.poll = Poll::Idle;
        self.held = Held::default();
    }
}

// ---- what goes out
impl Session {
    fn send_if_due(&mut self, now: Instant) {
        if self.next_send().is_some_and(|at| at <= now) || self.is_first() {
            self.send(Flags::NONE, now);
        }
    }

    fn is_first(&self) -> bool {
        self.last_sent.is_none() && self.gap().is_some()
    }

    fn next_send(&self) -> Option<Instant> {
        Some(self.last_sent? + self.gap()?)
    }

    /// The time between two packets now, chance taken off; `None` when none are to be sent (§6.8.7).
    fn gap(&self) -> Option<Duration> {
        let mute = self.role == Role::Passive && self.peer.discriminator.is_none();
        if mute || self.peer.required_min_rx == Interval::ZERO || self.is_excused() {
            return None;
        }
        let slower = self.tx_in_use().max(self.peer.required_min_rx).duration();
        Some(slower * self.random.percent(self.timing.multiplier) / 100)
    }

    /// Whether the peer's demand mode is active, so that it wants no packets from us but polls (§6.6).
    fn is_excused(&self) -> bool {
        self.peer.flags.has(Flags::DEMAND)
            && self.state == State::Up
            && self.peer.state == State::Up
            && self.poll == Poll::Idle
    }

    fn tx_in_use(&self) -> Interval {
        self.held.tx.unwrap_or_else(|| self.tx_told())
    }

    fn rx_in_use(&self) -> Interval {
        self.held.rx.unwrap_or(self.timing.required_min_rx)
    }

    fn tx_told(&self) -> Interval {
        match self.state {
            State::Up => self.timing.desired_min_tx,
            _ => self.timing.desired_min_tx.max(Interval::SLOW),
        }
    }

    fn send(&mut self, answer: Flags, now: Instant) {
        if self.role == Role::Passive && self.peer.discriminator.is_none() {
            return;
        }
        // An answer is no question at the same time (§6.5).
        let polls = self.poll == Poll::Running && !answer.has(Flags::FINAL);
        let flags = if polls { answer.with(Flags::POLL) } else { answer };
        self.outputs.push_back(Output::Send(Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            flags,
            multiplier: self.timing.multiplier,
            mine: self.local,
            yours: self.peer.discriminator,
            desired_min_tx: self.tx_told(),
            required_min_rx: self.timing.required_min_rx,
            required_min_echo_rx: Interval::ZERO,
        }));
        self.last_sent = Some(now);
        self.random.step();
    }
}

impl Peer {
    const UNKNOWN: Self = Self {
        discriminator: None,
        state: State::Down,
        flags: Flags::NONE,
        desired_min_tx: Interval::ZERO,
        required_min_rx: Interval::from_micros(1),
        multiplier: None,
    };

    fn learn(&mut self, packet: &Packet) {
        *self = Self {
            discriminator: Some(packet.mine),
            state: packet.state,
            flags: packet.flags,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            multiplier: Some(packet.multiplier),
        };
    }
}

/// The chance in the gaps: `SplitMix64`.
#[derive(Debug)]
struct Random {
    state: u64,
    drawn: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self { state: seed, drawn: 0 };
        random.step();
        random
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.drawn = mixed ^ (mixed >> 31);
    }

    /// How much of an interval is waited: 75 to 100 of a hundred, and to 90 where a single lost packet
    /// is a failure (RFC 5880 §6.8.7).
    fn percent(&self, multiplier: Detection) -> u32 {
        let span = if multiplier.get() == 1 { 16 } else { 26 };
        75 + u32::try_from(self.drawn % span).unwrap_or(0)
    }
}
