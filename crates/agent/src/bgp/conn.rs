//! One connection: a task that reads, and a task that writes.
//!
//! Until the session is established the reader hands over message by message and waits for what comes of it,
//! because how the next is to be read depends on that. From then on it hands over as many whole messages as it has
//! read, as they are, and looks only at their headers.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use russet_bgp::{
    fsm::{ConnId, Received},
    speaker::PeerAddr,
    wire::{Frame, MessageKind, MessageLimit, Notification, Open, Reset},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    peer::PeerInput,
    routes::{RibInput, Routes},
};

/// A connection in the hands of its session. Dropped, it is closed once what the session said is sent.
pub struct Connection {
    /// Messages of the session.
    pub control: mpsc::Sender<Vec<u8>>,
    /// Messages with routes.
    pub routes: mpsc::Sender<Arc<[u8]>>,
    pub local: IpAddr,
    reader: JoinHandle<()>,
    writer: Option<JoinHandle<()>>,
}

/// What a connection's tasks need beside the socket.
#[derive(Clone)]
pub struct Around {
    pub peer: PeerAddr,
    pub conn: ConnId,
    pub mailbox: mpsc::Sender<PeerInput>,
    pub routes: Routes,
    pub traffic: Arc<Traffic>,
    /// The number of the session that the connection carries, once it does.
    pub epoch: Arc<AtomicU64>,
    #[expect(dead_code, reason = "it counts by being held")]
    pub alive: Alive,
}

/// Held by whoever may yet have something to send; the manager ends when nobody holds one.
pub type Alive = mpsc::Sender<std::convert::Infallible>;

/// What has passed.
#[derive(Debug, Default)]
pub struct Traffic {
    pub messages_in: AtomicU64,
    pub messages_out: AtomicU64,
    pub octets_in: AtomicU64,
    pub octets_out: AtomicU64,
}

/// What comes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// The session is established.
    Up {
        limit: MessageLimit,
        epoch: u64,
    },
    Stop,
}

impl Connection {
    pub fn start(stream: TcpStream, around: Around) -> io::Result<Self> {
        let local = stream.local_addr()?.ip().to_canonical();
        let (read, write) = stream.into_split();
        let (control, from_session) = mpsc::channel(CONTROL);
        let (routes, from_routes) = mpsc::channel(CHUNKS);
        let reader = Reader { half: read, around: around.clone(), buffer: Vec::new() };
        let writer = Writer { half: write, around };
        Ok(Self {
            control,
            routes,
            local,
            reader: tokio::spawn(reader.run()),
            writer: Some(tokio::spawn(writer.run(from_session, from_routes))),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        // The writer ends by itself once the session's channel is closed and empty, unless the peer reads nothing.
        if let Some(mut writer) = self.writer.take() {
            tokio::spawn(async move {
                if timeout(LAST_WORDS, &mut writer).await.is_err() {
                    writer.abort();
                }
            });
        }
    }
}

struct Reader {
    half: OwnedReadHalf,
    around: Around,
    buffer: Vec<u8>,
}

impl Reader {
    async fn run(mut self) {
        let mailbox = self.around.mailbox.clone();
        let conn = self.around.conn;
        if let Ended::ByPeer = self.read_all().await {
            // A task that is gone needs no word.
            let _ = mailbox.send(PeerInput::Closed(conn)).await;
        }
    }

    async fn read_all(&mut self) -> Ended {
        loop {
            match self.open_one().await {
                Ok(Verdict::Go) => {}
                Ok(Verdict::Up { limit, epoch }) => return self.established(limit, epoch).await,
                Ok(Verdict::Stop) => return Ended::BySession,
                Err(ended) => return ended,
            }
        }
    }

    /// Reads one message before the session is established.
    async fn open_one(&mut self) -> Result<Verdict, Ended> {
        let (message, len) = loop {
            match Frame::read(&self.buffer, MessageLimit::Usual) {
                Ok(Some(frame)) => break (message_of(&frame), frame.len),
                Ok(None) => self.fill(OPENING_READ).await?,
                Err(reset) => break (Received::Invalid(reset), 0),
            }
        };
        self.buffer.drain(..len);
        self.hand_over(message).await
    }

    async fn established(&mut self, limit: MessageLimit, epoch: u64) -> Ended {
        let mut want = LEAST_READ;
        loop {
            let cut = Cut::of(&self.buffer, limit);
            self.count(cut.messages, 0);
            let rest = self.buffer.split_off(cut.end);
            let octets = std::mem::replace(&mut self.buffer, rest);
            let full = octets.len() >= want;
            if cut.messages > 0 {
                self.heard();
            }
            if cut.has_routes && !self.pass_on(octets, epoch).await {
                return Ended::BySession;
            }
            if let Some(last) = cut.last {
                // Whatever it is, it is the session's to see, and the last that matters.
                return match self.hand_over(last).await {
                    Ok(_) => Ended::BySession,
                    Err(ended) => ended,
                };
            }
            // Many octets at once want more room next time, few want less.
            want = if full { MOST_READ } else { LEAST_READ };
            if let Err(ended) = self.fill(want).await {
                return ended;
            }
        }
    }

    /// Hands routes over once there is room. While it waits, the peer is not silent: we do not listen.
    async fn pass_on(&mut self, octets: Vec<u8>, epoch: u64) -> bool {
        let routes = self.around.routes.clone();
        let mut room = std::pin::pin!(routes.room_for(octets.len()));
        let room = loop {
            match timeout(STILL_THERE, &mut room).await {
                Ok(room) => break room,
                Err(_) => self.heard(),
            }
        };
        let Some(room) = room else { return false };
        let peer = self.around.peer;
        routes.tell(RibInput::Octets { peer, epoch, octets, room });
        true
    }

    fn heard(&self) {
        // A task that has no room for it is about to look at something else of this peer.
        let _ = self.around.mailbox.try_send(PeerInput::Heard(self.around.conn));
    }

    async fn hand_over(&self, message: Received) -> Result<Verdict, Ended> {
        let (answer, answered) = oneshot::channel();
        let input = PeerInput::Message { conn: self.around.conn, message, answer };
        self.around.mailbox.send(input).await.map_err(|_| Ended::BySession)?;
        answered.await.map_err(|_| Ended::BySession)
    }

    async fn fill(&mut self, want: usize) -> Result<(), Ended> {
        self.buffer.reserve(want);
        match self.half.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Ended::ByPeer),
            Ok(len) => {
                self.count(0, len);
                Ok(())
            }
        }
    }

