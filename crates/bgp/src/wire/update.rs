//! UPDATE: routes that are gone and routes that are there, as a view over the octets received (RFC 4271 §4.3,
//! RFC 4760, RFC 7606).

use super::{
    AttributeFault, Family, NextHop, Nlris, Outcome, Reason, Reset, Terms,
    attributes::code,
    canonical::{Collected, Verdict},
    nlri::Ids,
    reader::Reader,
};

/// One UPDATE that has been looked at in full.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    withdrawn: [Option<Nlris<'a>>; 2],
    announced: [Option<Announced<'a>>; 2],
    attributes: Collected<'a>,
    end_of_rib: Option<Family>,
}

/// Routes of one family with one next hop.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    pub next_hop: NextHop,
    pub nlris: Nlris<'a>,
}

impl<'a> Update<'a> {
    /// Looks at the body of an UPDATE.
    ///
    /// # Errors
    ///
    /// When its parts cannot be told from each other, or routes cannot be read: nobody knows then which routes
    /// it speaks of, and the session has to be reset (RFC 7606 §3).
    pub fn parse(body: &'a [u8], terms: Terms) -> Result<Self, Reset> {
        let parts = Parts::split(body).ok_or(Reset::new(
            Reason::MALFORMED_ATTRIBUTES,
            "the lengths of the parts lead beyond the message",
        ))?;
        let mut attributes = Collected::read(parts.attributes, terms).map_err(|_| {
            let what = "two attributes with routes of other families";
            Reset::new(Reason::MALFORMED_ATTRIBUTES, what)
        })?;
        let classic = |octets| classic(octets, terms);
        let withdrawn = classic(parts.withdrawn)?;
        let nlris = classic(parts.nlri)?;
        if (withdrawn.is_some() || nlris.is_some()) && !terms.families.contains(Family::Ipv4Unicast)
        {
            attributes.fault(0, Verdict::discard("routes of IPv4, which was not agreed on"));
        }
        let unreach = read_unreach(&mut attributes, terms)?;
        let reach = read_reach(&mut attributes, terms)?;
        let end_of_rib = end_of_rib(&parts, &attributes, unreach.as_ref(), terms);
        let spoken = |nlris: &Nlris<'_>| terms.families.contains(nlris.family());
        let announced = nlris.filter(spoken).map(|nlris| announce(nlris, &mut attributes));
        let update = Self {
            withdrawn: [withdrawn.filter(spoken), unreach],
            announced: [announced, reach],
            attributes,
            end_of_rib,
        };
        update.complete()
    }

    /// The worst that was found.
    pub const fn outcome(&self) -> Outcome {
        self.attributes.outcome
    }

    /// What was found, the first few.
    pub fn faults(&self) -> &[AttributeFault] {
        &self.attributes.faults
    }

    /// Routes that are gone, those that count as withdrawn included.
    pub fn withdrawn(&self) -> impl Iterator<Item = Nlris<'a>> {
        let treated = self.outcome() == Outcome::TreatAsWithdraw;
        let also = self.announced.iter().flatten().filter(move |_| treated);
        self.withdrawn.into_iter().flatten().chain(also.map(|announced| announced.nlris))
    }

    /// Routes that are there, with the attributes that [`Self::write_attributes`] writes.
    pub fn announced(&self) -> impl Iterator<Item = Announced<'a>> {
        let stands = self.outcome() != Outcome::TreatAsWithdraw;
        self.announced.into_iter().flatten().filter(move |_| stands)
    }

    /// The family of which all routes have been told now (RFC 4724 §2).
    pub const fn end_of_rib(&self) -> Option<Family> {
        self.end_of_rib
    }

    /// Writes the attributes in canonical form behind what `out` has.
    pub fn write_attributes(&self, out: &mut Vec<u8>) {
        self.attributes.write(out);
    }

    /// Sees whether routes have the attributes that they must have (RFC 7606 §3 d).
    fn complete(mut self) -> Result<Self, Reset> {
        let attributes = &mut self.attributes;
        let known = self.announced.iter().any(Option::is_some);
        if known && attributes.outcome != Outcome::TreatAsWithdraw {
            for code in [code::ORIGIN, code::AS_PATH] {
                if !attributes.has(code) {
                    attributes.fault(code, Verdict::withdraw("it is missing"));
                }
            }
        }
        // With the list cut off, routes may hide behind the break, and nobody knows which (RFC 7606 §5.2).
        if !attributes.is_whole && !known {
            let what = "the list of attributes is cut off, and no route is known before it";
            return Err(Reset::new(Reason::MALFORMED_ATTRIBUTES, what));
        }
        Ok(self)
    }
}

