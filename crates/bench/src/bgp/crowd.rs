//! All sessions of the crowd on one thread, and the conditions that it waits for.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use russet_bgp::wire::write_keepalive;
use rustix::event::epoll;

use super::{
    client::{Client, Stage},
    routes::{Held, Shape, address},
};

/// Peers of one speaker.
#[derive(Debug)]
pub struct Crowd {
    shape: Shape,
    speaker: SocketAddr,
    clients: Vec<Client>,
    epoll: std::os::fd::OwnedFd,
    buffer: Vec<u8>,
    keepalive_at: Instant,
}

impl Crowd {
    /// Makes a crowd without sessions. Only on a thread in the crowd's namespace.
    pub fn new(shape: Shape, speaker: SocketAddr) -> Result<Self> {
        Ok(Self {
            shape,
            speaker,
            clients: Vec::new(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?,
            buffer: vec![0; 256 * 1_024],
            keepalive_at: Instant::now() + KEEPALIVE,
        })
    }

    /// Connects this many more peers, so many at once, and waits until their sessions are established.
    pub fn establish(&mut self, peers: usize, at_once: usize) -> Result<Duration> {
        let begin = Instant::now();
        let end = self.clients.len() + peers;
        while self.clients.len() < end {
            for peer in self.clients.len()..end.min(self.clients.len().saturating_add(at_once)) {
                self.connect(peer)?;
            }
            self.until_established(begin + PATIENCE)?;
        }
        Ok(begin.elapsed())
    }

    /// A speaker with a short queue loses those that dial when it is full, and they dial again.
    fn until_established(&mut self, end: Instant) -> Result<()> {
        let all = |crowd: &Self| crowd.clients.iter().all(|c| c.stage == Stage::Established);
        while self.until_or(REDIAL, all)? == Outcome::Late {
            if Instant::now() > end {
                bail!("not done after {PATIENCE:?}: {}", self.state());
            }
            self.redial()?;
        }
        Ok(())
    }

    /// Connects anew whoever has had no answer, or was sent away.
    fn redial(&mut self) -> Result<()> {
        for peer in 0..self.clients.len() {
            if self.clients[peer].stage != Stage::Established {
                let client = self.client(peer)?;
                self.watch(peer, &client)?;
                self.clients[peer] = client;
            }
        }
        Ok(())
    }

    fn connect(&mut self, peer: usize) -> Result<()> {
        let client = self.client(peer)?;
        self.watch(peer, &client)?;
        self.clients.push(client);
        Ok(())
    }

    fn client(&self, peer: usize) -> Result<Client> {
        let held = Held::new(&self.shape, peer);
        Client::connect(address(peer), self.speaker, self.shape.kind.family(), held)
    }

    fn watch(&self, peer: usize, client: &Client) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(peer as u64);
        epoll::add(&self.epoll, client.stream(), data, flags).context("watch a socket")
    }

    /// Lets every peer tell all its routes, and waits until each holds those of all others.
    pub fn converge(&mut self, messages: &[Vec<u8>]) -> Result<Duration> {
        let begin = Instant::now();
        for (client, messages) in self.clients.iter_mut().zip(messages) {
            client.queue(messages);
            client.write()?;
        }
        let wanted = self.shape.total() - self.shape.each;
        self.until(PATIENCE, |crowd| crowd.all_hold(wanted))?;
        Ok(begin.elapsed())
    }

    /// Lets one peer say something, and waits until every other one holds so many routes.
    pub fn say(&mut self, peer: usize, message: &[u8], wanted: usize) -> Result<Duration> {
        let begin = Instant::now();
        let client = self.clients.get_mut(peer).context("that peer is not there")?;
        client.queue(message);
        client.write()?;
        self.until_others(peer, wanted)?;
        Ok(begin.elapsed())
    }

    /// Closes the session of one peer, and waits until every other one holds so many routes.
    pub fn hang_up(&mut self, peer: usize, wanted: usize) -> Result<Duration> {
        let begin = Instant::now();
        let client = self.clients.get_mut(peer).context("that peer is not there")?;
        client.stream().shutdown(std::net::Shutdown::Both).context("hang up")?;
        client.stage = Stage::Closed;
        self.until_others(peer, wanted)?;
        Ok(begin.elapsed())
    }

    /// Connects one more peer that tells nothing, and waits until it holds all routes.
    pub fn join_late(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        let peer = self.clients.len();
        self.connect(peer)?;
        let wanted = self.shape.total();
        self.until(PATIENCE, |crowd| {
            crowd.clients.last().is_some_and(|client| client.held.count >= wanted)
        })?;
        Ok(begin.elapsed())
    }

    fn until_others(&mut self, peer: usize, wanted: usize) -> Result<()> {
        self.until(PATIENCE, |crowd| {
            let mut others = crowd.clients.iter().enumerate().filter(|(other, _)| *other != peer);
            others.all(|(_, client)| client.held.count == wanted)
        })
    }

    fn all_hold(&self, wanted: usize) -> bool {
        self.clients.iter().all(|client| client.held.count >= wanted)
    }

    /// Reads and writes until something is so.
    fn until(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> Result<()> {
        if self.until_or(patience, done)? == Outcome::Late {
            bail!("not done after {patience:?}: {}", self.state());
        }
        Ok(())
    }

    /// Reads and writes until something is so, or the time is over.
    fn until_or(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> Result<Outcome> {
        let end = Instant::now() + patience;
        let mut events = Vec::with_capacity(MOST_EVENTS);
        while !done(self) {
            if Instant::now() > end {
                return Ok(Outcome::Late);
            }
            self.keep_alive()?;
            events.clear();
            let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&tick))
                .context("wait for sockets")?;
            for event in &events {
                self.serve(usize::try_from(event.data.u64())?)?;
            }
        }
        Ok(Outcome::Done)
    }

    fn serve(&mut self, peer: usize) -> Result<()> {
        let Some(client) = self.clients.get_mut(peer) else { return Ok(()) };
        if client.stage == Stage::Closed {
            return Ok(());
        }
        let before = client.stage;
        client.write().with_context(|| format!("peer {peer}"))?;
        client.read(&mut self.buffer).with_context(|| format!("peer {peer}"))?;
        if client.stage == Stage::Closed && before == Stage::Established {
            bail!("the speaker closed the session of peer {peer}");
        }
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<()> {
        if Instant::now() < self.keepalive_at {
            return Ok(());
        }
        self.keepalive_at = Instant::now() + KEEPALIVE;
        let mut keepalive = Vec::new();
        write_keepalive(&mut keepalive);
        for client in self.clients.iter_mut().filter(|c| c.stage == Stage::Established) {
            client.queue(&keepalive);
            client.write()?;
        }
        Ok(())
    }

    /// How far everybody is, for a message.
    fn state(&self) -> String {
        let established = self.clients.iter().filter(|c| c.stage == Stage::Established).count();
        let held = self.clients.iter().map(|client| client.held.count);
        let (least, most) = (held.clone().min().unwrap_or(0), held.max().unwrap_or(0));
        format!("{established} of {} sessions, {least} to {most} routes held", self.clients.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Late,
}

/// How long a peer waits for an answer before it dials once more.
const REDIAL: Duration = Duration::from_secs(5);
/// No speaker has been seen to take as long.
const PATIENCE: Duration = Duration::from_mins(3);
const KEEPALIVE: Duration = Duration::from_secs(20);
const MOST_EVENTS: usize = 1_024;
