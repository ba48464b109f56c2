//! Messages in a stream of octets (RFC 4271 §4.1, §6.1).

use super::{MessageLimit, Reason, Reset};

/// One whole message, and how many octets of the stream it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: MessageKind,
    /// What follows the header.
    pub body: &'a [u8],
    pub len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    Open,
    Update,
    Notification,
    Keepalive,
    RouteRefresh,
}

impl MessageKind {
    fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }

    const fn wire(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::RouteRefresh => 5,
        }
    }

    /// The shortest that a message of this kind can be. A refresh of a wrong length has an error of its own.
    const fn least(self) -> usize {
        HEADER_LEN
            + match self {
                Self::Open => 10,
                Self::Update => 4,
                Self::Notification => 2,
                Self::Keepalive | Self::RouteRefresh => 0,
            }
    }

    const fn most(self, limit: MessageLimit) -> usize {
        match self {
            Self::Keepalive => HEADER_LEN,
            Self::Open => MessageLimit::Usual.octets(),
            Self::Update | Self::Notification | Self::RouteRefresh => limit.octets(),
        }
    }
}

impl<'a> Frame<'a> {
    /// Takes the first message off `stream`; `None` when more of it has to come.
    ///
    /// # Errors
    ///
    /// When what is there cannot be the begin of a message.
    pub fn read(stream: &'a [u8], limit: MessageLimit) -> Result<Option<Self>, Reset> {
        let Some((header, _)) = stream.split_first_chunk::<HEADER_LEN>() else {
            // A stream that began wrongly is told so before the whole header is there.
            return check_marker(stream).map(|()| None);
        };
        let [.., high, low, kind] = header;
        check_marker(header)?;
        let Some(kind) = MessageKind::from_wire(*kind) else {
            return Err(Reset::with(Reason::BAD_TYPE, "no such message type", &[*kind]));
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        if len < kind.least() || len > kind.most(limit) {
            let what = "the length is not one that the message can have";
            return Err(Reset::with(Reason::BAD_LENGTH, what, &[*high, *low]));
        }
        Ok(stream.get(HEADER_LEN..len).map(|body| Self { kind, body, len }))
    }
}

fn check_marker(start: &[u8]) -> Result<(), Reset> {
    if start.iter().take(MARKER_LEN).all(|octet| *octet == 0xff) {
        return Ok(());
    }
    Err(Reset::new(Reason::NOT_SYNCHRONIZED, "the marker is not all ones"))
}

/// Writes a whole KEEPALIVE.
pub fn write_keepalive(out: &mut Vec<u8>) {
    write_message(MessageKind::Keepalive, out, |_| {});
}

/// Writes a header, then what `body` writes, then the length into the header.
pub(super) fn write_message(kind: MessageKind, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = begin_message(kind, out);
    body(out);
    end_message(start, out);
}

/// Writes a header whose length is not known yet, and returns where it begins.
pub(super) fn begin_message(kind: MessageKind, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend([0xff; MARKER_LEN]);
    out.extend([0, 0, kind.wire()]);
    start
}

/// Sets the length of the message that begins at `start`.
pub(super) fn end_message(start: usize, out: &mut [u8]) {
    let len = out.len() - start;
    set_u16(out, start + MARKER_LEN, len);
}

/// Writes a number over two octets that were left for it.
pub(super) fn set_u16(out: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Marker, length and type.
pub const HEADER_LEN: usize = 19;
const MARKER_LEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_off_a_stream_one_by_one() {
        let mut stream = Vec::new();
        write_keepalive(&mut stream);
        write_keepalive(&mut stream);
        for len in 0..HEADER_LEN {
            assert_eq!(Frame::read(&stream[..len], MessageLimit::Usual), Ok(None), "{len}");
        }
        let frame = Frame::read(&stream, MessageLimit::Usual).unwrap().unwrap();
        assert_eq!((frame.kind, frame.len), (MessageKind::Keepalive, HEADER_LEN));
    }

    #[test]
    fn what_is_no_header_is_refused_with_what_was_wrong() {
        let mut good = Vec::new();
        write_keepalive(&mut good);
        let spoilt = |at: usize, octet: u8| {
            let mut octets = good.clone();
            octets[at] = octet;
            Frame::read(&octets, MessageLimit::Usual).unwrap_err()
        };
        assert_eq!(spoilt(3, 0).reason, Reason::NOT_SYNCHRONIZED);
        assert_eq!(spoilt(17, 18).reason, Reason::BAD_LENGTH);
        assert_eq!(spoilt(17, 20).data, [0, 20]);
        assert_eq!(spoilt(18, 9), Reset::with(Reason::BAD_TYPE, "no such message type", &[9]));
        assert!(Frame::read(b"GET / HTTP", MessageLimit::Usual).is_err());
    }

    #[test]
    fn a_long_message_needs_the_capability_for_it() {
        let mut stream = Vec::new();
        write_message(MessageKind::Update, &mut stream, |out| out.resize(out.len() + 4_096, 0));
        assert!(Frame::read(&stream, MessageLimit::Usual).is_err());
        assert!(Frame::read(&stream, MessageLimit::Extended).unwrap().is_some());
    }
}
