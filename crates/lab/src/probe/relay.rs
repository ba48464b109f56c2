//! Makes a program slow: passes its streams on, and what it answers late.
//!
//! Octets are held, not paced: each comes so much later than it was sent, whatever comes after it. So every answer
//! takes that much longer, and a stream is as fast as before once it runs.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Relays until the process ends.
pub(crate) fn run(listen: SocketAddr, to: SocketAddr, delay: Duration) -> Result<ExitCode> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    for near in listener.incoming() {
        let Ok(near) = near else { continue };
        // Whoever is not there is not there for the one who asks either: the stream ends.
        thread::spawn(move || relay(&near, to, delay));
    }
    Ok(ExitCode::SUCCESS)
}

fn relay(near: &TcpStream, to: SocketAddr, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut asks, mut asked) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut asks, &mut asked);
        let _ = asked.shutdown(Shutdown::Write);
    });
    let passed = pass_late(far.try_clone()?, near, delay);
    let _ = near.shutdown(Shutdown::Both);
    let _ = far.shutdown(Shutdown::Both);
    passed
}

fn pass_late(mut from: TcpStream, mut to: &TcpStream, delay: Duration) -> io::Result<()> {
    let (tell, told) = mpsc::sync_channel::<(Instant, Vec<u8>)>(HELD);
    thread::spawn(move || {
        let mut buf = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = from.read(&mut buf) {
            let octets = buf.get(..len).unwrap_or_default().to_vec();
            if tell.send((Instant::now() + delay, octets)).is_err() {
                return;
            }
        }
    });
    for (when, octets) in told {
        thread::sleep(when.saturating_duration_since(Instant::now()));
        to.write_all(&octets)?;
    }
    Ok(())
}

/// How many pieces of a stream wait at most.
const HELD: usize = 256;