/// The three parts of a message.
struct Parts<'a> {
    withdrawn: &'a [u8],
    attributes: &'a [u8],
    nlri: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let withdrawn = reader.block_u16()?;
        let attributes = reader.block_u16()?;
        Some(Self { withdrawn, attributes, nlri: reader.rest() })
    }
}

/// Reads routes of IPv4 outside the attributes; `None` when there are none.
fn classic(octets: &[u8], terms: Terms) -> Result<Option<Nlris<'_>>, Reset> {
    if octets.is_empty() {
        return Ok(None);
    }
    let family = Family::Ipv4Unicast;
    Nlris::read(family, ids(family, terms), octets)
        .map(Some)
        .ok_or(Reset::new(Reason::INVALID_NETWORK, "a prefix is malformed"))
}

/// Gives routes of IPv4 the next hop among the attributes.
fn announce<'a>(nlris: Nlris<'a>, attributes: &mut Collected<'a>) -> Announced<'a> {
    let next_hop = attributes.next_hop().unwrap_or_else(|| {
        attributes.fault(code::NEXT_HOP, Verdict::withdraw("it is missing"));
        // Nobody sees it: the routes count as withdrawn.
        NextHop::V4(std::net::Ipv4Addr::UNSPECIFIED)
    });
    Announced { next_hop, nlris }
}

/// `MP_UNREACH_NLRI` (RFC 4760 §4).
fn read_unreach<'a>(
    attributes: &mut Collected<'a>,
    terms: Terms,
) -> Result<Option<Nlris<'a>>, Reset> {
    let Some(value) = attributes.mp_unreach else { return Ok(None) };
    let malformed =
        || Reset::with(Reason::OPTIONAL_ATTRIBUTE, "MP_UNREACH_NLRI is malformed", value);
    let mut reader = Reader::new(value);
    let family = read_family(&mut reader).ok_or_else(malformed)?;
    let Some(family) = family.family().filter(|family| terms.families.contains(*family)) else {
        attributes.fault(code::MP_UNREACH, Verdict::discard(NOT_AGREED));
        return Ok(None);
    };
    let nlris = Nlris::read(family, ids(family, terms), reader.rest()).ok_or_else(malformed)?;
    note_passed_over(&nlris, code::MP_UNREACH, attributes);
    Ok(Some(nlris))
}

/// `MP_REACH_NLRI` (RFC 4760 §3).
fn read_reach<'a>(
    attributes: &mut Collected<'a>,
    terms: Terms,
) -> Result<Option<Announced<'a>>, Reset> {
    let Some(value) = attributes.mp_reach else { return Ok(None) };
    let malformed = || Reset::with(Reason::OPTIONAL_ATTRIBUTE, "MP_REACH_NLRI is malformed", value);
    let mut reader = Reader::new(value);
    let family = read_family(&mut reader).ok_or_else(malformed)?;
    let next_hop = reader.block_u8().ok_or_else(malformed)?;
    // One octet that is reserved, and once counted what had no use (RFC 4760 §3).
    reader.u8().ok_or_else(malformed)?;
    let Some(family) = family.family().filter(|family| terms.families.contains(*family)) else {
        attributes.fault(code::MP_REACH, Verdict::discard(NOT_AGREED));
        return Ok(None);
    };
    let next_hop = NextHop::read(next_hop)
        .filter(|next_hop| may_lead(family, *next_hop, terms))
        .ok_or_else(malformed)?;
    let nlris = Nlris::read(family, ids(family, terms), reader.rest()).ok_or_else(malformed)?;
    note_passed_over(&nlris, code::MP_REACH, attributes);
    if !next_hop.is_usable() {
        attributes.fault(code::MP_REACH, Verdict::withdraw("no packet can go to its next hop"));
    }
    Ok(Some(Announced { next_hop, nlris }))
}

