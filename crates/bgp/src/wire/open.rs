//! OPEN: who a speaker is and what it can do (RFC 4271 §4.2, §6.2; RFC 5492; RFC 9072).

use russet_net::Asn;

use super::{
    Capabilities, HoldTime, MessageKind, Reason, Reset, RouterId, frame::write_message,
    reader::Reader,
};

/// An OPEN as it is sent or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// In four octets, when the sender said so.
    pub asn: Asn,
    pub hold: HoldTime,
    pub id: RouterId,
    pub capabilities: Capabilities,
}

impl Open {
    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// When it is malformed, or says what no speaker may say.
    pub fn read(body: &[u8]) -> Result<Self, Reset> {
        let mut reader = Reader::new(body);
        let head = Self::read_head(&mut reader);
        let (version, short_as, hold, id) =
            head.ok_or(Reset::new(Reason::BAD_LENGTH, "the message is too short"))?;
        if version != VERSION {
            let what = "another version than 4";
            return Err(Reset::with(Reason::UNSUPPORTED_VERSION, what, &[0, VERSION]));
        }
        let capabilities = read_parameters(&mut reader)?;
        let asn = capabilities.four_octet_as.unwrap_or(short_as.into());
        if asn == Asn::ZERO {
            return Err(Reset::new(Reason::BAD_PEER_AS, "AS 0 is nobody (RFC 7607)"));
        }
        let hold = HoldTime::try_from(hold)
            .map_err(|_| Reset::new(Reason::BAD_HOLD_TIME, "a hold time of one or two seconds"))?;
        let id = RouterId::try_from(id)
            .map_err(|_| Reset::new(Reason::BAD_IDENTIFIER, "a BGP identifier of zero"))?;
        Ok(Self { asn, hold, id, capabilities })
    }

    /// Writes a whole message.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_message(MessageKind::Open, out, |out| {
            out.push(VERSION);
            out.extend(self.asn.in_two_octets().to_be_bytes());
            out.extend(self.hold.get().to_be_bytes());
            out.extend(self.id.get().to_be_bytes());
            write_parameters(&self.capabilities, out);
        });
    }

    fn read_head(reader: &mut Reader<'_>) -> Option<(u8, u16, u16, u32)> {
        Some((reader.u8()?, reader.u16()?, reader.u16()?, reader.u32()?))
    }
}

fn read_parameters(reader: &mut Reader<'_>) -> Result<Capabilities, Reset> {
    let broken = || Reset::new(Reason::OPEN_UNSPECIFIC, "the optional parameters are cut off");
    let (mut parameters, extended) = parameter_block(reader).ok_or_else(broken)?;
    if !reader.is_empty() {
        return Err(Reset::new(Reason::OPEN_UNSPECIFIC, "something follows the parameters"));
    }
    let mut capabilities = Capabilities::default();
    while !parameters.is_empty() {
        let kind = parameters.u8().ok_or_else(broken)?;
        let value = match extended {
            Lengths::One => parameters.block_u8(),
            Lengths::Two => parameters.block_u16(),
        };
        let value = value.ok_or_else(broken)?;
        if kind != CAPABILITIES {
            let what = "an optional parameter that is no capability";
            return Err(Reset::with(Reason::UNSUPPORTED_PARAMETER, what, &[kind]));
        }
        capabilities.read(value)?;
    }
    Ok(capabilities)
}

/// How long the length of a parameter is.
enum Lengths {
    One,
    Two,
}

/// The parameters, whose block says by its first two octets of which kind it is (RFC 9072 §2).
fn parameter_block<'a>(reader: &mut Reader<'a>) -> Option<(Reader<'a>, Lengths)> {
    if let [EXTENDED, EXTENDED, ..] = reader.rest() {
        reader.u16()?;
        return Some((Reader::new(reader.block_u16()?), Lengths::Two));
    }
    Some((Reader::new(reader.block_u8()?), Lengths::One))
}

fn write_parameters(capabilities: &Capabilities, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    capabilities.write(&mut value);
    match (u8::try_from(value.len()), u8::try_from(value.len() + 2)) {
        (Ok(0), _) => out.push(0),
        // A block of 255 octets would look like the extended kind.
        (Ok(len), Ok(block)) if block != EXTENDED => out.extend([block, CAPABILITIES, len]),
        _ => {
            // An OPEN has at most 4,096 octets, and our own capabilities are far below.
            let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.extend([EXTENDED, EXTENDED]);
            out.extend(len.saturating_add(3).to_be_bytes());
            out.push(CAPABILITIES);
            out.extend(len.to_be_bytes());
        }
    }
    out.extend(value);
}

