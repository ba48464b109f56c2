//! The PMSI tunnel attribute: how what is flooded reaches a VTEP (RFC 6514 §5, RFC 8365 §5.1.3).

use std::net::IpAddr;

use super::{Label, reader::Reader};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PmsiTunnel {
    pub flags: u8,
    pub kind: TunnelKind,
    /// With VXLAN the VNI.
    pub label: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// Whoever floods sends a copy to this address.
    IngressReplication(IpAddr),
    /// Another kind, with its identifier as it came.
    Other { kind: u8, id: Vec<u8> },
}

impl PmsiTunnel {
    /// Reads the value of the attribute; `None` when it is malformed.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let (flags, kind, label) = (reader.u8()?, reader.u8()?, Label::new(reader.array()?));
        let id = reader.rest();
        let kind = match (kind, id.len()) {
            (INGRESS_REPLICATION, 4) => TunnelKind::IngressReplication(reader.v4()?.into()),
            (INGRESS_REPLICATION, 16) => TunnelKind::IngressReplication(reader.v6()?.into()),
            (INGRESS_REPLICATION, _) => return None,
            (kind, _) => TunnelKind::Other { kind, id: id.to_vec() },
        };
        Some(Self { flags, kind, label })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let kind = match &self.kind {
            TunnelKind::IngressReplication(_) => INGRESS_REPLICATION,
            TunnelKind::Other { kind, .. } => *kind,
        };
        out.extend([self.flags, kind]);
        out.extend(self.label.octets());
        match &self.kind {
            TunnelKind::IngressReplication(IpAddr::V4(addr)) => out.extend(addr.octets()),
            TunnelKind::IngressReplication(IpAddr::V6(addr)) => out.extend(addr.octets()),
            TunnelKind::Other { id, .. } => out.extend(id),
        }
    }
}

const INGRESS_REPLICATION: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_reads_as_it_is_written_and_a_short_one_is_malformed() {
        let value = [0, 6, 0, 0, 100, 10, 0, 0, 1];
        let tunnel = PmsiTunnel::read(&value).unwrap();
        assert_eq!(tunnel.label.vni().get(), 100);
        let mut out = Vec::new();
        tunnel.write(&mut out);
        assert_eq!(out, value);
        for len in 0..value.len() {
            assert_eq!(PmsiTunnel::read(&value[..len]), None, "{len}");
        }
    }
}