fn note_passed_over(nlris: &Nlris<'_>, code: u8, attributes: &mut Collected<'_>) {
    if nlris.passed_over() > 0 {
        attributes.fault(code, Verdict::discard("routes of a type or form that we do not know"));
    }
}

/// Whether routes of the family may have a next hop of this kind.
fn may_lead(family: Family, next_hop: NextHop, terms: Terms) -> bool {
    match (family, next_hop) {
        (Family::Ipv4Unicast, NextHop::V6 { .. }) => terms.extended_next_hop.contains(family),
        (Family::Ipv6Unicast, NextHop::V4(_)) => false,
        (Family::L2vpnEvpn, NextHop::V6 { link_local, .. }) => link_local.is_none(),
        _ => true,
    }
}

fn read_family(reader: &mut Reader<'_>) -> Option<super::AfiSafi> {
    Some(super::AfiSafi { afi: reader.u16()?, safi: reader.u8()? })
}

fn ids(family: Family, terms: Terms) -> Ids {
    if terms.add_path_in.contains(family) { Ids::Present } else { Ids::Absent }
}

/// An UPDATE without anything is the end for IPv4; one with an empty `MP_UNREACH_NLRI` and nothing else is the
/// end for that family (RFC 4724 §2).
fn end_of_rib(
    parts: &Parts<'_>,
    attributes: &Collected<'_>,
    unreach: Option<&Nlris<'_>>,
    terms: Terms,
) -> Option<Family> {
    if !parts.withdrawn.is_empty() || !parts.nlri.is_empty() {
        return None;
    }
    if attributes.is_empty {
        return Some(Family::Ipv4Unicast).filter(|family| terms.families.contains(*family));
    }
    let nlris = unreach.filter(|nlris| nlris.is_empty() && !attributes.has(code::ORIGIN))?;
    attributes.mp_reach.is_none().then_some(nlris.family())
}

