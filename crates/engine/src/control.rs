//! The engine's socket: the agent says what is wanted, an operator asks, a successor takes over.
//!
//! One thread answers one question at a time; the packets do not wait for it. Only root, or whoever the engine runs
//! as, is listened to. An engine whose asker goes away goes on: that is what it is for. It sleeps without a clock, but
//! while peers are to be greeted (`greetings`), so idle it never wakes.
//!
//! ```text
//!   Empty ── Start ──▶ Working ── HandOver ──▶ (threads rest) ── TakenOver ──▶ ends
//!                         ▲                          └── nothing within 3 s ──┐
//!                         └───────────────────────────────────────────────────┘
//! ```
//!
//! Where packets are sealed it is `Succeed` in the place of `HandOver`, and more is said (`succession`).

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use russet_kernel::engine::{
    BUILD, Client, EnginePeerSpec, EngineSpec, EngineWire, receive, send,
    wire::{Answer, Ask, Hello, MOST_OCTETS, MOST_ROWS, More},
};
use russet_net::{IfName, Prefix};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
};

use crate::{
    engine::{Engine, Kept, OpenError, Setup},
    greetings::Greetings,
    key, report,
    shared::{Holdings, Pace},
    table::Peer,
    tunnel::Vault,
};

/// Serves one engine until it is to end.
#[derive(Debug)]
pub struct Control {
    pub(crate) link: IfName,
    pub(crate) pace: Pace,
    /// The file of the node's WireGuard key.
    pub(crate) key: Option<PathBuf>,
    pub(crate) path: PathBuf,
    pub(crate) listener: OwnedFd,
    pub(crate) engine: Option<Engine>,
    pub(crate) connections: Vec<OwnedFd>,
    /// The engine whose place this one has taken, as long as it lingers.
    pub(crate) elder: Option<Client>,
    /// When the engine began with nothing; one that has inherited its sessions did not.
    pub(crate) begun: Option<Instant>,
    pub(crate) greetings: Greetings<Arc<Peer>>,
}

/// Why an engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Asked,
    /// A successor has everything.
    TakenOver,
    /// Its device is gone.
    Failed,
}

/// What becomes of a connection after a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Stays,
    Closes,
    Ends(End),
}

