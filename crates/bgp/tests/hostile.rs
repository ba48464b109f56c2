//! Octets from nobody we know: nothing panics, and what is understood is understood the same when it is said
//! again.

mod common;

use common::{Story, tell};
use proptest::prelude::*;
use russet_bgp::wire::{
    AsWidth, Attributes, Family, FamilySet, Frame, HEADER_LEN, MessageKind, MessageLimit,
    Notification, Open, Peering, Refresh, Terms, Update,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_octets_never_make_a_decoder_panic(octets in octets(400), terms in terms()) {
        let _ = Frame::read(&octets, terms.limit);
        let _ = Open::read(&octets);
        let _ = Refresh::read(&octets);
        let _ = Attributes::read(&octets);
        if let Some(notification) = Notification::read(&octets) {
            let _ = (notification.to_string(), notification.text());
        }
        tell(&octets, terms);
    }

    #[test]
    fn an_update_of_likely_parts_says_the_same_when_it_is_said_again(
        body in likely_update(),
        terms in terms(),
    ) {
        let Some((told, relayed)) = tell(&body, terms) else { return Ok(()) };
        let mut back = Story::default();
        let mut stream = relayed.as_slice();
        while let Some(frame) = Frame::read(stream, terms.limit).unwrap() {
            prop_assert_eq!(frame.kind, MessageKind::Update);
            back.add(&Update::parse(frame.body, terms).unwrap());
            stream = &stream[frame.len..];
        }
        prop_assert!(stream.is_empty());
        // Said again it is in canonical form, and that is the same for ever.
        if let Ok(Some(frame)) = Frame::read(&relayed, terms.limit) && frame.len == relayed.len() {
            let (_, again) = tell(frame.body, terms).unwrap();
            prop_assert_eq!(again, relayed);
        }
        prop_assert_eq!(back, told);
    }

    #[test]
    fn canonical_attributes_are_the_same_after_a_round_trip(
        body in likely_update(),
        terms in terms(),
    ) {
        let Ok(update) = Update::parse(&body, terms) else { return Ok(()) };
        let mut octets = Vec::new();
        update.write_attributes(&mut octets);
        let attributes = Attributes::read(&octets).expect("canonical octets are read");
        let mut again = Vec::new();
        attributes.write(&mut again);
        prop_assert_eq!(Attributes::read(&again), Some(attributes));
    }

    #[test]
    fn an_open_that_is_understood_reads_as_it_is_written(body in likely_open()) {
        let Ok(open) = Open::read(&body) else { return Ok(()) };
        let mut out = Vec::new();
        open.write(&mut out);
        prop_assert_eq!(Open::read(&out[HEADER_LEN..]), Ok(open));
    }
}

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

fn terms() -> impl Strategy<Value = Terms> {
    let sets = (families(), families(), families());
    (any::<[bool; 3]>(), sets).prop_map(|([internal, wide, extended], (some, ids, next_hop))| {
        Terms {
            peering: if internal { Peering::Internal } else { Peering::External },
            as_width: if wide { AsWidth::Four } else { AsWidth::Two },
            families: some,
            add_path_in: ids,
            add_path_out: ids,
            extended_next_hop: next_hop,
            limit: if extended { MessageLimit::Extended } else { MessageLimit::Usual },
        }
    })
}

fn families() -> impl Strategy<Value = FamilySet> {
    any::<[bool; 3]>().prop_map(|on| {
        Family::ALL.into_iter().zip(on).filter(|(_, on)| *on).map(|(family, _)| family).collect()
    })
}

/// Withdrawn routes, attributes that are mostly right, and routes.
fn likely_update() -> impl Strategy<Value = Vec<u8>> {
    let attributes = proptest::collection::vec(attribute(), 0..8).prop_map(|all| all.concat());
    (prefixes(), attributes, prefixes()).prop_map(|(withdrawn, attributes, nlri)| {
        let len = |octets: &[u8]| u16::try_from(octets.len()).unwrap().to_be_bytes();
        [&len(&withdrawn), &withdrawn[..], &len(&attributes), &attributes, &nlri].concat()
    })
}

fn prefixes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = (0..=32_u8, any::<[u8; 4]>());
    proptest::collection::vec(prefix, 0..4).prop_map(|all| {
        let octets = |(len, octets): (u8, [u8; 4])| {
            [&[len], &octets[..usize::from(len).div_ceil(8)]].concat()
        };
        all.into_iter().flat_map(octets).collect()
    })
}

fn attribute() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just((0x40, 1, vec![0])),
        as_path().prop_map(|value| (0x40, 2, value)),
        any::<[u8; 4]>().prop_map(|value| (0x40, 3, value.to_vec())),
        any::<[u8; 4]>().prop_map(|value| (0x80, 4, value.to_vec())),
        any::<[u8; 4]>().prop_map(|value| (0x40, 5, value.to_vec())),
        any::<[u8; 8]>().prop_map(|value| (0xc0, 7, value.to_vec())),
        any::<[u8; 12]>().prop_map(|value| (0xc0, 8, value.to_vec())),
        any::<[u8; 8]>().prop_map(|value| (0x80, 10, value.to_vec())),
        reach().prop_map(|value| (0x80, 14, value)),
        as_path().prop_map(|value| (0xc0, 17, value)),
        any::<[u8; 24]>().prop_map(|value| (0xc0, 32, value.to_vec())),
    ];
    let any = (any::<u8>(), any::<u8>(), octets(40));
    prop_oneof![8 => known, 1 => any].prop_map(|(flags, code, value): (u8, u8, Vec<u8>)| {
        let len = u8::try_from(value.len()).unwrap();
        match flags & 0x10 {
            0 => [&[flags, code, len], &value[..]].concat(),
            _ => [&[flags, code, 0, len], &value[..]].concat(),
        }
    })
}

fn as_path() -> impl Strategy<Value = Vec<u8>> {
    (1..=2_u8, 1..=3_u8, octets(13)).prop_map(|(kind, count, mut asns)| {
        asns.resize(usize::from(count) * 4, 1);
        [&[kind, count], &asns[..]].concat()
    })
}

/// `MP_REACH_NLRI` of IPv6 with one route, or of EVPN with a MAC route.
fn reach() -> impl Strategy<Value = Vec<u8>> {
    let v6 = (0..=128_u8, any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(len, via, octets)| {
        let octets = &octets[..usize::from(len).div_ceil(8)];
        [&[0, 2, 1, 16], &via[..], &[0, len], octets].concat()
    });
    let evpn = any::<[u8; 33]>().prop_map(|mut value| {
        (value[22], value[29]) = (48, 0);
        [&[0, 25, 70, 4, 10, 0, 0, 1, 0, 2, 33], &value[..]].concat()
    });
    prop_oneof![v6, evpn]
}

fn likely_open() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![Just(1), Just(2), Just(5), Just(64), Just(65), Just(69), any::<u8>()];
    let capability = (code, octets(13)).prop_map(|(code, value): (u8, _)| {
        [&[code, u8::try_from(value.len()).unwrap()], &value[..]].concat()
    });
    (any::<[u8; 8]>(), proptest::collection::vec(capability, 0..12)).prop_map(|(head, all)| {
        let value = all.concat();
        let len = u8::try_from(value.len()).unwrap();
        [&[4], &head[..], &[len + 2, 2, len], &value].concat()
    })
}
