//! One session of the crowd: a socket that never blocks, what is still to be written, what was read.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use anyhow::{Context, Result, bail};
use russet_bgp::wire::{
    Capabilities, Family, GracefulRestart, HoldTime, Open, RouterId, write_keepalive,
};
use russet_net::Asn;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::routes::Held;

/// A peer of the speaker.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    pub stage: Stage,
    pub held: Held,
    unwritten: Vec<u8>,
    /// How much of it has been written.
    written: usize,
    /// A message that has not come in whole.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Connecting,
    /// Our OPEN is on its way.
    Opening,
    Established,
    /// The other side has closed.
    Closed,
}

impl Client {
    /// Begins to connect from `from`.
    pub fn connect(from: Ipv4Addr, to: SocketAddr, family: Family, held: Held) -> Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::from((from, 0))).with_context(|| format!("bind {from}"))?;
        match connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(err) => return Err(err).context("connect"),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let mut unwritten = Vec::new();
        open(from, family)?.write(&mut unwritten);
        let (stage, written, partial) = (Stage::Connecting, 0, Vec::new());
        Ok(Self { stream, stage, held, unwritten, written, partial })
    }

    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Adds octets to what is to be written.
    pub fn queue(&mut self, octets: &[u8]) {
        if self.written == self.unwritten.len() {
            self.unwritten.clear();
            self.written = 0;
        }
        self.unwritten.extend_from_slice(octets);
    }

    /// Writes as much as the socket takes; whether there is more.
    pub fn write(&mut self) -> Result<bool> {
        while self.written < self.unwritten.len() && self.stage != Stage::Closed {
            match self.stream.write(&self.unwritten[self.written..]) {
                Ok(wrote) => {
                    self.written += wrote;
                    self.stage = self.stage.max(Stage::Opening);
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(err) if err.kind() == io::ErrorKind::NotConnected => return Ok(true),
                Err(err) if self.stage != Stage::Established && is_refusal(&err) => {
                    self.stage = Stage::Closed;
                }
                Err(err) => return Err(err).context("write"),
            }
        }
        Ok(false)
    }

    /// Reads all that is there, and takes the messages in it: who waits for edges is told of nothing that was left.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        while self.stage != Stage::Closed && self.read_one(buffer)? == More::Perhaps {}
        Ok(())
    }

    fn read_one(&mut self, buffer: &mut [u8]) -> Result<More> {
        match self.stream.read(buffer) {
            Ok(0) => self.stage = Stage::Closed,
            Ok(len) if self.partial.is_empty() => {
                let used = self.take(&buffer[..len])?;
                self.partial.extend_from_slice(&buffer[used..len]);
            }
            Ok(len) => {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(&buffer[..len]);
                let used = self.take(&whole)?;
                whole.drain(..used);
                self.partial = whole;
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(More::No),
            Err(err) if is_refusal(&err) => self.stage = Stage::Closed,
            Err(err) => return Err(err).context("read"),
        }
        Ok(More::Perhaps)
    }

    /// Takes whole messages; returns how many octets they were.
    fn take(&mut self, octets: &[u8]) -> Result<usize> {
        let mut at = 0;
        while let Some(header) = octets.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) {
            let len = usize::from(u16::from_be_bytes([header[16], header[17]]));
            if len < HEADER {
                bail!("a message of {len} octets");
            }
            let Some(message) = octets.get(at..at + len) else { break };
            at += len;
            self.message(header[18], &message[HEADER..])?;
        }
        Ok(at)
    }

    fn message(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        match kind {
            OPEN => {
                let mut keepalive = Vec::new();
                write_keepalive(&mut keepalive);
                self.queue(&keepalive);
                self.write()?;
            }
            UPDATE => self.held.update(body)?,
            // It dials again.
            NOTIFICATION if self.stage != Stage::Established => self.stage = Stage::Closed,
            NOTIFICATION => bail!("the speaker says NOTIFICATION {body:02x?}"),
            _ => self.stage = self.stage.max(Stage::Established),
        }
        Ok(())
    }
}

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Perhaps,
    No,
}

/// Whether the other side wants no connection, or this one no more.
fn is_refusal(err: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    matches!(err.kind(), BrokenPipe | ConnectionRefused | ConnectionReset)
}

fn open(from: Ipv4Addr, family: Family) -> Result<Open> {
    Ok(Open {
        asn: AS,
        hold: HoldTime::try_from(240)?,
        id: RouterId::try_from(from)?,
        capabilities: Capabilities {
            families: vec![family.wire()],
            four_octet_as: Some(AS),
            refresh: true,
            // So that the speaker ends its table with a marker.
            graceful_restart: Some(GracefulRestart {
                flags: russet_bgp::wire::RestartFlags::default(),
                time_s: 0,
                families: Vec::new(),
            }),
            ..Capabilities::default()
        },
    })
}

pub const AS: Asn = Asn::new(65_000);
const HEADER: usize = 19;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
