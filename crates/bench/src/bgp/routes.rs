//! The routes of the crowd: peer `p` has `each` of them, and each has a number in all.
//!
//! A number is the third to first octet of an IPv4 /24, or the end of a MAC address, so that a route which
//! comes back is known by its octets.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use russet_bgp::wire::{
    AsWidth, Attributes, Community, Esi, EvpnKey, ExtCommunity, Family, FamilySet, Label, NextHop,
    Nlri, NlriKey, Peering, RouteDistinguisher, Tail, Terms, UpdateWriter, V4Prefix,
};
use russet_net::{Asn, Mac, Vni};

/// How many peers tell how many routes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub peers: usize,
    pub each: usize,
    /// So many routes share their attributes; none: all of a peer.
    pub per_set: Option<usize>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    V4,
    /// Type 2.
    Evpn,
}

impl Kind {
    pub const fn family(self) -> Family {
        match self {
            Self::V4 => Family::Ipv4Unicast,
            Self::Evpn => Family::L2vpnEvpn,
        }
    }

    pub fn terms(self) -> Terms {
        Terms {
            as_width: AsWidth::Four,
            families: FamilySet::EMPTY.with(self.family()),
            ..Terms::plain(Peering::Internal)
        }
    }
}

impl Shape {
    pub const fn total(&self) -> usize {
        self.peers * self.each
    }

    /// What a peer tells, message after message.
    pub fn announcement(&self, peer: usize) -> Result<Vec<u8>> {
        let mut octets = Vec::new();
        let size = self.per_set.unwrap_or(self.each);
        let numbers: Vec<_> = self.numbers(peer).collect();
        for (set, numbers) in numbers.chunks(size).enumerate() {
            let mut canonical = Vec::new();
            self.attributes(peer, set)?.write(&mut canonical);
            UpdateWriter::new(self.kind.terms(), &mut octets).announce(
                self.kind.family(),
                &canonical,
                NextHop::from(IpAddr::from(address(peer))),
                numbers.iter().map(|number| self.nlri(peer, *number)),
            )?;
        }
        Ok(octets)
    }

    /// What a peer says when it takes all of them back.
    pub fn withdrawal(&self, peer: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        let nlris = self.numbers(peer).map(|number| self.nlri(peer, number));
        UpdateWriter::new(self.kind.terms(), &mut octets).withdraw(self.kind.family(), nlris);
        octets
    }

    /// The numbers of a peer's own routes.
    pub fn own(&self, peer: usize) -> std::ops::Range<usize> {
        peer * self.each..(peer + 1) * self.each
    }

    fn numbers(&self, peer: usize) -> impl Iterator<Item = u32> {
        self.own(peer).filter_map(|number| u32::try_from(number).ok())
    }

    fn attributes(&self, peer: usize, set: usize) -> Result<Attributes> {
        let set = u32::try_from(set)?;
        let mut attributes = Attributes { local_pref: Some(100), ..Attributes::default() };
        if self.per_set.is_some() {
            attributes.communities = vec![Community::new(u32::try_from(peer)? << 16 | set)];
        }
        if self.kind == Kind::Evpn {
            let target = ExtCommunity::route_target(Asn::new(65_000), 100);
            attributes.ext_communities = vec![target, ExtCommunity::encapsulation(8)];
        }
        Ok(attributes)
    }

    fn nlri(&self, peer: usize, number: u32) -> Nlri {
        match self.kind {
            Kind::V4 => {
                let prefix = V4Prefix::around(FIRST_V4 + (number << 8), 24);
                Nlri::plain(NlriKey::V4(prefix.expect("IPv4 has a length of 24")))
            }
            Kind::Evpn => {
                let [a, b, c, d] = number.to_be_bytes();
                let [.., high, low] = address(peer).octets();
                let key = EvpnKey::MacIp {
                    rd: RouteDistinguisher::new([0, 1, 10, 9, high, low, 0, 100]),
                    tag: 0,
                    mac: Mac::new([2, 0, a, b, c, d]),
                    ip: None,
                };
                let label_1 = Label::from(Vni::MAX);
                let tail = Tail::MacIp { esi: Esi::ZERO, label_1, label_2: None };
                Nlri { tail, ..Nlri::plain(key.into()) }
            }
        }
    }
}

/// The address of a peer of the crowd: from 10.9.1.0 on.
pub fn address(peer: usize) -> Ipv4Addr {
    let peer = u32::try_from(peer).unwrap_or(u32::MAX / 2);
    Ipv4Addr::from_bits(0x0a09_0100 + peer)
}

