//! Enough of etcd's API to write keys, on one connection that stays open.
//!
//! A change's way from the store to the kernel is timed from the moment before its Put, so the Put must not
//! cost a program's start, as `etcdctl` would; and the client that is measured must not measure itself.
//! So this is gRPC by hand: one HTTP/2 connection, one call at a time, headers without compression
//! (RFC 9113, RFC 7541 §6.2.2), three messages of protobuf. An answer without a message is a refusal.

mod server;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

pub use self::server::Server;
use crate::net::Namespace;

#[derive(Debug)]
pub struct Etcd {
    stream: TcpStream,
    authority: String,
    next_stream: u32,
    /// How much the server still lets us send.
    window: i64,
    /// Octets of messages that came.
    received: u64,
    /// The stream of the watch.
    watching: u32,
}

impl Etcd {
    /// Connects from within the namespace.
    pub fn connect(namespace: &Namespace, server: SocketAddr) -> Result<Self> {
        let connect = || Ok(TcpStream::connect_timeout(&server, PATIENCE)?);
        let mut stream = namespace.run(connect).with_context(|| format!("connect to {server}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(PREFACE)?;
        stream.write_all(&frame(SETTINGS, 0, 0, &LARGE_WINDOWS))?;
        // Answers are small and many: let the server send as many as it likes.
        stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()))?;
        let authority = server.to_string();
        let (next_stream, window) = (1, INITIAL_WINDOW);
        Ok(Self { stream, authority, next_stream, window, received: 0, watching: 0 })
    }

    /// Sets a key (etcd API: Put), under a lease unless that is zero.
    pub fn put(&mut self, key: &str, value: &str, lease: u64) -> Result<()> {
        let mut message = Vec::new();
        octets(&mut message, 1, key.as_bytes());
        octets(&mut message, 2, value.as_bytes());
        number(&mut message, 3, lease);
        self.call("/etcdserverpb.KV/Put", &message).with_context(|| format!("put {key}"))
    }

    /// Removes a key (etcd API: `DeleteRange`).
    pub fn delete(&mut self, key: &str) -> Result<()> {
        let mut message = Vec::new();
        octets(&mut message, 1, key.as_bytes());
        self.call("/etcdserverpb.KV/DeleteRange", &message).with_context(|| format!("delete {key}"))
    }

    /// Makes a lease of a day under an id of our choice (etcd API: `LeaseGrant`).
    pub fn grant(&mut self, id: u64) -> Result<()> {
        let mut message = Vec::new();
        number(&mut message, 1, 86_400);
        number(&mut message, 2, id);
        self.call("/etcdserverpb.Lease/LeaseGrant", &message).context("grant a lease")
    }

    /// Reads every key with the prefix (etcd API: Range), and returns how many octets came.
    pub fn range(&mut self, prefix: &str) -> Result<u64> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let mut message = Vec::new();
        octets(&mut message, 1, prefix.as_bytes());
        octets(&mut message, 2, &end);
        let before = self.received;
        self.call("/etcdserverpb.KV/Range", &message).with_context(|| format!("range {prefix}"))?;
        let received = self.received - before;
        // What was read may be sent again.
        let more = u32::try_from(received)?.to_be_bytes();
        self.stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &more))?;
        Ok(received)
    }

    /// Watches every key with the prefix (etcd API: Watch), on this connection from now on. Returns when
    /// the server has said that it does.
    pub fn watch(&mut self, prefix: &str) -> Result<()> {
        let (mut create, mut request) = (Vec::new(), Vec::new());
        octets(&mut create, 1, prefix.as_bytes());
        octets(&mut create, 2, &[0]);
        octets(&mut request, 1, &create);
        let id = self.next_stream;
        self.next_stream += 2;
        let mut out = frame(HEADERS, END_HEADERS, id, &self.headers("/etcdserverpb.Watch/Watch"));
        out.extend(frame(DATA, 0, id, &prefixed(&request)?));
        self.stream.write_all(&out)?;
        self.watching = id;
        self.next_event()
    }

    /// Waits for the next answer of the watch.
    pub fn next_event(&mut self) -> Result<()> {
        while !self.read_frame(self.watching)?.0 {}
        Ok(())
    }

    fn call(&mut self, path: &str, message: &[u8]) -> Result<()> {
        let id = self.next_stream;
        self.next_stream += 2;
        let body = prefixed(message)?;
        let mut out = frame(HEADERS, END_HEADERS, id, &self.headers(path));
        let mut parts = body.chunks(FRAME).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_STREAM } else { 0 };
            out.extend(frame(DATA, flags, id, part));
        }
        let needed = i64::try_from(body.len())?;
        while self.window < needed {
            self.read_frame(id)?;
        }
        self.window -= needed;
        self.stream.write_all(&out)?;
        self.answer(id)
    }

    /// Reads to the end of the stream `id`.
    fn answer(&mut self, id: u32) -> Result<()> {
        let mut got_message = false;
        loop {
            let (message, ended) = self.read_frame(id)?;
            got_message |= message;
            if ended {
                ensure!(got_message, "the store refused");
                return Ok(());
            }
        }
    }

    /// Reads one frame, and tells whether it brought a message on the stream `id`, and whether it ended it.
    fn read_frame(&mut self, id: u32) -> Result<(bool, bool)> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header).context("read the store's answer")?;
        let [high, middle, low, kind, flags, stream @ ..] = header;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes([0, high, middle, low]))?];
        self.stream.read_exact(&mut body).context("read the store's answer")?;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        match kind {
            SETTINGS if flags & ACK == 0 => self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
            PING if flags & ACK == 0 => self.stream.write_all(&frame(PING, ACK, 0, &body))?,
            WINDOW_UPDATE if stream == 0 => self.window += i64::from(increment(&body)),
            RST_STREAM | GOAWAY => bail!("the store ended the connection"),
            _ => {}
        }
        if kind == DATA {
            self.received += u64::try_from(body.len())?;
        }
        let ours = stream == id && matches!(kind, DATA | HEADERS);
        Ok((ours && kind == DATA && body.len() >= 5, ours && flags & END_STREAM != 0))
    }

    fn headers(&self, path: &str) -> Vec<u8> {
        // `:method: POST` and `:scheme: http` are entries of the static table (RFC 7541 appendix A).
        let mut block = vec![0x83, 0x86];
        literal(&mut block, &[0x04], path);
        literal(&mut block, &[0x01], &self.authority);
        literal(&mut block, &[0x0f, 0x10], "application/grpc");
        block.push(0);
        text(&mut block, "te");
        text(&mut block, "trailers");
        block
    }
}

