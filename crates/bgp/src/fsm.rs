//! A session with one peer (RFC 4271 §8), without I/O.
//!
//! Feed each [`Input`] with the time it happened, then drain [`Session::poll_output`] to `None`, then wait
//! until [`Session::poll_timeout`] or the next input. The shell dials, accepts, frames and writes; it decides
//! nothing.
//!
//! ```text
//!              due            up            OPEN                KEEPALIVE
//!   Waiting ────────▶ Dialing ────▶ Sent ─────────▶ Confirm ───────────────▶ Established
//!   (Active)         (Connect)    (OpenSent)      (OpenConfirm)                 │
//!      ▲                            ▲  a second one may come in: the peer's     │
//!      │ back-off                   └─ own dial; one of the two is closed       │
//!      └───── Idle ◀──────────── an error that we found ◀───────────────────────┤
//!      └──────────────────────── the peer left, or the connection is gone ◀─────┘
//! ```
//!
//! After an error that *we* found the peer is refused for a while that doubles each time; when the peer left, it
//! may come back at once, and only our own dialling backs off. `fsm/machine` has the machine, `fsm/half` a
//! connection on its way, `fsm/negotiate` what two OPENs amount to, `fsm/timers` what runs.

mod half;
mod machine;
mod negotiate;
#[cfg(test)]
mod simulation;
mod timers;

use std::{fmt, time::Duration};

pub use self::{
    machine::Session,
    negotiate::{Agreed, LocalSpeaker, Negotiated, RemoteAs, SessionConfig},
};
use crate::wire::{Notification, Open, Reset, write_keepalive};

/// One TCP connection of a session. A number is used once, so what comes late finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub direction: Direction,
    pub number: u32,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The peer did; the shell gives the number.
    Incoming,
    /// We did; the session gives the number.
    Outgoing,
}

/// Whether we dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    Active,
    /// We wait for the peer to dial.
    Passive,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The operator wants the session.
    Start,
    /// The session is to end, with this told to the peer.
    Close {
        notification: Notification,
        then: Then,
    },
    /// What was dialled is connected.
    Dialed(ConnId),
    DialFailed(ConnId),
    /// The peer has connected.
    Accepted(ConnId),
    /// The connection is gone, by the peer or the network.
    Closed(ConnId),
    Received {
        conn: ConnId,
        message: Received,
    },
    Timeout,
}

/// What follows when a session is closed by our own side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing before the next [`Input::Start`].
    Stop,
    /// It is tried again at once.
    Retry,
    /// The peer is refused for this long.
    RefuseFor(Duration),
}

/// A message as far as the session cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Open(Box<Open>),
    Keepalive,
    Update,
    Refresh,
    Notification(Notification),
    /// It could not be parsed.
    Invalid(Reset),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to the peer; one of [`Input::Dialed`] and [`Input::DialFailed`] is the answer.
    Dial(ConnId),
    /// Give up dialling.
    Abandon(ConnId),
    Send {
        conn: ConnId,
        message: Message,
    },
    /// Close the connection once what was to be sent is sent.
    Close(ConnId),
    /// Routes may be sent and are awaited.
    Up {
        conn: ConnId,
        negotiated: Box<Negotiated>,
    },
    Down(DownReason),
}

/// What a session sends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Open(Box<Open>),
    Keepalive,
    Notification(Notification),
}

impl Message {
    /// Writes the whole message.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(open) => open.write(out),
            Self::Keepalive => write_keepalive(out),
            Self::Notification(notification) => notification.write(out),
        }
    }
}

/// Why a session ended, or did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// We told the peer so.
    Sent(Notification),
    /// The peer told us so.
    Received(Notification),
    /// The connection went away without a word.
    ConnectionLost,
    /// The peer opened a new connection: it has restarted (RFC 4724 §4.2).
    PeerRestarted,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(notification) => write!(f, "sent {notification}"),
            Self::Received(notification) => write!(f, "received {notification}"),
            Self::ConnectionLost => f.write_str("the connection was lost"),
            Self::PeerRestarted => f.write_str("the peer has restarted"),
        }
    }
}

/// The state in the words of RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateName {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
        })
    }
}
