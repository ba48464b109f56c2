//! Frames: how a message crosses a stream socket.
//!
//! ```text
//!   0        4                    4 + length
//!   ┌────────┬──────────────────────────┐
//!   │ length │ JSON, with its "version" │     length: u32, big endian, 1 MiB at most
//!   └────────┴──────────────────────────┘
//! ```
//!
//! The admin socket and the CNI socket speak it. Every message says the version of its protocol, and that
//! is looked at before anything else in it: a message of a version that we do not speak is told by name,
//! and not as a field that is missing. [`Timed`] bounds a whole exchange, not each read of it, so a peer
//! that sends one octet a second does not hold anybody up.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{admin, bgp};

/// The longest body of a frame, in octets.
pub const MAX_LEN: usize = 1 << 20;

/// What travels in a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// The version that we speak; [`Message::version`] of another is refused.
    const VERSION: u32;
    /// The version that this message says.
    fn version(&self) -> u32;
}

impl Message for admin::Request {
    const VERSION: u32 = admin::VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Message for admin::Reply {
    const VERSION: u32 = admin::VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Message for bgp::Request {
    const VERSION: u32 = bgp::VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Message for bgp::Reply {
    const VERSION: u32 = bgp::VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed before the first octet: an end, not a fault.
    #[error("the connection was closed before a message")]
    Closed,
    #[error("the connection was closed after {got} of {wanted} octets")]
    Truncated { wanted: usize, got: usize },
    #[error("a message of {len} octets is longer than the {MAX_LEN} allowed")]
    Oversized { len: usize },
    #[error("no whole message in time")]
    TimedOut,
    #[error(
        "protocol version {got} is not spoken here, only {ours}: update the older of the two programs"
    )]
    UnknownVersion { got: u64, ours: u32 },
    #[error("the message says no protocol version")]
    NoVersion,
    #[error("the message is not what protocol version {version} has")]
    Body { version: u32, source: serde_json::Error },
    #[error("the message is no JSON")]
    Json(#[source] serde_json::Error),
    #[error("socket")]
    Socket(#[source] io::Error),
}

impl FrameError {
    /// Whether the peer went away, or never answered: it may be there again later.
    pub fn is_peer_gone(&self) -> bool {
        matches!(self, Self::Closed | Self::Truncated { .. } | Self::TimedOut | Self::Socket(_))
    }
}

/// Turns a message into a whole frame.
///
/// # Errors
///
/// When the message is too long to be a frame.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER_LEN];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Json)?;
    let len = frame.len() - HEADER_LEN;
    let header = u32::try_from(len).ok().filter(|_| len <= MAX_LEN);
    let header = header.ok_or(FrameError::Oversized { len })?;
    frame[..HEADER_LEN].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// Reads the length of the body that follows a header.
///
/// # Errors
///
/// When it is longer than allowed.
pub fn body_len(header: [u8; HEADER_LEN]) -> Result<usize, FrameError> {
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if len <= MAX_LEN { Ok(len) } else { Err(FrameError::Oversized { len }) }
}

/// Turns the body of a frame into a message.
///
/// # Errors
///
/// When its version is not ours, or it is not a message of that version.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, FrameError> {
    #[derive(Deserialize)]
    struct Version {
        version: Option<u64>,
    }
    let said: Version = serde_json::from_slice(body).map_err(FrameError::Json)?;
    match said.version {
        None => Err(FrameError::NoVersion),
        Some(got) if got != u64::from(M::VERSION) => {
            Err(FrameError::UnknownVersion { got, ours: M::VERSION })
        }
        Some(_) => serde_json::from_slice(body)
            .map_err(|source| FrameError::Body { version: M::VERSION, source }),
    }
}

/// Writes one message.
///
/// # Errors
///
/// When it is too long or the stream fails.
pub fn write<M: Message>(stream: &mut impl Write, message: &M) -> Result<(), FrameError> {
    let frame = encode(message)?;
    stream.write_all(&frame).and_then(|()| stream.flush()).map_err(of_io)
}

/// Reads one message.
///
/// # Errors
///
/// Every [`FrameError`].
pub fn read<M: Message>(stream: &mut impl Read) -> Result<M, FrameError> {
    let mut header = [0; HEADER_LEN];
    match fill(stream, &mut header)? {
        0 => return Err(FrameError::Closed),
        HEADER_LEN => {}
        got => return Err(FrameError::Truncated { wanted: HEADER_LEN, got }),
    }
    read_body(stream, header)
}

/// Reads the rest of a message whose header is already read.
///
/// # Errors
///
/// Every [`FrameError`].
pub fn read_body<M: Message>(
    stream: &mut impl Read,
    header: [u8; HEADER_LEN],
) -> Result<M, FrameError> {
    let wanted = body_len(header)?;
    // Grows as octets come: a header alone does not make us hold a mebibyte.
    let mut body = Vec::with_capacity(wanted.min(USUAL_LEN) + 1);
    let limit = u64::try_from(wanted).unwrap_or(u64::MAX);
    stream.take(limit).read_to_end(&mut body).map_err(of_io)?;
    if body.len() < wanted {
        return Err(FrameError::Truncated { wanted, got: body.len() });
    }
    decode(&body)
}

/// Reads until `buf` is full or the stream ends, and tells how much came.
///
/// # Errors
///
/// When the stream fails or the time is over.
pub fn fill(stream: &mut impl Read, buf: &mut [u8]) -> Result<usize, FrameError> {
    let mut got = 0;
    while got < buf.len() {
        match stream.read(&mut buf[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(of_io(err)),
        }
    }
    Ok(got)
}

fn of_io(err: io::Error) -> FrameError {
    match err.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => FrameError::TimedOut,
        _ => FrameError::Socket(err),
    }
}

/// A stream socket on which everything together must be done by a point in time.
#[derive(Debug)]
pub struct Timed<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> Timed<'a> {
    pub const fn new(stream: &'a UnixStream, until: Instant) -> Self {
        Self { stream, until }
    }

    fn left(&self) -> io::Result<Duration> {
        self.until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buf)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Most messages are shorter, and come in one read.
const USUAL_LEN: usize = 16 << 10;
/// The octets of a frame's length.
pub const HEADER_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::{Answer, Ask, Reply, Request};

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let mut stream = Vec::new();
        write(&mut stream, &Request::new(Ask::AcceptStore)).unwrap();
        write(&mut stream, &Request::new(Ask::Status)).unwrap();

        let mut stream = stream.as_slice();
        assert_eq!(read::<Request>(&mut stream).unwrap().ask, Ask::AcceptStore);
        assert_eq!(read::<Request>(&mut stream).unwrap().ask, Ask::Status);
        assert!(matches!(read::<Request>(&mut stream), Err(FrameError::Closed)));
    }

