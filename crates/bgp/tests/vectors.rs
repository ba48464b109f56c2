//! Messages of others: those of `ExaBGP`'s and netgauze's own tests, and of real routers.
//!
//! The vectors are other projects' data and lie beside the repository. Where `CI` is `true` a missing file
//! is a failure; elsewhere the test says by name that it was skipped.

mod common;

use std::{collections::BTreeMap, path::Path};

use common::{Story, relay, tell};
use russet_bgp::wire::{
    AddPathMode, AsWidth, Attributes, Family, FamilySet, Frame, MessageKind, MessageLimit, NextHop,
    Notification, Open, Outcome, Peering, Refresh, Terms, Update,
};
use serde_json::Value;

#[test]
fn messages_of_exabgp_mean_what_it_says_and_read_back_the_same() {
    let Some(rows) = rows("exabgp_ci.jsonl") else { return };
    let mut count = Count::default();
    for row in &rows {
        let octets = hex(&row["hex"]);
        let name = format!("{} {}", row["file"], row["cmd"]);
        let Ok(Some(frame)) = Frame::read(&octets, MessageLimit::Extended) else {
            panic!("{name}: no message")
        };
        if frame.kind != MessageKind::Update {
            read_other(&frame, &octets, &mut count);
            continue;
        }
        let terms = terms_of(row);
        let update = match Update::parse(frame.body, terms) {
            Ok(update) => update,
            // An IPv6 route cannot have an IPv4 next hop: RFC 8950 has it the other way round only.
            Err(_) if row["hex"].as_str().unwrap().contains("00020104AAAAAAAA") => continue,
            Err(err) => panic!("{name}: {err}"),
        };
        // Broadcast is a next hop that no packet can go to, and nobody knows a well-known attribute 0x99.
        if update.outcome() == Outcome::TreatAsWithdraw {
            let known = ["255.255.255.255", "[0x99 0x60", "[0x99 0x70"];
            assert!(
                known.iter().any(|known| name.contains(known)),
                "{name}: {:?}",
                update.faults()
            );
            continue;
        }
        if row["json"].is_object() {
            assert_meaning(&update, &row["json"], &name, &mut count);
        }
        assert_reads_back(&update, terms, &octets, &name, &mut count);
    }
    assert_eq!(rows.len(), 391);
    assert_eq!((count.announced, count.withdrawn), (142, 16));
    assert_eq!((count.attributes, count.others, count.read_back), (515, 11, 376));
    assert!(count.exact >= 221, "{count:?}");
}

#[test]
fn evpn_routes_of_real_routers_are_those_that_exabgp_reads() {
    let Some(rows) = rows("exabgp_decoding.jsonl") else { return };
    let row = rows.iter().find(|row| row["kind"] == "update l2vpn evpn").unwrap();
    let octets = hex(&row["hex"]);
    let terms = all_families();
    let update = Update::parse(&octets, terms).unwrap();
    let json: Value = serde_json::from_str(row["json"].as_str().unwrap()).unwrap();
    let wanted =
        json["neighbor"]["message"]["update"]["withdraw"]["l2vpn evpn"].as_array().unwrap();
    let wanted: Vec<_> = wanted
        .iter()
        .filter(|route| route["parsed"] == true)
        .map(|route| {
            let ip = route.get("ip").map(|ip| format!(":[{}]", ip.as_str().unwrap()));
            let mac = route["mac"].as_str().unwrap().to_lowercase();
            let (rd, tag) = (route["rd"].as_str().unwrap(), &route["ethernet-tag"]);
            format!("[2]:[{rd}]:[{tag}]:[{mac}]{}", ip.unwrap_or_default())
        })
        .collect();
    let got: Vec<_> =
        update.withdrawn().flat_map(|n| n.iter()).map(|n| n.key.to_string()).collect();
    assert_eq!(got, wanted);
    assert!(got.len() > 3);
}

