//! The connections that are served: so many, and only those that speak.
//!
//! One beyond the bound is closed at once, which its client sees at once; left in the kernel's queue it
//! would wait for its own time limit. One that says nothing gives its place back: a client of this API
//! speaks first, so silence is a mistake or an attack. Those that spoke are asked for a sign of life by
//! HTTP/2 itself.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_util::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Limits;

/// What a listener lets in.
#[derive(Debug)]
pub(crate) struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silence: Duration,
    /// After the kernel refused to accept, for want of descriptors mostly.
    pause: Option<Pin<Box<Sleep>>>,
    warned: Option<Instant>,
}

/// One that has a place.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// When it must have spoken; `None`: it has.
    speak_by: Option<Pin<Box<Sleep>>>,
    /// Freed with it.
    _place: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(listener: TcpListener, limits: &Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.connections));
        Self { listener, places, silence: limits.silence, pause: None, warned: None }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.warn(&format!("no place for another connection, such as that of {peer}"));
            return None;
        };
        // Small answers leave at once. Without that it is slower and still right.
        let _ = stream.set_nodelay(true);
        let speak_by = Some(Box::pin(sleep(self.silence)));
        Some(Connection { stream, speak_by, _place: place })
    }

    /// Waits a little, so that a lasting error is no busy loop.
    fn rest(&mut self, err: &io::Error) {
        self.warn(&format!("accept a connection: {err}"));
        self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
    }

    fn warn(&mut self, reason: &str) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(reason, "datastore refuses connections");
        }
    }
}

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(context));
                this.pause = None;
            }
            match ready!(this.listener.poll_accept(context)) {
                Ok((stream, peer)) => {
                    if let Some(connection) = this.admit(stream, peer) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Err(err) => this.rest(&err),
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.speak_by = None;
        } else if let Some(speak_by) = &mut self.speak_by {
            ready!(speak_by.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const WARN_EVERY: Duration = Duration::from_secs(10);
