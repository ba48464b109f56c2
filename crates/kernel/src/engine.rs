//! Engines: the processes that carry packets between a TUN link of ours and the underlay.
//!
//! One process for each link. It is ours when its socket in our folder answers with our protocol; nothing else of
//! it is known or remembered. It is started here and outlives us: it makes a session of its own, and is found
//! again by its socket. When it dies its connection breaks, which wakes the lane. `wire` is what is said, `client` asks,
//! `driver` keeps engines and their peers as they are wanted.
//!
//! The connection also keeps the anchor of the engine's device: while it is held, the death of the engine takes
//! no carrier away, and so no route with it.

mod client;
mod driver;
pub mod wire;

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub use russet_desired::{EngineEnd, EnginePeerSpec, EngineSpec, EngineWire, WireguardSpec};
use russet_net::IfName;
use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use self::wire::Hello;
pub use self::{
    client::{Client, EngineError, MOST_FDS, receive, send},
    driver::{EngineDriver, EnginePeerDriver, Running},
};

/// Where engines are, and how one is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginePlaces {
    /// The folder of their sockets.
    pub folder: PathBuf,
    /// The program that is run with `engine run`.
    pub program: PathBuf,
    /// Where the node's WireGuard key is kept.
    pub key: PathBuf,
}

impl EnginePlaces {
    /// The socket of the engine of a link.
    pub fn socket(&self, link: IfName) -> PathBuf {
        socket_in(&self.folder, link)
    }

    /// The links whose engines have, or had, a socket.
    ///
    /// # Errors
    ///
    /// When the folder is there and cannot be read.
    pub fn links(&self) -> io::Result<Vec<IfName>> {
        links_in(&self.folder)
    }
}

/// Where the engine of a link has its socket.
pub fn socket_in(folder: &Path, link: IfName) -> PathBuf {
    folder.join(format!("{link}.{SUFFIX}"))
}

/// The links whose engines have, or had, a socket in this folder.
///
/// # Errors
///
/// When the folder is there and cannot be read.
pub fn links_in(folder: &Path) -> io::Result<Vec<IfName>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(err),
    };
    let link = |entry: io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok()
    };
    Ok(entries.filter_map(link).take(MOST_ENGINES).collect())
}

/// The engines of one network namespace.
#[derive(Debug)]
pub struct Engines {
    places: Option<EnginePlaces>,
    connections: BTreeMap<IfName, Connection>,
    children: Vec<Child>,
    /// Readable when a connection breaks.
    watch: OwnedFd,
    /// Whether one was started, or taken over, since somebody last asked.
    started: bool,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    hello: Hello,
    /// Held, and never used: it keeps the carrier.
    _anchor: Option<OwnedFd>,
}

