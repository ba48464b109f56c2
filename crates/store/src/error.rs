//! Errors of the datastore client.
//!
//! etcd tells some conditions apart by their text alone (`OUT_OF_RANGE` is both "compacted" and "in
//! the future"). The text is read once, here, and callers see [`Refusal`] and the predicates.

use std::{error::Error as StdError, fmt, time::Duration};

use tonic::{Code, Status};

use crate::contract::Revision;

/// An exchange with the datastore that did not do what we asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server said no, or could not be reached.
    #[error("{op} {subject}")]
    Refused { op: &'static str, subject: String, refusal: Refusal, source: Said },

    /// No answer came in time, so nothing is known about a write.
    #[error("{op} {subject}: no answer within {} ms", after.as_millis())]
    Timeout { op: &'static str, subject: String, after: Duration },

    /// The answer was not one that the request can have.
    #[error("{op} {subject}: the answer has {what}")]
    UnexpectedReply { op: &'static str, subject: String, what: &'static str },

    /// The server ended the watch.
    #[error("watch {subject}: canceled by the server: {reason}")]
    Canceled { subject: String, reason: String, refusal: Refusal },

    /// The server no longer has the history that the watch needs.
    #[error("watch {subject}: history up to revision {compacted} is compacted")]
    WatchCompacted { subject: String, compacted: Revision },

    /// The stream of a watch ended without a reason.
    #[error("watch {subject}: the stream ended")]
    StreamEnded { subject: String },
}

/// Why a server refused, as far as a caller treats it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No connection was made, so the request was never sent.
    NotSent,
    /// The server is away, has no leader, or the connection broke: a write may or may not be done.
    Unavailable,
    /// The revision is older than the history that is kept.
    Compacted,
    /// The revision is newer than the store.
    FutureRevision,
    /// The token is unknown or has run out.
    BadToken,
    /// The user or the password is wrong, or may not do this.
    Denied,
    /// The server has no authentication, so there is nothing to log in to.
    AuthNotEnabled,
    /// The lease does not exist (any more).
    LeaseNotFound,
    /// The request or the answer is larger than one message may be.
    TooLarge,
    /// The store is full.
    NoSpace,
    /// Anything else.
    Other,
}

/// What a server said, or the system when there was no server to say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    text: String,
    endpoint: Option<String>,
}

impl Said {
    /// Takes the innermost cause of a failed connection ("connection refused"), else the server's
    /// own words.
    fn new(status: &Status) -> Self {
        let innermost = std::iter::successors(status.source(), |&err| err.source()).last();
        let text = match (innermost, status.message()) {
            (Some(cause), _) => cause.to_string(),
            (None, "") => status.code().description().to_owned(),
            (None, words) => words.to_owned(),
        };
        Self { text, endpoint: None }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(f, "{endpoint}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl StdError for Said {}

impl StoreError {
    /// Builds a refusal from a status of the wire.
    pub(crate) fn refused(op: &'static str, subject: impl Into<String>, status: &Status) -> Self {
        let refusal = Refusal::classify(status);
        Self::Refused { op, subject: subject.into(), refusal, source: Said::new(status) }
    }

    /// Notes which endpoint it was.
    pub(crate) fn at(mut self, at: &str) -> Self {
        if let Self::Refused { source, .. } = &mut self {
            source.endpoint = Some(at.to_owned());
        }
        self
    }

    /// Whether the history that was asked for is no longer kept: start over with a snapshot.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::WatchCompacted { .. }) || self.refusal() == Some(Refusal::Compacted)
    }

    /// Whether the store was out of reach: trying again later may help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::StreamEnded { .. } => true,
            _ => matches!(self.refusal(), Some(Refusal::NotSent | Refusal::Unavailable)),
        }
    }

    /// Whether a write may have been done although no answer came. Read before writing again.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.is_unavailable() && self.refusal() != Some(Refusal::NotSent)
    }

    /// Whether the credentials were refused.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self.refusal(), Some(Refusal::BadToken | Refusal::Denied))
    }

    /// Whether the lease that the write names is gone.
    #[must_use]
    pub fn is_lease_not_found(&self) -> bool {
        self.refusal() == Some(Refusal::LeaseNotFound)
    }

    /// Whether a message was larger than the receiver takes.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.refusal() == Some(Refusal::TooLarge)
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } | Self::Canceled { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}