impl Control {
    /// Listens, with nothing to do yet.
    ///
    /// # Errors
    ///
    /// When the socket cannot be bound, or an engine of this link answers already.
    pub fn listen(link: IfName, path: &Path, pace: Pace) -> io::Result<Self> {
        if Client::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC;
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Nobody else even gets as far as being refused.
        let before = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        let bound = rustix::net::bind(&listener, &SocketAddrUnix::new(path)?);
        rustix::process::umask(before);
        bound?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self::at(link, pace, path, listener))
    }

    /// One that has no engine yet.
    pub(crate) fn at(link: IfName, pace: Pace, path: &Path, listener: OwnedFd) -> Self {
        Self {
            link,
            pace,
            key: None,
            path: path.to_owned(),
            listener,
            engine: None,
            connections: Vec::new(),
            elder: None,
            begun: None,
            greetings: Greetings::default(),
        }
    }

    /// Says where the node's WireGuard key is kept.
    #[must_use]
    pub fn with_key(self, key: Option<PathBuf>) -> Self {
        Self { key, ..self }
    }

    /// Answers until it is to end.
    pub fn serve(mut self) -> End {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(op = "wait for questions", %error, "the engine cannot go on");
                    return self.leave(End::Failed);
                }
            };
            if self.engine.as_ref().is_some_and(|engine| engine.shared().halt.has_failed()) {
                return self.leave(End::Failed);
            }
            // From behind, so that closing one moves none that is still to be looked at.
            for place in ready.connections.into_iter().rev() {
                match self.converse(place) {
                    // None is left where a successor has nearly taken over.
                    Then::Closes if place < self.connections.len() => {
                        self.connections.swap_remove(place);
                    }
                    Then::Stays | Then::Closes => {}
                    Then::Ends(end) => return self.leave(end),
                }
            }
            if ready.elder {
                self.forget_elder();
            }
            if ready.listener {
                self.accept();
            }
            self.greet();
        }
    }

    /// Greets whose turn it is. A successor greets all by itself.
    fn greet(&mut self) {
        let Some(engine) = &self.engine else { return self.greetings.put([]) };
        self.greetings.go_on(Instant::now(), |peer| {
            peer.tunnel.as_ref().is_some_and(|tunnel| engine.greet_stranger(tunnel))
        });
    }

    /// A successor needs the socket's name; nobody else does.
    fn leave(self, end: End) -> End {
        if end != End::TakenOver {
            let _ = std::fs::remove_file(&self.path);
        }
        end
    }

    fn wait(&self) -> Result<Ready, Errno> {
        let alarm = self.engine.as_ref().map(|engine| engine.shared().halt.alarm());
        let fds = [self.listener.as_fd()].into_iter();
        let elder = self.elder.as_ref().map(AsFd::as_fd);
        let fds = fds.chain(self.connections.iter().map(AsFd::as_fd)).chain(alarm).chain(elder);
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let due = self.greetings.time_left(Instant::now());
        let due = due.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, due.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let connections =
            (0..self.connections.len()).filter(|place| is_ready(&fds[place + 1])).collect();
        let elder = self.elder.is_some() && fds.last().is_some_and(is_ready);
        Ok(Ready { listener: is_ready(&fds[0]), connections, elder })
    }

    fn accept(&mut self) {
        let accepted = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC);
        let Ok(connection) = accepted else { return };
        let uid = sockopt::socket_peercred(&connection).map(|peer| peer.uid);
        let known = uid.is_ok_and(|uid| uid.is_root() || uid == rustix::process::geteuid());
        if !known || self.connections.len() >= MOST_CONNECTIONS {
            tracing::warn!(op = "accept", known, "a connection is refused");
            return;
        }
        // Whoever does not read his answer holds nobody up for long.
        let _ = sockopt::set_socket_timeout(&connection, sockopt::Timeout::Send, Some(PATIENCE));
        self.connections.push(connection);
    }

    fn converse(&mut self, place: usize) -> Then {
        let mut buffer = vec![0; MOST_OCTETS];
        // It stays open when it is taken out, whatever becomes of the list.
        let Some(connection) = self.connections.get(place).and_then(|it| it.try_clone().ok())
        else {
            return Then::Closes;
        };
        let Ok((len, _)) = receive(connection.as_fd(), &mut buffer) else { return Then::Closes };
        let asked = Ask::decode(&buffer[..len]);
        drop(buffer);
        let builds = matches!(asked, Ok(Ask::Start(_) | Ask::Patch(_)));
        let answered = match asked {
            Ok(Ask::HandOver) => return self.hand_over(&connection),
            Ok(Ask::Succeed) => return self.be_succeeded(&connection),
            Ok(Ask::Stop) => {
                self.end_elder();
                drop(self.engine.take());
                let _ = send(connection.as_fd(), &Answer::Done.encode(), &[]);
                return Then::Ends(End::Asked);
            }
            Ok(ask) => self.answer(&connection, ask),
            Err(err) => say(&connection, &Answer::Refused(err.to_string())),
        };
        if builds {
            // The old table, the rows, and what the start needed.
            russet_kernel::sys::give_memory_back();
        }
        if answered.is_ok() { Then::Stays } else { Then::Closes }
    }

    fn answer(&mut self, to: &OwnedFd, ask: Ask) -> io::Result<()> {
        match (ask, self.engine.as_mut()) {
            (Ask::Hello, engine) => hello(to, engine.as_deref()),
            (Ask::Start(spec), None) => {
                let answer = self.start(spec);
                say(to, &answer)
            }
            (Ask::Start(spec), Some(engine)) if engine.setup().spec == spec => {
                say(to, &Answer::Done)
            }
            (Ask::Start(_), Some(_)) => say(to, &refused("it has begun with another task")),
            (Ask::Patch(rows), Some(engine)) => {
                engine.patch(rows);
                let is_new = self.begun.is_some_and(|at| at.elapsed() < INTRODUCES_FOR);
                if is_new || keeps_open(engine.setup().spec) {
                    self.greetings.put(engine.table().strangers().cloned());
                }
                say(to, &Answer::Done)
            }
            (Ask::Peers, Some(engine)) => say_peers(to, engine.peers()),
            (Ask::Status, Some(engine)) => report::say(to, engine),
            (Ask::Patch(_) | Ask::Peers | Ask::Status, None) => {
                say(to, &refused("it has not begun"))
            }
            (Ask::Stop | Ask::HandOver | Ask::TakenOver | Ask::Succeed | Ask::Ready, _) => {
                say(to, &refused("not now"))
            }
        }
    }

    fn start(&mut self, spec: EngineSpec) -> Answer {
        let setup = Setup { link: self.link, spec, pace: self.pace };
        let begun = vault(spec, self.key.as_deref()).and_then(|vault| {
            let kept = Kept { vault, ..Kept::default() };
            Engine::start(setup, Holdings::open(&setup)?, kept)
        });
        match begun {
            Ok(engine) => {
                self.engine = Some(engine);
                self.begun = Some(Instant::now());
                Answer::Done
            }
            Err(err) => Answer::Refused(russet_kernel::one_line(&err)),
        }
    }
}

