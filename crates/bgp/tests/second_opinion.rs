//! A second opinion: `netgauze-bgp-pkt`, a codec of somebody else's, reads what we write, and we read what it writes
//! of that. Whatever one of the two misses or makes up shows as a difference.

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::{collections::HashMap, net::IpAddr};

use common::Story;
use netgauze_bgp_pkt::{BgpMessage, wire::deserializer::BgpParsingContext};
use netgauze_parse_utils::{WritablePdu, reader::SliceReader, traits::ParseFromWithOneInput};
use proptest::prelude::*;
use russet_bgp::wire::{
    Aggregator, AsPath, AsWidth, Attributes, Capabilities, ClusterId, Community, Esi, EvpnKey,
    ExtCommunity, Family, FamilySet, Frame, GracefulRestart, HoldTime, Label, LargeCommunity,
    MessageKind, MessageLimit, NextHop, Nlri, NlriKey, Notification, Open, Origin, Peering, Reason,
    Refresh, RefreshKind, RestartFamily, RestartFlags, RouteDistinguisher, RouterId, Tail, Terms,
    Update, UpdateWriter, write_keepalive,
};
use russet_net::{Asn, Mac, Prefix, Vni};

proptest! {
    #[test]
    fn updates_mean_the_same_to_both(
        attributes in attributes(),
        routes in proptest::collection::vec(route(), 1..20),
        gone in proptest::collection::vec(route(), 0..20),
    ) {
        let mut out = Vec::new();
        let mut canonical = Vec::new();
        attributes.write(&mut canonical);
        let mut writer = UpdateWriter::new(terms(), &mut out);
        for family in Family::ALL {
            let of = |routes: &[Nlri]| {
                routes.iter().filter(|nlri| nlri.key.family() == family).copied().collect::<Vec<_>>()
            };
            writer.withdraw(family, of(&gone));
            writer.announce(family, &canonical, next_hop(family), of(&routes)).expect("room");
        }
        writer.end_of_rib(Family::Ipv4Unicast);
        agree(&out);
    }

    #[test]
    fn opens_mean_the_same_to_both(open in open()) {
        let mut out = Vec::new();
        open.write(&mut out);
        let again = through(&out);
        let frame = Frame::read(&again, MessageLimit::Usual).unwrap().unwrap();
        prop_assert_eq!(Open::read(frame.body).unwrap(), open);
    }
}

#[test]
fn the_other_messages_mean_the_same_to_both() {
    let mut out = Vec::new();
    write_keepalive(&mut out);
    assert_eq!(through(&out), out);
    for reason in [Reason::HOLD_TIMER_EXPIRED, Reason::SHUTDOWN, Reason::COLLISION] {
        let mut out = Vec::new();
        Notification::new(reason).write(&mut out);
        assert_eq!(through(&out), out, "{reason:?}");
    }
    for family in Family::ALL {
        for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
            let mut out = Vec::new();
            Refresh { afi_safi: family.wire(), kind }.write(&mut out);
            assert_eq!(through(&out), out, "{family} {kind:?}");
        }
    }
}

/// Every UPDATE says to us, after it went through the other, what it said before.
fn agree(mut octets: &[u8]) {
    while let Some(frame) = Frame::read(octets, MessageLimit::Usual).unwrap() {
        let (message, rest) = octets.split_at(frame.len);
        octets = rest;
        assert_eq!(frame.kind, MessageKind::Update);
        let again = through(message);
        let theirs = Frame::read(&again, MessageLimit::Usual).unwrap().unwrap();
        let story = |body: &[u8]| {
            let update = Update::parse(body, terms()).unwrap();
            assert!(update.faults().is_empty(), "{:?}", update.faults());
            (Story::of(&update), update.end_of_rib())
        };
        assert_eq!(story(theirs.body), story(frame.body), "{message:02x?}\n{again:02x?}");
    }
}

/// What the other writes of what it reads.
fn through(message: &[u8]) -> Vec<u8> {
    let mut context =
        BgpParsingContext::new(true, HashMap::new(), HashMap::new(), true, true, true, true);
    let read = BgpMessage::parse(&mut SliceReader::new(message), &mut context);
    let read = read.unwrap_or_else(|err| panic!("{err:?} in {message:02x?}"));
    let mut out = Vec::new();
    read.write(&mut out).unwrap_or_else(|err| panic!("{err:?}"));
    out
}

fn terms() -> Terms {
    Terms {
        as_width: AsWidth::Four,
        families: Family::ALL.into_iter().collect(),
        ..Terms::plain(Peering::Internal)
    }
}

