//! One question to the agent, and its answer, within a bound.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use russet_api::{
    cni::wire::{Answer, Call, DESCRIPTORS, Reply, Request},
    frame::{self, FrameError, Timed},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::netns::Namespace;

/// The agent behind a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agent<'a> {
    socket: &'a Path,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens, or whoever did went away, or did not answer in time: it may do so later.
    #[error("{0}")]
    Away(String),
    /// It answered, and not what we understand.
    #[error("{0}")]
    Protocol(String),
}

impl<'a> Agent<'a> {
    pub(crate) const fn at(socket: &'a Path) -> Self {
        Self { socket }
    }

    /// Asks, and waits for the answer as long as the call is worth.
    pub(crate) fn ask(self, call: Call, namespace: Option<&Namespace>) -> Result<Answer, AskError> {
        let until = Instant::now() + patience(&call);
        let stream =
            UnixStream::connect(self.socket).map_err(|err| AskError::Away(err.to_string()))?;
        let frame = frame::encode(&Request::new(call)).map_err(|err| told(&err))?;
        send(&stream, &frame, namespace, until).map_err(|err| AskError::Away(err.to_string()))?;
        let reply: Reply =
            frame::read(&mut Timed::new(&stream, until)).map_err(|err| told(&err))?;
        Ok(reply.answer)
    }
}

fn told(err: &FrameError) -> AskError {
    let text = one_line(err);
    if err.is_peer_gone() { AskError::Away(text) } else { AskError::Protocol(text) }
}

fn one_line(err: &dyn std::error::Error) -> String {
    std::iter::successors(Some(err), |&err| err.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Sends the frame, the descriptors with its first octets.
fn send(
    stream: &UnixStream,
    frame: &[u8],
    namespace: Option<&Namespace>,
    until: Instant,
) -> io::Result<()> {
    let sent = match namespace {
        Some(namespace) => send_first(stream, frame, namespace)?,
        None => 0,
    };
    let rest = frame.get(sent..).unwrap_or_default();
    io::Write::write_all(&mut Timed::new(stream, until), rest)
}

fn send_first(stream: &UnixStream, frame: &[u8], namespace: &Namespace) -> io::Result<usize> {
    let descriptors = namespace.descriptors();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL)?)
}

/// A runtime gives up on a plugin after minutes; we do earlier, and say why.
fn patience(call: &Call) -> Duration {
    match call {
        Call::Add(_) | Call::Del(_) | Call::Assign(_) | Call::Release(_) | Call::Gc(_) => {
            Duration::from_secs(30)
        }
        Call::Check(_) | Call::Status => Duration::from_secs(10),
    }
}
