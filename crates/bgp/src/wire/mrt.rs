//! A table as other tools read it: MRT's `TABLE_DUMP_V2` (RFC 6396 §4.3, RFC 8050).

use std::net::{IpAddr, Ipv4Addr};

use russet_net::Asn;

use super::{
    Family, NextHop, Nlri, NlriKey, PathId, RouterId, Tail,
    attributes::{code, flag, write_attribute},
    frame::set_u16,
    nlri::Ids,
};

/// A peer of the table; paths name it by its place among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MrtPeer {
    pub id: u32,
    pub addr: IpAddr,
    pub asn: Asn,
}

/// One path of a destination.
#[derive(Clone, Copy, Debug)]
pub struct MrtPath<'a> {
    /// The place of its peer in the index.
    pub peer: u16,
    pub path_id: PathId,
    /// Canonical.
    pub attributes: &'a [u8],
    pub next_hop: NextHop,
    pub tail: Tail,
}

/// Writes a table: first the peers, then destination by destination.
#[derive(Debug)]
pub struct MrtWriter {
    /// Seconds since 1970.
    time_s: u32,
    sequence: u32,
}

impl MrtWriter {
    pub const fn new(time_s: u32) -> Self {
        Self { time_s, sequence: 0 }
    }

    /// Writes the index of peers, which has to be first.
    pub fn peers(&self, collector: RouterId, peers: &[MrtPeer], out: &mut Vec<u8>) {
        self.record(PEER_INDEX_TABLE, out, |out| {
            out.extend(collector.get().to_be_bytes());
            // No view has a name.
            out.extend([0, 0]);
            out.extend(u16::try_from(peers.len()).unwrap_or(u16::MAX).to_be_bytes());
            for peer in peers.iter().take(usize::from(u16::MAX)) {
                out.push(FOUR_OCTET_AS | u8::from(peer.addr.is_ipv6()));
                out.extend(peer.id.to_be_bytes());
                NextHop::from(peer.addr).write(out);
                out.extend(peer.asn.get().to_be_bytes());
            }
        });
    }

    /// Writes one destination with its paths. Those of EVPN have a record of their own each, since what is not
    /// part of the key stands with the key.
    pub fn destination(&mut self, key: NlriKey, paths: &[MrtPath<'_>], out: &mut Vec<u8>) {
        if key.family() == Family::L2vpnEvpn {
            for path in paths {
                self.rib(key, std::slice::from_ref(path), out);
            }
        } else if !paths.is_empty() {
            self.rib(key, paths, out);
        }
    }

    fn rib(&mut self, key: NlriKey, paths: &[MrtPath<'_>], out: &mut Vec<u8>) {
        let several = paths.iter().any(|path| path.path_id != PathId::NONE);
        let subtype = match key.family() {
            Family::Ipv4Unicast => RIB_IPV4_UNICAST,
            Family::Ipv6Unicast => RIB_IPV6_UNICAST,
            Family::L2vpnEvpn => RIB_GENERIC,
        };
        let (subtype, ids) =
            if several { (subtype + ADD_PATH, Ids::Present) } else { (subtype, Ids::Absent) };
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.record(subtype, out, |out| {
            out.extend(sequence.to_be_bytes());
            if key.family() == Family::L2vpnEvpn {
                let wire = key.family().wire();
                out.extend(wire.afi.to_be_bytes());
                out.push(wire.safi);
            }
            let tail = paths.first().map_or(Tail::None, |path| path.tail);
            Nlri { path_id: PathId::NONE, key, tail }.write(Ids::Absent, out);
            out.extend(u16::try_from(paths.len()).unwrap_or(u16::MAX).to_be_bytes());
            for path in paths.iter().take(usize::from(u16::MAX)) {
                self.entry(path, ids, key.family(), out);
            }
        });
    }

    fn entry(&self, path: &MrtPath<'_>, ids: Ids, family: Family, out: &mut Vec<u8>) {
        out.extend(path.peer.to_be_bytes());
        out.extend(self.time_s.to_be_bytes());
        if ids == Ids::Present {
            out.extend(path.path_id.get().to_be_bytes());
        }
        let at = out.len();
        out.extend([0, 0]);
        let next_hop = path.next_hop;
        match (family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(_)) => {
                write_attribute(flag::TRANSITIVE, code::NEXT_HOP, out, |out| next_hop.write(out));
            }
            // Only length and address: what else the attribute has stands elsewhere (RFC 6396 §4.3.4).
            _ => write_attribute(flag::OPTIONAL, code::MP_REACH, out, |out| {
                out.push(next_hop.len());
                next_hop.write(out);
            }),
        }
        out.extend(path.attributes);
        let len = out.len() - at - 2;
        set_u16(out, at, len);
    }

    fn record(&self, subtype: u16, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        out.extend(self.time_s.to_be_bytes());
        out.extend(TABLE_DUMP_V2.to_be_bytes());
        out.extend(subtype.to_be_bytes());
        let at = out.len();
        out.extend([0; 4]);
        body(out);
        let len = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// The peer that routes of our own are from.
pub const MRT_OURSELVES: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const TABLE_DUMP_V2: u16 = 13;
const PEER_INDEX_TABLE: u16 = 1;
const RIB_IPV4_UNICAST: u16 = 2;
const RIB_IPV6_UNICAST: u16 = 4;
const RIB_GENERIC: u16 = 6;
/// From a subtype to that with path identifiers (RFC 8050 §4).
const ADD_PATH: u16 = 6;
const FOUR_OCTET_AS: u8 = 2;

#[cfg(test)]
mod tests {
    use russet_net::Prefix;

    use super::*;

    #[test]
    fn a_table_is_written_octet_by_octet_as_rfc_6396_has_it() {
        let mut out = Vec::new();
        let mut writer = MrtWriter::new(9);
        let peer = MrtPeer { id: 7, addr: [10, 0, 0, 2].into(), asn: Asn::new(65_001) };
        writer.peers(RouterId::try_from(5).unwrap(), &[peer], &mut out);
        let wanted = [
            &[0, 0, 0, 9, 0, 13, 0, 1, 0, 0, 0, 21][..],
            &[0, 0, 0, 5, 0, 0, 0, 1, 2, 0, 0, 0, 7, 10, 0, 0, 2, 0, 0, 0xfd, 0xe9],
        ];
        assert_eq!(out, wanted.concat());

        let path = MrtPath {
            peer: 0,
            path_id: PathId::NONE,
            attributes: &[0x40, 1, 1, 0],
            next_hop: NextHop::V4([10, 0, 0, 2].into()),
            tail: Tail::None,
        };
        let key = "10.1.0.0/16".parse::<Prefix>().unwrap().into();
        out.clear();
        writer.destination(key, &[path], &mut out);
        let entry = [0, 0, 0, 0, 0, 9, 0, 11, 0x40, 3, 4, 10, 0, 0, 2, 0x40, 1, 1, 0];
        let wanted =
            [&[0, 0, 0, 9, 0, 13, 0, 2, 0, 0, 0, 28][..], &[0, 0, 0, 0, 16, 10, 1, 0, 1], &entry];
        assert_eq!(out, wanted.concat());

        out.clear();
        let several = MrtPath { path_id: PathId::new(3), ..path };
        writer.destination(key, &[several], &mut out);
        assert_eq!(out[6..8], [0, 8]);
    }
}