    fn count(&self, messages: u64, octets: usize) {
        let traffic = &self.around.traffic;
        traffic.messages_in.fetch_add(messages, Ordering::Relaxed);
        traffic.octets_in.fetch_add(u64::try_from(octets).unwrap_or_default(), Ordering::Relaxed);
    }
}

/// Who ended a connection.
enum Ended {
    ByPeer,
    BySession,
}

/// The whole messages at the begin of what was read.
struct Cut {
    end: usize,
    messages: u64,
    has_routes: bool,
    /// One that ends the session, and is not among them.
    last: Option<Received>,
}

impl Cut {
    fn of(buffer: &[u8], limit: MessageLimit) -> Self {
        let mut cut = Self { end: 0, messages: 0, has_routes: false, last: None };
        loop {
            let frame = match Frame::read(buffer.get(cut.end..).unwrap_or_default(), limit) {
                Ok(Some(frame)) => frame,
                Ok(None) => return cut,
                Err(reset) => {
                    cut.last = Some(Received::Invalid(reset));
                    return cut;
                }
            };
            match frame.kind {
                MessageKind::Update | MessageKind::RouteRefresh => cut.has_routes = true,
                MessageKind::Keepalive => {}
                MessageKind::Open | MessageKind::Notification => {
                    cut.last = Some(message_of(&frame));
                    return cut;
                }
            }
            cut.end += frame.len;
            cut.messages += 1;
        }
    }
}

fn message_of(frame: &Frame<'_>) -> Received {
    let read = match frame.kind {
        MessageKind::Open => Open::read(frame.body).map(|open| Received::Open(Box::new(open))),
        MessageKind::Update => Ok(Received::Update),
        MessageKind::Keepalive => Ok(Received::Keepalive),
        MessageKind::RouteRefresh => Ok(Received::Refresh),
        // The header says that it is long enough.
        MessageKind::Notification => {
            Ok(Notification::read(frame.body).map_or(Received::Keepalive, Received::Notification))
        }
    };
    read.unwrap_or_else(|reset: Reset| Received::Invalid(reset))
}

struct Writer {
    half: OwnedWriteHalf,
    around: Around,
}

impl Writer {
    async fn run(
        mut self,
        mut control: mpsc::Receiver<Vec<u8>>,
        mut routes: mpsc::Receiver<Arc<[u8]>>,
    ) {
        loop {
            let done = tokio::select! {
                biased;
                message = control.recv() => match message {
                    Some(message) => self.send(&[message.into()]).await,
                    None => break,
                },
                Some(chunk) = routes.recv() => {
                    let mut chunks = vec![chunk];
                    while chunks.len() < AT_ONCE
                        && let Ok(chunk) = routes.try_recv()
                    {
                        chunks.push(chunk);
                    }
                    let done = self.send(&chunks).await;
                    self.ask_for_more();
                    done
                }
            };
            if done.is_err() {
                let _ = self.around.mailbox.send(PeerInput::Closed(self.around.conn)).await;
                return;
            }
        }
        // The peer may be gone already.
        let _ = self.half.shutdown().await;
    }

    async fn send(&mut self, chunks: &[Arc<[u8]>]) -> io::Result<()> {
        let octets: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        let mut slices: Vec<_> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut slices = slices.as_mut_slice();
        while !slices.is_empty() {
            // A peer that takes nothing for so long is not there (RFC 9687).
            let sent = timeout(SEND_HOLD, self.half.write_vectored(slices)).await??;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut slices, sent);
        }
        let traffic = &self.around.traffic;
        let messages: u64 = chunks.iter().map(|chunk| messages_of(chunk)).sum();
        traffic.messages_out.fetch_add(messages, Ordering::Relaxed);
        traffic.octets_out.fetch_add(u64::try_from(octets).unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }

    fn ask_for_more(&self) {
        let epoch = self.around.epoch.load(Ordering::Relaxed);
        self.around.routes.tell(RibInput::Room { peer: self.around.peer, epoch });
    }
}

fn messages_of(mut chunk: &[u8]) -> u64 {
    let mut messages = 0;
    while let Ok(Some(frame)) = Frame::read(chunk, MessageLimit::Extended) {
        chunk = chunk.get(frame.len..).unwrap_or_default();
        messages += 1;
    }
    messages
}

/// Messages of the session that wait for the socket: keepalives, and what ends it.
const CONTROL: usize = 64;
/// Chunks of routes that wait for the socket. They are shared with all peers that are told the same.
const CHUNKS: usize = 32;
const AT_ONCE: usize = 16;
const OPENING_READ: usize = 4_096;
const LEAST_READ: usize = 8 << 10;
const MOST_READ: usize = 64 << 10;
const STILL_THERE: Duration = Duration::from_secs(1);
const LAST_WORDS: Duration = Duration::from_secs(5);
/// RFC 9687 §5 suggests the larger of 8 minutes and twice the hold time.
const SEND_HOLD: Duration = Duration::from_mins(8);