const VERSION: u8 = 4;
const CAPABILITIES: u8 = 2;
const EXTENDED: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        AddPathMode, AfiSafi, ExtendedNextHop, Family, GracefulRestart, HEADER_LEN, RestartFamily,
        RestartFlags,
    };

    fn open(capabilities: Capabilities) -> Open {
        Open {
            asn: Asn::new(4_200_000_000),
            hold: HoldTime::USUAL,
            id: RouterId::try_from(0x0a00_0001).unwrap(),
            capabilities,
        }
    }

    fn capable() -> Capabilities {
        Capabilities {
            families: Family::ALL.map(Family::wire).to_vec(),
            four_octet_as: Some(Asn::new(4_200_000_000)),
            refresh: true,
            enhanced_refresh: true,
            extended_messages: true,
            graceful_restart: Some(GracefulRestart {
                flags: RestartFlags { restarted: true, notification: true },
                time_s: 120,
                families: vec![RestartFamily {
                    family: Family::L2vpnEvpn.wire(),
                    forwarding: true,
                }],
            }),
            add_path: vec![(Family::Ipv4Unicast.wire(), AddPathMode::Both)],
            extended_next_hop: vec![ExtendedNextHop {
                routes: Family::Ipv4Unicast.wire(),
                next_hop_afi: 2,
            }],
            others: vec![(73, b"\x01a\x01b".to_vec())],
        }
    }

    fn written(open: &Open) -> Vec<u8> {
        let mut out = Vec::new();
        open.write(&mut out);
        out.split_off(HEADER_LEN)
    }

    #[test]
    fn an_open_reads_as_it_is_written() {
        let mut long = capable();
        long.others = (0..4).map(|i| (100 + i, vec![i; 200])).collect();
        let mut edge = Capabilities {
            four_octet_as: Some(Asn::new(4_200_000_000)),
            ..Capabilities::default()
        };
        edge.others = vec![(100, vec![0; 245])];
        for capabilities in [capable(), long, edge] {
            let open = open(capabilities);
            assert_eq!(Open::read(&written(&open)), Ok(open));
        }
    }

    #[test]
    fn an_open_cut_off_anywhere_is_refused() {
        let whole = written(&open(capable()));
        for len in 0..whole.len() {
            assert!(Open::read(&whole[..len]).is_err(), "{len}");
        }
        assert!(Open::read(&[&whole[..], &[0]].concat()).is_err());
    }

    #[test]
    fn what_no_speaker_may_say_is_refused_by_its_code() {
        let good = [4, 0xfd, 0xe8, 0, 90, 10, 0, 0, 1, 0];
        let spoilt = |changes: &[(usize, u8)], more: &[u8]| {
            let mut body = good.to_vec();
            for (at, octet) in changes {
                body[*at] = *octet;
            }
            body.extend(more);
            Open::read(&body).unwrap_err()
        };
        assert!(Open::read(&good).is_ok());
        assert_eq!(spoilt(&[(0, 3)], &[]).reason, Reason::UNSUPPORTED_VERSION);
        assert_eq!(spoilt(&[(1, 0), (2, 0)], &[]).reason, Reason::BAD_PEER_AS);
        assert_eq!(spoilt(&[(4, 2)], &[]).reason, Reason::BAD_HOLD_TIME);
        assert_eq!(spoilt(&[(5, 0), (8, 0)], &[]).reason, Reason::BAD_IDENTIFIER);
        assert_eq!(spoilt(&[(9, 3)], &[1, 1, 0]).reason, Reason::UNSUPPORTED_PARAMETER);
        assert_eq!(spoilt(&[(9, 4)], &[2, 2, 65, 0]).reason, Reason::OPEN_UNSPECIFIC);
    }

    #[test]
    fn a_capability_of_a_wrong_form_is_passed_over() {
        let body = [4, 0xfd, 0xe8, 0, 90, 10, 0, 0, 1, 7, 2, 5, 1, 1, 9, 2, 0];
        let open = Open::read(&body).unwrap();
        assert_eq!(open.capabilities.families, Vec::<AfiSafi>::new());
        assert!(open.capabilities.refresh);
    }
}