#[test]
fn messages_of_real_routers_are_good_and_read_back_the_same() {
    let Some(rows) = rows("netgauze_pcap_bgp.jsonl") else { return };
    let opens = opens_of(&rows);
    let mut count = Count::default();
    for (number, row) in rows.iter().enumerate() {
        let octets = hex(&row["hex"]);
        let name = format!("row {number} of {}", row["file"]);
        let frame = Frame::read(&octets, MessageLimit::Extended).unwrap().unwrap();
        if frame.kind != MessageKind::Update {
            read_other(&frame, &octets, &mut count);
            continue;
        }
        // Where the capture has both OPENs, they say how the message is to be read; elsewhere one of two ways
        // has to fit.
        let tries = terms_between(&opens, row).map_or_else(
            || {
                [AsWidth::Four, AsWidth::Two]
                    .map(|as_width| Terms { as_width, ..all_families() })
                    .to_vec()
            },
            |terms| vec![terms],
        );
        let read = tries.iter().find_map(|terms| {
            let update = Update::parse(frame.body, *terms).ok()?;
            (update.outcome() != Outcome::TreatAsWithdraw).then_some((update, *terms))
        });
        let (update, terms) = read.unwrap_or_else(|| panic!("{name}: {}", row["hex"]));
        assert_reads_back(&update, terms, &octets, &name, &mut count);
    }
    assert_eq!(rows.len(), 1_108);
    // Most have their multiprotocol attribute where its type belongs, not in front.
    assert!(count.others == 265 && count.read_back == 843 && count.exact >= 67, "{count:?}");
}

#[test]
fn attributes_that_netgauze_calls_good_are_good_and_bad_ones_never_reset() {
    let Some(rows) = rows("netgauze_wire.jsonl") else { return };
    let (mut good, mut bad) = (0, 0);
    for row in
        rows.iter().filter(|row| row["file"].as_str().unwrap().ends_with("path_attribute.rs"))
    {
        let octets = hex(&row["hex"]);
        // Routes of other families that cannot be read do reset a session; all else must not.
        if matches!(octets.get(1), None | Some(14 | 15)) {
            continue;
        }
        let best = outcomes(&octets).into_iter().min().unwrap();
        let is_good = row["expect"] == "ok"
            && is_ours(&octets)
            && !STRICTER.contains(&row["hex"].as_str().unwrap());
        if is_good {
            assert_eq!(best, Outcome::Good, "{row}");
            good += 1;
        } else if row["expect"] != "ok" {
            bad += usize::from(best > Outcome::Good);
        }
    }
    assert!(good >= 36 && bad >= 20, "{good} good, {bad} bad");
}

#[test]
fn no_row_makes_any_decoder_panic() {
    let mut read = 0;
    for file in FILES {
        let Some(rows) = rows(file) else { return };
        for row in rows {
            let octets = hex(&row["hex"]);
            let _ = Open::read(&octets);
            let _ = Refresh::read(&octets);
            if let Some(notification) = Notification::read(&octets) {
                let mut out = Vec::new();
                notification.write(&mut out);
                assert!(out.ends_with(&octets), "{row}");
            }
            let _ = Frame::read(&octets, MessageLimit::Extended);
            tell(&octets, all_families());
            read += 1;
        }
    }
    assert_eq!(read, 391 + 22 + 1_108 + 324 + 4);
}

#[derive(Debug, Default)]
struct Count {
    announced: usize,
    withdrawn: usize,
    attributes: usize,
    read_back: usize,
    exact: usize,
    others: usize,
}

/// Writes what was read and reads it again. Where there is one run of routes and the order of attributes is
/// ours, the octets are the same, too.
fn assert_reads_back(
    update: &Update<'_>,
    terms: Terms,
    octets: &[u8],
    name: &str,
    count: &mut Count,
) {
    let told = Story::of(update);
    let relayed = relay(update, terms);
    let mut back = Story::default();
    let mut stream = relayed.as_slice();
    while let Some(frame) = Frame::read(stream, MessageLimit::Extended).unwrap() {
        let update = Update::parse(frame.body, terms).unwrap();
        assert!(update.faults().is_empty(), "{name}: {:?}", update.faults());
        back.add(&update);
        stream = &stream[frame.len..];
    }
    assert_eq!(back, told, "{name}");
    count.read_back += 1;
    count.exact += usize::from(relayed == octets);
}

