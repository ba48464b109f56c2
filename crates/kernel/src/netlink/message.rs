//! The bytes of netlink: a header, a fixed part of the family's own, and attributes that may nest.
//!
//! A [`Batch`] is one buffer that many messages are written into, one [`Writer`] after the other; what was
//! received is read in place by [`Messages`] and [`Attrs`]. All numbers are in the host's order unless a
//! name says `be`. Everything read is bounds-checked: a short message ends the iteration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Flags of a message's header (`NLM_F_*`).
pub mod flags {
    pub const REQUEST: u16 = 0x0001;
    pub const MULTI: u16 = 0x0002;
    pub const ACK: u16 = 0x0004;
    pub const ECHO: u16 = 0x0008;
    /// In a reply: the dump was interrupted by a change and must be repeated.
    pub const DUMP_INTR: u16 = 0x0010;
    pub const DUMP: u16 = 0x0300;
    pub const REPLACE: u16 = 0x0100;
    pub const EXCL: u16 = 0x0200;
    pub const CREATE: u16 = 0x0400;
    pub const APPEND: u16 = 0x0800;
    /// On a removal: all that matches.
    pub const BULK: u16 = 0x0200;
}

/// `sizeof(struct nlmsghdr)`.
pub(crate) const HEADER_LEN: usize = 16;
const ALIGN: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

// ---- writing

/// Messages one behind the other in one buffer, in the order in which the kernel will take them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    buf: Vec<u8>,
    starts: Vec<usize>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the next message. `fixed` is the family's own header (`struct rtmsg`, …). The message is
    /// complete when the writer is dropped; `REQUEST`, `ACK` and the sequence number are the socket's.
    pub fn push(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> Writer<'_> {
        let start = self.buf.len();
        self.starts.push(start);
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&flags.to_ne_bytes());
        self.buf.extend_from_slice(&[0; 8]);
        self.buf.extend_from_slice(fixed);
        pad(&mut self.buf);
        Writer { buf: &mut self.buf, start, length: LengthField::Message }
    }

    /// Appends a message whose bytes, `nlmsghdr` included, are already built.
    pub fn push_raw(&mut self, message: &[u8]) {
        self.starts.push(self.buf.len());
        self.buf.extend_from_slice(message);
        pad(&mut self.buf);
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Forgets the messages and keeps the memory.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.starts.clear();
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// The octets of the messages `from..to`.
    pub(crate) fn range(&self, from: usize, to: usize) -> &[u8] {
        let end_of = |n: usize| self.starts.get(n).copied().unwrap_or(self.buf.len());
        &self.buf[end_of(from)..end_of(to)]
    }

    /// The last message that bears all of `wanted`.
    pub(crate) fn last_with(&self, wanted: u16) -> Option<usize> {
        self.starts.iter().rposition(|&at| u16_at(&self.buf, at + 6) & wanted == wanted)
    }

    /// Stamps the header of message `n`: its sequence number, and flags besides its own.
    pub(crate) fn stamp(&mut self, n: usize, seq: u32, more_flags: u16) {
        let Some(&start) = self.starts.get(n) else { return };
        let header = &mut self.buf[start..start + HEADER_LEN];
        let flags = u16_at(header, 6) | more_flags;
        header[6..8].copy_from_slice(&flags.to_ne_bytes());
        header[8..12].copy_from_slice(&seq.to_ne_bytes());
    }
}

/// Writes the attributes of one message or of one nested attribute. Its length is filled in on drop.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut Vec<u8>,
    start: usize,
    length: LengthField,
}

#[derive(Clone, Copy, Debug)]
enum LengthField {
    /// A `u32`, in `nlmsghdr`.
    Message,
    /// A `u16`, in `nlattr`.
    Attribute,
}

impl Writer<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // An attribute's length is 16 bits; ours are a few dozen octets, so the clamp never bites.
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&value[..usize::from(len) - 4]);
        pad(self.buf);
        self
    }

    pub fn flag(&mut self, kind: u16) -> &mut Self {
        self.bytes(kind, &[])
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub fn u16_be(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn u64_be(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// With the terminating zero.
    pub fn str(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut text = Vec::with_capacity(value.len() + 1);
        text.extend_from_slice(value.as_bytes());
        text.push(0);
        self.bytes(kind, &text)
    }

    pub fn ip(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(addr) => self.bytes(kind, &addr.octets()),
            IpAddr::V6(addr) => self.bytes(kind, &addr.octets()),
        }
    }

    /// Writes an attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.nest_plain(kind | NESTED, &[], fill)
    }

    /// The same without `NLA_F_NESTED`, and with a fixed part before the attributes: for the few places
    /// where the kernel wants it so (`VETH_INFO_PEER`).
    pub fn nest_plain(
        &mut self,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> &mut Self {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(fixed);
        pad(self.buf);
        fill(&mut Writer { buf: self.buf, start, length: LengthField::Attribute });
        self
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        let len = self.buf.len() - self.start;
        let at = self.start;
        match self.length {
            LengthField::Message => {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                self.buf[at..at + 4].copy_from_slice(&len.to_ne_bytes());
            }
            LengthField::Attribute => {
                let len = u16::try_from(len).unwrap_or(u16::MAX);
                self.buf[at..at + 2].copy_from_slice(&len.to_ne_bytes());
            }
        }
    }
}

fn pad(buf: &mut Vec<u8>) {
    buf.resize(buf.len().next_multiple_of(ALIGN), 0);
}

// ---- reading

/// One received message, in place.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `RTM_NEWROUTE`, …
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// The port of the socket whose request it tells of; 0 when the kernel acted by itself.
    pub port: u32,
    /// What follows `nlmsghdr`.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind a fixed part of `fixed_len` octets.
    pub fn attrs(&self, fixed_len: usize) -> Attrs<'a> {
        Attrs { rest: self.body.get(fixed_len.next_multiple_of(ALIGN)..).unwrap_or_default() }
    }

    pub fn u8(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or_default()
    }

    pub fn u16(&self, at: usize) -> u16 {
        u16_at(self.body, at)
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32_at(self.body, at)
    }

    /// The `errno` of a `NLMSG_ERROR` or `NLMSG_DONE` as the kernel wrote it: zero or negative.
    pub(crate) fn status(&self) -> i32 {
        self.u32(0).cast_signed()
    }
}

