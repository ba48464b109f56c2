//! A cursor over octets of which nothing is believed.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Takes values off the front of a slice; `None` means that it is too short.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// What has not been taken yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn v4(&mut self) -> Option<Ipv4Addr> {
        self.array::<4>().map(Into::into)
    }

    pub fn v6(&mut self) -> Option<Ipv6Addr> {
        self.array::<16>().map(Into::into)
    }

    /// A block behind its length in one octet.
    pub fn block_u8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    /// A block behind its length in two octets.
    pub fn block_u16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_longer_than_what_is_there_is_none() {
        assert_eq!(Reader::new(&[2, 7, 8, 9]).block_u8(), Some(&[7, 8][..]));
        assert_eq!(Reader::new(&[4, 7, 8, 9]).block_u8(), None);
        assert_eq!(Reader::new(&[0, 4, 7, 8, 9]).block_u16(), None);
        assert_eq!(Reader::new(&[1]).u16(), None);
    }
}
