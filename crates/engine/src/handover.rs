//! An engine takes another's place, and no packet is lost: what arrives in between waits in the kernel, behind the
//! descriptors that go from the one process to the other.
//!
//! ```text
//!   successor ── HandOver ─────────────────────────────────────▶ predecessor: its threads rest
//!   successor ◀─ HandedOver + anchor, queues, sockets, listener ─ predecessor
//!   successor ◀─ Peers … ──────────────────────────────────────── predecessor
//!   successor: its threads begin
//!   successor ── TakenOver ────────────────────────────────────▶ predecessor: ends
//! ```
//!
//! A successor that dies before its last word has taken nothing: the predecessor still holds all, and goes on.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use russet_kernel::{
    engine::{
        Client, EngineError, receive, send,
        wire::{Answer, Ask, HandedOver},
    },
    tun::{Offload, Tun},
};
use russet_net::IfName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    control::{Control, End, Then, say, say_peers, vault},
    engine::{Engine, Kept, OpenError, Setup},
    shared::{Holdings, Pace},
};

/// Why nothing was taken over. The predecessor goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error("ask the predecessor")]
    Ask(#[from] EngineError),
    #[error("the predecessor hands over {got} descriptors, and says that they are {said}")]
    Descriptors { got: usize, said: usize },
    #[error(transparent)]
    Start(#[from] OpenError),
}

impl Control {
    /// Takes the place of the engine that listens at `path`.
    ///
    /// # Errors
    ///
    /// When there is none, or it does not hand over what it should.
    pub fn take_over(
        link: IfName,
        path: &Path,
        key: Option<PathBuf>,
    ) -> Result<Self, TakeOverError> {
        let client = Client::connect(path)?;
        let (answer, fds) = client.ask(&Ask::HandOver)?;
        let Answer::HandedOver(over) = answer else { return Err(EngineError::Unexpected.into()) };
        let first = client.hear()?.0;
        let peers = client.list(first, |answer| match answer {
            Answer::Peers(rows, more) => Some((rows, more)),
            _ => None,
        })?;
        let (holdings, listener) = divide(over, fds)?;
        let peers: BTreeMap<_, _> = peers.into_iter().collect();
        let pace = if over.pace == 0 { Pace::Batches } else { Pace::OneByOne };
        let setup = Setup { link, spec: over.spec, pace };
        let vault = vault(over.spec, key.as_deref())?;
        let kept = Kept { peers, vault, ..Kept::default() };
        let engine = Engine::start(setup, holdings, kept)?;
        // Sessions are the one thing that cannot be handed over.
        engine.greet_all();
        // It may be gone already, and then there is nobody to tell.
        let _ = client.tell(&Ask::TakenOver);
        let path = path.to_owned();
        let (engine, connections) = (Some(engine), Vec::new());
        Ok(Self { link, pace, key, path, listener, engine, connections })
    }

    /// Hands everything over, and goes on if nobody takes it.
    pub(crate) fn hand_over(&mut self, to: &OwnedFd) -> Then {
        let Some(engine) = self.engine.take() else {
            let answered = say(to, &Answer::Refused("it has nothing to hand over".to_owned()));
            return if answered.is_ok() { Then::Stays } else { Then::Closes };
        };
        let (setup, holdings, kept) = engine.stop();
        // The threads have ended, so all is in our hands.
        let Some(holdings) = holdings else { return Then::Ends(End::Failed) };
        match self.offer(to, &setup, &holdings, &kept) {
            Ok(()) => Then::Ends(End::TakenOver),
            Err(error) => {
                tracing::warn!(op = "hand over", %error, "the engine goes on");
                match Engine::start(setup, holdings, kept) {
                    Ok(engine) => {
                        self.engine = Some(engine);
                        Then::Closes
                    }
                    Err(error) => {
                        tracing::error!(op = "go on", %error, "the engine cannot");
                        Then::Ends(End::Failed)
                    }
                }
            }
        }
    }

    fn offer(
        &self,
        to: &OwnedFd,
        setup: &Setup,
        holdings: &Holdings,
        kept: &Kept,
    ) -> io::Result<()> {
        let count = |len: usize| u8::try_from(len).map_err(|_| io::ErrorKind::InvalidData);
        let over = HandedOver {
            spec: setup.spec,
            queues: count(holdings.tuns.len())?,
            v4: count(holdings.v4.len())?,
            v6: count(holdings.v6.len())?,
            offload: number_of(holdings.offload),
            pace: u8::from(setup.pace == Pace::OneByOne),
        };
        let fds: Vec<BorrowedFd<'_>> = [holdings.anchor.as_fd()]
            .into_iter()
            .chain(holdings.tuns.iter().map(AsFd::as_fd))
            .chain(holdings.v4.iter().chain(&holdings.v6).map(AsFd::as_fd))
            .chain([self.listener.as_fd()])
            .collect();
        send(to.as_fd(), &Answer::HandedOver(over).encode(), &fds)?;
        say_peers(to, &kept.peers)?;
        hear_taken_over(to)
    }
}

fn hear_taken_over(from: &OwnedFd) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
    if poll(&mut fds, Some(&PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = [0; 64];
    let (len, _) = receive(from.as_fd(), &mut buffer)?;
    match Ask::decode(&buffer[..len]) {
        Ok(Ask::TakenOver) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Finds out which descriptor is what.
fn divide(over: HandedOver, fds: Vec<OwnedFd>) -> Result<(Holdings, OwnedFd), TakeOverError> {
    let (queues, v4, v6) = (usize::from(over.queues), usize::from(over.v4), usize::from(over.v6));
    let (got, said) = (fds.len(), 2 + queues + v4 + v6);
    let wrong = || TakeOverError::Descriptors { got, said };
    if got != said {
        return Err(wrong());
    }
    let mut fds = fds.into_iter();
    let anchor = Tun::from_fd(fds.next().ok_or_else(wrong)?);
    let tuns = fds.by_ref().take(queues).map(Tun::from_fd).collect();
    let v4 = fds.by_ref().take(v4).collect();
    let v6 = fds.by_ref().take(v6).collect();
    let listener = fds.next().ok_or_else(wrong)?;
    Ok((Holdings { tuns, v4, v6, anchor, offload: offload_of(over.offload) }, listener))
}

const fn number_of(offload: Offload) -> u8 {
    match offload {
        Offload::None => 0,
        Offload::Checksum => 1,
        Offload::Tcp => 2,
        Offload::TcpUdp => 3,
    }
}

const fn offload_of(number: u8) -> Offload {
    match number {
        0 => Offload::None,
        1 => Offload::Checksum,
        2 => Offload::Tcp,
        _ => Offload::TcpUdp,
    }
}

/// How long a successor may take to begin.
const PATIENCE: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };
