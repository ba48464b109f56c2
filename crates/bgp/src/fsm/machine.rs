//! The session's machine: one `handle`, and a state whose variants carry what that state has.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    ConnId, Direction, DownReason, Input, Message, Negotiated, Opening, Output, Received,
    SessionConfig, StateName, Then,
    half::{Half, Halves, Outgoing, Stage},
    timers::{Random, Timers, backoff},
};
use crate::wire::{Notification, Open, Reason};

/// One peering, from `Idle` to `Established` and back.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    random: Random,
    state: State,
    next_dial: u32,
    /// Attempts to reach the peer since it was last there.
    attempts: u32,
    /// Errors that we found since the session last stood for a while.
    errors: u32,
    last: Option<DownReason>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    /// Nobody wants the session.
    Stopped,
    /// The peer made an error and is refused (`Idle`).
    Idle {
        until: Instant,
    },
    Opening(Halves),
    Established(Box<Established>),
}

#[derive(Debug)]
struct Established {
    conn: ConnId,
    timers: Timers,
    negotiated: Negotiated,
    since: Instant,
    /// A new connection of a peer that may have restarted (RFC 4724 §4.2).
    challenger: Option<Half>,
}

impl Session {
    /// Creates a session that is stopped. `seed` should differ from peer to peer and start to start.
    pub fn new(config: SessionConfig, seed: u64) -> Self {
        Self {
            config,
            random: Random::new(seed),
            state: State::Stopped,
            next_dial: 0,
            attempts: 0,
            errors: 0,
            last: None,
            outputs: VecDeque::new(),
        }
    }

    /// Advances the session. `now` must never go backwards.
    pub fn handle(&mut self, input: Input, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Stopped);
        self.state = match (state, input) {
            (State::Stopped, Input::Start) => self.begin(now),
            (state, Input::Close { notification, then }) => {
                self.close_all(state, notification);
                self.after(then, now)
            }

            (state @ (State::Stopped | State::Idle { .. }), Input::Accepted(conn)) => {
                self.refuse(conn, Notification::new(Reason::REJECTED));
                state
            }
            (State::Idle { until }, Input::Timeout) if until <= now => self.begin(now),
            (state @ (State::Stopped | State::Idle { .. }), _) | (state, Input::Start) => state,

            (State::Opening(halves), input) => self.opening(halves, input, now),
            (State::Established(up), input) => self.established(up, input, now),
        };
    }

    /// Returns the next thing to do, or `None` when all is done until the next input.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Input::Timeout`] is next due. Changes after every [`Self::handle`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Stopped => None,
            State::Idle { until } => Some(*until),
            State::Opening(halves) => halves.next(),
            State::Established(up) => up
                .timers
                .next()
                .into_iter()
                .chain(up.challenger.as_ref().and_then(Half::next))
                .min(),
        }
    }

    pub fn state(&self) -> StateName {
        match &self.state {
            State::Stopped | State::Idle { .. } => StateName::Idle,
            State::Established(_) => StateName::Established,
            State::Opening(halves) if halves.iter().any(Half::is_confirmed) => {
                StateName::OpenConfirm
            }
            State::Opening(halves) if !halves.is_empty() => StateName::OpenSent,
            State::Opening(Halves { outgoing: Outgoing::Dialing { .. }, .. }) => StateName::Connect,
            State::Opening(_) => StateName::Active,
        }
    }

    /// What was agreed on, while the session stands.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        match &self.state {
            State::Established(up) => Some(&up.negotiated),
            _ => None,
        }
    }

    /// Since when it stands.
    pub fn since(&self) -> Option<Instant> {
        match &self.state {
            State::Established(up) => Some(up.since),
            _ => None,
        }
    }

    /// Why it ended last, or did not come about.
    pub fn last(&self) -> Option<&DownReason> {
        self.last.as_ref()
    }

    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// Sets what the next OPEN says; a connection that stands keeps what it agreed on.
    pub fn set_config(&mut self, config: SessionConfig) {
        self.config = config;
    }
}

