//! A connection that is not established yet, and the two that one peer may have at a time.

use std::time::Instant;

use super::{ConnId, Direction, Negotiated, timers::Timers};

/// A connection between its begin and the peer's first KEEPALIVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Half {
    pub conn: ConnId,
    pub stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Our OPEN is out (`OpenSent`).
    Sent { hold_until: Instant },
    /// The peer's was good (`OpenConfirm`).
    Confirm { timers: Timers, negotiated: Box<Negotiated> },
}

impl Half {
    pub fn next(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Sent { hold_until } => Some(*hold_until),
            Stage::Confirm { timers, .. } => timers.next(),
        }
    }

    pub fn expired(&self, now: Instant) -> bool {
        match &self.stage {
            Stage::Sent { hold_until } => *hold_until <= now,
            Stage::Confirm { timers, .. } => timers.expired(now),
        }
    }

    pub const fn is_confirmed(&self) -> bool {
        matches!(self.stage, Stage::Confirm { .. })
    }
}

/// Where our own connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// We do not dial.
    Off,
    Waiting {
        at: Instant,
    },
    Dialing {
        conn: ConnId,
        until: Instant,
    },
    Open(Half),
}

/// The connections of a session that is not established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    pub outgoing: Outgoing,
    pub incoming: Option<Half>,
}

impl Halves {
    /// Takes the half out; `None` when the connection is not ours any more.
    pub fn take(&mut self, conn: ConnId) -> Option<Half> {
        match conn.direction {
            Direction::Incoming => self.incoming.take_if(|half| half.conn == conn),
            Direction::Outgoing => match std::mem::replace(&mut self.outgoing, Outgoing::Off) {
                Outgoing::Open(half) if half.conn == conn => Some(half),
                other => {
                    self.outgoing = other;
                    None
                }
            },
        }
    }

    pub fn put(&mut self, half: Half) {
        match half.conn.direction {
            Direction::Incoming => self.incoming = Some(half),
            Direction::Outgoing => self.outgoing = Outgoing::Open(half),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Half> {
        let outgoing = match &self.outgoing {
            Outgoing::Open(half) => Some(half),
            _ => None,
        };
        outgoing.into_iter().chain(&self.incoming)
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub fn next(&self) -> Option<Instant> {
        let dial = match &self.outgoing {
            Outgoing::Waiting { at } => Some(*at),
            Outgoing::Dialing { until, .. } => Some(*until),
            Outgoing::Off | Outgoing::Open(_) => None,
        };
        self.iter().filter_map(Half::next).chain(dial).min()
    }
}
