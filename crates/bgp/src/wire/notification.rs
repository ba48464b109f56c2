//! NOTIFICATION: why a session ends (RFC 4271 §4.5, §6; RFC 4486, 8203, 8538, 9003).

use std::fmt;

use super::{MessageKind, frame::write_message, reader::Reader};

/// A NOTIFICATION as it is sent or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    pub reason: Reason,
    pub data: Vec<u8>,
}

/// An error code and its subcode. Any pair of octets may come from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    pub code: u8,
    pub subcode: u8,
}

impl Reason {
    pub const NOT_SYNCHRONIZED: Self = Self::of(1, 1);
    pub const BAD_LENGTH: Self = Self::of(1, 2);
    pub const BAD_TYPE: Self = Self::of(1, 3);

    pub const OPEN_UNSPECIFIC: Self = Self::of(2, 0);
    pub const UNSUPPORTED_VERSION: Self = Self::of(2, 1);
    pub const BAD_PEER_AS: Self = Self::of(2, 2);
    pub const BAD_IDENTIFIER: Self = Self::of(2, 3);
    pub const UNSUPPORTED_PARAMETER: Self = Self::of(2, 4);
    pub const BAD_HOLD_TIME: Self = Self::of(2, 6);
    pub const UNSUPPORTED_CAPABILITY: Self = Self::of(2, 7);

    pub const MALFORMED_ATTRIBUTES: Self = Self::of(3, 1);
    pub const OPTIONAL_ATTRIBUTE: Self = Self::of(3, 9);
    pub const INVALID_NETWORK: Self = Self::of(3, 10);

    pub const HOLD_TIMER_EXPIRED: Self = Self::of(4, 0);

    /// The message does not belong in that state (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_SENT: Self = Self::of(5, 1);
    pub const UNEXPECTED_IN_OPEN_CONFIRM: Self = Self::of(5, 2);
    pub const UNEXPECTED_IN_ESTABLISHED: Self = Self::of(5, 3);

    pub const MOST_PREFIXES: Self = Self::of(6, 1);
    pub const SHUTDOWN: Self = Self::of(6, 2);
    pub const DECONFIGURED: Self = Self::of(6, 3);
    pub const ADMIN_RESET: Self = Self::of(6, 4);
    pub const REJECTED: Self = Self::of(6, 5);
    pub const CONFIGURATION_CHANGE: Self = Self::of(6, 6);
    pub const COLLISION: Self = Self::of(6, 7);
    pub const OUT_OF_RESOURCES: Self = Self::of(6, 8);
    /// Forget the routes too, graceful restart or not (RFC 8538 §3).
    pub const HARD_RESET: Self = Self::of(6, 9);
    /// BFD says that the path is down (RFC 9384).
    pub const BFD_DOWN: Self = Self::of(6, 10);

    pub const BAD_REFRESH_LENGTH: Self = Self::of(7, 1);

    const fn of(code: u8, subcode: u8) -> Self {
        Self { code, subcode }
    }
}

impl Notification {
    pub const fn new(reason: Reason) -> Self {
        Self { reason, data: Vec::new() }
    }