// ---- before it is established
impl Session {
    fn begin(&mut self, now: Instant) -> State {
        let outgoing = match self.config.opening {
            Opening::Active => self.dial(now),
            Opening::Passive => Outgoing::Off,
        };
        State::Opening(Halves { outgoing, incoming: None })
    }

    fn opening(&mut self, mut halves: Halves, input: Input, now: Instant) -> State {
        match input {
            Input::Dialed(conn) if is_dialing(&halves, conn) => {
                halves.outgoing = Outgoing::Open(self.send_open(conn, now));
            }
            Input::DialFailed(conn) if is_dialing(&halves, conn) => {
                self.attempts = self.attempts.saturating_add(1);
                halves.outgoing = Outgoing::Off;
            }
            // Nobody awaits it any more.
            Input::Dialed(conn) => self.say(Output::Close(conn)),
            Input::Accepted(conn) => self.accept(&mut halves, conn, now),
            Input::Closed(conn) if halves.take(conn).is_some() => {
                self.attempts = self.attempts.saturating_add(1);
                // What somebody once said tells more.
                self.last.get_or_insert(DownReason::ConnectionLost);
            }
            Input::Received { conn, message } => return self.receive(halves, conn, message, now),
            Input::Timeout => return self.opening_timeout(halves, now),
            _ => {}
        }
        self.settle(halves, now)
    }

    /// Takes a connection of the peer in. A newer one replaces one on which the peer has not spoken: it is
    /// likely to have forgotten that.
    fn accept(&mut self, halves: &mut Halves, conn: ConnId, now: Instant) {
        if halves.incoming.as_ref().is_some_and(Half::is_confirmed) {
            self.refuse(conn, Notification::new(Reason::COLLISION));
            return;
        }
        if let Some(old) = halves.incoming.take() {
            self.refuse(old.conn, Notification::new(Reason::COLLISION));
        }
        halves.incoming = Some(self.send_open(conn, now));
        // The peer is there: our own dialling can wait.
        if let Outgoing::Waiting { at } = &mut halves.outgoing {
            *at = now + self.config.retry;
        }
    }

    fn receive(
        &mut self,
        mut halves: Halves,
        conn: ConnId,
        message: Received,
        now: Instant,
    ) -> State {
        // What a connection said that was closed meanwhile is nothing to us.
        let Some(half) = halves.take(conn) else { return State::Opening(halves) };
        match (half.stage, message) {
            (Stage::Sent { .. }, Received::Open(open)) => match self.config.negotiate(&open) {
                Ok(negotiated) => {
                    let half = self.confirm(conn, negotiated, now);
                    self.resolve(&mut halves, half, &open);
                }
                Err(reset) => return self.fail(halves, conn, reset.into(), now),
            },
            (Stage::Confirm { timers, negotiated }, Received::Keepalive) => {
                return self.establish(&halves, conn, *negotiated, timers.heard(now), now);
            }
            (_, Received::Notification(notification)) => {
                self.say(Output::Close(conn));
                self.attempts = self.attempts.saturating_add(1);
                self.last = Some(DownReason::Received(notification));
            }
            (_, Received::Invalid(reset)) => return self.fail(halves, conn, reset.into(), now),
            (Stage::Sent { .. }, _) => {
                let notification = Notification::new(Reason::UNEXPECTED_IN_OPEN_SENT);
                return self.fail(halves, conn, notification, now);
            }
            (Stage::Confirm { .. }, _) => {
                let notification = Notification::new(Reason::UNEXPECTED_IN_OPEN_CONFIRM);
                return self.fail(halves, conn, notification, now);
            }
        }
        self.settle(halves, now)
    }

    fn confirm(&mut self, conn: ConnId, negotiated: Negotiated, now: Instant) -> Half {
        self.send(conn, Message::Keepalive);
        let timers = Timers::start(negotiated.hold, now);
        Half { conn, stage: Stage::Confirm { timers, negotiated: Box::new(negotiated) } }
    }

