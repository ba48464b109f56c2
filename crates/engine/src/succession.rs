//! An engine that seals takes another's place. Sessions cannot go from process to process, so for a while there are
//! two engines on the same sockets and queues, each with sessions of its own, and no packet is lost.
//!
//! ```text
//!   successor ── Succeed ─────────────────────────────▶ predecessor: hears the sockets no more, goes on sending,
//!   successor ◀─ HandedOver + descriptors, Peers … ────              and opens what is passed on to it
//!   successor ◀─ Passage + its end, Living … ──────────
//!   successor: hears the sockets, passes on what is
//!      sealed for the predecessor, and greets all peers
//!   successor ── Ready ───────────────────────────────▶ predecessor: sends no more, only opens
//!   successor ◀─ Done ─────────────────────────────────
//!   successor: sends as well
//!   successor ── TakenOver ───────────────────────────▶ predecessor: lingers for what is still under way, and ends
//! ```
//!
//! A peer seals for the successor from the moment that it has shaken hands with it. Ready is said when all peers have that
//! had a session with the predecessor, or after [`HANDS_WITHIN`]. The numbers of the two engines' sessions are disjoint, so
//! a datagram tells for whom it is.
//!
//! A successor that dies, whether before its last word or while the predecessor lingers, leaves a predecessor that still
//! holds all and goes on. A predecessor that dies leaves a successor that has all from its first word on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use russet_kernel::engine::{
    Client, EngineError, EngineWire, receive,
    wire::{Answer, Ask, HandedOver, Living},
};
use russet_net::IfName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    control::{Control, End, Then, in_datagrams, refused, say, vault},
    engine::{Engine, Kept},
    handover::{TakeOverError, divide, hear, hear_peers, setup_of},
    passage::Passage,
    shared::Ways,
    table::family_of,
};

// ---- the predecessor
impl Control {
    /// Whether it is an engine that seals.
    pub(crate) fn seals(&self) -> bool {
        let spec = self.engine.as_ref().map(|engine| engine.setup().spec);
        spec.is_some_and(|spec| matches!(spec.wire, EngineWire::Wireguard(_)))
    }

    /// Lets another engine take its place, and goes on if nobody does.
    pub(crate) fn be_succeeded(&mut self, by: &OwnedFd) -> Then {
        let answer = if self.elder.is_some() {
            Answer::Later
        } else if !self.seals() {
            refused("it seals nothing")
        } else {
            return self.step_down(by);
        };
        if say(by, &answer).is_ok() { Then::Stays } else { Then::Closes }
    }

    fn step_down(&mut self, by: &OwnedFd) -> Then {
        let Some(mut engine) = self.engine.take() else { return Then::Closes };
        let Err(error) = self.hand_on(&mut engine, by) else { return Then::Ends(End::TakenOver) };
        tracing::warn!(op = "be succeeded", %error, "the engine goes on");
        // Whoever is only slow is not to begin now.
        let _ = say(by, &refused("too late: the predecessor goes on"));
        engine.rest();
        if let Err(error) = engine.begin(Ways::Both) {
            tracing::error!(op = "go on", %error, "the engine cannot");
            return Then::Ends(End::Failed);
        }
        // Who has shaken hands with the successor seals for it until then.
        engine.greet_all();
        self.engine = Some(engine);
        Then::Stays
    }

    fn hand_on(&mut self, engine: &mut Engine, by: &OwnedFd) -> io::Result<()> {
        await_answers(engine);
        let [ours, theirs] = Passage::pair()?;
        let ours = Arc::new(ours);
        engine.rest();
        engine.begin(Ways::Out)?;
        engine.begin_opening(&ours)?;
        self.offer(by, engine)?;
        let first = engine.shared().vault.as_ref().map(|vault| vault.next_index());
        let passage = Answer::Passage(first.unwrap_or_default());
        russet_kernel::engine::send(by.as_fd(), &passage.encode(), &[theirs.as_fd()])?;
        drop(theirs);
        in_datagrams(&living(engine), |rows, more| say(by, &Answer::Living(rows, more)))?;
        hear(by, &Ask::Ready)?;
        engine.rest();
        engine.begin_opening(&ours)?;
        say(by, &Answer::Done)?;
        hear(by, &Ask::TakenOver)?;
        say(by, &Answer::Done)?;
        // Whoever managed us finds the successor by the socket's name.
        self.connections.clear();
        linger(by)
    }
}

/// Waits a little for the answers to greetings that are out: they would come to one who does not know them.
fn await_answers(engine: &Engine) {
    let until = Instant::now() + ANSWERS_WITHIN;
    let table = engine.table();
    let awaits = || {
        table.peers().filter_map(|peer| peer.tunnel.as_ref()).any(|tunnel| tunnel.awaits_answer())
    };
    while awaits() && Instant::now() < until {
        std::thread::sleep(STEP);
    }
}

/// The peers that there is a session with, and where they are.
fn living(engine: &Engine) -> Vec<Living> {
    let table = engine.table();
    let tunnels = table.peers().filter_map(|peer| peer.tunnel.as_ref());
    let living = tunnels.filter(|tunnel| tunnel.since_handshake().is_some());
    living.map(|tunnel| Living { key: tunnel.key, endpoint: tunnel.endpoint() }).collect()
}

/// Stays for what is under way, unless the successor ends: asked to, it says so; else it has died.
fn linger(by: &OwnedFd) -> io::Result<()> {
    if !is_readable(by.as_fd(), &LINGERS)? {
        return Ok(());
    }
    receive(by.as_fd(), &mut [0; 64]).map(|_| ())
}