    #[test]
    fn an_unknown_version_is_named_before_anything_else_is_looked_at() {
        let err =
            read::<Request>(&mut framed(br#"{"version":7,"new":[]}"#).as_slice()).unwrap_err();
        assert!(matches!(err, FrameError::UnknownVersion { got: 7, ours: 1 }), "{err}");
        let err = read::<Request>(&mut framed(br#"{"ask":"pods"}"#).as_slice()).unwrap_err();
        assert!(matches!(err, FrameError::NoVersion), "{err}");
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        let err = |octets: &[u8]| read::<Request>(&mut { octets }).unwrap_err();
        assert!(matches!(err(&[0, 0]), FrameError::Truncated { wanted: 4, got: 2 }));
        assert!(matches!(err(&[0, 0, 0, 9, b'{']), FrameError::Truncated { wanted: 9, got: 1 }));
        assert!(matches!(err(&[0xff; 8]), FrameError::Oversized { len: 0xffff_ffff }));
        assert!(matches!(err(&framed(b"{")), FrameError::Json(_)));
        assert!(matches!(err(&framed(br#"{"version":1}"#)), FrameError::Body { .. }));
    }

    #[test]
    fn a_message_longer_than_a_mebibyte_is_not_sent() {
        let long = Reply::new(Answer::Error("x".repeat(MAX_LEN)));
        assert!(matches!(encode(&long), Err(FrameError::Oversized { .. })));
    }

    #[test]
    fn a_peer_that_dribbles_is_cut_off_when_the_whole_time_is_over() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let frame = encode(&Request::new(Ask::Status)).unwrap();
        let dribble = std::thread::spawn(move || {
            for octet in frame {
                if theirs.write_all(&[octet]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let until = Instant::now() + Duration::from_millis(100);
        let err = read::<Request>(&mut Timed::new(&ours, until)).unwrap_err();
        drop(ours);
        dribble.join().unwrap();
        assert!(matches!(err, FrameError::TimedOut), "{err}");
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read::<Request>(&mut octets.as_slice());
            let _ = read::<Request>(&mut framed(&octets).as_slice());
        }
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).unwrap();
        [&len.to_be_bytes(), body].concat()
    }
}