    /// Of two connections the one that the higher identifier opened stays, once both have spoken (RFC 4271 §6.8,
    /// RFC 6286 §2.3).
    fn resolve(&mut self, halves: &mut Halves, half: Half, open: &Open) {
        let local = self.config.local;
        let ours_is_higher = (local.id, local.asn) > (open.id, open.asn);
        let kept = if ours_is_higher { Direction::Outgoing } else { Direction::Incoming };
        if let Outgoing::Dialing { conn, .. } = halves.outgoing {
            self.say(Output::Abandon(conn));
            halves.outgoing = Outgoing::Off;
        }
        let other = halves.iter().next().map(|other| (other.conn, other.is_confirmed()));
        match other {
            Some((other, _)) if half.conn.direction == kept => {
                halves.take(other);
                self.refuse(other, Notification::new(Reason::COLLISION));
                halves.put(half);
            }
            Some((_, true)) => self.refuse(half.conn, Notification::new(Reason::COLLISION)),
            _ => halves.put(half),
        }
    }

    fn establish(
        &mut self,
        halves: &Halves,
        conn: ConnId,
        negotiated: Negotiated,
        timers: Timers,
        now: Instant,
    ) -> State {
        for other in halves.iter() {
            self.refuse(other.conn, Notification::new(Reason::COLLISION));
        }
        if let Outgoing::Dialing { conn, .. } = halves.outgoing {
            self.say(Output::Abandon(conn));
        }
        self.attempts = 0;
        self.say(Output::Up { conn, negotiated: Box::new(negotiated.clone()) });
        State::Established(Box::new(Established {
            conn,
            timers,
            negotiated,
            since: now,
            challenger: None,
        }))
    }

    fn opening_timeout(&mut self, mut halves: Halves, now: Instant) -> State {
        match halves.outgoing {
            Outgoing::Waiting { at } if at <= now => halves.outgoing = self.dial(now),
            Outgoing::Dialing { conn, until } if until <= now => {
                self.say(Output::Abandon(conn));
                self.attempts = self.attempts.saturating_add(1);
                halves.outgoing = Outgoing::Off;
            }
            _ => {}
        }
        let late = halves.iter().find(|half| half.expired(now)).map(|half| half.conn);
        if let Some(conn) = late {
            halves.take(conn);
            return self.fail(halves, conn, Notification::new(Reason::HOLD_TIMER_EXPIRED), now);
        }
        let conns: Vec<_> = halves.iter().map(|half| half.conn).collect();
        for conn in conns {
            let Some(mut half) = halves.take(conn) else { continue };
            if let Stage::Confirm { timers, .. } = &mut half.stage {
                self.keep_alive(conn, timers, now);
            }
            halves.put(half);
        }
        self.settle(halves, now)
    }

    /// Closes a half that went wrong by the peer. When the other is still there, it may yet come about.
    fn fail(
        &mut self,
        halves: Halves,
        conn: ConnId,
        notification: Notification,
        now: Instant,
    ) -> State {
        self.last = Some(DownReason::Sent(notification.clone()));
        self.refuse(conn, notification);
        if !halves.is_empty() {
            return self.settle(halves, now);
        }
        if let Outgoing::Dialing { conn, .. } = halves.outgoing {
            self.say(Output::Abandon(conn));
        }
        self.idle(now)
    }

    /// Sees that we dial again when nothing of ours is on its way.
    fn settle(&mut self, mut halves: Halves, now: Instant) -> State {
        let may_dial = self.config.opening == Opening::Active && halves.outgoing == Outgoing::Off;
        if may_dial && !halves.iter().any(Half::is_confirmed) {
            let at = now + backoff(self.attempts, self.config.retry, &mut self.random);
            halves.outgoing = Outgoing::Waiting { at };
        }
        State::Opening(halves)
    }

    fn dial(&mut self, now: Instant) -> Outgoing {
        let conn = ConnId { direction: Direction::Outgoing, number: self.next_dial };
        self.next_dial = self.next_dial.wrapping_add(1);
        self.say(Output::Dial(conn));
        Outgoing::Dialing { conn, until: now + DIAL_TIME }
    }