/// The messages of one datagram.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.rest.get(..HEADER_LEN)?;
        let len = usize::try_from(u32_at(header, 0)).ok()?;
        let body = self.rest.get(HEADER_LEN..len)?;
        self.rest = self.rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(header, 4),
            flags: u16_at(header, 6),
            seq: u32_at(header, 8),
            port: u32_at(header, 12),
            body,
        })
    }
}

/// One attribute, in place.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    pub kind: u16,
    pub value: &'a [u8],
}

impl<'a> Attr<'a> {
    /// The attributes in it.
    pub fn attrs(&self) -> Attrs<'a> {
        Attrs::new(self.value)
    }

    pub fn u8(&self) -> u8 {
        self.value.first().copied().unwrap_or_default()
    }

    pub fn u16(&self) -> u16 {
        u16_at(self.value, 0)
    }

    pub fn u16_be(&self) -> u16 {
        u16::from_be(self.u16())
    }

    pub fn u32(&self) -> u32 {
        u32_at(self.value, 0)
    }

    pub fn u32_be(&self) -> u32 {
        u32::from_be(self.u32())
    }

    pub fn u64_be(&self) -> u64 {
        self.value.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets))
    }

    /// The text up to the terminating zero; empty when it is not UTF-8.
    pub fn str(&self) -> &'a str {
        let end = self.value.iter().position(|&b| b == 0).unwrap_or(self.value.len());
        str::from_utf8(&self.value[..end]).unwrap_or_default()
    }

    /// An address of 4 or 16 octets.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.value.len() {
            4 => self.value.first_chunk().map(|o: &[u8; 4]| Ipv4Addr::from(*o).into()),
            16 => self.value.first_chunk().map(|o: &[u8; 16]| Ipv6Addr::from(*o).into()),
            _ => None,
        }
    }
}

/// Attributes one behind the other.
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The first attribute of that type.
    pub fn find(mut self, kind: u16) -> Option<Attr<'a>> {
        Iterator::find(&mut self, |attr| attr.kind == kind)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let len = usize::from(u16_at(self.rest.get(..4)?, 0));
        let value = self.rest.get(4..len)?;
        let kind = u16_at(self.rest, 2) & TYPE_MASK;
        self.rest = self.rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Attr { kind, value })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_ne_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut batch = Batch::new();
        batch.push(24, flags::CREATE, &[1, 2, 3, 4]).str(3, "eth0").nest(18, |info| {
            info.u32_be(1, 0x0a0b_0c0d).ip(2, [192, 0, 2, 1].into());
        });
        batch.push(25, 0, &[]).u8(7, 9);
        batch.stamp(1, 77, flags::ACK);

        let messages: Vec<_> = Messages::new(batch.bytes()).collect();
        let [first, second] = messages[..] else { panic!("two messages: {messages:?}") };
        assert_eq!((first.kind, first.u16(2)), (24, u16::from_ne_bytes([3, 4])));
        assert_eq!(first.attrs(4).find(3).unwrap().str(), "eth0");
        let info = first.attrs(4).find(18).unwrap();
        assert_eq!(info.attrs().find(1).unwrap().value, [10, 11, 12, 13]);
        assert_eq!(info.attrs().find(2).unwrap().ip(), Some([192, 0, 2, 1].into()));
        assert_eq!((second.kind, second.seq, second.flags), (25, 77, flags::ACK));
        assert_eq!(second.attrs(0).next().unwrap().u8(), 9);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic_and_to_an_end(
            octets in prop::collection::vec(any::<u8>(), 0..256),
        ) {
            for message in Messages::new(&octets) {
                for attr in message.attrs(12) {
                    let _ = (attr.u32(), attr.str(), attr.ip(), attr.attrs().count());
                }
            }
        }
    }
}
