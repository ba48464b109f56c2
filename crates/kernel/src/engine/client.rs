//! A connection to an engine: one question, its answer, and what descriptors come with it.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use russet_desired::{EnginePeerSpec, EngineSpec};
use russet_net::Prefix;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::wire::{Answer, Ask, Hello, MOST_OCTETS, MOST_ROWS, More, PeerCount, Totals, WireError};

/// What went wrong with an engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no engine answers")]
    Silent(#[source] io::Error),
    #[error("the engine says what is not understood")]
    Wire(#[from] WireError),
    #[error("the engine refuses: {0}")]
    Refused(String),
    #[error("the engine answers something else than was asked")]
    Unexpected,
    #[error("start the engine")]
    Start(#[source] io::Error),
    #[error("the engine does not come up")]
    NotUp,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
}

impl Client {
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, EngineError> {
        Self::open(path).map(|fd| Self { fd }).map_err(EngineError::Silent)
    }

    fn open(path: &Path) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&fd, direction, Some(PATIENCE))?;
        }
        rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(fd)
    }

    /// Asks, and returns the answer with the descriptors that came with it.
    ///
    /// # Errors
    ///
    /// When there is no answer in time, or none that is understood.
    pub fn ask(&self, ask: &Ask) -> Result<(Answer, Vec<OwnedFd>), EngineError> {
        send(self.fd.as_fd(), &ask.encode(), &[]).map_err(EngineError::Silent)?;
        self.hear()
    }

    /// Says what has no answer.
    ///
    /// # Errors
    ///
    /// When nobody is there.
    pub fn tell(&self, ask: &Ask) -> Result<(), EngineError> {
        send(self.fd.as_fd(), &ask.encode(), &[]).map_err(EngineError::Silent)
    }

    /// Waits for one more datagram of an answer.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn hear(&self) -> Result<(Answer, Vec<OwnedFd>), EngineError> {
        let mut buffer = vec![0; MOST_OCTETS];
        let (len, fds) = receive(self.fd.as_fd(), &mut buffer).map_err(EngineError::Silent)?;
        match Answer::decode(&buffer[..len])? {
            Answer::Refused(why) => Err(EngineError::Refused(why)),
            answer => Ok((answer, fds)),
        }
    }

    /// Asks who it is. The anchor of its device comes along, once there is one.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn hello(&self) -> Result<(Hello, Option<OwnedFd>), EngineError> {
        match self.ask(&Ask::Hello)? {
            (Answer::Hello(hello), fds) => Ok((hello, fds.into_iter().next())),
            _ => Err(EngineError::Unexpected),
        }
    }

    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn start(&self, spec: EngineSpec) -> Result<(), EngineError> {
        self.done(&Ask::Start(spec))
    }

    /// Hands over newer peers, in as many datagrams as it takes.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn patch(&self, rows: &[(Prefix, Option<EnginePeerSpec>)]) -> Result<(), EngineError> {
        rows.chunks(MOST_ROWS).try_for_each(|rows| self.done(&Ask::Patch(rows.to_vec())))
    }

    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn stop(&self) -> Result<(), EngineError> {
        self.done(&Ask::Stop)
    }

    fn done(&self, ask: &Ask) -> Result<(), EngineError> {
        match self.ask(ask)? {
            (Answer::Done, _) => Ok(()),
            _ => Err(EngineError::Unexpected),
        }
    }

    /// Every peer's prefix.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn peers(&self) -> Result<Vec<(Prefix, EnginePeerSpec)>, EngineError> {
        let first = self.ask(&Ask::Peers)?.0;
        self.list(first, |answer| match answer {
            Answer::Peers(rows, more) => Some((rows, more)),
            _ => None,
        })
    }

    /// What was counted: as a whole, and by peer.
    ///
    /// # Errors
    ///
    /// As [`Self::ask`].
    pub fn status(&self) -> Result<(Totals, Vec<PeerCount>), EngineError> {
        let Answer::Totals(totals) = self.ask(&Ask::Status)?.0 else {
            return Err(EngineError::Unexpected);
        };
        let first = self.hear()?.0;
        let peers = self.list(first, |answer| match answer {
            Answer::Counted(rows, more) => Some((rows, more)),
            _ => None,
        })?;
        Ok((totals, peers))
    }

    /// Collects a list that comes in several datagrams.
    pub fn list<T>(
        &self,
        first: Answer,
        rows_of: impl Fn(Answer) -> Option<(Vec<T>, More)>,
    ) -> Result<Vec<T>, EngineError> {
        let mut all = Vec::new();
        let mut answer = first;
        for _ in 0..MOST_DATAGRAMS {
            let (rows, more) = rows_of(answer).ok_or(EngineError::Unexpected)?;
            all.extend(rows);
            if more == More::Nothing {
                return Ok(all);
            }
            answer = self.hear()?.0;
        }
        Err(EngineError::Unexpected)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sends one datagram, with descriptors.
///
/// # Errors
///
/// The socket's.
pub fn send(to: BorrowedFd<'_>, octets: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(to, &[IoSlice::new(octets)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one datagram, with descriptors. An end of the connection is an error.
///
/// # Errors
///
/// The socket's.
pub fn receive(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(buffer)];
    let got = rustix::net::recvmsg(from, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((got.bytes, fds))
}

/// How long an engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Descriptors of one message at most: an anchor, four queues, four sockets of each family, and the listener.
pub const MOST_FDS: usize = 16;
/// Datagrams of one list at most: 100,000 rows.
const MOST_DATAGRAMS: usize = 200;
