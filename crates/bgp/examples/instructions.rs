//! One piece of work, done so many times, for a counter of instructions: `cargo xtask instructions`.
//!
//! `instructions decode|best-path|encode TIMES`. What is prepared costs the same for any number of times.

use std::{net::IpAddr, sync::Arc};

use russet_bgp::{
    bestpath::MedRule,
    policy::Policy,
    reflector::{Me, NextHopRule, Relation},
    rib::{Neighbor, Rib, RibConfig, Source, Watch},
    update::Bounds,
    wire::{
        AsPath, AsWidth, Attributes, Community, Family, Frame, NextHop, Nlri, NlriKey, Peering,
        RouterId, Terms, Update, UpdateWriter, V4Prefix,
    },
};
use russet_net::Asn;

fn main() {
    let mut words = std::env::args().skip(1);
    let (work, times) = (words.next().unwrap_or_default(), words.next());
    let times = times.and_then(|times| times.parse().ok()).unwrap_or(1);
    let done = match work.as_str() {
        "decode" => decode(times),
        "best-path" => best_path(times),
        "encode" => encode(times),
        _ => panic!("decode, best-path or encode"),
    };
    // Said, so that nothing of it can be left out.
    println!("{done}");
}

/// Reads a full table: each message parsed, its attributes copied out, each route looked at.
fn decode(times: u32) -> usize {
    let messages = table(0);
    (0..times)
        .map(|_| {
            let mut octets = Vec::new();
            let mut routes = 0;
            each(&messages, |update| {
                update.write_attributes(&mut octets);
                for announced in update.announced() {
                    routes += announced.nlris.iter().count();
                }
                routes += octets.len();
                octets.clear();
            });
            routes
        })
        .sum()
}

/// A second peer tells the same routes by a longer path, and takes them back: each destination chooses twice.
fn best_path(times: u32) -> usize {
    let mut rib = rib();
    let (first, second) = (peer(&mut rib, 1), peer(&mut rib, 2));
    each(&table(0), |update| rib.update(first, update));
    let (longer, mut gone) = (table(1), Vec::new());
    UpdateWriter::new(terms(), &mut gone).withdraw(Family::Ipv4Unicast, routes());
    for _ in 0..times {
        each(&longer, |update| rib.update(second, update));
        each(&gone, |update| rib.update(second, update));
        rib.flush();
    }
    rib.count(Family::Ipv4Unicast)
}

/// A full table is told to one who joins, encoded anew each time.
fn encode(times: u32) -> usize {
    let mut rib = rib();
    let (first, client) = (peer(&mut rib, 1), peer(&mut rib, 2));
    each(&table(0), |update| rib.update(first, update));
    let mut pieces = 0;
    for _ in 0..times {
        rib.tell(client, Family::Ipv4Unicast);
        while rib.next(client).is_some() {
            pieces += 1;
        }
    }
    pieces
}

fn each(mut octets: &[u8], mut take: impl FnMut(&Update<'_>)) {
    while let Ok(Some(frame)) = Frame::read(octets, terms().limit) {
        take(&Update::parse(frame.body, terms()).expect("an update"));
        octets = octets.get(frame.len..).unwrap_or_default();
    }
}

/// The routes in sets of ten, whose path is longer by so many.
fn table(longer: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    let routes: Vec<_> = routes().collect();
    for (set, routes) in (0..).zip(routes.chunks(10)) {
        let asns = [65_001, 65_002].into_iter().chain(std::iter::repeat_n(65_003, longer));
        let attributes = Attributes {
            as_path: AsPath::sequence(asns.map(Asn::new)),
            local_pref: Some(100),
            communities: vec![Community::new(65_000 << 16 | set), Community::new(7)],
            ..Attributes::default()
        };
        let mut canonical = Vec::new();
        attributes.write(&mut canonical);
        UpdateWriter::new(terms(), &mut octets)
            .announce(Family::Ipv4Unicast, &canonical, hop(1), routes.iter().copied())
            .expect("room");
    }
    octets
}

fn routes() -> impl Iterator<Item = Nlri> {
    (0..ROUTES).map(|number| {
        let prefix = V4Prefix::around(0x2000_0000 + (number << 8), 24).expect("a length");
        Nlri::plain(NlriKey::V4(prefix))
    })
}

fn peer(rib: &mut Rib, number: u32) -> Source {
    let neighbor = Neighbor {
        addr: hop(number).addr(),
        asn: Asn::new(65_000),
        id: RouterId::try_from(number).expect("not zero"),
        relation: Relation::Client,
        our_asn: Asn::new(65_000),
        own_as: 0,
        terms: terms(),
        import: Arc::new(Policy::accept_all()),
        export: Arc::new(Policy::accept_all()),
        next_hop_rule: NextHopRule::Keep,
        our_next_hop: [Some(hop(9)); 3],
        limits: [None; 3],
    };
    rib.add_peer(neighbor).expect("a number")
}

fn hop(number: u32) -> NextHop {
    IpAddr::V4((0x0a09_0000 + number).into()).into()
}

fn terms() -> Terms {
    Terms { as_width: AsWidth::Four, ..Terms::plain(Peering::Internal) }
}

fn rib() -> Rib {
    let id = RouterId::try_from(99).expect("not zero");
    Rib::new(RibConfig {
        me: Me { asn: Asn::new(65_000), id, cluster: id.into() },
        med: MedRule::SameNeighbor,
        multipath: None,
        watch: Watch::Off,
        seed: 7,
        bounds: Bounds::default(),
    })
}

const ROUTES: u32 = 5_000;
