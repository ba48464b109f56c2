//! What a speaker can do, as it says in its OPEN (RFC 5492 and one RFC for each).

use std::time::Duration;

use russet_net::Asn;

use super::{AfiSafi, Family, FamilySet, Reason, Reset, reader::Reader};

/// Everything that one side said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Families in multiprotocol attributes (RFC 4760); none at all means IPv4 unicast.
    pub families: Vec<AfiSafi>,
    /// The sender's AS in four octets (RFC 6793).
    pub four_octet_as: Option<Asn>,
    /// RFC 2918.
    pub refresh: bool,
    /// RFC 7313.
    pub enhanced_refresh: bool,
    /// RFC 8654.
    pub extended_messages: bool,
    pub graceful_restart: Option<GracefulRestart>,
    /// RFC 7911.
    pub add_path: Vec<(AfiSafi, AddPathMode)>,
    /// RFC 8950.
    pub extended_next_hop: Vec<ExtendedNextHop>,
    /// What we do not know, as it came.
    pub others: Vec<(u8, Vec<u8>)>,
}

/// Which way a speaker can do path identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddPathMode {
    Receive,
    Send,
    Both,
}

impl AddPathMode {
    fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Receive),
            2 => Some(Self::Send),
            3 => Some(Self::Both),
            _ => None,
        }
    }

    const fn wire(self) -> u8 {
        match self {
            Self::Receive => 1,
            Self::Send => 2,
            Self::Both => 3,
        }
    }

    pub const fn receives(self) -> bool {
        matches!(self, Self::Receive | Self::Both)
    }

    pub const fn sends(self) -> bool {
        matches!(self, Self::Send | Self::Both)
    }
}

/// A family whose next hop may be of another (RFC 8950 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedNextHop {
    pub routes: AfiSafi,
    pub next_hop_afi: u16,
}

/// What a speaker does when it starts anew (RFC 4724 §3, RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    pub flags: RestartFlags,
    /// How long its routes are to be kept: 12 bits of seconds.
    pub time_s: u16,
    pub families: Vec<RestartFamily>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartFlags {
    /// It has just restarted, and does not wait for our end of table before it sends its own.
    pub restarted: bool,
    /// A NOTIFICATION is no reason to forget its routes (RFC 8538).
    pub notification: bool,
}

/// A family whose routes outlive the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartFamily {
    pub family: AfiSafi,
    /// Its forwarding went on while it was away.
    pub forwarding: bool,
}

impl Capabilities {
    /// The families that we speak among those named.
    pub fn family_set(&self) -> FamilySet {
        if self.families.is_empty() {
            return FamilySet::EMPTY.with(Family::Ipv4Unicast);
        }
        self.families.iter().filter_map(|family| family.family()).collect()
    }

    /// The families that the sender can do path identifiers for, in one direction.
    pub fn add_path_set(&self, can: impl Fn(AddPathMode) -> bool) -> FamilySet {
        let able = self.add_path.iter().filter(|(_, mode)| can(*mode));
        able.filter_map(|(family, _)| family.family()).collect()
    }

    /// The families of IPv4 whose next hop may be IPv6.
    pub fn extended_next_hop_set(&self) -> FamilySet {
        let able = self.extended_next_hop.iter().filter(|extended| extended.next_hop_afi == 2);
        able.filter_map(|extended| extended.routes.family()).collect()
    }

    /// Reads one optional parameter of type 2 into what is known already.
    pub(super) fn read(&mut self, parameter: &[u8]) -> Result<(), Reset> {
        let mut reader = Reader::new(parameter);
        while !reader.is_empty() {
            let (Some(code), Some(value)) = (reader.u8(), reader.block_u8()) else {
                return Err(Reset::new(Reason::OPEN_UNSPECIFIC, "a capability is cut off"));
            };
            // A value of a form that its code does not have is passed over, except where the session's octets
            // would mean something else for the two sides.
            if self.take(code, value).is_none() && code == code::FOUR_OCTET_AS {
                let what = "the capability for AS numbers of four octets is malformed";
                return Err(Reset::new(Reason::OPEN_UNSPECIFIC, what));
            }
        }
        Ok(())
    }

    fn take(&mut self, code: u8, value: &[u8]) -> Option<()> {
        let mut reader = Reader::new(value);
        match code {
            code::MULTIPROTOCOL => {
                let afi = reader.u16()?;
                reader.u8()?;
                let family = AfiSafi { afi, safi: reader.u8()? };
                if !self.families.contains(&family) {
                    self.families.push(family);
                }
            }
            code::REFRESH => self.refresh = true,
            code::EXTENDED_NEXT_HOP => self.extended_next_hop.extend(read_next_hops(&mut reader)),
            code::EXTENDED_MESSAGES => self.extended_messages = true,
            code::GRACEFUL_RESTART => self.graceful_restart = Some(GracefulRestart::read(value)?),
            code::FOUR_OCTET_AS => self.four_octet_as = Some(Asn::new(reader.u32()?)),
            code::ADD_PATH => self.add_path.extend(read_add_path(&mut reader)),
            code::ENHANCED_REFRESH => self.enhanced_refresh = true,
            code => self.others.push((code, value.to_vec())),
        }
        Some(())
    }