impl Engines {
    /// # Errors
    ///
    /// When no descriptor is to be had.
    pub fn new(places: Option<EnginePlaces>) -> io::Result<Self> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let connections = BTreeMap::new();
        Ok(Self { places, connections, children: Vec::new(), watch, started: false })
    }

    /// Readable when an engine has gone.
    pub fn watch(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Lets go of the engines that have gone, and tells whether there were any.
    pub fn drop_broken(&mut self) -> bool {
        self.reap();
        let before = self.connections.len();
        self.connections.retain(|link, connection| {
            let alive = !is_broken(connection.client.as_fd());
            if !alive {
                tracing::warn!(ifname = %link, "an engine has gone");
            }
            alive
        });
        self.connections.len() < before
    }

    /// Children that have ended are not to stay as zombies.
    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Whether an engine is new since the last call: it has no peers yet, or another one's.
    pub fn take_started(&mut self) -> bool {
        std::mem::take(&mut self.started)
    }

    /// Connects to every engine that answers and is not connected yet.
    fn connect_all(&mut self) {
        let links = self.places.as_ref().and_then(|places| places.links().ok());
        for link in links.unwrap_or_default() {
            if !self.connections.contains_key(&link) {
                // A socket without anybody behind it is what a dead engine leaves.
                let _ = self.connect(link);
            }
        }
    }

    fn connect(&mut self, link: IfName) -> Result<(), EngineError> {
        let places = self.places.as_ref().ok_or(EngineError::NotUp)?;
        let client = Client::connect(&places.socket(link))?;
        let (hello, anchor) = client.hello()?;
        let data = epoll::EventData::new_u64(0);
        // Whoever is not watched is found out by the sweep.
        let _ = epoll::add(&self.watch, &client, data, epoll::EventFlags::RDHUP);
        self.connections.insert(link, Connection { client, hello, _anchor: anchor });
        Ok(())
    }

    fn client(&self, link: IfName) -> Result<&Client, EngineError> {
        self.connections.get(&link).map(|it| &it.client).ok_or(EngineError::NotUp)
    }

    /// Starts an engine and gives it its work.
    fn start(&mut self, link: IfName, spec: EngineSpec) -> Result<(), EngineError> {
        if !self.connections.contains_key(&link) {
            self.spawn(link, Beginning::Fresh)?;
            self.await_up(link, UP_WITHIN, |_| true)?;
        }
        self.client(link)?.start(spec)?;
        // With its work it has an anchor to give.
        self.connections.remove(&link);
        self.connect(link)?;
        self.started = true;
        Ok(())
    }

    /// Puts an engine of our own version in the place of another, which hands over what it holds.
    fn replace(&mut self, link: IfName) -> Result<(), EngineError> {
        let old = self.connections.get(&link).map(|it| it.hello.pid);
        self.spawn(link, Beginning::TakeOver)?;
        self.await_up(link, OVER_WITHIN, |hello| Some(hello.pid) != old)?;
        self.started = true;
        Ok(())
    }

    /// Ends an engine. One that is gone already is none.
    fn stop(&mut self, link: IfName) {
        if let Some(connection) = self.connections.remove(&link) {
            let _ = connection.client.stop();
            // It closes when it is gone, and its port is free.
            let until = Instant::now() + UP_WITHIN;
            while Instant::now() < until && !is_broken(connection.client.as_fd()) {
                std::thread::sleep(STEP);
            }
        }
        self.reap();
    }

    fn spawn(&mut self, link: IfName, beginning: Beginning) -> Result<(), EngineError> {
        let places = self.places.as_ref().ok_or(EngineError::NotUp)?;
        let mut command = Command::new(&places.program);
        // It may be installed under a name that makes it another program's double.
        command.arg0("russet");
        command.args(["engine", "run", "--link", link.as_str(), "--socket"]);
        command.arg(places.socket(link)).arg("--key").arg(&places.key);
        if beginning == Beginning::TakeOver {
            command.arg("--take-over");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.children.push(command.spawn().map_err(EngineError::Start)?);
        Ok(())
    }

    fn last_child_ended(&mut self) -> bool {
        self.children.last_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Waits until the engine that was spawned last answers as wanted.
    fn await_up(
        &mut self,
        link: IfName,
        within: Duration,
        wanted: impl Fn(&Hello) -> bool,
    ) -> Result<(), EngineError> {
        let until = Instant::now() + within;
        loop {
            self.connections.remove(&link);
            let up = self.connect(link);
            let is_it = self.connections.get(&link).is_some_and(|it| wanted(&it.hello));
            match up {
                Ok(()) if is_it => return Ok(()),
                // One that has ended will not come up.
                Ok(()) | Err(_) if self.last_child_ended() => return Err(EngineError::NotUp),
                Ok(()) | Err(_) if Instant::now() < until => std::thread::sleep(STEP),
                Ok(()) => return Err(EngineError::NotUp),
                Err(err) => return Err(err),
            }
        }
    }
}

/// How an engine begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    Fresh,
    TakeOver,
}

/// Whether the other end is gone. An engine says nothing unasked.
fn is_broken(client: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(client, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(gone)
}

/// The version that an engine of ours says.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
const SUFFIX: &str = "sock";
/// Engines of one node at most.
const MOST_ENGINES: usize = 16;
/// How long an engine may take to come up, or to end.
const UP_WITHIN: Duration = Duration::from_secs(3);
/// How long one may take to take another's place: the other's own predecessor may still linger.
const OVER_WITHIN: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(2);