    fn send_open(&mut self, conn: ConnId, now: Instant) -> Half {
        let open = Box::new(self.config.open());
        self.send(conn, Message::Open(open));
        Half { conn, stage: Stage::Sent { hold_until: now + OPEN_HOLD } }
    }
}

// ---- while it is established
impl Session {
    fn established(&mut self, mut up: Box<Established>, input: Input, now: Instant) -> State {
        match input {
            Input::Received { conn, message } if conn == up.conn => {
                return self.hear(up, message, now);
            }
            Input::Received { conn, message } => {
                return self.hear_challenger(up, conn, message, now);
            }
            Input::Closed(conn) if conn == up.conn => {
                return self.peer_left(*up, DownReason::ConnectionLost, now);
            }
            Input::Closed(conn) => _ = up.challenger.take_if(|half| half.conn == conn),
            Input::Accepted(conn) => self.challenge(&mut up, conn, now),
            Input::Dialed(conn) => self.say(Output::Close(conn)),
            Input::Timeout => return self.established_timeout(up, now),
            _ => {}
        }
        State::Established(up)
    }

    fn hear(&mut self, mut up: Box<Established>, message: Received, now: Instant) -> State {
        let notification = match message {
            Received::Keepalive | Received::Update | Received::Refresh => {
                up.timers = up.timers.heard(now);
                return State::Established(up);
            }
            Received::Notification(notification) => {
                self.say(Output::Close(up.conn));
                return self.peer_left(*up, DownReason::Received(notification), now);
            }
            Received::Open(_) => Notification::new(Reason::UNEXPECTED_IN_ESTABLISHED),
            Received::Invalid(reset) => reset.into(),
        };
        self.break_off(*up, notification, now)
    }

    /// A new connection is a restart only with a peer that may restart; any other one is too many.
    fn challenge(&mut self, up: &mut Established, conn: ConnId, now: Instant) {
        if up.negotiated.restart.is_none() {
            self.refuse(conn, Notification::new(Reason::COLLISION));
            return;
        }
        if let Some(old) = up.challenger.take() {
            self.refuse(old.conn, Notification::new(Reason::COLLISION));
        }
        up.challenger = Some(self.send_open(conn, now));
    }

    fn hear_challenger(
        &mut self,
        mut up: Box<Established>,
        conn: ConnId,
        message: Received,
        now: Instant,
    ) -> State {
        let Some(half) = up.challenger.take_if(|half| half.conn == conn) else {
            return State::Established(up);
        };
        let agreed = match message {
            Received::Open(open) => self.config.negotiate(&open).map_err(Notification::from),
            Received::Invalid(reset) => Err(reset.into()),
            _ => Err(Notification::new(Reason::UNEXPECTED_IN_OPEN_SENT)),
        };
        match agreed {
            Ok(negotiated) => {
                // The old connection leads to a process that is not there any more.
                self.say(Output::Close(up.conn));
                self.down(DownReason::PeerRestarted);
                let half = self.confirm(half.conn, negotiated, now);
                State::Opening(Halves { outgoing: Outgoing::Off, incoming: Some(half) })
            }
            Err(notification) => {
                self.refuse(conn, notification);
                State::Established(up)
            }
        }
    }

    fn established_timeout(&mut self, mut up: Box<Established>, now: Instant) -> State {
        if up.timers.expired(now) {
            return self.break_off(*up, Notification::new(Reason::HOLD_TIMER_EXPIRED), now);
        }
        if let Some(late) = up.challenger.take_if(|half| half.expired(now)) {
            self.refuse(late.conn, Notification::new(Reason::HOLD_TIMER_EXPIRED));
        }
        if now.duration_since(up.since) >= STOOD_FOR_A_WHILE {
            self.errors = 0;
        }
        self.keep_alive(up.conn, &mut up.timers, now);
        State::Established(up)
    }