// ---- the successor
impl Control {
    /// Takes the place of an engine that seals; `None` when it is of a version that cannot let it happen this way.
    pub(crate) fn succeed(
        link: IfName,
        path: &Path,
        key: Option<&PathBuf>,
        client: Client,
    ) -> Result<Result<Self, Client>, TakeOverError> {
        let Some((over, fds)) = ask(&client)? else { return Ok(Err(client)) };
        let peers = hear_peers(&client)?;
        let (holdings, listener) = divide(over, fds)?;
        let (Answer::Passage(first), fds) = client.hear()? else { return Err(unexpected()) };
        let passage = fds.into_iter().next().ok_or_else(unexpected)?;
        let rest = client.hear()?.0;
        let living = client.list(rest, |answer| match answer {
            Answer::Living(rows, more) => Some((rows, more)),
            _ => None,
        })?;

        let setup = setup_of(link, over);
        let vault = vault(over.spec, key.map(PathBuf::as_path))?;
        if let Some(vault) = &vault {
            vault.begin_at(first);
        }
        let passage = Some(Arc::new(Passage::from_fd(passage)));
        let kept = Kept { peers, vault, passage, ..Kept::default() };
        let mut engine = Engine::new(setup, holdings, kept)?;
        engine.begin(Ways::In)?;
        shake_hands(&engine, &living, &client);
        still_ours(client.ask(&Ask::Ready))?;
        engine.rest();
        engine.begin(Ways::Both)?;
        // Whoever has heard the predecessor last seals for it until then.
        engine.show_life();
        still_ours(client.ask(&Ask::TakenOver))?;
        let bare = Self::at(link, setup.pace, path, listener);
        Ok(Ok(Self { key: key.cloned(), engine: Some(engine), elder: Some(client), ..bare }))
    }

    /// Ends the predecessor: it would take the end of this one for a death, and go on.
    pub(crate) fn end_elder(&mut self) {
        if let Some(elder) = &self.elder {
            let _ = elder.tell(&Ask::Stop);
        }
        self.forget_elder();
    }

    /// The predecessor has ended: nothing is passed on any more.
    pub(crate) fn forget_elder(&mut self) {
        self.elder = None;
        if let Some(passage) = self.engine.as_ref().and_then(|it| it.shared().passage.as_ref()) {
            passage.close();
        }
    }
}

/// Asks until the predecessor's own predecessor has ended.
fn ask(client: &Client) -> Result<Option<(HandedOver, Vec<OwnedFd>)>, TakeOverError> {
    let until = Instant::now() + LATER_WITHIN;
    loop {
        match client.ask(&Ask::Succeed) {
            Ok((Answer::HandedOver(over), fds)) => return Ok(Some((over, fds))),
            Ok((Answer::Later, _)) if Instant::now() < until => std::thread::sleep(STEP * 10),
            Ok(_) => return Err(unexpected()),
            Err(EngineError::Refused(_)) => return Ok(None),
            Err(err) => return Err(err.into()),
        }
    }
}

/// Greets, and waits until those have a session who had one.
fn shake_hands(engine: &Engine, living: &[Living], predecessor: &Client) {
    let table = engine.table();
    let tunnel = |one: &Living| {
        let place = table.of_key(family_of(one.endpoint), one.key)?;
        let tunnel = table.peer(place)?.tunnel.as_ref()?;
        tunnel.follow(one.endpoint);
        Some(tunnel)
    };
    let mut missing: Vec<_> = living.iter().filter_map(tunnel).collect();
    engine.greet_all();
    let begun = Instant::now();
    let mut again = AGAIN;
    loop {
        missing.retain(|tunnel| tunnel.since_handshake().is_none());
        if missing.is_empty() || begun.elapsed() >= HANDS_WITHIN {
            break;
        }
        if begun.elapsed() >= again {
            again += AGAIN;
            for tunnel in &missing {
                engine.greet_again(tunnel);
            }
        }
        // It has nothing to say: it is dead, or goes on.
        if is_readable(predecessor.as_fd(), &GLANCE).unwrap_or(true) {
            break;
        }
    }
    let after = begun.elapsed();
    tracing::info!(peers = living.len(), without = missing.len(), ?after, "hands are shaken");
}

/// A predecessor that is dead cannot object; one that goes on does.
fn still_ours(answer: Result<(Answer, Vec<OwnedFd>), EngineError>) -> Result<(), TakeOverError> {
    match answer {
        Ok((Answer::Done, _)) | Err(EngineError::Silent(_)) => Ok(()),
        Ok(_) => Err(unexpected()),
        Err(err) => Err(err.into()),
    }
}

fn unexpected() -> TakeOverError {
    EngineError::Unexpected.into()
}

fn is_readable(fd: BorrowedFd<'_>, within: &Timespec) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(within))? > 0)
}

/// How long answers to what the predecessor has asked are waited for.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);
/// How long the peers may take to shake hands with the successor.
const HANDS_WITHIN: Duration = Duration::from_secs(1);
/// After which they are greeted once more.
const AGAIN: Duration = Duration::from_millis(300);
/// How long a predecessor opens what is still under way: longer than anything is.
const LINGERS: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };
/// How long a predecessor may have one of its own.
const LATER_WITHIN: Duration = Duration::from_secs(6);
const STEP: Duration = Duration::from_millis(5);
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