/// A message as gRPC frames it: not compressed, with its length.
fn prefixed(message: &[u8]) -> Result<Vec<u8>> {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
    body.extend_from_slice(message);
    Ok(body)
}

/// A header whose name is in the static table, not to be remembered (RFC 7541 §6.2.2).
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    block.extend_from_slice(name);
    text(block, value);
}

/// A string of fewer than 127 octets without Huffman's code.
fn text(block: &mut Vec<u8>, value: &str) {
    block.push(u8::try_from(value.len()).unwrap_or(126) & 0x7f);
    block.extend_from_slice(value.as_bytes());
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    // A frame's length has 24 bits; ours have [`FRAME`] octets at most.
    let [_, a, b, c] = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    let mut out = vec![a, b, c, kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn increment(body: &[u8]) -> u32 {
    body.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets) & 0x7fff_ffff)
}

fn octets(message: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(message, field << 3 | 2);
    varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn number(message: &mut Vec<u8>, field: u64, value: u64) {
    varint(message, field << 3);
    varint(message, value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    message.push(u8::try_from(value).unwrap_or_default());
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `SETTINGS_INITIAL_WINDOW_SIZE` of 2^31 - 1 (RFC 9113 §6.5.2).
const LARGE_WINDOWS: [u8; 6] = [0, 4, 0x7f, 0xff, 0xff, 0xff];
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a connection, until the server says otherwise (RFC 9113 §6.9.2).
const INITIAL_WINDOW: i64 = 65_535;

/// What a frame may hold unless the other side says otherwise (RFC 9113 §6.5.2).
const FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use super::*;

    #[test]
    fn a_put_is_written_as_protobuf() {
        let mut message = Vec::new();
        octets(&mut message, 1, b"k");
        octets(&mut message, 2, &[b'v'; 130]);
        number(&mut message, 3, 300);
        assert_eq!(message[..6], [0x0a, 1, b'k', 0x12, 0x82, 0x01]);
        assert_eq!(message[message.len() - 3..], [0x18, 0xac, 0x02]);
    }

    #[test]
    fn what_is_put_is_what_etcdctl_gets() {
        let namespace = Namespace::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut server = Command::new("etcd");
        server.args(["--data-dir", folder.path().to_str().unwrap(), "--log-level", "error"]);
        let child = namespace
            .run(|| Ok(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
            .unwrap();
        let _server = Killed(child);

        let mut client = connect_within(&namespace, Duration::from_secs(10));
        client.grant(77).unwrap();
        // More than one frame holds.
        client.put("/large", &"v".repeat(40_000), 77).unwrap();
        // More than the windows of a connection and of a stream hold together.
        for n in 0..400 {
            client.put(&format!("/k/{n}"), &"v".repeat(400), 77).unwrap();
        }
        client.delete("/k/399").unwrap();
        assert!(client.put("/k", "v", 78).is_err(), "a lease that was never granted is refused");

        let count = namespace.run(|| {
            let get = Command::new("etcdctl")
                .args(["get", "--prefix", "/k/", "--keys-only"])
                .env("ETCDCTL_API", "3")
                .output()?;
            Ok(String::from_utf8(get.stdout)?
                .lines()
                .filter(|line| line.starts_with("/k/"))
                .count())
        });
        assert_eq!(count.unwrap(), 399);
    }

    fn connect_within(namespace: &Namespace, patience: Duration) -> Etcd {
        let until = Instant::now() + patience;
        loop {
            if let Ok(mut client) = Etcd::connect(namespace, ([127, 0, 0, 1], 2379).into()) {
                // It listens before it has a leader, and refuses until then.
                if client.put("/ready", "", 0).is_ok() {
                    return client;
                }
            }
            assert!(Instant::now() < until, "etcd is not ready after {patience:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_frame_has_nine_octets_before_its_body() {
        assert_eq!(frame(DATA, END_STREAM, 5, &[7]), [0, 0, 1, 0, 1, 0, 0, 0, 5, 7]);
    }
}