    /// A shutdown or reset with a text for the operator at the other end (RFC 9003), cut to what fits.
    pub fn with_text(reason: Reason, text: &str) -> Self {
        let mut end = text.len().min(MOST_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default();
        let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
        data.extend(text.as_bytes());
        Self { reason, data }
    }

    /// Wraps the reason so that the peer forgets the routes too (RFC 8538 §3.1).
    #[must_use]
    pub fn hard(self) -> Self {
        let mut data = vec![self.reason.code, self.reason.subcode];
        data.extend(self.data);
        Self { reason: Reason::HARD_RESET, data }
    }

    /// The text that the operator at the other end left. Control characters are taken out: it goes into logs.
    pub fn text(&self) -> Option<String> {
        let (reason, data) = self.inner();
        if !matches!(reason, Reason::SHUTDOWN | Reason::ADMIN_RESET) {
            return None;
        }
        let text = Reader::new(data).block_u8().filter(|text| !text.is_empty())?;
        let text = String::from_utf8_lossy(text);
        Some(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    /// The reason itself, out of a hard reset.
    pub fn inner(&self) -> (Reason, &[u8]) {
        match (self.reason, self.data.as_slice()) {
            (Reason::HARD_RESET, [code, subcode, data @ ..]) => {
                (Reason { code: *code, subcode: *subcode }, data)
            }
            (reason, data) => (reason, data),
        }
    }

    /// Reads the body of a message; `None` when it is too short. There is nobody to complain to (RFC 4271 §6.4).
    pub fn read(body: &[u8]) -> Option<Self> {
        match body {
            [code, subcode, data @ ..] => Some(Self {
                reason: Reason { code: *code, subcode: *subcode },
                data: data.to_vec(),
            }),
            _ => None,
        }
    }

    /// Writes a whole message.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_message(MessageKind::Notification, out, |out| {
            out.extend([self.reason.code, self.reason.subcode]);
            out.extend(self.data.iter().take(MOST_DATA));
        });
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, _) = self.inner();
        let hard = if self.reason == Reason::HARD_RESET { "hard reset, " } else { "" };
        write!(f, "{hard}{reason}")?;
        match self.text() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Reason {
    /// Code and subcode in words, and their numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self.code {
            1 => "message header",
            2 => "open",
            3 => "update",
            4 => "hold timer expired",
            5 => "state machine",
            6 => "cease",
            7 => "route refresh",
            _ => "unknown error",
        };
        match self.subcode_in_words() {
            Some(subcode) => write!(f, "{code}: {subcode} [{}/{}]", self.code, self.subcode),
            None => write!(f, "{code} [{}/{}]", self.code, self.subcode),
        }
    }
}

impl Reason {
    fn subcode_in_words(self) -> Option<&'static str> {
        let words: &[&str] = match self.code {
            1 => &["connection not synchronized", "bad message length", "bad message type"],
            2 => &[
                "unsupported version",
                "bad peer AS",
                "bad BGP identifier",
                "unsupported optional parameter",
                "authentication failure",
                "unacceptable hold time",
                "unsupported capability",
            ],
            3 => &[
                "malformed attribute list",
                "unrecognized well-known attribute",
                "missing well-known attribute",
                "attribute flags error",
                "attribute length error",
                "invalid origin",
                "AS routing loop",
                "invalid next hop",
                "optional attribute error",
                "invalid network field",
                "malformed AS path",
            ],
            5 => &[
                "unexpected in OpenSent",
                "unexpected in OpenConfirm",
                "unexpected in Established",
            ],
            6 => &[
                "maximum number of prefixes reached",
                "administrative shutdown",
                "peer de-configured",
                "administrative reset",
                "connection rejected",
                "other configuration change",
                "connection collision resolution",
                "out of resources",
                "hard reset",
                "BFD down",
            ],
            7 => &["invalid message length"],
            _ => &[],
        };
        words.get(usize::from(self.subcode).checked_sub(1)?).copied()
    }
}

/// Octets of text (RFC 9003 §2).
const MOST_TEXT: usize = 255;
/// So that the message stays below 4,096 octets.
const MOST_DATA: usize = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_in_words_and_numbers() {
        assert_eq!(Reason::BAD_PEER_AS.to_string(), "open: bad peer AS [2/2]");
        assert_eq!(Reason::HOLD_TIMER_EXPIRED.to_string(), "hold timer expired [4/0]");
        assert_eq!(Reason::of(99, 3).to_string(), "unknown error [99/3]");
    }

    #[test]
    fn a_shutdown_text_comes_through_without_control_characters() {
        let sent = Notification::with_text(Reason::SHUTDOWN, "back at 4\nor\u{7}later");
        let mut out = Vec::new();
        sent.write(&mut out);
        let got = Notification::read(&out[super::super::HEADER_LEN..]).unwrap();
        assert_eq!(got, sent);
        assert_eq!(got.text().unwrap(), "back at 4 or later");
        assert!(
            got.clone().hard().to_string().starts_with("hard reset, cease: administrative shut")
        );
    }

    #[test]
    fn a_text_is_cut_between_characters_and_a_lying_length_is_no_text() {
        let long = "é".repeat(200);
        let sent = Notification::with_text(Reason::SHUTDOWN, &long);
        assert_eq!(sent.text().unwrap().chars().count(), 127);
        let lying = Notification { reason: Reason::SHUTDOWN, data: vec![9, b'a'] };
        assert_eq!(lying.text(), None);
        assert_eq!(Notification::read(&[6]), None);
    }
}
