//! The header that stands before each packet of a TUN device (`struct virtio_net_hdr`), in the machine's order.

/// Octets of the header.
pub const LEN: usize = 10;

/// What the kernel left to be done, or is left to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Where the sum that is not finished begins, and where behind that it stands.
    pub sum: Option<(u16, u16)>,
    pub cut: Option<Cut>,
}

/// How a packet in one piece is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub kind: CutKind,
    /// Octets of all headers.
    pub headers: u16,
    /// Payload of each piece but the last.
    pub payload: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutKind {
    TcpV4,
    TcpV6,
    Udp,
}

impl Header {
    /// Reads a header, or `None` for a kind of cut that was never asked for.
    pub fn parse(octets: &[u8; LEN]) -> Option<Self> {
        let [flags, kind, h0, h1, p0, p1, s0, s1, o0, o1] = *octets;
        let kind = match kind & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(CutKind::TcpV4),
            GSO_TCPV6 => Some(CutKind::TcpV6),
            GSO_UDP_L4 => Some(CutKind::Udp),
            _ => return None,
        };
        let number = |a, b| u16::from_ne_bytes([a, b]);
        let sum = (flags & NEEDS_CSUM != 0).then(|| (number(s0, s1), number(o0, o1)));
        let cut = kind.map(|kind| Cut { kind, headers: number(h0, h1), payload: number(p0, p1) });
        Some(Self { sum, cut })
    }

    pub fn write(&self, to: &mut [u8; LEN]) {
        let (kind, headers, payload) = match self.cut {
            None => (GSO_NONE, 0, 0),
            Some(Cut { kind, headers, payload }) => {
                let kind = match kind {
                    CutKind::TcpV4 => GSO_TCPV4,
                    CutKind::TcpV6 => GSO_TCPV6,
                    CutKind::Udp => GSO_UDP_L4,
                };
                (kind, headers, payload)
            }
        };
        let (start, offset) = self.sum.unwrap_or_default();
        let [h0, h1] = headers.to_ne_bytes();
        let [p0, p1] = payload.to_ne_bytes();
        let [s0, s1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        let flags = if self.sum.is_some() { NEEDS_CSUM } else { 0 };
        *to = [flags, kind, h0, h1, p0, p1, s0, s1, o0, o1];
    }
}

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The first piece bears a congestion mark of TCP's.
const GSO_ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_out_as_it_went_in() {
        let whole = Header::default();
        let cut = Cut { kind: CutKind::TcpV6, headers: 60, payload: 1_400 };
        for header in [whole, Header { sum: Some((40, 16)), cut: Some(cut) }] {
            let mut octets = [0xff; LEN];
            header.write(&mut octets);
            assert_eq!(Header::parse(&octets), Some(header));
        }
    }

    #[test]
    fn a_cut_that_was_never_asked_for_is_none_of_ours() {
        let mut octets = [0; LEN];
        octets[1] = 3;
        assert_eq!(Header::parse(&octets), None);
    }
}