    /// Writes all of them, one behind the other.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for family in &self.families {
            let [a, b] = family.afi.to_be_bytes();
            put(code::MULTIPROTOCOL, &[a, b, 0, family.safi], out);
        }
        if self.refresh {
            put(code::REFRESH, &[], out);
        }
        if !self.extended_next_hop.is_empty() {
            put(code::EXTENDED_NEXT_HOP, &write_next_hops(&self.extended_next_hop), out);
        }
        if self.extended_messages {
            put(code::EXTENDED_MESSAGES, &[], out);
        }
        if let Some(restart) = &self.graceful_restart {
            put(code::GRACEFUL_RESTART, &restart.write(), out);
        }
        if let Some(asn) = self.four_octet_as {
            put(code::FOUR_OCTET_AS, &asn.get().to_be_bytes(), out);
        }
        if !self.add_path.is_empty() {
            put(code::ADD_PATH, &write_add_path(&self.add_path), out);
        }
        if self.enhanced_refresh {
            put(code::ENHANCED_REFRESH, &[], out);
        }
        for (code, value) in &self.others {
            put(*code, value, out);
        }
    }
}

impl GracefulRestart {
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.time_s.into())
    }

    fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let head = reader.u16()?;
        let flags = RestartFlags {
            restarted: head & RESTARTED != 0,
            notification: head & NOTIFICATION != 0,
        };
        let mut families = Vec::new();
        while let (Some(afi), Some(safi), Some(flags)) = (reader.u16(), reader.u8(), reader.u8()) {
            let forwarding = flags & FORWARDING != 0;
            families.push(RestartFamily { family: AfiSafi { afi, safi }, forwarding });
        }
        Some(Self { flags, time_s: head & TIME, families })
    }

    fn write(&self) -> Vec<u8> {
        let flag = |on: bool, bit: u16| if on { bit } else { 0 };
        let head = (self.time_s & TIME)
            | flag(self.flags.restarted, RESTARTED)
            | flag(self.flags.notification, NOTIFICATION);
        let mut out = head.to_be_bytes().to_vec();
        for restart in &self.families {
            out.extend(restart.family.afi.to_be_bytes());
            out.extend([restart.family.safi, if restart.forwarding { FORWARDING } else { 0 }]);
        }
        out
    }
}

fn read_next_hops(reader: &mut Reader<'_>) -> Vec<ExtendedNextHop> {
    let mut read = Vec::new();
    while let (Some(afi), Some(safi), Some(next_hop_afi)) =
        (reader.u16(), reader.u16(), reader.u16())
    {
        if let Ok(safi) = u8::try_from(safi) {
            read.push(ExtendedNextHop { routes: AfiSafi { afi, safi }, next_hop_afi });
        }
    }
    read
}

fn write_next_hops(all: &[ExtendedNextHop]) -> Vec<u8> {
    let mut out = Vec::new();
    for extended in all {
        out.extend(extended.routes.afi.to_be_bytes());
        out.extend([0, extended.routes.safi]);
        out.extend(extended.next_hop_afi.to_be_bytes());
    }
    out
}

/// A mode that is none is ignored (RFC 7911 §4).
fn read_add_path(reader: &mut Reader<'_>) -> Vec<(AfiSafi, AddPathMode)> {
    let mut read = Vec::new();
    while let (Some(afi), Some(safi), Some(mode)) = (reader.u16(), reader.u8(), reader.u8()) {
        read.extend(AddPathMode::from_wire(mode).map(|mode| (AfiSafi { afi, safi }, mode)));
    }
    read
}

fn write_add_path(all: &[(AfiSafi, AddPathMode)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (family, mode) in all {
        out.extend(family.afi.to_be_bytes());
        out.extend([family.safi, mode.wire()]);
    }
    out
}

/// Writes one capability. A value beyond 255 octets cannot be said and is left out.
fn put(code: u8, value: &[u8], out: &mut Vec<u8>) {
    if let Ok(len) = u8::try_from(value.len()) {
        out.extend([code, len]);
        out.extend(value);
    }
}

/// Codes of capabilities.
mod code {
    pub const MULTIPROTOCOL: u8 = 1;
    pub const REFRESH: u8 = 2;
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    pub const EXTENDED_MESSAGES: u8 = 6;
    pub const GRACEFUL_RESTART: u8 = 64;
    pub const FOUR_OCTET_AS: u8 = 65;
    pub const ADD_PATH: u8 = 69;
    pub const ENHANCED_REFRESH: u8 = 70;
}

const RESTARTED: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const TIME: u16 = 0x0fff;
const FORWARDING: u8 = 0x80;