    /// The peer went away; it may come back at once.
    fn peer_left(&mut self, up: Established, reason: DownReason, now: Instant) -> State {
        if now.duration_since(up.since) >= STOOD_FOR_A_WHILE {
            self.errors = 0;
        }
        self.close_challenger(up.challenger);
        self.down(reason);
        self.settle(Halves { outgoing: Outgoing::Off, incoming: None }, now)
    }

    /// The peer did what it may not.
    fn break_off(&mut self, up: Established, notification: Notification, now: Instant) -> State {
        if now.duration_since(up.since) >= STOOD_FOR_A_WHILE {
            self.errors = 0;
        }
        self.close_challenger(up.challenger);
        self.refuse(up.conn, notification.clone());
        self.down(DownReason::Sent(notification));
        self.idle(now)
    }
}

// ---- ends, and what they have in common
impl Session {
    fn close_all(&mut self, state: State, notification: Notification) {
        match state {
            State::Stopped | State::Idle { .. } => {}
            State::Opening(halves) => {
                for half in halves.iter() {
                    self.refuse(half.conn, notification.clone());
                }
                if let Outgoing::Dialing { conn, .. } = halves.outgoing {
                    self.say(Output::Abandon(conn));
                }
                self.last = Some(DownReason::Sent(notification));
            }
            State::Established(up) => {
                self.close_challenger(up.challenger);
                let hard = up.negotiated.survives_notification.is_yes()
                    && matches!(
                        notification.reason,
                        Reason::SHUTDOWN
                            | Reason::DECONFIGURED
                            | Reason::ADMIN_RESET
                            | Reason::MOST_PREFIXES
                    );
                // Where a NOTIFICATION alone keeps the routes, what is meant for good has to say so (RFC 8538 §3).
                let notification = if hard { notification.hard() } else { notification };
                self.refuse(up.conn, notification.clone());
                self.down(DownReason::Sent(notification));
            }
        }
    }

    fn after(&mut self, then: Then, now: Instant) -> State {
        match then {
            Then::Stop => State::Stopped,
            Then::Retry => {
                self.attempts = 0;
                self.settle(Halves { outgoing: Outgoing::Off, incoming: None }, now)
            }
            Then::RefuseFor(time) => State::Idle { until: now + time },
        }
    }

    fn idle(&mut self, now: Instant) -> State {
        let until = now + backoff(self.errors, LONGEST_IDLE, &mut self.random);
        self.errors = self.errors.saturating_add(1);
        State::Idle { until }
    }

    fn down(&mut self, reason: DownReason) {
        self.last = Some(reason.clone());
        self.say(Output::Down(reason));
    }

    fn close_challenger(&mut self, challenger: Option<Half>) {
        if let Some(half) = challenger {
            self.refuse(half.conn, Notification::new(Reason::COLLISION));
        }
    }

    fn keep_alive(&mut self, conn: ConnId, timers: &mut Timers, now: Instant) {
        if timers.keepalive_is_due(now) {
            self.send(conn, Message::Keepalive);
            *timers = timers.spoke(now);
        }
    }

    fn refuse(&mut self, conn: ConnId, notification: Notification) {
        self.send(conn, Message::Notification(notification));
        self.say(Output::Close(conn));
    }

    fn send(&mut self, conn: ConnId, message: Message) {
        self.say(Output::Send { conn, message });
    }

    fn say(&mut self, output: Output) {
        self.outputs.push_back(output);
    }
}

fn is_dialing(halves: &Halves, wanted: ConnId) -> bool {
    matches!(halves.outgoing, Outgoing::Dialing { conn, .. } if conn == wanted)
}

/// The hold time used until the peer's own is known: "a large value" (RFC 4271 §8.2.2).
const OPEN_HOLD: Duration = Duration::from_mins(4);
/// After this long a connection that does not come about is given up.
const DIAL_TIME: Duration = Duration::from_secs(30);
/// The longest that a peer is refused after an error.
const LONGEST_IDLE: Duration = Duration::from_mins(2);
/// A session that stood this long has its errors forgiven.
const STOOD_FOR_A_WHILE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