fn read_other(frame: &Frame<'_>, octets: &[u8], count: &mut Count) {
    let mut out = Vec::new();
    match frame.kind {
        MessageKind::Open => {
            let open = Open::read(frame.body).unwrap();
            open.write(&mut out);
            let again = Frame::read(&out, MessageLimit::Usual).unwrap().unwrap();
            assert_eq!(Open::read(again.body), Ok(open));
        }
        MessageKind::Notification => {
            Notification::read(frame.body).unwrap().write(&mut out);
            assert_eq!(out, octets);
        }
        MessageKind::RouteRefresh => {
            Refresh::read(frame.body).unwrap().write(&mut out);
            assert_eq!(out, octets);
        }
        MessageKind::Keepalive => assert!(frame.body.is_empty()),
        MessageKind::Update => unreachable!("read elsewhere"),
    }
    count.others += 1;
}

/// Compares with `ExaBGP`'s own reading, as far as we speak the family.
fn assert_meaning(update: &Update<'_>, json: &Value, name: &str, count: &mut Count) {
    let said = &json["neighbor"]["message"]["update"];
    let mut octets = Vec::new();
    update.write_attributes(&mut octets);
    let attributes = Attributes::read(&octets).unwrap();
    let got = Story::of(update);
    for (family, key) in FAMILIES {
        for (next_hop, routes) in said["announce"][key].as_object().into_iter().flatten() {
            for route in routes.as_array().unwrap() {
                let nlri = route["nlri"].as_str().unwrap();
                let found = got.announced.keys().any(|(got, _, via)| {
                    got.family() == family && got.to_string() == nlri && is(*via, next_hop)
                });
                assert!(found, "{name}: {nlri} via {next_hop} in {got:?}");
                count.announced += 1;
            }
        }
        for route in said["withdraw"][key].as_array().into_iter().flatten() {
            let nlri = route["nlri"].as_str().unwrap();
            assert!(got.withdrawn.iter().any(|(key, _)| key.to_string() == nlri), "{name}: {nlri}");
            count.withdrawn += 1;
        }
    }
    let internal = json["neighbor"]["asn"]["local"] == json["neighbor"]["asn"]["peer"];
    for (key, value) in said["attribute"].as_object().into_iter().flatten() {
        if !internal && key == "local-preference" {
            continue;
        }
        if let Some(ours) = attribute(&attributes, key) {
            assert_eq!(ours, *value, "{name}: {key}");
            count.attributes += 1;
        }
    }
}

fn is(next_hop: NextHop, text: &str) -> bool {
    next_hop.addr().to_string() == text
}

/// One of our attributes in the words of `ExaBGP`; `None` where it has none or more than we read.
fn attribute(attributes: &Attributes, key: &str) -> Option<Value> {
    Some(match key {
        "origin" => ["igp", "egp", "incomplete"][usize::from(attributes.origin.wire())].into(),
        "local-preference" => attributes.local_pref.into(),
        "med" => attributes.med.into(),
        "originator-id" => attributes.originator_id?.to_string().into(),
        "cluster-list" => attributes.cluster_list.iter().map(ToString::to_string).collect(),
        "community" => {
            let halves = |raw: u32| Value::from(vec![raw >> 16, raw & 0xffff]);
            attributes.communities.iter().map(|c| halves(c.get())).collect()
        }
        "large-community" => attributes
            .large_communities
            .iter()
            .map(|large| Value::from(vec![large.global, large.local[0], large.local[1]]))
            .collect(),
        "as-path" => {
            let [segment] = attributes.as_path.segments() else { return None };
            let asns: Vec<_> = segment.asns.iter().map(|asn| asn.get()).collect();
            serde_json::json!({"0": {"element": "as-sequence", "value": asns}})
        }
        _ => return None,
    })
}

fn terms_of(row: &Value) -> Terms {
    let file = row["file"].as_str().unwrap();
    let asn = &row["json"]["neighbor"]["asn"];
    let mut terms = all_families();
    if !asn.is_null() && asn["local"] != asn["peer"] {
        terms.peering = Peering::External;
    }
    if file.ends_with("conf-no-asn4.ci") {
        terms.as_width = AsWidth::Two;
    }
    if row["json"].to_string().contains("path-information") {
        terms.add_path_in = terms.families;
        terms.add_path_out = terms.families;
    }
    terms
}