const NOT_AGREED: &str = "a family that was not agreed on";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AsWidth, FamilySet, NlriKey, Peering};

    fn terms() -> Terms {
        Terms {
            as_width: AsWidth::Four,
            families: FamilySet::from_iter(Family::ALL),
            ..Terms::plain(Peering::Internal)
        }
    }

    fn body(withdrawn: &[u8], attributes: &[&[u8]], nlri: &[u8]) -> Vec<u8> {
        let attributes = attributes.concat();
        let len = |octets: &[u8]| u16::try_from(octets.len()).unwrap().to_be_bytes();
        [&len(withdrawn), withdrawn, &len(&attributes), &attributes, nlri].concat()
    }

    fn keys<'a>(all: impl Iterator<Item = Nlris<'a>>) -> Vec<String> {
        all.flat_map(|nlris| nlris.iter()).map(|nlri| nlri.key.to_string()).collect()
    }

    const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
    const AS_PATH: &[u8] = &[0x40, 2, 0];
    const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 0, 1];
    const BAD_ORIGIN: &[u8] = &[0x40, 1, 1, 9];

    #[test]
    fn routes_come_with_their_next_hop_and_attributes_without_it() {
        let body = body(&[8, 11], &[NEXT_HOP, AS_PATH, ORIGIN], &[8, 10, 16, 172, 16]);
        let update = Update::parse(&body, terms()).unwrap();
        assert_eq!(keys(update.withdrawn()), ["11.0.0.0/8"]);
        let announced: Vec<_> = update.announced().collect();
        assert_eq!(announced[0].next_hop.to_string(), "10.0.0.1");
        assert_eq!(keys(announced.iter().map(|a| a.nlris)), ["10.0.0.0/8", "172.16.0.0/16"]);
        let mut out = Vec::new();
        update.write_attributes(&mut out);
        assert_eq!(out, [ORIGIN, AS_PATH].concat());
        assert_eq!((update.outcome(), update.end_of_rib()), (Outcome::Good, None));
    }

    #[test]
    fn a_bad_attribute_withdraws_the_routes_and_no_others() {
        let body = body(&[8, 11], &[BAD_ORIGIN, AS_PATH, NEXT_HOP], &[8, 10]);
        let update = Update::parse(&body, terms()).unwrap();
        assert_eq!(keys(update.withdrawn()), ["11.0.0.0/8", "10.0.0.0/8"]);
        assert_eq!(update.announced().count(), 0);
        assert_eq!(update.faults()[0].to_string(), "ORIGIN: the origin is none of three");
    }

    #[test]
    fn a_missing_attribute_withdraws_the_routes() {
        for present in [&[ORIGIN, AS_PATH][..], &[AS_PATH, NEXT_HOP], &[ORIGIN, NEXT_HOP]] {
            let body = body(&[], present, &[8, 10]);
            let update = Update::parse(&body, terms()).unwrap();
            assert_eq!(keys(update.withdrawn()), ["10.0.0.0/8"], "{present:?}");
        }
    }

    #[test]
    fn the_end_of_each_family_is_known() {
        let empty = body(&[], &[], &[]);
        let update = Update::parse(&empty, terms()).unwrap();
        assert_eq!(update.end_of_rib(), Some(Family::Ipv4Unicast));
        let evpn = body(&[], &[&[0x80, 15, 3, 0, 25, 70]], &[]);
        let update = Update::parse(&evpn, terms()).unwrap();
        assert_eq!(update.end_of_rib(), Some(Family::L2vpnEvpn));
    }

    #[test]
    fn what_cannot_be_told_apart_resets_the_session() {
        for (bad, reason) in [
            (vec![0, 9, 0, 0], Reason::MALFORMED_ATTRIBUTES),
            (vec![0, 0, 0, 9, 1], Reason::MALFORMED_ATTRIBUTES),
            (body(&[33, 1, 2, 3, 4, 5], &[], &[]), Reason::INVALID_NETWORK),
            (body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[24, 1]), Reason::INVALID_NETWORK),
            (body(&[], &[&[0x80, 15, 2, 0, 1]], &[]), Reason::OPTIONAL_ATTRIBUTE),
            (body(&[], &[&[0x80, 14, 7, 0, 1, 1, 2, 1, 1, 0]], &[]), Reason::OPTIONAL_ATTRIBUTE),
            (body(&[], &[&[0xc0, 99, 9, 1]], &[]), Reason::MALFORMED_ATTRIBUTES),
        ] {
            assert_eq!(Update::parse(&bad, terms()).unwrap_err().reason, reason, "{bad:02x?}");
        }
    }

    #[test]
    fn a_cut_off_attribute_behind_known_routes_only_withdraws_them() {
        let body = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP, &[0xc0, 8, 200, 1]], &[8, 10]);
        let update = Update::parse(&body, terms()).unwrap();
        assert_eq!(keys(update.withdrawn()), ["10.0.0.0/8"]);
    }

    #[test]
    fn a_family_that_was_not_agreed_on_is_left_out() {
        let only_v6 = Terms { families: FamilySet::EMPTY.with(Family::Ipv6Unicast), ..terms() };
        let body = body(&[], &[ORIGIN, AS_PATH, NEXT_HOP], &[8, 10]);
        let update = Update::parse(&body, only_v6).unwrap();
        assert_eq!(update.announced().count() + update.withdrawn().count(), 0);
        assert_eq!(update.outcome(), Outcome::Discard);
    }

    #[test]
    fn ipv4_over_an_ipv6_next_hop_needs_the_capability() {
        let mut reach = vec![0x80, 14, 23, 0, 1, 1, 16];
        reach.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        reach.extend([0, 8, 10]);
        let body = body(&[], &[&reach, ORIGIN, AS_PATH], &[]);
        assert!(Update::parse(&body, terms()).is_err());
        let extended = FamilySet::EMPTY.with(Family::Ipv4Unicast);
        let update_terms = Terms { extended_next_hop: extended, ..terms() };
        let update = Update::parse(&body, update_terms).unwrap();
        let announced = update.announced().next().unwrap();
        assert_eq!(announced.next_hop.to_string(), "2001:db8::1");
        let key = announced.nlris.iter().next().unwrap().key;
        assert_eq!(key, NlriKey::from("10.0.0.0/8".parse::<russet_net::Prefix>().unwrap()));
    }
}