/// Says who it is, and gives the anchor of the device away once more.
fn hello(to: &OwnedFd, engine: Option<&Engine>) -> io::Result<()> {
    let spec = engine.map(|engine| engine.setup().spec);
    let hello = Hello { build: BUILD.to_owned(), pid: std::process::id(), spec };
    let anchor = engine.map(|engine| engine.shared().holdings.anchor.as_fd());
    let anchor: Vec<_> = anchor.into_iter().collect();
    send(to.as_fd(), &Answer::Hello(hello).encode(), &anchor)
}

/// What can be read from.
#[derive(Default)]
struct Ready {
    listener: bool,
    connections: Vec<usize>,
    elder: bool,
}

pub(crate) fn say(to: &OwnedFd, answer: &Answer) -> io::Result<()> {
    send(to.as_fd(), &answer.encode(), &[])
}

pub(crate) fn say_peers(to: &OwnedFd, peers: &BTreeMap<Prefix, EnginePeerSpec>) -> io::Result<()> {
    let peers: Vec<_> = peers.iter().map(|(prefix, peer)| (*prefix, *peer)).collect();
    in_datagrams(&peers, |rows, more| say(to, &Answer::Peers(rows, more)))
}

/// Divides a list into as many datagrams as it takes: one at least.
pub(crate) fn in_datagrams<T: Clone>(
    rows: &[T],
    mut say: impl FnMut(Vec<T>, More) -> io::Result<()>,
) -> io::Result<()> {
    let mut rest = rows;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MOST_ROWS));
        let more = if later.is_empty() { More::Nothing } else { More::Follows };
        say(now.to_vec(), more)?;
        if later.is_empty() {
            return Ok(());
        }
        rest = later;
    }
}

/// What seals, where packets are sealed: with the node's key, which is made when there is none.
pub(crate) fn vault(spec: EngineSpec, key: Option<&Path>) -> Result<Option<Arc<Vault>>, OpenError> {
    let EngineWire::Wireguard(spec) = spec.wire else { return Ok(None) };
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let secret = key.ok_or_else(missing).and_then(key::load_or_make).map_err(OpenError::Key)?;
    Ok(Some(Arc::new(Vault::new(secret, spec))))
}

/// Whether peers are to be greeted although nothing is to be sent.
fn keeps_open(spec: EngineSpec) -> bool {
    matches!(spec.wire, EngineWire::Wireguard(wireguard) if wireguard.keepalive > 0)
}

pub(crate) fn refused(why: &str) -> Answer {
    Answer::Refused(why.to_owned())
}

/// Connections at once: the agent, an operator or two, a successor.
const MOST_CONNECTIONS: usize = 8;
const BACKLOG: i32 = 8;
/// How long an engine that began with nothing greets whom it is told of. Where the node was up before, its peers seal
/// for sessions that nobody has any more, and would for 15 s (WireGuard: `KEEPALIVE_TIMEOUT` + `REKEY_TIMEOUT`).
const INTRODUCES_FOR: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(1);