/// Everything that we can do, from an internal peer.
fn all_families() -> Terms {
    let families: FamilySet = Family::ALL.into_iter().collect();
    Terms {
        as_width: AsWidth::Four,
        families,
        extended_next_hop: families,
        limit: MessageLimit::Extended,
        ..Terms::plain(Peering::Internal)
    }
}

type Opens = BTreeMap<(String, String, String), Open>;

fn opens_of(rows: &[Value]) -> Opens {
    let mut opens = Opens::new();
    for row in rows.iter().filter(|row| row["type"] == 1) {
        let octets = hex(&row["hex"]);
        let frame = Frame::read(&octets, MessageLimit::Usual).unwrap().unwrap();
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        opens.insert((text("file"), text("src"), text("dst")), Open::read(frame.body).unwrap());
    }
    opens
}

/// How what `src` sends to `dst` is to be read.
fn terms_between(opens: &Opens, row: &Value) -> Option<Terms> {
    let text = |key: &str| row[key].as_str().unwrap().to_owned();
    let sender = opens.get(&(text("file"), text("src"), text("dst")))?;
    let receiver = opens.get(&(text("file"), text("dst"), text("src")))?;
    let (from, to) = (&sender.capabilities, &receiver.capabilities);
    let wide = from.four_octet_as.is_some() && to.four_octet_as.is_some();
    let families = from.family_set().both(to.family_set());
    let sends = from.add_path_set(AddPathMode::sends).both(to.add_path_set(AddPathMode::receives));
    Some(Terms {
        peering: if sender.asn == receiver.asn { Peering::Internal } else { Peering::External },
        as_width: if wide { AsWidth::Four } else { AsWidth::Two },
        families,
        add_path_in: sends.both(families),
        // What is written must read like what was read.
        add_path_out: sends.both(families),
        extended_next_hop: from.extended_next_hop_set().both(to.extended_next_hop_set()),
        limit: MessageLimit::Extended,
    })
}

/// The outcomes of an UPDATE with this attribute behind those that a route needs, read in each width.
fn outcomes(attribute: &[u8]) -> Vec<Outcome> {
    let needed = [&[0x40, 1, 1, 0][..], &[0x40, 2, 0], &[0x40, 3, 4, 10, 0, 0, 1]];
    let others = needed.into_iter().filter(|other| other[1] != attribute[1]);
    let attributes = [&others.collect::<Vec<_>>().concat(), attribute].concat();
    let len = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    let body = [&[0, 0], &len[..], &attributes, &[8, 10]].concat();
    [AsWidth::Four, AsWidth::Two]
        .into_iter()
        .map(|as_width| {
            Update::parse(&body, Terms { as_width, ..all_families() }).unwrap().outcome()
        })
        .collect()
}

/// Whether it is one whole attribute of a type that we know, and not one with routes of other families or with
/// segments of a confederation.
fn is_ours(octets: &[u8]) -> bool {
    let (whole, confed) = match octets {
        [flags, _, high, low, rest @ ..] if flags & 0x10 != 0 => {
            (usize::from(u16::from_be_bytes([*high, *low])) == rest.len(), rest.first())
        }
        [_, _, len, rest @ ..] => (usize::from(*len) == rest.len(), rest.first()),
        _ => return false,
    };
    let confed = octets[1] == 2 && confed.is_some_and(|kind| *kind >= 3);
    whole
        && !confed
        && matches!(octets[1], 1..=10 | 16..=18 | 32)
        && octets[0].trailing_zeros() >= 4
}

fn rows(name: &str) -> Option<Vec<Value>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/bgp");
    let path = dir.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()),
        Err(err) => {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "read {}: {err}", path.display());
            eprintln!("skipped: {} is not here", path.display());
            None
        }
    }
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// An unknown segment, and communities that are none: netgauze takes them in, RFC 7606 §7.2 and §7.8 do not.
const STRICTER: [&str; 2] = ["5002000600000064012c", "c00800"];
const FAMILIES: [(Family, &str); 2] =
    [(Family::Ipv4Unicast, "ipv4 unicast"), (Family::Ipv6Unicast, "ipv6 unicast")];
const FILES: [&str; 5] = [
    "exabgp_ci.jsonl",
    "exabgp_decoding.jsonl",
    "netgauze_pcap_bgp.jsonl",
    "netgauze_wire.jsonl",
    "frr_commit_pocs.jsonl",
];
