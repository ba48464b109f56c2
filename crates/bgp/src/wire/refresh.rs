//! ROUTE-REFRESH: "tell me everything again" (RFC 2918), and where the answer begins and ends (RFC 7313).

use super::{AfiSafi, MessageKind, Reason, Reset, frame::write_message};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    pub afi_safi: AfiSafi,
    pub kind: RefreshKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    Request,
    /// The answer begins: what is not told again before its end is gone.
    Begin,
    End,
    /// A subtype that we do not know: to be ignored (RFC 7313 §5).
    Unknown(u8),
}

impl Refresh {
    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// When the length is wrong. With an outbound filter behind it (RFC 5291) it is longer, which we never offer.
    pub fn read(body: &[u8]) -> Result<Self, Reset> {
        let [a, b, kind, safi] = *body else {
            let what = "a route refresh has four octets";
            return Err(Reset::with(Reason::BAD_REFRESH_LENGTH, what, body));
        };
        let kind = match kind {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            other => RefreshKind::Unknown(other),
        };
        Ok(Self { afi_safi: AfiSafi { afi: u16::from_be_bytes([a, b]), safi }, kind })
    }

    /// Writes a whole message.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(other) => other,
        };
        write_message(MessageKind::RouteRefresh, out, |out| {
            out.extend(self.afi_safi.afi.to_be_bytes());
            out.extend([kind, self.afi_safi.safi]);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Family, HEADER_LEN};

    #[test]
    fn a_refresh_reads_as_it_is_written() {
        for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
            let refresh = Refresh { afi_safi: Family::L2vpnEvpn.wire(), kind };
            let mut out = Vec::new();
            refresh.write(&mut out);
            assert_eq!(Refresh::read(&out[HEADER_LEN..]), Ok(refresh));
        }
        let err = Refresh::read(&[0, 1, 0]).unwrap_err();
        assert_eq!(err.reason, Reason::BAD_REFRESH_LENGTH);
    }
}