impl Refusal {
    /// Reads a status of the wire (etcd API: `rpctypes`).
    pub(crate) fn classify(status: &Status) -> Self {
        let says = |text: &str| status.message().contains(text);
        match status.code() {
            Code::Unavailable if never_sent(status) => Self::NotSent,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
                Self::Unavailable
            }
            // A broken HTTP/2 stream or a body that ends early reaches us under these codes.
            Code::Unknown | Code::Internal if status.source().is_some() => Self::Unavailable,
            Code::OutOfRange | Code::ResourceExhausted if says("message length too large") => {
                Self::TooLarge
            }
            Code::InvalidArgument if says("request is too large") => Self::TooLarge,
            Code::ResourceExhausted if says("database space exceeded") => Self::NoSpace,
            Code::FailedPrecondition if says("authentication is not enabled") => {
                Self::AuthNotEnabled
            }
            Code::Unauthenticated => Self::BadToken,
            Code::InvalidArgument if says("authentication failed") => Self::Denied,
            // A request without a token, which etcd 3.4 takes for one without a user.
            Code::InvalidArgument if says("user name is empty") => Self::BadToken,
            Code::InvalidArgument if says("revision of auth store is old") => Self::BadToken,
            Code::NotFound if says("lease not found") => Self::LeaseNotFound,
            _ => Self::of_reason(status.message()),
        }
    }

    /// Reads the reason of a canceled watch, which comes without a code.
    pub(crate) fn of_reason(reason: &str) -> Self {
        let says = |text: &str| reason.contains(text);
        if says("revision has been compacted") {
            Self::Compacted
        } else if says("is a future revision") {
            Self::FutureRevision
        } else if says("invalid auth token") {
            Self::BadToken
        } else if says("permission denied") {
            Self::Denied
        } else if says("no leader") {
            Self::Unavailable
        } else {
            Self::Other
        }
    }
}

/// Whether the connection was refused, so that a write can be sent elsewhere without being done
/// twice.
fn never_sent(status: &Status) -> bool {
    std::iter::successors(status.source(), |&err| err.source())
        .any(|err| err.is::<tonic::ConnectError>() || err.is::<std::io::Error>() && refused(err))
}

fn refused(err: &(dyn StdError + 'static)) -> bool {
    err.downcast_ref::<std::io::Error>()
        .is_some_and(|err| err.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Joins an error and its causes into one line. Used where it leaves the crate as text.
pub(crate) fn one_line(err: &dyn StdError) -> String {
    std::iter::successors(Some(err), |&err| err.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: &Status) -> Refusal {
        Refusal::classify(status)
    }

    #[test]
    fn etcd_tells_compacted_from_future_by_its_text() {
        let compacted =
            Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        let future =
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision");
        assert_eq!(kind(&compacted), Refusal::Compacted);
        assert_eq!(kind(&future), Refusal::FutureRevision);
    }

    #[test]
    fn a_lost_answer_leaves_the_outcome_unknown_and_a_refused_connection_does_not() {
        let lost = StoreError::refused("put", "/k", &Status::unavailable("connection reset"));
        assert!(lost.is_unavailable() && lost.is_outcome_unknown());

        let mut status = Status::unavailable("connect");
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        status.set_source(std::sync::Arc::new(io));
        let unsent = StoreError::refused("put", "/k", &status);
        assert!(unsent.is_unavailable() && !unsent.is_outcome_unknown());
    }

    #[test]
    fn a_message_says_operation_subject_and_cause_once() {
        let err = StoreError::refused("put", "/k", &Status::not_found("requested lease not found"));
        assert!(err.is_lease_not_found());
        assert_eq!(one_line(&err), "put /k: requested lease not found");
        let err = err.at("http://127.0.0.1:2379");
        assert_eq!(one_line(&err), "put /k: http://127.0.0.1:2379: requested lease not found");
    }
}