/// Which routes a peer holds.
#[derive(Debug)]
pub struct Held {
    kind: Kind,
    bits: Vec<u64>,
    own: std::ops::Range<usize>,
    /// Those of others.
    pub count: usize,
}

impl Held {
    pub fn new(shape: &Shape, peer: usize) -> Self {
        let (kind, own) = (shape.kind, shape.own(peer));
        Self { kind, bits: vec![0; shape.total().div_ceil(64)], own, count: 0 }
    }

    /// Takes the body of an UPDATE.
    pub fn update(&mut self, body: &[u8]) -> Result<()> {
        let (withdrawn, rest) = block(body).context("withdrawn routes are cut off")?;
        let (mut attributes, nlri) = block(rest).context("attributes are cut off")?;
        self.prefixes(withdrawn, Self::lose)?;
        self.prefixes(nlri, Self::gain)?;
        if self.kind == Kind::V4 {
            return Ok(());
        }
        while let [flags, code, rest @ ..] = attributes {
            let (value, rest) = match flags & 0x10 {
                0 => {
                    rest.split_first().and_then(|(len, rest)| rest.split_at_checked((*len).into()))
                }
                _ => block(rest),
            }
            .context("an attribute is cut off")?;
            attributes = rest;
            match code {
                14 => {
                    let next_hop = usize::from(*value.get(3).context("no next hop")?);
                    self.macs(value.get(5 + next_hop..).context("no routes")?, Self::gain)?;
                }
                15 => self.macs(value.get(3..).context("no family")?, Self::lose)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn prefixes(
        &mut self,
        mut routes: &[u8],
        mut each: impl FnMut(&mut Self, usize),
    ) -> Result<()> {
        while let [len, rest @ ..] = routes {
            ensure!(*len == 24, "a prefix of length {len} is nobody's");
            let [a, b, c, rest @ ..] = rest else { anyhow::bail!("a prefix is cut off") };
            routes = rest;
            let number = u32::from_be_bytes([0, *a, *b, *c]).wrapping_sub(FIRST_V4 >> 8);
            each(self, number as usize);
        }
        Ok(())
    }

    fn macs(&mut self, mut routes: &[u8], mut each: impl FnMut(&mut Self, usize)) -> Result<()> {
        while let [_, len, rest @ ..] = routes {
            let (route, rest) =
                rest.split_at_checked((*len).into()).context("a route is cut off")?;
            routes = rest;
            // Distinguisher, segment, tag, length, and the first two octets of the address.
            let number = route.get(8 + 10 + 4 + 1 + 2..).and_then(<[u8]>::first_chunk);
            each(self, u32::from_be_bytes(*number.context("a route has no MAC address")?) as usize);
        }
        Ok(())
    }

    fn gain(&mut self, number: usize) {
        if let Some(word) = self.bits.get_mut(number / 64)
            && *word & 1 << (number % 64) == 0
        {
            *word |= 1 << (number % 64);
            self.count += usize::from(!self.own.contains(&number));
        }
    }

    fn lose(&mut self, number: usize) {
        if let Some(word) = self.bits.get_mut(number / 64)
            && *word & 1 << (number % 64) != 0
        {
            *word &= !(1 << (number % 64));
            self.count -= usize::from(!self.own.contains(&number));
        }
    }
}

/// What stands behind a length of two octets, and what follows it.
fn block(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

/// 32.0.0.0
const FIRST_V4: u32 = 0x2000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_held_and_what_is_taken_back_is_not() -> Result<()> {
        for kind in [Kind::V4, Kind::Evpn] {
            let shape = Shape { peers: 2, each: 3_000, per_set: Some(10), kind };
            let mut held = Held::new(&shape, 1);
            let feed = |held: &mut Held, octets: &[u8]| -> Result<()> {
                let mut rest = octets;
                while let Some(len) = rest.get(16..18) {
                    let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
                    held.update(&rest[19..len])?;
                    rest = &rest[len..];
                }
                Ok(())
            };
            feed(&mut held, &shape.announcement(0)?)?;
            feed(&mut held, &shape.announcement(0)?)?;
            assert_eq!(held.count, 3_000);
            feed(&mut held, &shape.announcement(1)?)?;
            assert_eq!(held.count, 3_000, "its own do not count");
            feed(&mut held, &shape.withdrawal(0))?;
            assert_eq!(held.count, 0);
        }
        Ok(())
    }
}
