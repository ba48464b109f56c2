//! A TCP proxy that can cut its connections, hold them silently, and change its target.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::AbortHandle,
};

use crate::backend::EVENTUALLY;

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    /// How often a request came that was not let through at once.
    held: watch::Sender<u64>,
    task: AbortHandle,
}

#[derive(Clone, Copy, PartialEq)]
struct State {
    mode: Mode,
    target: SocketAddr,
}

/// What happens to connections.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Open,
    /// Closed, and new ones closed at once.
    Cut,
    /// Held without moving a byte, as when a cable is pulled.
    Frozen,
    /// Held like that if they were there before; new ones are let through, as when the client has moved.
    Left,
}

impl Mode {
    /// Whether a connection that was made in `born` is held now.
    fn holds(self, born: Self) -> bool {
        self == Self::Frozen || (self == Self::Left && born != Self::Left)
    }
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, follow) = watch::channel(State { mode: Mode::Open, target });
        let held = watch::Sender::new(0);
        let task = tokio::spawn(accept(listener, follow, held.clone())).abort_handle();
        Self { address, state, held, task }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Lets a request in but no byte further, then cuts the connection under it.
    pub(crate) async fn lose_the_answer(&self) {
        let before = *self.held.borrow();
        self.set(Mode::Frozen);
        let mut held = self.held.subscribe();
        let waiting = held.wait_for(|held| *held > before);
        tokio::time::timeout(EVENTUALLY, waiting).await.expect("a request comes").unwrap();
        self.set(Mode::Cut);
    }

    pub(crate) fn retarget(&self, target: SocketAddr) {
        self.state.send_modify(|state| state.target = target);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, follow: watch::Receiver<State>, held: watch::Sender<u64>) {
    while let Ok((inward, _)) = listener.accept().await {
        tokio::spawn(connection(inward, follow.clone(), held.clone()));
    }
}

async fn connection(inward: TcpStream, follow: watch::Receiver<State>, held: watch::Sender<u64>) {
    let State { mode, target } = *follow.borrow();
    if mode == Mode::Cut {
        return;
    }
    let Ok(outward) = TcpStream::connect(target).await else { return };
    let (in_read, in_write) = inward.into_split();
    let (out_read, out_write) = outward.into_split();
    let mut cut = follow.clone();
    tokio::select! {
        () = pump(in_read, out_write, follow.clone(), (mode, &held)) => {}
        () = pump(out_read, in_write, follow, (mode, &held)) => {}
        _ = cut.wait_for(|state| state.mode == Mode::Cut) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut follow: watch::Receiver<State>,
    (born, held): (Mode, &watch::Sender<u64>),
) {
    let mut waiting = Vec::with_capacity(64 << 10);
    while from.read_buf(&mut waiting).await.is_ok_and(|read| read > 0) {
        while follow.borrow_and_update().mode.holds(born) {
            if waiting.len() > LONGEST_CHATTER {
                held.send_modify(|held| *held += 1);
            }
            tokio::select! {
                changed = follow.changed() => if changed.is_err() { return },
                read = from.read_buf(&mut waiting) => if !read.is_ok_and(|read| read > 0) { return },
            }
        }
        if to.write_all(&waiting).await.is_err() {
            return;
        }
        waiting.clear();
    }
}

/// Pings, acknowledgements and window updates take less than this; the test's requests more.
const LONGEST_CHATTER: usize = 64;