fn next_hop(family: Family) -> NextHop {
    let addr = match family {
        Family::Ipv4Unicast | Family::L2vpnEvpn => IpAddr::from([192, 0, 2, 1]),
        Family::Ipv6Unicast => "2001:db8::1".parse().unwrap(),
    };
    addr.into()
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let path = proptest::collection::vec(1..=u32::MAX, 0..5);
    let communities = proptest::collection::vec(any::<u32>(), 0..4);
    let large = proptest::collection::vec(any::<[u32; 3]>(), 0..3);
    let extended = proptest::collection::vec((any::<u16>(), any::<u32>(), any::<[u8; 6]>()), 0..3);
    let marks = (proptest::option::of(1..=u32::MAX), proptest::collection::vec(any::<u32>(), 0..3));
    let numbers = any::<(Option<u32>, bool, Option<(u32, [u8; 4])>)>();
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    (origin, path, communities, large, extended, marks, numbers).prop_map(
        |(origin, path, communities, large, extended, marks, (med, atomic_aggregate, by))| {
            Attributes {
                origin,
                as_path: AsPath::sequence(path.into_iter().map(Asn::new)),
                med,
                local_pref: Some(100),
                atomic_aggregate,
                aggregator: by
                    .filter(|(asn, _)| *asn > 0)
                    .map(|(asn, id)| Aggregator { asn: Asn::new(asn), id: id.into() }),
                communities: communities.into_iter().map(Community::new).collect(),
                large_communities: (large.into_iter())
                    .map(|[global, one, two]| LargeCommunity { global, local: [one, two] })
                    .collect(),
                ext_communities: extended.into_iter().flat_map(extended_of).collect(),
                originator_id: marks.0.map(|id| RouterId::try_from(id).unwrap()),
                cluster_list: marks.1.into_iter().map(ClusterId::new).collect(),
                ..Attributes::default()
            }
        },
    )
}

fn extended_of((asn, value, mac): (u16, u32, [u8; 6])) -> [ExtCommunity; 3] {
    [
        ExtCommunity::route_target(Asn::new(asn.into()), value),
        ExtCommunity::encapsulation(8),
        ExtCommunity::router_mac(Mac::new(mac)),
    ]
}

fn route() -> impl Strategy<Value = Nlri> {
    prop_oneof![prefix().prop_map(|prefix| Nlri::plain(prefix.into())), evpn()]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    // The other reads no group as a destination.
    let v4 = (1..127_u8, any::<[u8; 3]>(), 0..=32_u8)
        .prop_map(|(a, [b, c, d], len)| (IpAddr::from([a, b, c, d]), len));
    let v6 = (0x20..0x40_u8, any::<[u8; 16]>(), 0..=128_u8).prop_map(|(first, mut addr, len)| {
        addr[0] = first;
        (IpAddr::from(addr), len)
    });
    prop_oneof![v4, v6].prop_map(|(addr, len)| around(addr, len))
}

/// The prefix of that length around an address.
fn around(addr: IpAddr, len: u8) -> Prefix {
    let bits = match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    let keep = |raw: u128| if len == 0 { 0 } else { raw >> (bits - len) << (bits - len) };
    let addr = match addr {
        IpAddr::V4(v4) => IpAddr::V4(u32::try_from(keep(v4.to_bits().into())).unwrap().into()),
        IpAddr::V6(v6) => IpAddr::V6(keep(v6.to_bits()).into()),
    };
    Prefix::new(addr, len).unwrap()
}

fn evpn() -> impl Strategy<Value = Nlri> {
    let ip = proptest::option::of(any::<[u8; 4]>());
    (0..3_u8, any::<[u8; 6]>(), ip, prefix(), 0..(1_u32 << 24)).prop_map(
        |(kind, mac, ip, prefix, vni)| {
            let rd = RouteDistinguisher::new([0, 1, 192, 0, 2, 1, 0, 100]);
            let (tag, esi) = (0, Esi::ZERO);
            let label = Label::from(Vni::try_from(vni).unwrap());
            let (key, tail) = match kind {
                0 => {
                    let ip = ip.map(IpAddr::from);
                    let key = EvpnKey::MacIp { rd, tag, mac: Mac::new(mac), ip };
                    (key, Tail::MacIp { esi, label_1: label, label_2: None })
                }
                1 => {
                    let origin = IpAddr::from(ip.unwrap_or([192, 0, 2, 9]));
                    (EvpnKey::Multicast { rd, tag, origin }, Tail::None)
                }
                _ => {
                    let gateway = prefix.family().unspecified();
                    (EvpnKey::Prefix { rd, tag, prefix }, Tail::Prefix { esi, gateway, label })
                }
            };
            Nlri { tail, ..Nlri::plain(NlriKey::from(key)) }
        },
    )
}

fn open() -> impl Strategy<Value = Open> {
    let restart = proptest::option::of((0..4_096_u16, any::<[bool; 3]>()));
    let flags = any::<[bool; 4]>();
    // The other takes an identifier for an address, and wants one that a host may have.
    (1..=u32::MAX, 3..=u16::MAX, 0x0a00_0001..0x7000_0000_u32, restart, flags).prop_map(
        |(asn, hold, id, restart, [refresh, enhanced_refresh, extended_messages, wide])| {
            let families: FamilySet = Family::ALL.into_iter().collect();
            let four_octet_as = wide.then_some(Asn::new(asn));
            Open {
                asn: if wide { Asn::new(asn) } else { Asn::new(asn % 65_535 + 1) },
                hold: HoldTime::try_from(hold).unwrap(),
                id: RouterId::try_from(id).unwrap(),
                capabilities: Capabilities {
                    families: families.iter().map(Family::wire).collect(),
                    four_octet_as,
                    refresh,
                    enhanced_refresh,
                    extended_messages,
                    graceful_restart: restart.map(
                        |(time_s, [restarted, notification, forwarding])| {
                            let family = Family::Ipv4Unicast.wire();
                            GracefulRestart {
                                flags: RestartFlags { restarted, notification },
                                time_s,
                                families: vec![RestartFamily { family, forwarding }],
                            }
                        },
                    ),
                    ..Capabilities::default()
                },
            }
        },
    )
}
