//! Looks after the paths to the other nodes: how large a packet they carry, and whether checksums inside the tunnel
//! arrive as they should.
//!
//! ```text
//!   owner ◀── Input::NextPath (which peer is next?) ── prober, a plain thread
//!   owner ◀── Input::Probed (what was found) ───────── one peer a second, all of them once a period
//! ```
//!
//! A peer that answers a small echo request and no large one is behind a *black hole*: packets of some size vanish and
//! nobody says so. Any host answers echo requests, so the peers may run flanneld. A peer that answers neither
//! is behind a firewall or away, and nothing is said of it.
//!
//! Checksums: some network cards spoil what is inside VXLAN when the checksum is left to them. A datagram to a
//! closed port is refused by the peer when it arrives whole. If that happens with a checksum of ours
//! and not with one that is left to the card, over and over and with more than one look, it is the card.

mod search;

use std::{
    cell::Cell,
    io,
    net::IpAddr,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use russet_core::model::LeaseKey;
use russet_kernel::{
    probe::{Checksum, Echo, Echoed, closed_port},
    sys::ethtool,
};
use russet_net::IfName;
use tokio::sync::{mpsc, oneshot};

use self::search::largest;
use crate::{StartError, owner::Input};

/// A way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub node: IpAddr,
    /// The largest packet that is sent over it.
    pub octets: u16,
    pub tunnel: Option<Tunnel>,
}

/// A VXLAN tunnel, by the addresses of its ends' devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub link: IfName,
    pub here: IpAddr,
    pub there: IpAddr,
}

/// The ways to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub key: LeaseKey,
    pub paths: Vec<Path>,
}

/// What was found on one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    pub path: Path,
    pub carries: Carries,
    /// `None` when that could not be told.
    pub checksums: Option<Checksums>,
}

/// How large a packet a path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// As large as any that is sent.
    All,
    /// Less, and it says so.
    Told(u16),
    /// Less, and larger ones vanish.
    Hole(u16),
    /// Nothing was answered.
    Silent,
}

/// What becomes of the checksums inside a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// They arrive, by whomever they are worked out.
    Right,
    /// Those that are left to the link do not arrive.
    Spoiled,
    /// None is left to the link: the device is set so.
    Spared,
}

/// The thread. It ends when dropped.
#[derive(Debug)]
pub struct Prober {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts to probe all peers, once in each period where they are fewer than its seconds.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(period: Duration, inputs: &mpsc::Sender<Input>) -> Result<Self, StartError> {
        let (stop, stopped) = channel();
        let round = Round { inputs: inputs.downgrade(), stopped, period, denied: Cell::new(false) };
        let thread = thread::Builder::new().name("prober".to_owned()).spawn(move || round.run());
        let thread = thread.map_err(|err| StartError::Thread("prober", err))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the prober panicked");
        }
    }
}

struct Round {
    inputs: mpsc::WeakSender<Input>,
    stopped: Receiver<()>,
    period: Duration,
    /// Whether it was said that we may not probe.
    denied: Cell<bool>,
}

impl Round {
    fn run(self) {
        let mut after = None;
        let mut began = Instant::now();
        // A node that has just started has other things to do.
        let mut pause = PAUSE;
        while !self.is_stopped(pause) {
            let Ok(next) = self.next(after) else { return };
            let Some(paths) = next else {
                after = None;
                pause = self.period.saturating_sub(began.elapsed()).max(PAUSE);
                began = Instant::now() + pause;
                continue;
            };
            after = Some(paths.key);
            pause = PAUSE;
            let findings = paths.paths.into_iter().filter_map(|path| self.probe(path)).collect();
            if self.tell(Input::Probed(paths.key, findings)).is_none() {
                return;
            }
        }
    }

    /// Waits, and tells whether to end.
    fn is_stopped(&self, pause: Duration) -> bool {
        self.stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
    }

    /// The peer behind this one; an error when the owner is gone.
    fn next(&self, after: Option<LeaseKey>) -> Result<Option<Paths>, oneshot::error::RecvError> {
        let (sender, answer) = oneshot::channel();
        // Without an owner the question is dropped, and with it the sender.
        let _ = self.tell(Input::NextPath(after, sender));
        answer.blocking_recv()
    }

    fn tell(&self, input: Input) -> Option<()> {
        self.inputs.upgrade()?.blocking_send(input).ok()
    }

    /// `None` when it was asked to stop in between, or a socket is not to be had.
    fn probe(&self, path: Path) -> Option<Finding> {
        let carries = self.carries(path).unwrap_or_else(|error| {
            self.say(path.node, &error);
            Some(Carries::Silent)
        })?;
        let checksums = path.tunnel.and_then(|tunnel| {
            self.checksums(tunnel).unwrap_or_else(|error| {
                let link = tunnel.link;
                tracing::debug!(op = "probe", %link, %error, "checksums cannot be probed");
                None
            })
        });
        Some(Finding { path, carries, checksums })
    }

    /// That we may not is said once; other reasons are the moment's.
    fn say(&self, node: IpAddr, error: &io::Error) {
        if error.kind() != io::ErrorKind::PermissionDenied {
            tracing::debug!(op = "probe", %node, %error, "the path cannot be probed");
        } else if !self.denied.replace(true) {
            tracing::warn!(op = "probe", %error, "paths are not probed: CAP_NET_RAW is wanted for that");
        }
    }

    fn carries(&self, path: Path) -> io::Result<Option<Carries>> {
        let mut echo = Echo::open(path.node)?;
        if try_often(TRIES, || Ok(echo.ask(path.octets, PATIENCE)? == Echoed::Yes))? {
            return Ok(Some(Carries::All));
        }
        let least = if path.node.is_ipv4() { LEAST_V4 } else { LEAST_V6 };
        let answers = || Ok(echo.ask(least, PATIENCE)? == Echoed::Yes);
        if path.octets <= least || !try_often(TRIES, answers)? {
            return Ok(Some(Carries::Silent));
        }
        let told = echo.told().and_then(|mtu| u16::try_from(mtu).ok());
        if let Some(told) = told.filter(|told| *told < path.octets) {
            return Ok(Some(Carries::Told(told)));
        }
        let found = largest(least, path.octets, |octets| {
            if self.is_stopped(Duration::ZERO) {
                return Ok(None);
            }
            try_often(2, || Ok(echo.ask(octets, PATIENCE)? == Echoed::Yes)).map(Some)
        })?;
        Ok(found.map(Carries::Hole))
    }

    fn checksums(&self, tunnel: Tunnel) -> io::Result<Option<Checksums>> {
        if !ethtool::tx_checksum(tunnel.link)? {
            return Ok(Some(Checksums::Spared));
        }
        let refused = |checksum| closed_port(tunnel.here, tunnel.there, checksum, PATIENCE);
        for _ in 0..TRIES {
            if refused(Checksum::Offloaded)? {
                return Ok(Some(Checksums::Right));
            }
            // A host refuses so much in a second (net.ipv4.icmp_ratelimit).
            if self.is_stopped(PAUSE) || !refused(Checksum::Ours)? || self.is_stopped(PAUSE) {
                return Ok(None);
            }
        }
        Ok(Some(Checksums::Spoiled))
    }
}

/// Whether one of several tries comes out right: a single packet may get lost anywhere.
fn try_often(times: u32, mut attempt: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 0..times {
        if attempt()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// At most one peer in this time; the first after it.
const PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(300);
const TRIES: u32 = 3;
/// What every link carries (RFC 791 §3.2, RFC 8200 §5).
const LEAST_V4: u16 = 68;
const LEAST_V6: u16 = 1_280;
