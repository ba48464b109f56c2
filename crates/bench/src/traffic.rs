//! One TCP stream, and one octet back and forth: traffic between two namespaces.
//!
//! A small generator of our own: it runs in threads of the bench, so that a round of measurements costs no
//! program's start, and both ends are the same code for every path that is compared.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{net::Namespace, stats::Summary};

/// Two ends of a path.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    pub client: &'a Namespace,
    pub server: &'a Namespace,
    /// Where the server listens; another port is taken for each measurement.
    pub address: std::net::Ipv4Addr,
}

impl Path<'_> {
    /// Sends as much as goes through for `duration`. Returns bits per second, as the receiver saw them.
    pub fn stream(&self, duration: Duration) -> Result<f64> {
        Ok(self.between(move |stream| send_for(stream, duration), receive_all)?.1)
    }

    /// Sends one octet back and forth `count` times. Returns the median time of a round trip in seconds.
    pub fn round_trip(&self, count: usize) -> Result<f64> {
        Ok(self.between(move |stream| ping(stream, count), echo)?.0)
    }

    /// Connects the two ends and returns what each made of it.
    fn between<C: Send, S: Send>(
        &self,
        client: impl FnOnce(TcpStream) -> Result<C> + Send,
        server: impl FnOnce(TcpStream) -> Result<S> + Send,
    ) -> Result<(C, S)> {
        let bind = SocketAddr::from((self.address, 0));
        let listener = self.server.run(|| TcpListener::bind(bind).context("listen"))?;
        let to = listener.local_addr().context("the listener's address")?;
        thread::scope(|scope| {
            let served = scope.spawn(move || {
                self.server.enter()?;
                server(accept(&listener)?)
            });
            let sent = self.client.run(move || {
                let stream = TcpStream::connect_timeout(&to, PATIENCE);
                client(limited(stream.with_context(|| format!("connect to {to}"))?)?)
            });
            let served = served.join().map_err(|_| anyhow!("the server's thread panicked"))?;
            // A client that failed is the cause of the server's failure.
            let sent = sent?;
            Ok((sent, served?))
        })
    }
}

/// Waits for one connection, not for ever.
fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return limited(stream);
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_micros(200));
            }
            Err(err) => return Err(err).context("accept"),
        }
    }
    bail!("nobody connected within {PATIENCE:?}")
}

fn limited(stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn send_for(mut stream: TcpStream, duration: Duration) -> Result<()> {
    let block = vec![0x5a; SEND_BLOCK];
    let until = Instant::now() + duration;
    while Instant::now() < until {
        stream.write_all(&block).context("send")?;
    }
    Ok(())
}

/// Reads to the end and returns bits per second, from the first octet to the last.
#[expect(clippy::cast_precision_loss, reason = "octets of a second, far below 2^52")]
fn receive_all(mut stream: TcpStream) -> Result<f64> {
    let mut block = vec![0; RECEIVE_BLOCK];
    let mut octets = stream.read(&mut block).context("receive")?;
    let start = Instant::now();
    loop {
        match stream.read(&mut block).context("receive")? {
            0 => break,
            n => octets += n,
        }
    }
    Ok(octets as f64 * 8.0 / start.elapsed().as_secs_f64())
}

fn ping(mut stream: TcpStream, count: usize) -> Result<f64> {
    let mut octet = [0x5a];
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(&octet).context("send")?;
        stream.read_exact(&mut octet).context("receive")?;
        took.push(start.elapsed().as_secs_f64());
    }
    Ok(Summary::of(&took)?.median)
}

fn echo(mut stream: TcpStream) -> Result<()> {
    let mut octet = [0];
    while stream.read(&mut octet).context("receive")? > 0 {
        stream.write_all(&octet).context("send")?;
    }
    Ok(())
}

const SEND_BLOCK: usize = 128 << 10;
const RECEIVE_BLOCK: usize = 256 << 10;
/// How long anything may stand still.
const PATIENCE: Duration = Duration::from_secs(10);
