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
//! Where packets are sealed there is more to it (`succession`); this way is then only that of versions which know no other.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use russet_kernel::{
    engine::{
        Client, EngineError, EnginePeerSpec, EngineSpec, EngineWire, receive, send,
        wire::{Answer, Ask, HandedOver},
    },
    tun::{Offload, Tun},
};
use russet_net::{IfName, Prefix};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    control::{Control, End, Then, say, say_peers, vault},
    engine::{Engine, Kept, OpenError, Setup},
    shared::{Holdings, Pace, Ways},
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
    #[error("start the engine's threads")]
    Threads(#[from] io::Error),
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
        let seals = |spec: EngineSpec| matches!(spec.wire, EngineWire::Wireguard(_));
        let client = if client.hello()?.0.spec.is_some_and(seals) {
            match Self::succeed(link, path, key.as_ref(), client)? {
                Ok(control) => return Ok(control),
                Err(client) => client,
            }
        } else {
            client
        };
        let (answer, fds) = client.ask(&Ask::HandOver)?;
        let Answer::HandedOver(over) = answer else { return Err(EngineError::Unexpected.into()) };
        let peers = hear_peers(&client)?;
        let (holdings, listener) = divide(over, fds)?;
        let setup = setup_of(link, over);
        let vault = vault(over.spec, key.as_deref())?;
        let kept = Kept { peers, vault, ..Kept::default() };
        let engine = Engine::start(setup, holdings, kept)?;
        // Sessions are the one thing that cannot be handed over.
        engine.greet_all();
        // It may be gone already, and then there is nobody to tell.
        let _ = client.tell(&Ask::TakenOver);
        let bare = Self::at(link, setup.pace, path, listener);
        Ok(Self { key, engine: Some(engine), ..bare })
    }

    /// Hands everything over, and goes on if nobody takes it.
    pub(crate) fn hand_over(&mut self, to: &OwnedFd) -> Then {
        let Some(mut engine) = self.engine.take() else {
            let answered = say(to, &Answer::Refused("it has nothing to hand over".to_owned()));
            return if answered.is_ok() { Then::Stays } else { Then::Closes };
        };
        self.end_elder();
        engine.rest();
        let offered = self.offer(to, &engine).and_then(|()| hear(to, &Ask::TakenOver));
        let Err(error) = offered else { return Then::Ends(End::TakenOver) };
        tracing::warn!(op = "hand over", %error, "the engine goes on");
        if let Err(error) = engine.begin(Ways::Both) {
            tracing::error!(op = "go on", %error, "the engine cannot");
            return Then::Ends(End::Failed);
        }
        self.engine = Some(engine);
        Then::Closes
    }

    /// Sends all that an engine holds, and its peers.
    pub(crate) fn offer(&self, to: &OwnedFd, engine: &Engine) -> io::Result<()> {
        let (setup, holdings) = (engine.setup(), &engine.shared().holdings);
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
        say_peers(to, engine.peers())
    }
}

/// Waits for what the successor says next.
pub(crate) fn hear(from: &OwnedFd, wanted: &Ask) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
    if poll(&mut fds, Some(&PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = [0; 64];
    let (len, _) = receive(from.as_fd(), &mut buffer)?;
    match Ask::decode(&buffer[..len]) {
        Ok(ask) if ask == *wanted => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

pub(crate) fn hear_peers(
    predecessor: &Client,
) -> Result<BTreeMap<Prefix, EnginePeerSpec>, EngineError> {
    let first = predecessor.hear()?.0;
    let peers = predecessor.list(first, |answer| match answer {
        Answer::Peers(rows, more) => Some((rows, more)),
        _ => None,
    })?;
    Ok(peers.into_iter().collect())
}

pub(crate) const fn setup_of(link: IfName, over: HandedOver) -> Setup {
    let pace = if over.pace == 0 { Pace::Batches } else { Pace::OneByOne };
    Setup { link, spec: over.spec, pace }
}

/// Finds out which descriptor is what.
pub(crate) fn divide(
    over: HandedOver,
    fds: Vec<OwnedFd>,
) -> Result<(Holdings, OwnedFd), TakeOverError> {
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
