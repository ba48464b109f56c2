//! Throughput: as much as one TCP stream carries for a time, as the receiver counted it.

use std::{
    fmt,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::serve::SINK;

/// The result of one stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamSummary {
    pub to: String,
    pub octets: u64,
    pub microseconds: u64,
    pub mbit_per_s: u64,
}

impl fmt::Display for StreamSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, octets, microseconds, mbit_per_s } = self;
        write!(
            f,
            "stream {to}: {mbit_per_s} Mbit/s ({octets} octets in {} ms)",
            microseconds / 1_000
        )
    }
}

/// Sends for `length`, then waits until the receiver has told what it got.
pub(crate) fn run(to: SocketAddr, length: Duration) -> Result<StreamSummary> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_WITHIN)
        .with_context(|| format!("connect to {to}"))?;
    stream.set_write_timeout(Some(STALL))?;
    stream.set_read_timeout(Some(STALL))?;
    stream.write_all(&[SINK])?;
    let block = vec![0x5a; 256 * 1024];
    let start = Instant::now();
    while start.elapsed() < length {
        stream.write_all(&block).context("send")?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total).context("hear what was received")?;
    let octets = u64::from_be_bytes(total);
    let microseconds = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
    let mbit_per_s = octets.saturating_mul(8) / microseconds;
    Ok(StreamSummary { to: to.to_string(), octets, microseconds, mbit_per_s })
}

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(10);
