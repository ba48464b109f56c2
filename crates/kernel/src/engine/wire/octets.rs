//! Octets one after the other: written without a fault, read with suspicion.

use std::net::{IpAddr, SocketAddr};

use russet_desired::{EngineEnd, EnginePeerSpec, EngineSpec, EngineWire, WireguardSpec};
use russet_net::{Prefix, PresharedKey, PublicKey};

use super::{MOST_ROWS, VERSION, WireError, end};

/// A message that is being written. Every method gives it back.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(kind: u8) -> Self {
        Self([&MAGIC[..], &[VERSION, kind]].concat())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn bytes(mut self, octets: &[u8]) -> Self {
        self.0.extend_from_slice(octets);
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A text, cut where it is too long.
    pub(super) fn text(self, text: &str) -> Self {
        let end = text.floor_char_boundary(MOST_TEXT);
        let len = u16::try_from(end).unwrap_or_default();
        self.u16(len).bytes(&text.as_bytes()[..end])
    }

    pub(super) fn addr(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => self.u8(4).bytes(&addr.octets()),
            IpAddr::V6(addr) => self.u8(6).bytes(&addr.octets()),
        }
    }

    pub(super) fn socket(self, socket: SocketAddr) -> Self {
        self.addr(socket.ip()).u16(socket.port())
    }

    pub(super) fn prefix(self, prefix: Prefix) -> Self {
        self.addr(prefix.addr()).u8(prefix.len())
    }

    pub(super) fn option<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.u8(0),
            Some(value) => write(self.u8(1), value),
        }
    }

    /// At most [`MOST_ROWS`] rows; whoever has more divides them.
    pub(super) fn rows<T>(self, rows: &[T], write: impl Fn(Self, &T) -> Self) -> Self {
        let rows = &rows[..rows.len().min(MOST_ROWS)];
        let count = u16::try_from(rows.len()).unwrap_or_default();
        rows.iter().fold(self.u16(count), write)
    }

    pub(super) fn spec(self, spec: EngineSpec) -> Self {
        let end = |out: Self, end: EngineEnd| out.socket(end.listen).addr(end.inner);
        let out = match spec.wire {
            EngineWire::Udp => self.u8(0),
            EngineWire::Wireguard(wireguard) => {
                let psk = wireguard.psk.map(|psk| psk.reveal());
                self.u8(1).option(psk, |out, psk| out.bytes(&psk)).u16(wireguard.keepalive)
            }
        };
        out.option(spec.v4, end).option(spec.v6, end)
    }

    pub(super) fn peer(self, peer: EnginePeerSpec) -> Self {
        let key = peer.key.map(|key| key.octets());
        self.socket(peer.endpoint).option(key, |out, key| out.bytes(&key))
    }
}

/// What is left of a message. Nothing is taken that is not there.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Returns the kind and the body.
    pub(super) fn open(octets: &'a [u8]) -> Result<(u8, Self), WireError> {
        let rest = octets.strip_prefix(&MAGIC).ok_or(WireError::NotOurs)?;
        match rest {
            [VERSION, kind, body @ ..] => Ok((*kind, Self(body))),
            [VERSION] | [] => Err(WireError::NotOurs),
            [version, ..] => Err(WireError::Version(*version)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let len = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(len).filter(|_| len <= MOST_TEXT)?;
        self.0 = rest;
        str::from_utf8(text).ok().map(str::to_owned)
    }

    pub(super) fn addr(&mut self) -> Option<IpAddr> {
        match self.u8()? {
            4 => self.array::<4>().map(IpAddr::from),
            6 => self.array::<16>().map(IpAddr::from),
            _ => None,
        }
    }

    pub(super) fn socket(&mut self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.addr()?, self.u16()?))
    }

    pub(super) fn prefix(&mut self) -> Option<Prefix> {
        let addr = self.addr()?;
        Prefix::new(addr, self.u8()?).ok()
    }

    /// The outer `None` is a fault, the inner one was said.
    #[allow(clippy::option_option)]
    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    /// Grows as rows come: a count alone makes nothing.
    pub(super) fn rows<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::from(self.u16()?);
        let mut rows = Vec::new();
        for _ in 0..count.min(MOST_ROWS) {
            rows.push(read(self)?);
        }
        (count <= MOST_ROWS).then_some(rows)
    }

    pub(super) fn spec(&mut self) -> Option<EngineSpec> {
        let wire = match self.u8()? {
            0 => EngineWire::Udp,
            1 => EngineWire::Wireguard(WireguardSpec {
                psk: self.option(|body| body.array().map(PresharedKey::new))?,
                keepalive: self.u16()?,
            }),
            _ => return None,
        };
        Some(EngineSpec { wire, v4: self.option(end)?, v6: self.option(end)? })
    }

    pub(super) fn peer(&mut self) -> Option<EnginePeerSpec> {
        let endpoint = self.socket()?;
        let key = self.option(|body| body.array().map(PublicKey::new))?;
        Some(EnginePeerSpec { endpoint, key })
    }
}

const MAGIC: [u8; 3] = *b"RSE";
/// Octets of a text at most.
const MOST_TEXT: usize = 1_000;
